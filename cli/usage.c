/* SPDX-License-Identifier: Apache-2.0 */
/* usage.c - what `husk stats` shows, as tables */
#include "cli/usage.h"

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/columns.h"

#include <string.h>

uint64_t usage_number(const json_t *json, const char *path)
{
	const char *dot = strchr(path, '.');
	char first[32];

	if (!dot)
		return (uint64_t)json_integer_value(json_object_get(json, path));
	snprintf(first, sizeof(first), "%.*s", (int)(dot - path), path);
	return usage_number(json_object_get(json, first), dot + 1);
}

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));
	return text ? text : "";
}

/** The VM @id in an earlier sample. */
static const json_t *find(const json_t *vms, const char *id)
{
	const json_t *vm;
	size_t i;

	json_array_foreach(vms, i, vm)
	{
		if (strcmp(text_of(vm, "id"), id) == 0)
			return vm;
	}
	return NULL;
}

static void put_cpu(struct columns *c, const json_t *vm, const json_t *before, uint64_t interval_ns)
{
	const json_t *then = find(before, text_of(vm, "id"));
	uint64_t now_ns = usage_number(vm, "cpu_ns"), then_ns = usage_number(then, "cpu_ns");

	if (!then || !interval_ns || now_ns < then_ns) /* or it was started again in between */
		columns_add(c, "--");
	else
		columns_format(c, "%.1f%%", 100.0 * (double)(now_ns - then_ns) / (double)interval_ns);
}

static void put_pair(struct columns *c, const json_t *vm, const char *first, const char *second,
	void (*format)(uint64_t bytes, char out[SIZE_TEXT]))
{
	char a[SIZE_TEXT], b[SIZE_TEXT];

	format(usage_number(vm, first), a);
	format(usage_number(vm, second), b);
	columns_format(c, "%s / %s", a, b);
}

bool usage_print_table(const json_t *vms, const json_t *before, uint64_t interval_ns)
{
	static const char *const headings[] = {
		"ID", "NAME", "CPU %", "MEM USED / LIMIT", "GIVEN BACK", "BLOCK I/O", "NET I/O", "EXITS", "PIDS"};
	CLEANUP(columns_free) struct columns c = {.n = ARRAY_SIZE(headings), .right = 1u << 2 | 1u << 7 | 1u << 8};
	char size[SIZE_TEXT];
	const json_t *vm;
	size_t i;

	for (size_t k = 0; k < ARRAY_SIZE(headings); k++)
		columns_add(&c, headings[k]);
	json_array_foreach(vms, i, vm)
	{
		columns_add(&c, text_of(vm, "id"));
		columns_add(&c, text_of(vm, "name"));
		put_cpu(&c, vm, before, interval_ns);
		put_pair(&c, vm, "memory.used", "memory.limit", size_format_binary);
		size_format_binary(usage_number(vm, "memory.given_back"), size);
		columns_add(&c, size);
		put_pair(&c, vm, "block.read_bytes", "block.write_bytes", size_format);
		put_pair(&c, vm, "net.in_bytes", "net.out_bytes", size_format);
		columns_format(&c, "%llu", (unsigned long long)usage_number(vm, "exits"));
		columns_format(&c, "%llu", (unsigned long long)usage_number(vm, "pids"));
	}
	return columns_print(&c);
}

/* ---- doors ---- */

/** Milliseconds of a stage, "-" when nothing was measured. */
static const char *stage(const json_t *door, const char *name, const char *what, char room[24])
{
	const json_t *one = json_object_get(json_object_get(door, "stages"), name);
	if (usage_number(one, "count") == 0)
		return "-";
	snprintf(room, 24, "%.2f", json_number_value(json_object_get(one, what)) / 1000);
	return room;
}

void usage_print_doors(const json_t *vms)
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
			CLEANUP_FREE char *endpoint = columns_clean(text_of(door, "endpoint"), 0);
			for (size_t n = 0; n < ARRAY_SIZE(counts); n++)
				snprintf(text[n], sizeof(text[n]), "%llu",
					(unsigned long long)usage_number(door, counts[n]));
			printf(form, text_of(vm, "id"), text_of(door, "kind"), text[0], text[1], text[2], text[3],
				text[4], text[5], stage(door, "connect", "p50_us", times[0]),
				stage(door, "first_byte", "p50_us", times[1]),
				stage(door, "first_byte", "p99_us", times[2]), endpoint ? endpoint : "");
		}
	}
}
