/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - husk events: what happens to the VMs of the home
 *
 * Theory of operation: as docker's it goes on until it is interrupted, and begins now, unless --since and --until say otherwise. The
 * library gives lines that are JSON; here they are sorted out by --filter and printed, each at once.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/rfc3339.h"
#include "base/when.h"
#include "cli/columns.h"
#include "cli/interrupt.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <string.h>

struct events {
	const struct cli *cli;
	bool table;
	bool by_event, by_vm; /* there are filters of that kind */
};

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

static int check_filters(struct events *e, struct husk_error *err)
{
	const char *text;

	for (size_t i = 0; (text = cli_nth(e->cli, "filter", i)); i++) {
		bool event = strncmp(text, "event=", 6) == 0, vm = strncmp(text, "vm=", 3) == 0;
		if ((!event && !vm) || !strchr(text, '=')[1])
			return error_set(
				err, -EINVAL, "--filter '%s': write event=NAME, or vm= with a VM's id or name", text);
		e->by_event = e->by_event || event;
		e->by_vm = e->by_vm || vm;
	}
	return 0;
}

/** Filters of one kind add up, both kinds have to fit. */
static bool is_asked_for(const struct events *e, const json_t *json)
{
	bool event = !e->by_event, vm = !e->by_vm;
	const char *text;

	for (size_t i = 0; (text = cli_nth(e->cli, "filter", i)); i++) {
		const char *value = strchr(text, '=') + 1;
		if (text[0] == 'e')
			event = event || strcmp(text_of(json, "event"), value) == 0;
		else
			vm = vm || strcmp(text_of(json, "name"), value) == 0 ||
			     (strlen(value) >= 3 && strncmp(text_of(json, "id"), value, strlen(value)) == 0);
	}
	return event && vm;
}

/** What the columns do not have, as KEY=VALUE. */
static void print_rest(const json_t *json)
{
	static const char *const shown[] = {"time", "event", "id", "name"};
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)json, key, value)
	{
		size_t i = 0;
		while (i < ARRAY_SIZE(shown) && strcmp(key, shown[i]) != 0)
			i++;
		if (i < ARRAY_SIZE(shown))
			continue;
		CLEANUP_FREE char *text = json_is_string(value) ? strdup(json_string_value(value))
								: json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		CLEANUP_FREE char *clean = columns_clean(text ? text : "", 0);
		printf("  %s=%s", key, clean ? clean : "");
	}
}

static void print_row(const json_t *json)
{
	CLEANUP_FREE char *event = columns_clean(text_of(json, "event"), 0);
	CLEANUP_FREE char *id = columns_clean(text_of(json, "id"), 0);
	CLEANUP_FREE char *name = columns_clean(text_of(json, "name"), 0);

	printf("%-30.30s  %-8s  %-12s  %s", text_of(json, "time"), event ? event : "", id ? id : "",
		name && *name ? name : "-");
	print_rest(json);
	putchar('\n');
}

static int on_event(void *data, const char *line)
{
	const struct events *e = data;
	json_t *json = json_loads(line, 0, NULL);

	if (is_asked_for(e, json)) {
		if (e->table)
			print_row(json);
		else
			puts(line);
	}
	json_decref(json);
	return fflush(stdout) != 0 ? -errno : 0;
}

static int read_options(const struct cli *cli, struct husk_event_options *o, struct husk_error *err)
{
	const char *since = cli_value(cli, "since"), *until = cli_value(cli, "until");
	uint64_t now_ns = clock_realtime_ns();
	int rc = 0;

	husk_event_options_init(o);
	if (since)
		rc = when_parse(since, "--since", now_ns, &o->since_ns, err);
	if (rc == 0 && until)
		rc = when_parse(until, "--until", now_ns, &o->until_ns, err);
	if (rc < 0)
		return rc;
	/* What is over by now can only be looked up. */
	o->follow = !until || o->until_ns > now_ns;
	if (!since && o->follow)
		o->since_ns = now_ns;
	return 0;
}

int verb_events(struct cli *cli)
{
	const char *format = cli_value(cli, "format");
	struct events events = {.cli = cli, .table = format && strcmp(format, "table") == 0};
	struct husk_event_options options;
	struct husk_error err;

	if (check_filters(&events, &err) < 0 || read_options(cli, &options, &err) < 0)
		return cli_fail(&err, 1);
	interrupt_ends();
	err = (struct husk_error){0};
	int rc = husk_events(cli->husk, &options, on_event, &events, &err);
	if (rc < 0 && err.code != rc) { /* it is what on_event() returned */
		cli_say("write to stdout: %s", strerror(-rc));
		return 1;
	}
	return rc < 0 ? cli_fail(&err, 1) : 0;
}
