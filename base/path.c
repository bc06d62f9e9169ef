/* SPDX-License-Identifier: Apache-2.0 */
/* path.c - paths, directories and files that appear whole or not at all */
#include "base/path.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

char *path_format(const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, format);
	if (vasprintf(&text, format, ap) < 0)
		text = NULL;
	va_end(ap);
	return text;
}

char *path_join(const char *a, const char *b)
{
	size_t n = strlen(a);
	return path_format("%s%s%s", a, n && a[n - 1] == '/' ? "" : "/", b);
}

/** mkdir(2), fine when @path is a directory already; ENOTDIR when it is something else. */
static int make_directory(const char *path, mode_t mode)
{
	struct stat st;
	if (mkdir(path, mode) == 0)
		return 0;
	int failed = errno;
	bool there = stat(path, &st) == 0;
	if (there && S_ISDIR(st.st_mode))
		return 0;
	errno = there ? ENOTDIR : failed;
	return -1;
}

int path_make_directories(const char *path, mode_t mode, struct husk_error *err)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return error_set(err, -ENOMEM, "make directory %s: out of memory", path);
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (make_directory(copy, 0755) < 0)
			return error_errno(err, "make directory %s", copy);
		*slash = '/';
	}
	if (make_directory(copy, mode) < 0)
		return error_errno(err, "make directory %s", copy);
	return 0;
}

static int sync_parent(const char *path, struct husk_error *err)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return error_set(err, -ENOMEM, "sync the directory of %s: out of memory", path);
	CLEANUP_FD int dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fsync(dir) < 0)
		return error_errno(err, "sync the directory of %s", path);
	return 0;
}

int path_write_atomically(const char *path, const void *bytes, size_t n, mode_t mode, struct husk_error *err)
{
	CLEANUP_FREE char *temporary = path_format("%s.XXXXXX", path);
	if (!temporary)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	CLEANUP_FD int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "write %s", path);
	int rc = fd_write_all(fd, bytes, n);
	if (rc < 0)
		errno = -rc;
	if (rc < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
		rc = error_errno(err, "write %s", path);
		unlink(temporary);
		return rc;
	}
	return sync_parent(path, err);
}

/** Remove @name below the directory @parent; @device is the file system that must not be left. */
static int remove_below(int parent, const char *name, dev_t device)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	CLEANUP_FD int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_dev != device)
		return -EXDEV;
	CLEANUP_DIR DIR *dir = fdopendir(fd);
	if (!dir)
		return -errno;
	int at = steal_fd(&fd);
	for (;;) {
		errno = 0;
		struct dirent *entry = readdir(dir);
		if (!entry) {
			if (errno)
				return -errno;
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		int rc = remove_below(at, entry->d_name, device);
		if (rc < 0)
			return rc;
	}
	return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

int path_remove_tree(const char *path, struct husk_error *err)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : error_errno(err, "remove %s", path);
	int rc = remove_below(AT_FDCWD, path, st.st_dev);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "remove %s", path);
	}
	return 0;
}
