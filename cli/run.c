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
#include "cli/config.h"
#include "cli/doors.h"
#include "cli/environment.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#define FIRST_DOOR_ID 3

/** A configuration with what it points to. */
struct request {
	struct husk_vm_config config;
	struct husk_vm_json *json;
	struct environment env;
	struct door_list doors;
	struct disk_list disks;
	const char *entrypoint[2];
	bool raw; /* our own terminal hands on what is typed as it is */
};

static void request_free(struct request *r)
{
	environment_free(&r->env);
	door_list_free(&r->doors);
	disk_list_free(&r->disks);
	husk_vm_json_free(r->json);
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

/** Those of the configuration first, so that the command line's win. */
static int take_environment(struct cli *cli, struct request *r, struct husk_error *err)
{
	const char *value;
	if (!cli_value(cli, "env") && !cli_value(cli, "env-file"))
		return 0;
	for (const char *const *one = r->config.env; one && *one; one++) {
		int rc = environment_keep(&r->env, *one, err);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; (value = cli_nth(cli, "env-file", i)); i++) {
		int rc = environment_add_file(&r->env, value, err);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; (value = cli_nth(cli, "env", i)); i++) {
		int rc = environment_add(&r->env, value, err);
		if (rc < 0)
			return error_prefix(err, rc, "--env");
	}
	r->config.env = (const char *const *)r->env.list;
	return 0;
}

/** Options that are a field as they stand. */
static const struct {
	const char *option;
	size_t offset;
} text_options[] =
	{
		{"cmdline", offsetof(struct husk_vm_config, cmdline)},
		{"hostname", offsetof(struct husk_vm_config, hostname)},
		{"initramfs", offsetof(struct husk_vm_config, initramfs)},
		{"kernel", offsetof(struct husk_vm_config, kernel)},
		{"machine", offsetof(struct husk_vm_config, machine)},
		{"name", offsetof(struct husk_vm_config, name)},
		{"platform", offsetof(struct husk_vm_config, platform)},
		{"shell", offsetof(struct husk_vm_config, shell)},
		{"user", offsetof(struct husk_vm_config, user)},
		{"workdir", offsetof(struct husk_vm_config, working_dir)},
},
  flag_options[] = {
	  {"init", offsetof(struct husk_vm_config, init)},
	  {"offline", offsetof(struct husk_vm_config, offline)},
	  {"read-only", offsetof(struct husk_vm_config, read_only)},
	  {"require-hardware", offsetof(struct husk_vm_config, require_hardware)},
	  {"tty", offsetof(struct husk_vm_config, tty)},
};

static int take_texts(struct cli *cli, struct request *r, struct husk_error *err)
{
	struct husk_vm_config *c = &r->config;
	const char *pull = cli_value(cli, "pull"), *vsock = cli_value(cli, "vsock-port");
	for (size_t i = 0; i < ARRAY_SIZE(text_options); i++) {
		const char *value = cli_value(cli, text_options[i].option);
		if (value)
			*(const char **)((char *)c + text_options[i].offset) = value;
	}
	for (size_t i = 0; i < ARRAY_SIZE(flag_options); i++)
		if (cli_value(cli, flag_options[i].option))
			*(bool *)((char *)c + flag_options[i].offset) = cli_flag(cli, flag_options[i].option);
	if (cli->n_operands)
		c->image = cli->operands[0];
	if (cli->n_operands > 1)
		c->command = cli->operands + 1;
	if (!c->image)
		return error_set(err, -EINVAL, "something is missing: husk run %s", cli->verb->operands);
	if ((r->entrypoint[0] = cli_value(cli, "entrypoint")))
		c->entrypoint = r->entrypoint;
	if (pull)
		c->pull = strcmp(pull, "always") == 0  ? HUSK_PULL_ALWAYS
			  : strcmp(pull, "never") == 0 ? HUSK_PULL_NEVER
						       : HUSK_PULL_MISSING;
	return vsock ? vsock_parse(vsock, c, err) : 0;
}

/** The guest's console, where it comes here. Without an agent it is all there is of the guest, stdin included; otherwise
 *  stdout is the command's, and what the guest says besides goes to stderr. */
static void take_serial(struct husk_vm_config *c)
{
	bool whole = c->initramfs || c->serial == HUSK_SERIAL_CAPTURE;
	if (c->serial == HUSK_SERIAL_LOG)
		return;
	c->serial_fd = whole ? STDOUT_FILENO : STDERR_FILENO;
	if (c->initramfs)
		c->serial_input_fd = steal_fd(&c->stdin_fd);
}

/** Streams and terminal. Docker's rule and words for a terminal that is not there. */
static int take_streams(struct cli *cli, struct request *r, struct husk_error *err)
{
	static const char *const sinks[] = {"log", "inherit", "capture"};
	struct husk_vm_config *c = &r->config;
	const char *serial = cli_value(cli, "serial");
	bool interactive = cli_flag(cli, "interactive");
	for (size_t i = 0; i < ARRAY_SIZE(sinks) && serial; i++)
		if (strcmp(serial, sinks[i]) == 0)
			c->serial = (enum husk_serial)i;
	if (c->tty && interactive && !isatty(STDIN_FILENO))
		return error_set(err, -ENOTTY, "the input device is not a TTY");
	r->raw = c->tty && interactive;
	c->stdin_fd = interactive ? STDIN_FILENO : -1;
	c->stdout_fd = STDOUT_FILENO;
	c->stderr_fd = STDERR_FILENO;
	take_serial(c);
	if (c->initramfs && c->serial != HUSK_SERIAL_LOG)
		c->tty = false; /* the terminal is here, not in the guest */
	if (c->tty)
		terminal_size(&c->rows, &c->columns);
	return 0;
}

static int take_doors(struct cli *cli, struct request *r, struct husk_error *err)
{
	const char *wait = cli_value(cli, "listen-wait");
	int rc = door_list_take(&r->doors, cli, err);
	if (r->doors.n) {
		r->config.doors = r->doors.doors;
		r->config.n_doors = r->doors.n;
	}
	if (rc == 0 && wait)
		rc = parse_duration(wait, "--listen-wait", &r->config.listen_wait_ms, err);
	if (rc == 0 && wait && !r->config.listen_wait_ms)
		return error_set(err, -ERANGE, "--listen-wait: 0 is not a time; write 1ms not to wait");
	return rc;
}

static int take_disks(struct cli *cli, struct request *r, struct husk_error *err)
{
	int rc = disk_list_take(&r->disks, cli, err);
	if (r->disks.n) {
		r->config.disks = r->disks.disks;
		r->config.n_disks = r->disks.n;
	}
	return rc;
}

/** The file first, the command line over it. */
static int take_request(struct cli *cli, struct request *r, struct husk_error *err)
{
	struct husk_vm_config *c = &r->config;
	husk_vm_config_init(c);
	int rc = config_take_file(cli, c, &r->json, err);
	c->progress_fd = cli_progress_fd(cli);
	rc = rc < 0 ? rc : take_texts(cli, r, err);
	rc = rc < 0 ? rc : take_numbers(cli, c, err);
	rc = rc < 0 ? rc : take_environment(cli, r, err);
	rc = rc < 0 ? rc : take_doors(cli, r, err);
	rc = rc < 0 ? rc : take_disks(cli, r, err);
	return rc < 0 ? rc : take_streams(cli, r, err);
}

/** A port that the kernel has chosen is known to nobody else: say it. Doors have the ids from 3 on, in our order. */
static void say_ports(struct husk_vm *vm, const struct request *r)
{
	CLEANUP_FREE char *text = NULL;
	json_t *door;
	size_t index;
	if (!r->config.n_doors || husk_vm_inspect(vm, &text, NULL) < 0)
		return;
	json_t *json = json_loads(text, 0, NULL);
	json_array_foreach(json_object_get(json, "doors"), index, door)
	{
		size_t at = (size_t)json_integer_value(json_object_get(door, "id")) - FIRST_DOOR_ID;
		const char *endpoint = json_string_value(json_object_get(door, "endpoint"));
		const struct husk_door *asked = at < r->config.n_doors ? &r->config.doors[at] : NULL;
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
		status = request.raw && terminal_raw(&err) < 0 ? cli_fail(&err, CLI_FAILED)
							       : run_attend(vm, &signals, request.config.tty);
		husk_vm_close(vm);
	}
	run_signals_close(&signals);
	return status;
}
