/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ps.c - husk ps: the VMs of the home
 *
 * Theory of operation: the library tells of all records at once; which to show, and how, is decided here. Nothing is cleaned up
 * before, as other commands do, since that looks at all records once more. Only when there is one of a foreground run that has
 * ended, and perhaps nobody to remove it, that is done and the list is made again.
 */
#include "base/age.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "base/rfc3339.h"
#include "base/when.h"
#include "cli/columns.h"
#include "cli/verbs.h"
#include "cli/vm_filter.h"

#include <string.h>

#define COMMAND_MAX 20 /* characters of a command, as Docker's */

struct ps {
	struct vm_filter *filters;
	size_t n_filters;
	bool all, json, whole; /* whole: --no-trunc */
	uint64_t last; /* at most so many */
	uint64_t now_ns;
};

static void ps_free(struct ps *ps)
{
	for (size_t i = 0; i < ps->n_filters; i++)
		free(ps->filters[i].image);
	free(ps->filters);
}

static int ps_read(const struct cli *cli, struct ps *ps, struct husk_error *err)
{
	const char *last = cli_value(cli, "last"), *format = cli_value(cli, "format"), *text;

	ps->json = format && strcmp(format, "json") == 0;
	ps->whole = cli_flag(cli, "no-trunc");
	ps->last = cli_flag(cli, "latest") ? 1 : UINT64_MAX;
	if (ps->json && cli->quiet)
		return error_set(err, -EINVAL, "--quiet prints ids only, so it excludes --format json");
	int rc = last ? parse_number(last, "--last", 1, 1000000, &ps->last, err) : 0;
	ps->filters = calloc(cli->n_given + 1, sizeof(*ps->filters));
	if (!ps->filters)
		return error_set(err, -ENOMEM, "read the filters: out of memory");
	for (; rc == 0 && (text = cli_nth(cli, "filter", ps->n_filters)); ps->n_filters++)
		rc = vm_filter_read(cli->husk, text, &ps->filters[ps->n_filters], err);
	ps->all = cli_flag(cli, "all") || ps->last != UINT64_MAX || vm_filter_wants_ended(ps->filters, ps->n_filters);
	return rc;
}

/** What is listed. */
struct listed {
	char *text; /* owned, as are the rows in it */
	struct vm_row *rows;
	size_t n;
};

static void listed_free(struct listed *l)
{
	free(l->text);
	free(l->rows);
	*l = (struct listed){0};
}

/** A foreground run whose VM does not run any more. */
static bool is_left_over(const struct vm_row *vm)
{
	const struct skim *state = &vm->member[VM_STATE];
	return skim_is(&vm->member[VM_LIFETIME], "caller") &&
	       (skim_is(state, "stopped") || skim_is(state, "error") || skim_is(state, "creating"));
}

static int list(const struct cli *cli, const struct ps *ps, struct listed *l, struct husk_error *err)
{
	int rc = husk_vm_list(cli->husk, ps->all, &l->text, err);
	if (rc < 0)
		return rc;
	l->rows = vm_rows_read(l->text, &l->n);
	return l->rows ? 0 : error_set(err, -ENOMEM, "read the list of VMs: out of memory");
}

static int list_clean(const struct cli *cli, const struct ps *ps, struct listed *l, struct husk_error *err)
{
	size_t left_over = 0;
	int rc = list(cli, ps, l, err);

	for (size_t i = 0; rc == 0 && i < l->n; i++)
		left_over += is_left_over(&l->rows[i]);
	if (rc < 0 || !left_over)
		return rc;
	listed_free(l);
	rc = husk_cleanup(cli->husk, NULL, err);
	return rc < 0 ? rc : list(cli, ps, l, err);
}

/** Keep what is to be shown. */
static void select_rows(struct listed *l, const struct ps *ps)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n && n < ps->last; i++)
		if (vm_filter_match(ps->filters, ps->n_filters, &l->rows[i]))
			l->rows[n++] = l->rows[i];
	l->n = n;
}

/* ---- the columns ---- */

static void put_string(struct columns *c, const struct skim *value)
{
	CLEANUP_FREE char *text = skim_string(value);
	columns_add(c, text ? text : "");
}

static void put_id(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	put_string(c, &vm->member[VM_ID]);
}

static void put_image(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	put_string(c, &vm->member[VM_IMAGE]);
}

/** The words of the command with spaces between them, in quotes. */
static void put_command(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	const struct skim *words = &vm->member[VM_COMMAND];
	const char *at = words->text, *end = at + words->n;
	CLEANUP_BUFFER struct buffer all = {0};
	struct skim word;

	while (at && skim_element(&at, end, &word)) {
		CLEANUP_FREE char *text = skim_string(&word);
		buffer_printf(&all, "%s%s", all.size ? " " : "", text ? text : "");
	}
	if (!all.size || buffer_append(&all, "", 1) < 0) {
		columns_add(c, "");
		return;
	}
	CLEANUP_FREE char *clean = columns_clean((const char *)buffer_bytes(&all), ps->whole ? 0 : COMMAND_MAX);
	columns_format(c, "\"%s\"", clean ? clean : "");
}

static void put_created(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	const struct skim *created = &vm->member[VM_CREATED];
	char age[AGE_SIZE];
	uint64_t ns;

	if (created->n < 2 || !when_read(created->text + 1, created->n - 2, &ns, NULL)) {
		columns_add(c, "");
		return;
	}
	age_since(ns, ps->now_ns, age);
	columns_format(c, "%s ago", age);
}

static void put_status(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	if (!ps->whole || !skim_is(&vm->member[VM_STATE], "error")) {
		put_string(c, &vm->member[VM_STATUS]);
		return;
	}
	CLEANUP_FREE char *reason = vm_row_text(vm, VM_REASON);
	columns_format(c, "error: %s", reason ? reason : "");
}

/** "127.0.0.1:8080->80/tcp" of a door; nothing of one that has no port on the host. */
static void put_port(struct buffer *all, const struct skim *port)
{
	struct skim m[] = {{.key = "kind"}, {.key = "endpoint"}, {.key = "guest_port"}};

	if (!skim_object(port->text, port->n, m, ARRAY_SIZE(m)) || !m[2].n ||
		(!skim_is(&m[0], "tcp") && !skim_is(&m[0], "tls")))
		return;
	CLEANUP_FREE char *kind = skim_string(&m[0]);
	CLEANUP_FREE char *endpoint = skim_string(&m[1]);
	bool first = m[2].n == 1 && m[2].text[0] == '0';
	if (kind && endpoint)
		buffer_printf(all, "%s%s->%.*s/%s", all->size ? ", " : "", endpoint, first ? 5 : (int)m[2].n,
			first ? "first" : m[2].text, kind);
}

static void put_ports(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	const struct skim *ports = &vm->member[VM_PORTS];
	const char *at = ports->text, *end = at + ports->n;
	CLEANUP_BUFFER struct buffer all = {0};
	struct skim port;

	while (at && skim_element(&at, end, &port))
		put_port(&all, &port);
	columns_add(c, buffer_append(&all, "", 1) == 0 ? (const char *)buffer_bytes(&all) : "");
}

static void put_name(struct columns *c, const struct vm_row *vm, const struct ps *ps)
{
	put_string(c, &vm->member[VM_NAME]);
}

static const struct {
	const char *heading;
	void (*put)(struct columns *c, const struct vm_row *vm, const struct ps *ps);
} fields[] = {
	{"ID", put_id},
	{"IMAGE", put_image},
	{"COMMAND", put_command},
	{"CREATED", put_created},
	{"STATUS", put_status},
	{"PORTS", put_ports},
	{"NAMES", put_name},
};

static bool print_table(const struct listed *l, const struct ps *ps)
{
	CLEANUP(columns_free) struct columns columns = {.n = ARRAY_SIZE(fields)};

	for (size_t k = 0; k < ARRAY_SIZE(fields); k++)
		columns_add(&columns, fields[k].heading);
	for (size_t i = 0; i < l->n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(fields); k++)
			fields[k].put(&columns, &l->rows[i], ps);
	return columns_print(&columns);
}

/** The objects as they stand in the list. */
static void print_json(const struct listed *l)
{
	fputs("[", stdout);
	for (size_t i = 0; i < l->n; i++) {
		fputs(i ? ",\n " : "", stdout);
		fwrite(l->rows[i].whole.text, 1, l->rows[i].whole.n, stdout);
	}
	puts("]");
}

int verb_ps(struct cli *cli)
{
	CLEANUP(ps_free) struct ps ps = {.now_ns = clock_realtime_ns()};
	CLEANUP(listed_free) struct listed l = {0};
	struct husk_error err;

	if (ps_read(cli, &ps, &err) < 0 || list_clean(cli, &ps, &l, &err) < 0)
		return cli_fail(&err, 1);
	select_rows(&l, &ps);
	if (ps.json) {
		print_json(&l);
	} else if (cli->quiet) {
		for (size_t i = 0; i < l.n; i++)
			printf("%.*s\n", (int)l.rows[i].member[VM_ID].n - 2, l.rows[i].member[VM_ID].text + 1);
	} else if (!print_table(&l, &ps)) {
		cli_say("print the VMs: out of memory");
		return 1;
	}
	return 0;
}
