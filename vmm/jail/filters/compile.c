/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile.c - turn the lists of system calls into filters, as a C source; runs on the machine that builds husk
 *
 * usage: compile ARCHITECTURE     x86_64 or aarch64
 *
 * libseccomp sorts the calls into a binary tree, so that a filter takes a dozen instructions where a chain would take sixty;
 * and it is needed here only: what is compiled into husk-vmm is loaded with prctl(2).
 */
#include "vmm/jail/filters/rules.h"

#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIMIZE_TREE 2 /* seccomp_attr_set(3), SCMP_FLTATR_CTL_OPTIMIZE */

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "compile the filters: %s: %s\n", what, why);
	exit(1);
}

static void add(scmp_filter_ctx filter, uint32_t architecture, const struct rule *r)
{
	int number = seccomp_syscall_resolve_name_arch(architecture, r->call), rc;
	struct scmp_arg_cmp condition = {.arg = r->argument,
		.op = r->when == MASKED ? SCMP_CMP_MASKED_EQ : SCMP_CMP_EQ,
		.datum_a = r->when == MASKED ? r->mask : r->value,
		.datum_b = r->when == MASKED ? r->value : 0};

	if (number == __NR_SCMP_ERROR)
		fail(r->call, "there is no such system call");
	if (number < 0)
		return; /* one that this architecture does not have: a pseudo number */
	if (r->when == ALWAYS)
		rc = seccomp_rule_add_exact(filter, SCMP_ACT_ALLOW, number, 0);
	else
		rc = seccomp_rule_add_exact(filter, SCMP_ACT_ALLOW, number, 1, condition);
	if (rc < 0)
		fail(r->call, strerror(-rc));
}

/** Read the exported program back and write it as an array. */
static void print(scmp_filter_ctx filter, const char *name)
{
	FILE *file = tmpfile();
	struct sock_filter line;
	int rc = file ? seccomp_export_bpf(filter, fileno(file)) : -errno;

	if (rc < 0)
		fail(name, strerror(-rc));
	rewind(file);
	printf("\nstatic const struct sock_filter %s[] = {\n", name);
	while (fread(&line, sizeof(line), 1, file) == 1)
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", line.code, line.jt, line.jf, line.k);
	printf("};\n");
	fclose(file);
}

static void compile(uint32_t architecture, const struct rule *rules, const char *name)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);

	if (!filter)
		fail(name, "out of memory");
	if (architecture != seccomp_arch_native() &&
		(seccomp_arch_add(filter, architecture) < 0 || seccomp_arch_remove(filter, SCMP_ARCH_NATIVE) < 0))
		fail(name, "libseccomp does not know the architecture");
	if (seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) < 0 ||
		seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_TREE) < 0)
		fail(name, "libseccomp is older than 2.5");
	for (; rules->call; rules++)
		add(filter, architecture, rules);
	print(filter, name);
	seccomp_release(filter);
}

int main(int argc, char **argv)
{
	uint32_t architecture = argc == 2 ? seccomp_arch_resolve_name(argv[1]) : 0;

	if (!architecture)
		fail("usage", "compile ARCHITECTURE");
	printf("/* made by vmm/jail/filters/compile.c */\n#include <linux/filter.h>\n");
	compile(architecture, loop_rules, "loop_filter");
	compile(architecture, vcpu_rules, "vcpu_filter");
	return 0;
}
