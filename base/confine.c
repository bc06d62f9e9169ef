/* SPDX-License-Identifier: Apache-2.0 */
/* confine.c - walls that a process builds around itself (theory of operation: confine.h) */
#include "base/confine.h"

#include "base/cleanup.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* Newer than the headers of the oldest distribution that builds this (landlock(7)). */
#define FS_TRUNCATE (1ull << 14) /* ABI 3 */
#define NET_TCP 3ull /* bind and connect; ABI 4 */
#define FS_IOCTL_DEV (1ull << 15) /* ABI 5 */
#define SCOPE_ALL 3ull /* abstract unix sockets and signals; ABI 6 */

/** struct landlock_ruleset_attr as of ABI 6. */
struct ruleset {
	uint64_t fs, net, scoped;
};

int confine_process(struct husk_error *err)
{
	struct rlimit no_core = {0, 0};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, "set no_new_privs");
	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_errno(err, "forbid core dumps");
	return 0;
}

int confine_capabilities(struct husk_error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

	/* The kernel knows where its capabilities end: EINVAL. */
	for (unsigned long c = 0; prctl(PR_CAPBSET_DROP, c, 0, 0, 0) == 0; c++)
		;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* they are gone with the permitted ones, too */
	return syscall(SYS_capset, &header, none) < 0 ? error_errno(err, "drop all capabilities") : 0;
}

int confine_files(struct husk_error *err)
{
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return 1;
	struct ruleset handled = {
		.fs = ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) | (abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) |
		      (abi >= 3 ? FS_TRUNCATE : 0) | (abi >= 5 ? FS_IOCTL_DEV : 0),
		.net = abi >= 4 ? NET_TCP : 0,
		.scoped = abi >= 6 ? SCOPE_ALL : 0,
	};
	size_t size = abi >= 6 ? sizeof(handled) : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
	CLEANUP_FD int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, size, 0);
	if (rules < 0)
		return error_errno(err, "make a Landlock ruleset");
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return error_errno(err, "enter the Landlock ruleset");
	return 0;
}

int confine_calls(const struct sock_filter *code, size_t n, struct husk_error *err)
{
	struct sock_fprog program = {.len = (unsigned short)n, .filter = (struct sock_filter *)code};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0)
		return 0;
	return errno == EINVAL ? 1 : error_errno(err, "filter system calls");
}
