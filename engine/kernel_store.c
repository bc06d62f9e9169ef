/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_store.c - how a kernel gets into HOME/kernels
 *
 * Theory of Operation: each kind of maker has a lock and a temporary directory of its own, so that a fetch of seconds does not
 * wait for a build of minutes. A kernel is renamed into place last; a crash leaves a temporary directory, which the next
 * maker of that kind removes, since it holds the lock.
 */
#include "engine/kernel_store.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>

#define TEXT_MAX (64u << 20)

void kernel_store_progress(const struct kernel_store *store, const char *format, ...)
{
	CLEANUP_FREE char *text = NULL;
	va_list args;
	va_start(args, format);
	int n = store->progress_fd >= 0 ? vasprintf(&text, format, args) : -1;
	va_end(args);
	if (n < 0)
		text = NULL;
	else
		dprintf(store->progress_fd, "kernel: %s\n", text);
}

static int take_lock(struct kernel_store *store, const char *path, const char *kind, struct husk_error *err)
{
	store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (store->lock < 0)
		return error_errno(err, "open %s", path);
	if (flock(store->lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	kernel_store_progress(store, "waiting for another %s in %s", kind, store->kernels);
	while (flock(store->lock, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_errno(err, "lock %s", path);
	return 0;
}

int kernel_store_begin(struct kernel_store *store, const char *home, const char *kind, struct husk_error *err)
{
	store->kernels = path_join(home, "kernels");
	store->work = path_format("%s/kernels/.%s", home, kind);
	CLEANUP_FREE char *lock = path_format("%s/kernels/.%s.lock", home, kind);
	if (!store->kernels || !store->work || !lock)
		return error_set(err, -ENOMEM, "%s a kernel: out of memory", kind);
	int rc = path_make_directories(store->kernels, 0755, err);
	rc = rc < 0 ? rc : take_lock(store, lock, kind, err);
	rc = rc < 0 ? rc : path_remove_tree(store->work, err);
	return rc < 0 ? rc : path_make_directories(store->work, 0755, err);
}

int kernel_store_commit(struct kernel_store *store, const char *assembled, const char *id, struct husk_error *err)
{
	CLEANUP_FREE char *target = path_join(store->kernels, id);
	if (!target)
		return error_set(err, -ENOMEM, "keep kernel %s: out of memory", id);
	sync();
	if (rename(assembled, target) < 0)
		return error_errno(err, "move the kernel to %s", target);
	return 0;
}

void kernel_store_end(struct kernel_store *store)
{
	if (store->work && store->lock >= 0)
		path_remove_tree(store->work, NULL);
	if (store->lock >= 0)
		close(store->lock);
	free(store->kernels);
	free(store->work);
	*store = KERNEL_STORE_INIT(-1);
}

int kernel_store_read(const char *path, struct buffer *b, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : fd_read_to_end(fd, b, TEXT_MAX);
	if (rc == 0)
		rc = buffer_append(b, "", 1);
	return rc < 0 ? error_set(err, rc, "read %s: %s", path, strerror(-rc)) : 0;
}
