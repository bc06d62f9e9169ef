/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - husk run: options into a configuration, then start, attend, end
 *
 * Theory of operation: every signal that the user may send is blocked and read from signalfds. Until the VM has started,
 * one that asks to end is the start's cancel descriptor; afterwards it is passed on to the workload. The streams are the
 * library's work, the terminal's modes are ours.
 */
#include "cli/run.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "cli/doors.h"
#include "cli/environment.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <signal.h>
#include <string.h>

#define FIRST_DOOR_ID 3

/** A configuration with what it points to. */
struct request {
	struct husk_vm_config config;
	struct environment env;
	struct door_list doors;
	const char *entrypoint[2];
};

static void request_free(struct request *r)
{
	environment_free(&r->env);
	door_list_free(&r->doors);
}

static int take_numbers(struct cli *cli, struct husk_vm_config *config, struct husk_error *err)
{
	const char *memory = cli_value(cli, "memory"), *cpus = cli_value(cli, "cpus");
	const char *scratch = cli_value(cli, "scratch");
	const char *timeout = cli_value(cli, "timeout"), *start_timeout = cli_value(cli, "start-timeout");
	uint64_t n = config->cpus;
	int rc = 0;
	if (memory)
		rc = parse_size(memory, "--memory", 1, UINT64_MAX, &config->memory, err);
	if (rc == 0 && scratch)
		rc = parse_size(scratch, "--scratch", 1, UINT64_MAX, &config->scratch, err);
	if (rc == 0 && cpus)
		rc = parse_number(cpus, "--cpus", 0, UINT32_MAX, &n, err);
	config->cpus = (uint32_t)n;
	if (rc == 0 && timeout)
		rc = parse_duration(timeout, "--timeout", &config->timeout_ms, err);
	if (rc == 0 && timeout && config->timeout_ms == 0)
		return error_set(err, -ERANGE, "--timeout: a time of 0 leaves none for the command");
	if (rc == 0 && start_timeout)
		rc = parse_duration(start_timeout, "--start-timeout", &config->start_timeout_ms, err);
	return rc;
}

static int take_environment(struct cli *cli, struct request *r, struct husk_error *err)
{
	const char *value;
	for (size_t i = 0; (value = cli_nth(cli, "env-file", i)); i++) {
		int rc = environment_add_file(&r->env, value, err);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; (value = cli_nth(cli, "env", i)); i++) {
		int rc = environment_add(&r->env, value, err);
		if (rc < 0)
			return error_prefix(err, "--env");
	}
	r->config.env = (const char *const *)r->env.list;
	return 0;
}

static void take_texts(struct cli *cli, struct request *r)
{
	struct husk_vm_config *c = &r->config;
	const char *pull = cli_value(cli, "pull");
	c->image = cli->operands[0];
	c->command = cli->n_operands > 1 ? cli->operands + 1 : NULL;
	if ((r->entrypoint[0] = cli_value(cli, "entrypoint")))
		c->entrypoint = r->entrypoint;
	c->working_dir = cli_value(cli, "workdir");
	c->user = cli_value(cli, "user");
	c->hostname = cli_value(cli, "hostname");
	c->name = cli_value(cli, "name");
	c->machine = cli_value(cli, "machine");
	c->platform = cli_value(cli, "platform");
	c->kernel = cli_value(cli, "kernel");
	c->initramfs = cli_value(cli, "initramfs");
	c->cmdline = cli_value(cli, "cmdline");
	c->pull = !pull                         ? HUSK_PULL_MISSING
		  : strcmp(pull, "always") == 0 ? HUSK_PULL_ALWAYS
		  : strcmp(pull, "never") == 0  ? HUSK_PULL_NEVER
						: HUSK_PULL_MISSING;
}

/** Streams and terminal. Docker's rule and words for a terminal that is not there. */
static int take_streams(struct cli *cli, struct husk_vm_config *c, struct husk_error *err)
{
	bool interactive = cli_flag(cli, "interactive");
	c->tty = cli_flag(cli, "tty");
	if (c->tty && interactive && !isatty(STDIN_FILENO))
		return error_set(err, -ENOTTY, "the input device is not a TTY");
	c->stdin_fd = interactive ? STDIN_FILENO : -1;
	c->stdout_fd = STDOUT_FILENO;
	c->stderr_fd = STDERR_FILENO;
	if (c->tty)
		terminal_size(&c->rows, &c->columns);
	return 0;
}

static int take_doors(struct cli *cli, struct request *r, struct husk_error *err)
{
	const char *wait = cli_value(cli, "listen-wait");
	int rc = door_list_take(&r->doors, cli, err);
	r->config.doors = r->doors.doors;
	r->config.n_doors = r->doors.n;
	if (rc == 0 && wait)
		rc = parse_duration(wait, "--listen-wait", &r->config.listen_wait_ms, err);
	if (rc == 0 && wait && !r->config.listen_wait_ms)
		return error_set(err, -ERANGE, "--listen-wait: 0 is not a time; write 1ms not to wait");
	return rc;
}

static int take_request(struct cli *cli, struct request *r, struct husk_error *err)
{
	struct husk_vm_config *c = &r->config;
	husk_vm_config_init(c);
	take_texts(cli, r);
	c->init = cli_flag(cli, "init");
	c->read_only = cli_flag(cli, "read-only");
	c->require_hardware = cli_flag(cli, "require-hardware");
	c->offline = cli_flag(cli, "offline");
	c->progress_fd = cli_progress_fd(cli);
	int rc = take_numbers(cli, c, err);
	rc = rc < 0 ? rc : take_environment(cli, r, err);
	rc = rc < 0 ? rc : take_doors(cli, r, err);
	return rc < 0 ? rc : take_streams(cli, c, err);
}

/** A port that the kernel has chosen is known to nobody else: say it. Doors have the ids from 3 on, in our order. */
static void say_ports(struct husk_vm *vm, const struct request *r)
{
	CLEANUP_FREE char *text = NULL;
	json_t *door;
	size_t index;
	if (!r->doors.n || husk_vm_inspect(vm, &text, NULL) < 0)
		return;
	json_t *json = json_loads(text, 0, NULL);
	json_array_foreach(json_object_get(json, "doors"), index, door)
	{
		size_t at = (size_t)json_integer_value(json_object_get(door, "id")) - FIRST_DOOR_ID;
		const char *endpoint = json_string_value(json_object_get(door, "endpoint"));
		const struct husk_door *asked = at < r->doors.n ? &r->doors.doors[at] : NULL;
		if (!asked || asked->path || asked->port || !endpoint)
			continue;
		if (asked->guest_port)
			cli_say("%s leads to port %u of the guest", endpoint, asked->guest_port);
		else
			cli_say("%s leads to the guest's first listener", endpoint);
	}
	json_decref(json);
}

/** Start it; *@status is set when there is no VM. */
static struct husk_vm *start(struct cli *cli, struct request *r, struct run_signals *signals, int *status)
{
	struct husk_vm *vm = NULL;
	struct husk_error err;
	r->config.cancel_fd = signals->ending;
	int rc = husk_vm_start(cli->husk, &r->config, &vm, &err);
	if (rc == -ECANCELED)
		*status = 128 + run_signals_take(signals->ending);
	else if (rc < 0)
		*status = cli_fail(&err, CLI_FAILED);
	return rc < 0 ? NULL : vm;
}

int verb_run(struct cli *cli)
{
	CLEANUP(request_free) struct request request = {0};
	struct run_signals signals;
	struct husk_error err;
	int status = CLI_FAILED;
	if (take_request(cli, &request, &err) < 0 || run_signals_open(&signals, &err) < 0)
		return cli_fail(&err, CLI_FAILED);
	struct husk_vm *vm = start(cli, &request, &signals, &status);
	if (vm) {
		say_ports(vm, &request);
		bool raw = request.config.tty && request.config.stdin_fd >= 0;
		status = raw && terminal_raw(&err) < 0 ? cli_fail(&err, CLI_FAILED)
						       : run_attend(vm, &signals, request.config.tty);
		husk_vm_close(vm);
	}
	run_signals_close(&signals);
	return status;
}
