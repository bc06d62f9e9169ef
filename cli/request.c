/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - options of `run` and `create` into a configuration
 *
 * Theory of operation: the file of --config first, the command line over it. Then the lifetime decides what becomes of streams,
 * terminal and console: a VM that ends with husk gets ours, one that lives on gets logs. What cannot work together is refused
 * here where only the command line knows why, and by the library otherwise.
 */
#include "cli/request.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "cli/terminal.h"

#include <stddef.h>
#include <string.h>

static const char *const serials[] = {"log", "inherit", "capture"}; /* by enum husk_serial */

void vm_request_free(struct vm_request *r)
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
static int take_environment(struct cli *cli, struct vm_request *r, struct husk_error *err)
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

static int take_texts(struct cli *cli, struct vm_request *r, struct husk_error *err)
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
		return error_set(
			err, -EINVAL, "something is missing: husk %s %s", cli->verb->name, cli->verb->operands);
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

/** Streams and terminal of a VM that ends with us. Docker's rule and words for a terminal that is not there. */
static int take_streams(struct cli *cli, struct vm_request *r, struct husk_error *err)
{
	struct husk_vm_config *c = &r->config;
	bool interactive = cli_flag(cli, "interactive");
	if (cli_value(cli, "log-size"))
		return error_set(err, -EINVAL,
			"--log-size: what a foreground run prints is not kept; logs are of VMs that live on "
			"(--detach)");
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

/** A VM that lives on has its output in its log, and its console as a pseudo-terminal. */
static int take_detached(struct cli *cli, struct vm_request *r, struct husk_error *err)
{
	struct husk_vm_config *c = &r->config;
	const char *log_size = cli_value(cli, "log-size");
	if (c->serial != HUSK_SERIAL_LOG)
		return error_set(err, -EINVAL,
			"--serial %s: a VM that lives on has nobody to hand its console to; 'husk console' attaches to "
			"it, "
			"and 'husk logs --boot' shows it",
			serials[c->serial]);
	if (cli_value(cli, "interactive"))
		c->open_stdin = cli_flag(cli, "interactive");
	if (cli_value(cli, "rm"))
		c->remove = cli_flag(cli, "rm");
	if (c->tty)
		terminal_size(&c->rows, &c->columns);
	return log_size ? parse_size(log_size, "--log-size", 1, UINT64_MAX, &c->log_size, err) : 0;
}

/** Whether the VM lives on, and what follows from it. */
static int take_lifetime(struct cli *cli, struct vm_request *r, struct husk_error *err)
{
	struct husk_vm_config *c = &r->config;
	const char *detach = cli_value(cli, "detach"), *serial = cli_value(cli, "serial");
	if (r->create || detach)
		c->lifetime = r->create || cli_flag(cli, "detach") ? HUSK_LIFETIME_DETACHED : HUSK_LIFETIME_CALLER;
	for (size_t i = 0; i < ARRAY_SIZE(serials) && serial; i++)
		if (strcmp(serial, serials[i]) == 0)
			c->serial = (enum husk_serial)i;
	return c->lifetime == HUSK_LIFETIME_DETACHED ? take_detached(cli, r, err) : take_streams(cli, r, err);
}

static int take_doors(struct cli *cli, struct vm_request *r, struct husk_error *err)
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

static int take_disks(struct cli *cli, struct vm_request *r, struct husk_error *err)
{
	int rc = disk_list_take(&r->disks, cli, err);
	if (r->disks.n) {
		r->config.disks = r->disks.disks;
		r->config.n_disks = r->disks.n;
	}
	return rc;
}

/** The file first, the command line over it. */
int vm_request_take(struct cli *cli, struct vm_request *r, struct husk_error *err)
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
	return rc < 0 ? rc : take_lifetime(cli, r, err);
}
