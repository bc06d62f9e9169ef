/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - husk inspect, husk stats: what is known of VMs */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <string.h>

typedef int query_fn(struct husk *husk, const char *vm, char **json, struct husk_error *err);

/** Ask @query about every operand; *@out is the array of those that answered. The exit status. */
static int collect(struct cli *cli, query_fn *query, json_t **out)
{
	int status = 0;
	*out = json_array();
	for (size_t i = 0; i < cli->n_operands; i++) {
		CLEANUP_FREE char *text = NULL;
		struct husk_error err;
		if (query(cli->husk, cli->operands[i], &text, &err) < 0)
			status = cli_fail(&err, 1);
		else
			json_array_append_new(*out, json_loads(text, 0, NULL));
	}
	return status;
}

static void print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}

int verb_inspect(struct cli *cli)
{
	json_t *vms;
	int status = collect(cli, husk_inspect, &vms);
	print_json(vms);
	json_decref(vms);
	return status;
}

static long long number(const json_t *json, const char *name)
{
	return (long long)json_integer_value(json_object_get(json, name));
}

/** Milliseconds of a stage, "-" when nothing was measured. */
static const char *stage(const json_t *door, const char *name, const char *what, char room[24])
{
	const json_t *one = json_object_get(json_object_get(door, "stages"), name);
	if (number(one, "count") == 0)
		return "-";
	snprintf(room, 24, "%.2f", json_number_value(json_object_get(one, what)) / 1000);
	return room;
}

static void print_table(const json_t *vms)
{
	static const char form[] = "%-12s  %-7s %9s %7s %7s %7s %12s %12s %8s %8s %8s  %s\n";
	json_t *vm, *door;
	size_t i, k;
	printf(form, "VM", "KIND", "ACCEPTED", "ACTIVE", "WAITING", "REFUSED", "BYTES IN", "BYTES OUT", "CONNECT",
		"FIRST", "P99 ms", "ENDPOINT");
	json_array_foreach(vms, i, vm)
	{
		json_array_foreach(json_object_get(vm, "doors"), k, door)
		{
			static const char *const counts[] = {
				"connections", "active", "waiting", "refused", "bytes_in", "bytes_out"};
			char text[ARRAY_SIZE(counts)][24], times[3][24];
			for (size_t c = 0; c < ARRAY_SIZE(counts); c++)
				snprintf(text[c], sizeof(text[c]), "%lld", number(door, counts[c]));
			printf(form, json_string_value(json_object_get(vm, "id")),
				json_string_value(json_object_get(door, "kind")), text[0], text[1], text[2], text[3],
				text[4], text[5], stage(door, "connect", "p50_us", times[0]),
				stage(door, "first_byte", "p50_us", times[1]),
				stage(door, "first_byte", "p99_us", times[2]),
				json_string_value(json_object_get(door, "endpoint")));
		}
	}
}

int verb_stats(struct cli *cli)
{
	const char *format = cli_value(cli, "format");
	json_t *vms;
	int status = collect(cli, husk_stats, &vms);
	if (format && strcmp(format, "json") == 0)
		print_json(vms);
	else
		print_table(vms);
	json_decref(vms);
	return status;
}
