/* SPDX-License-Identifier: Apache-2.0 */
/* enter.c - the second and third stage, for the worker (theory of operation: jail.h) */
#include "base/cleanup.h"
#include "base/confine.h"
#include "vmm/jail/root.h"
#include "vmm/jail/strip.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

int jail_keep(const int *fds, size_t n, int runtime_fd, struct husk_error *err)
{
	CLEANUP_FREE int *kept = calloc(n + 1, sizeof(int));
	struct stat st;
	int from = 3;

	if (!kept)
		return error_set(err, -ENOMEM, "close what is not needed: out of memory");
	for (size_t i = 0; i < n; i++) {
		kept[i] = fds[i];
		if (fds[i] != runtime_fd && fstat(fds[i], &st) == 0 && S_ISDIR(st.st_mode))
			return error_set(err, -EISDIR, "descriptor %d is a directory outside of the jail", fds[i]);
	}
	qsort(kept, n, sizeof(int), compare);
	for (size_t i = 0; i < n; i++) {
		if (kept[i] > from && syscall(SYS_close_range, from, kept[i] - 1, 0) < 0)
			return error_errno(err, "close what is not needed");
		from = kept[i] >= from ? kept[i] + 1 : from;
	}
	return syscall(SYS_close_range, from, ~0U, 0) < 0 ? error_errno(err, "close what is not needed") : 0;
}

int jail_enter(const struct jail *jail, struct husk_error *err)
{
	int rc;

	if (jail->walls & JAIL_ROOT)
		rc = root_enter(jail->runtime_fd, err);
	else /* without namespaces root can still do this, and the files are Landlock's otherwise */
		rc = fchdir(jail->runtime_fd) < 0 || (chroot(".") < 0 && errno != EPERM)
			     ? error_errno(err, "enter the VM's runtime directory")
			     : 0;
	close(jail->runtime_fd);
	rc = rc < 0 ? rc : strip(jail, err);
	rc = rc < 0 ? rc : confine_files(err);
	return rc < 0 ? error_prefix(err, rc, "build the worker's shell") : 0;
}
