/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modules.c - kernel modules
 *
 * Theory of operation: whoever made the initramfs has computed the closure and the order, so that the guest needs no
 * modules.dep: each file goes to finit_module(2) as it lies there. The files are removed afterwards, their pages are guest
 * RAM.
 */
#include "guest/modules.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int modules_load(const char *dir, char *const *names, size_t n, struct husk_error *err)
{
	CLEANUP_FD int at = n ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (n && at < 0)
		return error_errno(err, "open %s", dir);
	for (size_t i = 0; i < n; i++) {
		CLEANUP_FD int fd = openat(at, names[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			return error_errno(err, "load module %s", names[i]);
		unlinkat(at, names[i], 0);
	}
	return 0;
}
