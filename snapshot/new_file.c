/* SPDX-License-Identifier: Apache-2.0 */
/* new_file.c - a file that appears under its name whole or not at all, and never in the place of another */
#include "snapshot/new_file.h"

#include "base/path.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int new_file_create(struct new_file *file, const char *path, struct husk_error *err)
{
	struct stat st;

	/* The answer that counts is that of new_file_place(); this one spares the work. */
	if (lstat(path, &st) == 0)
		return error_set(err, -EEXIST, "write %s: there is one already", path);
	CLEANUP_NEW_FILE struct new_file made = {
		.fd = -1,
		.path = strdup(path),
		.partial = path_format("%s.partial-XXXXXX", path),
	};
	if (!made.path || !made.partial)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	made.fd = mkostemp(made.partial, O_CLOEXEC);
	if (made.fd < 0)
		return error_errno(err, "write %s", path);
	*file = made;
	made = (struct new_file)NEW_FILE_NONE;
	return 0;
}

int new_file_sync(struct new_file *file, struct husk_error *err)
{
	return fsync(file->fd) == 0 ? 0 : error_errno(err, "write %s", file->path);
}

/** rename(2) that replaces nothing. */
static int rename_new(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	/* Not every file system can (NFS); a second name replaces nothing either. */
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	if (link(from, to) < 0)
		return -1;
	(void)unlink(from);
	return 0;
}

/** A new name is on disk once its directory is. Not every file system syncs directories: EINVAL says that it keeps them
 *  itself. */
static int sync_directory_of(const char *path, struct husk_error *err)
{
	CLEANUP_FREE char *copy = strdup(path);

	if (!copy)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	CLEANUP_FD int directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 || (fsync(directory) < 0 && errno != EINVAL))
		return error_errno(err, "write %s: sync its directory", path);
	return 0;
}

int new_file_place(struct new_file *file, struct husk_error *err)
{
	if (rename_new(file->partial, file->path) < 0) {
		if (errno == EEXIST)
			return error_set(err, -EEXIST, "write %s: there is one already", file->path);
		return error_errno(err, "write %s", file->path);
	}
	file->placed = true;
	int rc = sync_directory_of(file->path, err);
	if (rc < 0)
		new_file_withdraw(file);
	return rc;
}

void new_file_withdraw(struct new_file *file)
{
	if (!file->placed)
		return;
	(void)unlink(file->path);
	file->placed = false;
	free(steal_pointer(&file->partial)); /* the name is gone already */
}

void new_file_close(struct new_file *file)
{
	int saved = errno;

	if (file->fd >= 0) {
		if (!file->placed && file->partial)
			(void)unlink(file->partial);
		close(file->fd);
	}
	free(file->partial);
	free(file->path);
	*file = (struct new_file)NEW_FILE_NONE;
	errno = saved;
}
