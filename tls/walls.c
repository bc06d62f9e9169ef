/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walls.c - husk-tls gives up what it does not need
 *
 * Theory of operation: whoever takes this process over through OpenSSL finds the keys it serves with, its clients'
 * connections and the door into its VM, and shall find nothing else:
 *
 *     no_new_privs, no capabilities      also when husk is run by root
 *     not dumpable, no core              the key reaches no file, and no other process of this user may read its memory
 *     Landlock, an empty ruleset         no file or directory can be opened, made, removed or executed; no TCP connection
 *                                        made; no process signalled, no abstract socket of another reached
 *     a filter of system calls           only those of the table below; whatever else fails with EPERM
 *
 * Connecting to a unix socket by its path is not an access that Landlock knows at these versions, which is why the door
 * can still be entered; the working directory is the one that holds it.
 */
#include "tls/walls.h"

#include "base/cleanup.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

static int drop_rights(struct husk_error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
	struct rlimit no_core = {0, 0};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, "set no_new_privs");
	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_errno(err, "forbid core dumps");
	if (syscall(SYS_capset, &header, none) < 0)
		return error_errno(err, "drop all capabilities");
	return 0;
}

/** Refuse everything that Landlock of this kernel knows; fine when it has none. */
static int deny_files(struct husk_error *err)
{
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return 0;
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

int walls_build(struct husk_error *err)
{
	int rc = drop_rights(err);
	if (rc == 0)
		rc = deny_files(err);
	return rc;
}
