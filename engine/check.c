/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - refuse what cannot work before anything is done for it */
#include "engine/check.h"

#include "base/cleanup.h"
#include "engine/scratch.h"
#include "engine/vm.h"

#include <string.h>

static int check_sizes(const struct husk_vm_config *config, struct husk_error *err)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (config->memory < CHECK_MEMORY_MIN || config->memory > host)
		return error_set(err, -ERANGE,
			"memory of %llu bytes is out of range: at least 96 MiB, and this host has %llu MiB",
			(unsigned long long)config->memory, (unsigned long long)(host >> 20));
	if (config->cpus < 1 || config->cpus > CHECK_CPUS_MAX || config->cpus > cpus)
		return error_set(err, -ERANGE, "%u CPUs are out of range: 1 to %ld on this host", config->cpus,
			cpus < CHECK_CPUS_MAX ? cpus : (long)CHECK_CPUS_MAX);
	if (config->scratch < SCRATCH_MIN || config->scratch > SCRATCH_MAX)
		return error_set(err, -ERANGE, "a scratch disk of %llu bytes is out of range: 64 MiB to 16 TiB",
			(unsigned long long)config->scratch);
	if (config->start_timeout_ms == 0)
		return error_set(err, -ERANGE, "a start timeout of 0 leaves no time to boot");
	return 0;
}

/** Host names as RFC 1123 has them, and what sethostname takes. */
static int check_hostname(const char *hostname, struct husk_error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
	size_t n = strlen(hostname);
	if (n == 0 || n > 63 || strspn(hostname, allowed) != n || hostname[0] == '-' || hostname[0] == '.')
		return error_set(err, -EINVAL,
			"'%s' is not a host name: at most 63 letters, digits, '-' and '.', beginning with a letter or "
			"digit",
			hostname);
	return 0;
}

/** What needs our agent cannot be had with somebody else's initramfs. */
static int check_agentless(const struct husk_vm_config *config, struct husk_error *err)
{
	const struct {
		bool asked;
		const char *what;
	} needs[] = {
		{config->command && config->command[0], "a command"},
		{config->entrypoint != NULL, "an entrypoint"},
		{config->env && config->env[0], "environment variables"},
		{config->working_dir != NULL, "a working directory"},
		{config->user != NULL, "a user"},
		{config->hostname != NULL, "a host name"},
		{config->tty, "a terminal"},
		{config->stdin_fd >= 0, "standard input"},
		{config->init, "an init"},
		{config->read_only, "a read-only root"},
		{config->timeout_ms != 0, "a timeout of the workload"},
	};
	if (!config->initramfs)
		return 0;
	if (config->n_doors)
		return error_set(err, -ENOTSUP, "doors need husk's agent, which is not in a foreign initramfs (%s)",
			config->initramfs);
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++)
		if (needs[i].asked)
			return error_set(err, -EINVAL,
				"%s needs husk's agent, which is not in a foreign initramfs (%s)", needs[i].what,
				config->initramfs);
	return 0;
}

int check_config(const struct husk_vm_config *config, struct husk_error *err)
{
	int rc = 0;
	if (!config->image || !*config->image)
		return error_set(err, -EINVAL, "no image given");
	if (config->name)
		rc = vm_name_check(config->name, err);
	if (rc == 0 && config->hostname)
		rc = check_hostname(config->hostname, err);
	rc = rc < 0 ? rc : check_sizes(config, err);
	if (rc == 0 && config->pull != HUSK_PULL_MISSING && config->pull != HUSK_PULL_ALWAYS &&
		config->pull != HUSK_PULL_NEVER)
		return error_set(err, -EINVAL, "unknown pull policy %d", (int)config->pull);
	if (rc == 0 && config->offline && config->pull == HUSK_PULL_ALWAYS)
		return error_set(err, -EINVAL, "'offline' and the pull policy 'always' exclude each other");
	rc = rc < 0 ? rc : check_doors(config, err);
	return rc < 0 ? rc : check_agentless(config, err);
}
