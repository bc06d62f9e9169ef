/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_run.c - husk sandbox run: one call of a sandbox program's function
 *
 * Theory of operation: the program's own list of functions says how the words of the command line are read. The
 * sandbox has no function of the host's but print, whose text goes to stderr, so that stdout has the result and
 * nothing else. How the call ended is the exit status, which a table has.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "cli/sandbox_values.h"
#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define STATUS_GUEST_ERROR 1
#define STATUS_DEADLINE 124
#define FRAME_ROOM 4096 /* of the input buffer beside the bytes of arguments */

/** What one run holds. */
struct run {
	struct husk_sandbox_image *image;
	struct husk_sandbox *sandbox;
	struct husk_sandbox_value args[HUSK_SANDBOX_ARGS_MAX], result;
	void *owned[HUSK_SANDBOX_ARGS_MAX];
};

static void run_free(struct run *run)
{
	for (size_t i = 0; i < ARRAY_SIZE(run->owned); i++)
		free(run->owned[i]);
	husk_sandbox_value_clear(&run->result);
	husk_sandbox_free(run->sandbox);
	husk_sandbox_image_free(run->image);
}

/** A fault as the signal that a process would have got: of vectors that are not here SIGSEGV. */
static const struct {
	uint32_t vector;
	int signal;
} vector_signals[] = {
	{0, SIGFPE},
	{1, SIGTRAP},
	{3, SIGTRAP},
	{6, SIGILL},
	{16, SIGFPE},
	{19, SIGFPE},
};

static int fault_status(uint32_t vector)
{
	for (size_t i = 0; i < ARRAY_SIZE(vector_signals); i++)
		if (vector_signals[i].vector == vector)
			return 128 + vector_signals[i].signal;
	return 128 + SIGSEGV;
}

static int exit_status(const struct husk_sandbox_report *report)
{
	switch (report->reason) {
	case HUSK_SANDBOX_FAULT:
		return fault_status(report->vector);
	case HUSK_SANDBOX_ABORT:
		return 128 + SIGABRT;
	case HUSK_SANDBOX_GUEST_ERROR:
		return STATUS_GUEST_ERROR;
	case HUSK_SANDBOX_DEADLINE:
		return STATUS_DEADLINE;
	default:
		return CLI_FAILED;
	}
}

typedef int getter(const struct husk_sandbox_image *image, size_t index, struct husk_sandbox_signature *function,
	struct husk_error *err);

static int by_name(const void *a, const void *b)
{
	const struct husk_sandbox_signature *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/** All that @get has, by name. */
static int list(const struct husk_sandbox_image *image, getter *get, const char *heading)
{
	struct husk_sandbox_signature one = {.size = sizeof(one)};
	size_t n = 0;

	while (get(image, n, &one, NULL) == 0)
		n++;
	CLEANUP_FREE struct husk_sandbox_signature *all = calloc(n + 1, sizeof(*all));
	if (!all) {
		cli_say("list functions: out of memory");
		return CLI_FAILED;
	}
	for (size_t i = 0; i < n; i++) {
		all[i].size = sizeof(all[i]);
		get(image, i, &all[i], NULL);
	}
	qsort(all, n, sizeof(*all), by_name);
	if (n)
		puts(heading);
	for (size_t i = 0; i < n; i++) {
		fputs("  ", stdout);
		sandbox_signature_print(stdout, &all[i]);
		putchar('\n');
	}
	return 0;
}

static int find(const struct husk_sandbox_image *image, const char *name, struct husk_sandbox_signature *function,
	struct husk_error *err)
{
	*function = (struct husk_sandbox_signature){.size = sizeof(*function)};
	for (size_t i = 0; husk_sandbox_image_function(image, i, function, NULL) == 0; i++)
		if (strcmp(function->name, name) == 0)
			return 0;
	return error_set(
		err, -ENOENT, "the program has no function '%s'; 'husk sandbox run PROGRAM' lists those it has", name);
}

/** Read @words by the function's types. *@bytes: how many bytes they have. */
static int read_arguments(struct run *run, const struct husk_sandbox_signature *function, const char *const *words,
	size_t n, uint64_t *bytes, struct husk_error *err)
{
	*bytes = 0;
	if (n != function->n_args)
		return error_set(err, -EINVAL, "%s takes %zu argument%s, not %zu", function->name, function->n_args,
			function->n_args == 1 ? "" : "s", n);
	for (size_t i = 0; i < n; i++) {
		int rc = sandbox_value_parse(words[i], function->args[i], &run->args[i], &run->owned[i], err);
		if (rc < 0)
			return error_prefix(err, rc, "argument %zu of %s", i + 1, function->name);
		if (function->args[i] == HUSK_SANDBOX_STRING || function->args[i] == HUSK_SANDBOX_BYTES)
			*bytes += run->args[i].bytes.size + 16;
	}
	return 0;
}

static void print(void *data, const char *text, size_t n)
{
	(void)data;
	sandbox_text_print(stderr, text, n, isatty(STDERR_FILENO) == 1);
}

static int take_options(
	struct cli *cli, struct husk_sandbox_config *config, uint64_t *deadline_ns, struct husk_error *err)
{
	const struct {
		const char *name, *shown;
		uint64_t *size;
	} sizes[] = {
		{"heap", "--heap", &config->heap},
		{"output", "--output", &config->output},
		{"stack", "--stack", &config->stack},
	};
	const char *deadline = cli_value(cli, "deadline");
	uint64_t ms = 0;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(sizes); i++)
		if (cli_value(cli, sizes[i].name))
			rc = parse_size(
				cli_value(cli, sizes[i].name), sizes[i].shown, 0, UINT64_MAX, sizes[i].size, err);
	if (rc == 0 && deadline)
		rc = parse_duration(deadline, "--deadline", &ms, err);
	if (rc == 0 && deadline && ms == 0)
		return error_set(err, -ERANGE, "--deadline: a time of 0 leaves none for the call");
	*deadline_ns = ms < UINT64_MAX / 1000000 ? ms * 1000000 : UINT64_MAX;
	return rc;
}

/** The core file of a program that has gone wrong, when one is wanted. */
static void write_core(struct cli *cli, struct husk_sandbox *sandbox)
{
	const char *path = cli_value(cli, "core");
	struct husk_error err;

	if (!path || husk_sandbox_state(sandbox) != HUSK_SANDBOX_POISONED)
		return;
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		cli_say("open %s: %s", path, strerror(errno));
	else if (husk_sandbox_write_core(sandbox, fd, &err) < 0)
		cli_fail(&err, 0);
	else
		cli_say("core file: %s", path);
}

/** Say why it ended, which is what the exit status says, too. */
static int fail(struct cli *cli, struct run *run, const struct husk_error *err)
{
	struct husk_sandbox_report report = {.size = sizeof(report)};

	cli_fail(err, 0);
	if (husk_sandbox_report(run->sandbox, &report, NULL) < 0)
		return CLI_FAILED;
	write_core(cli, run->sandbox);
	return exit_status(&report);
}

static int call(struct cli *cli, struct run *run, const struct husk_sandbox_signature *function,
	const struct husk_sandbox_config *config, uint64_t deadline_ns)
{
	struct husk_sandbox_call_options options;
	struct husk_error err;

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = deadline_ns;
	if (husk_sandbox_create(run->image, config, &run->sandbox, &err) < 0)
		return cli_fail(&err, CLI_FAILED);
	if (husk_sandbox_start(run->sandbox, &err) < 0 || husk_sandbox_call(run->sandbox, function->name, run->args,
								  function->n_args, &run->result, &options, &err) < 0)
		return fail(cli, run, &err);
	sandbox_value_print(stdout, &run->result, isatty(STDOUT_FILENO) == 1);
	return 0;
}

int verb_sandbox_run(struct cli *cli)
{
	CLEANUP(run_free) struct run run = {0};
	struct husk_sandbox_signature function;
	struct husk_sandbox_config config;
	struct husk_error err;
	uint64_t deadline_ns = 0, bytes = 0;

	husk_sandbox_config_init(&config);
	config.print = print;
	if (take_options(cli, &config, &deadline_ns, &err) < 0 ||
		husk_sandbox_image_load(cli->operands[0], &run.image, &err) < 0)
		return cli_fail(&err, CLI_FAILED);
	if (cli->n_operands == 1) {
		int status = list(run.image, husk_sandbox_image_function, "functions:");
		return status ? status : list(run.image, husk_sandbox_image_import, "needs from the host:");
	}
	if (find(run.image, cli->operands[1], &function, &err) < 0 ||
		read_arguments(&run, &function, cli->operands + 2, cli->n_operands - 2, &bytes, &err) < 0)
		return cli_fail(&err, CLI_FAILED);
	if (config.input < bytes + FRAME_ROOM)
		config.input = bytes + FRAME_ROOM;
	return call(cli, &run, &function, &config, deadline_ns);
}
