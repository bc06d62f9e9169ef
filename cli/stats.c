/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - husk stats: what running VMs use
 *
 * Theory of operation: a sample is what husk_stats() tells of each VM. CPU time is a rate, so the table takes two samples, and as
 * docker's goes on with one every second when it is read by a person at a terminal. Without names it is of all that run, which
 * are looked up for each sample; one of those that has ended meanwhile is left out in silence, one that was named is an error.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "cli/interrupt.h"
#include "cli/usage.h"
#include "cli/verbs.h"
#include "cli/vm_row.h"

#include <poll.h>
#include <string.h>

#define ONCE_MS 500 /* between the samples of a table that is printed once */
#define AGAIN_MS 1000

struct sample {
	json_t *vms;
	uint64_t at_ns;
};

static void sample_free(struct sample *s)
{
	json_decref(s->vms);
	*s = (struct sample){0};
}

/** What one VM uses; 1: it does not run any more. */
static int add_vm(const struct cli *cli, const char *vm, json_t *vms, struct husk_error *err)
{
	CLEANUP_FREE char *text = NULL;
	int rc = husk_stats(cli->husk, vm, &text, err);

	if (rc < 0)
		return rc;
	json_t *json = json_loads(text, 0, NULL);
	return json && json_array_append_new(vms, json) == 0 ? 0
							     : error_set(err, -ENOMEM, "read counters: out of memory");
}

/** All that run. */
static int add_running(const struct cli *cli, json_t *vms, struct husk_error *err)
{
	CLEANUP_FREE char *list = NULL;
	size_t n = 0;
	int rc = husk_vm_list(cli->husk, false, &list, err);
	CLEANUP_FREE struct vm_row *rows = rc == 0 ? vm_rows_read(list, &n) : NULL;

	if (rc == 0 && !rows)
		return error_set(err, -ENOMEM, "read the list of VMs: out of memory");
	for (size_t i = 0; i < n && rc == 0; i++) {
		CLEANUP_FREE char *id = vm_row_text(&rows[i], VM_ID);
		if (!id || skim_is(&rows[i].member[VM_STATE], "error"))
			continue; /* a record that cannot be read has no counters either */
		rc = add_vm(cli, id, vms, err);
		rc = rc == -ESRCH || rc == -ENOENT ? 0 : rc;
	}
	return rc;
}

/** The exit status. */
static int take_sample(const struct cli *cli, struct sample *out)
{
	struct husk_error err;
	int status = 0;

	*out = (struct sample){.vms = json_array(), .at_ns = clock_monotonic_ns()};
	if (!cli->n_operands)
		return add_running(cli, out->vms, &err) < 0 ? cli_fail(&err, 1) : 0;
	for (size_t i = 0; i < cli->n_operands; i++)
		if (add_vm(cli, cli->operands[i], out->vms, &err) < 0)
			status = cli_fail(&err, 1);
	return status;
}

static void print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}

/** A table every second until somebody interrupts, or a VM that was named is not there any more. */
static int go_on(const struct cli *cli)
{
	CLEANUP(sample_free) struct sample before = {0};
	int status;

	do {
		struct sample now;
		status = take_sample(cli, &now);
		fputs("\033[H\033[J", stdout); /* ECMA-48: to the first line, and clear the screen from there */
		usage_print_table(now.vms, before.vms, now.at_ns - before.at_ns);
		if (fflush(stdout) != 0)
			status = 1;
		sample_free(&before);
		before = now;
		if (status == 0)
			poll(NULL, 0, AGAIN_MS);
	} while (status == 0);
	return status;
}

static int once(const struct cli *cli)
{
	CLEANUP(sample_free) struct sample before = {0}, now = {0};
	int status = take_sample(cli, &before);

	if (json_array_size(before.vms))
		poll(NULL, 0, ONCE_MS);
	if (status == 0)
		status = take_sample(cli, &now);
	else /* what is wrong was said */
		now = (struct sample){.vms = json_incref(before.vms), .at_ns = before.at_ns};
	usage_print_table(now.vms, before.vms, now.at_ns - before.at_ns);
	return status;
}

int verb_stats(struct cli *cli)
{
	const char *format = cli_value(cli, "format");
	bool json = format && strcmp(format, "json") == 0, doors = cli_flag(cli, "doors");
	bool prometheus = cli_flag(cli, "prometheus");

	if (json + doors + prometheus > 1) {
		cli_say("--format json, --doors and --prometheus exclude each other");
		return 1;
	}
	interrupt_ends();
	if (json || doors || prometheus) {
		CLEANUP(sample_free) struct sample sample = {0};
		int status = take_sample(cli, &sample);
		(json ? print_json : doors ? usage_print_doors : usage_print_prometheus)(sample.vms);
		return status;
	}
	return cli_flag(cli, "no-stream") || !isatty(STDOUT_FILENO) ? once(cli) : go_on(cli);
}
