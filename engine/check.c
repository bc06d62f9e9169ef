/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - refuse what cannot work before anything is done for it
 *
 * Theory of operation: one pass over the whole configuration, whoever made it: a program, the command line or a file. Tables
 * hold the rules of numbers and of texts; what concerns several fields is a function. Every refusal names the field as
 * docs/configuration.md does, the value, and the rule. What only the system can tell, whether a file can be opened or an
 * image found, follows when that is done, still before anything of the VM exists (start.c).
 */
#include "engine/check.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "engine/config_json.h"
#include "engine/disks.h"
#include "engine/scratch.h"
#include "engine/vm.h"
#include "image/platform.h"

#include <string.h>

/** A number's range. */
struct number_rule {
	const char *field;
	uint64_t value, min, max;
	const char *range;
};

static int check_numbers(const struct husk_vm_config *c, struct husk_error *err)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	cpus = cpus < 1 ? 1 : cpus < CHECK_CPUS_MAX ? cpus : CHECK_CPUS_MAX;
	char memory_range[80], cpus_range[80];
	snprintf(memory_range, sizeof(memory_range), "96 MiB to the %llu MiB of this host",
		(unsigned long long)(host >> 20));
	snprintf(cpus_range, sizeof(cpus_range), "1 to %ld on this host", cpus);
	const struct number_rule rules[] = {
		{"memory", c->memory, CHECK_MEMORY_MIN, host, memory_range},
		{"cpus", c->cpus, 1, (uint64_t)cpus, cpus_range},
		{"scratch", c->scratch, SCRATCH_MIN, SCRATCH_MAX, "64 MiB to 16 TiB"},
		{"start_timeout_ms", c->start_timeout_ms, 1, CHECK_TIME_MAX, "1 ms to a year"},
		{"timeout_ms", c->timeout_ms, 0, CHECK_TIME_MAX, "at most a year; 0 for none"},
		{"listen_wait_ms", c->listen_wait_ms, 0, CHECK_LISTEN_WAIT_MAX, "at most a day"},
		{"pull", (uint64_t)c->pull, 0, HUSK_PULL_NEVER, "missing, always or never"},
		{"vsock.policy", (uint64_t)c->vsock, 0, HUSK_VSOCK_FIXED, "any, disabled, auto or fixed"},
		{"serial", (uint64_t)c->serial, 0, HUSK_SERIAL_CAPTURE, "log, inherit or capture"},
		{"lifetime", (uint64_t)c->lifetime, 0, HUSK_LIFETIME_DETACHED, "caller or detached"},
		{"log_size", c->log_size, CHECK_LOG_MIN, CHECK_LOG_MAX, "64 KiB to 1 TiB"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].value < rules[i].min || rules[i].value > rules[i].max)
			return error_set(err, -ERANGE, "%s: %llu is out of range: %s", rules[i].field,
				(unsigned long long)rules[i].value, rules[i].range);
	return 0;
}

/* ---- texts: true when @text keeps its rule ---- */

/** Host names as RFC 1123 has them, and what sethostname takes. */
static bool is_hostname(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
	size_t n = strlen(text);
	return n > 0 && n <= 63 && strspn(text, allowed) == n && text[0] != '-' && text[0] != '.';
}

static bool is_absolute(const char *text)
{
	return text[0] == '/';
}

static bool is_something(const char *text)
{
	return text[0] != 0;
}

static bool is_name(const char *text)
{
	return vm_name_check(text, NULL) == 0;
}

static bool is_printable(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

static bool is_no_net(const char *text)
{
	return strcmp(text, "none") == 0;
}

static bool is_machine(const char *text)
{
	return strcmp(text, "auto") == 0 || strcmp(text, "qemu") == 0 || strcmp(text, "kvm") == 0;
}

static int check_texts(const struct husk_vm_config *c, struct husk_error *err)
{
	const struct {
		const char *field, *value;
		bool (*rule)(const char *text);
		const char *words;
	} rules[] = {
		{"image", c->image ? c->image : "", is_something, "is no image; a VM needs one"},
		{"name", c->name, is_name,
			"is not a name: a letter or digit, then at most 127 letters, digits, '_', '.' and '-'"},
		{"hostname", c->hostname, is_hostname,
			"is not a host name: at most 63 letters, digits, '-' and '.', beginning with a letter or "
			"digit"},
		{"working_dir", c->working_dir, is_absolute, "is not an absolute path"},
		{"user", c->user, is_something, "names no user"},
		{"machine", c->machine, is_machine, "is none of auto, qemu and kvm"},
		{"kernel", c->kernel, is_something, "names no kernel"},
		{"initramfs", c->initramfs, is_something, "names no file"},
		{"cmdline", c->cmdline, is_printable, "contains a control character"},
		{"net", c->net, is_no_net,
			"cannot be had: a VM has no network yet but doors and vsock; 'none' is all there is"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].value && !rules[i].rule(rules[i].value))
			return error_set(err, -EINVAL, "%s: '%s' %s", rules[i].field, rules[i].value, rules[i].words);
	return 0;
}

static int check_platform(const struct husk_vm_config *c, struct husk_error *err)
{
	struct platform platform;
	int rc = c->platform ? platform_parse(c->platform, &platform, err) : 0;
	return rc < 0 ? error_prefix(err, rc, "platform") : 0;
}

static int check_environment(const struct husk_vm_config *c, struct husk_error *err)
{
	for (size_t i = 0; c->env && c->env[i]; i++)
		if (!c->env[i][0] || c->env[i][0] == '=')
			return error_set(err, -EINVAL,
				"env[%zu]: '%s' is not an environment variable (NAME=value or NAME)", i, c->env[i]);
	return 0;
}

static int check_pull(const struct husk_vm_config *c, struct husk_error *err)
{
	if (c->offline && c->pull == HUSK_PULL_ALWAYS)
		return error_set(err, -EINVAL, "offline: true and the pull policy 'always' exclude each other");
	return 0;
}

static int check_shares(const struct husk_vm_config *c, struct husk_error *err)
{
	if (!c->n_shares)
		return 0;
	const char *path = c->shares && c->shares[0].path ? c->shares[0].path : "";
	return error_set(err, -ENOTSUP, "shares[0].path: '%s': no machine can serve shared directories yet", path);
}

static int check_vsock(const struct husk_vm_config *c, struct husk_error *err)
{
	unsigned port = c->vsock_port;
	if (c->vsock == HUSK_VSOCK_FIXED && (port < 1 || port == UINT32_MAX))
		return error_set(
			err, -ERANGE, "vsock.port: %u is out of range: 1 to 4294967294 with the policy 'fixed'", port);
	if (c->vsock == HUSK_VSOCK_FIXED && port == AGENT_PORT)
		return error_set(err, -EINVAL, "vsock.port: %u is the port of husk's own agent", port);
	if (c->vsock == HUSK_VSOCK_AUTO && port && (port < CHECK_VSOCK_FIRST || port > CHECK_VSOCK_LAST))
		return error_set(err, -ERANGE,
			"vsock.port: %u is out of range: 50000 to 59999, or none, with the policy 'auto'", port);
	if ((c->vsock == HUSK_VSOCK_ANY || c->vsock == HUSK_VSOCK_DISABLED) && port)
		return error_set(err, -EINVAL, "vsock.port: %u goes with the policies 'fixed' and 'auto' only", port);
	return 0;
}

static int check_serial(const struct husk_vm_config *c, struct husk_error *err)
{
	if (c->serial == HUSK_SERIAL_CAPTURE && c->serial_fd < 0)
		return error_set(err, -EINVAL, "serial: 'capture' needs a descriptor to write to (serial_fd)");
	if (c->serial == HUSK_SERIAL_INHERIT && c->serial_fd < 0 && c->serial_input_fd < 0)
		return error_set(
			err, -EINVAL, "serial: 'inherit' needs a descriptor to write to or to read from (serial_fd)");
	return 0;
}

/** What goes with one lifetime only: a VM that belongs to nobody has no streams of anybody's, and keeps its log itself. */
static int check_lifetime(const struct husk_vm_config *c, struct husk_error *err)
{
	const struct {
		const char *field;
		int fd;
	} streams[] = {{"stdin_fd", c->stdin_fd}, {"stdout_fd", c->stdout_fd}, {"stderr_fd", c->stderr_fd},
		{"serial_fd", c->serial_fd}, {"serial_input_fd", c->serial_input_fd}};
	bool detached = c->lifetime == HUSK_LIFETIME_DETACHED;
	for (size_t i = 0; i < ARRAY_SIZE(streams) && detached; i++)
		if (streams[i].fd >= 0)
			return error_set(err, -EINVAL,
				"%s: %d: a VM of lifetime 'detached' outlives who has the descriptor; its output goes "
				"into its log",
				streams[i].field, streams[i].fd);
	if (detached && c->serial != HUSK_SERIAL_LOG)
		return error_set(err, -EINVAL,
			"serial: only 'log' goes with lifetime 'detached'; the VM's console is a pseudo-terminal");
	if (!detached && c->open_stdin)
		return error_set(err, -EINVAL, "open_stdin: goes with lifetime 'detached' only; others have stdin_fd");
	if (!detached && c->log_size != CHECK_LOG_DEFAULT)
		return error_set(err, -EINVAL, "log_size: goes with lifetime 'detached' only: no other VM keeps a log");
	return detached ? config_json_check_texts(c, err) : 0;
}

/** What needs our agent cannot be had with somebody else's initramfs. */
static int check_agentless(const struct husk_vm_config *config, struct husk_error *err)
{
	const struct {
		bool asked;
		const char *field, *what;
	} needs[] = {
		{config->command && config->command[0], "command", "a command"},
		{config->entrypoint != NULL, "entrypoint", "an entrypoint"},
		{config->env && config->env[0], "env", "an environment"},
		{config->working_dir != NULL, "working_dir", "a working directory"},
		{config->user != NULL, "user", "a user"},
		{config->hostname != NULL, "hostname", "a host name"},
		{config->tty, "tty", "a terminal"},
		{config->stdin_fd >= 0, "stdin_fd", "standard input"},
		{config->open_stdin, "open_stdin", "standard input"},
		{config->init, "init", "an init"},
		{config->read_only, "read_only", "a read-only root"},
		{config->timeout_ms != 0, "timeout_ms", "a timeout of the workload"},
		{config->n_doors != 0, "doors", "a door"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(needs) && config->initramfs; i++)
		if (needs[i].asked)
			return error_set(err, -ENOTSUP,
				"%s: %s needs husk's agent, which is not in a foreign initramfs (%s)", needs[i].field,
				needs[i].what, config->initramfs);
	return 0;
}

int check_config(const struct husk_vm_config *config, struct husk_error *err)
{
	static int (*const checks[])(const struct husk_vm_config *config, struct husk_error *err) = {check_texts,
		check_numbers, check_platform, check_environment, check_pull, disks_check, check_shares, check_vsock,
		check_serial, check_lifetime, check_doors, check_agentless};
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		int rc = checks[i](config, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}
