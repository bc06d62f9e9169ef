/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modules.c - kernel modules
 *
 * Theory of operation: whoever made the initramfs has computed the closure and the order, so that the guest needs no
 * modules.dep: each file goes to finit_module(2) as it lies there. The files are removed afterwards, their pages are guest
 * RAM.
 *
 * A module takes milliseconds. Those that nobody waits for are loaded by a child that steps back behind the agent and its
 * programs, and that goes on when one of them fails.
 */
#include "guest/modules.h"

#include "base/cleanup.h"
#include "guest/console.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LATE_NICE 10

static int load(int dir, const char *name, struct husk_error *err)
{
	CLEANUP_FD int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		return error_errno(err, "load module %s", name);
	unlinkat(dir, name, 0);
	return 0;
}

int modules_load(const char *dir, char *const *names, size_t n, struct husk_error *err)
{
	CLEANUP_FD int at = n ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int rc = n && at < 0 ? error_errno(err, "open %s", dir) : 0;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = load(at, names[i], err);
	return rc;
}

pid_t modules_load_later(const char *dir, char *const *names, size_t n)
{
	pid_t pid = n ? fork() : -1;
	if (pid != 0)
		return pid;
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0); /* the agent's connections end when it closes them */
	setpriority(PRIO_PROCESS, 0, LATE_NICE);
	int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < n; i++) {
		struct husk_error err;
		if (load(at, names[i], &err) < 0)
			console_say("%s", err.message);
	}
	_exit(0);
}
