/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h - the guest kernels of a home: fetched from the distribution, or tuned and built here; chosen at start
 *
 * HOME/kernels/<id>/ holds one kernel, whole or not there at all:
 *
 *     image      what the machine loads: an uncompressed ELF with a PVH entry where there is one (it saves the guest the
 *                decompression), else the package's own bzImage
 *     bzimage    the same kernel as bzImage
 *     modules/   the modules a guest needs, flat and uncompressed; none for a tuned kernel
 *     load       their file names, one a line, dependencies first
 *     wanted     of a fetched kernel: for which names they were collected; another list makes it count as absent
 *     config     a tuned kernel's configuration
 *
 * The id of a fetched kernel is the package's name and version, so a newer package is another kernel. A tuned one's begins
 * with "husk-" and ends with a digest of all that it was made from (kernel_recipe.h), so another recipe is another kernel.
 */
#ifndef ENGINE_KERNEL_H
#define ENGINE_KERNEL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

/** A kernel of the store; owned, free with kernel_free(). */
struct kernel {
	char *id;
	char *directory; /* absolute */
	char *image; /* absolute path of what the machine loads */
	char **modules; /* file names below directory/modules, in load order, NULL-terminated */
};

/** Fetch the newest package of Debian's cloud kernel with apt, unpack it without installing anything, and keep what a guest
 *  needs. Fine and quick when it is there already. Lines of progress go to @progress_fd (-1: none). *@id: malloc'ed, may be
 *  NULL. Errors name the tool, what it said, and what to install. */
int kernel_fetch(const char *home, int progress_fd, char **id, struct husk_error *err);

/** Build the tuned kernel from the distribution's source package with husk's configuration fragment and, where @more is not
 *  NULL, the lines of that file behind it. Takes about ten minutes on two processors; quick when that very kernel is there.
 *  @progress_fd and @id as above. -ENOENT: tools are missing, with the line that installs them; -ENOSPC; -EINVAL: an
 *  option that the source does not have; -EIO: what the compiler said, and where the log lies. */
int kernel_build(const char *home, const char *more, int progress_fd, char **id, struct husk_error *err);

/** One kernel in a list; @used: what a VM boots that names none, @why: a sentence, static. */
struct kernel_entry {
	char *id;
	struct timespec made;
	bool tuned, used;
	const char *why;
};

/** All kernels of @home, newest first. *@list is malloc'ed (NULL when there are none), free with kernel_list_free(). */
int kernel_list(const char *home, struct kernel_entry **list, size_t *n, struct husk_error *err);
void kernel_list_free(struct kernel_entry *list, size_t n);

/** The position of what @wanted means in @list, -1 for nothing. NULL: the newest tuned kernel, else the newest. Otherwise
 *  the kernel of that id, else the newest whose id begins so ("linux", "husk"). */
ptrdiff_t kernel_pick(const struct kernel_entry *list, size_t n, const char *wanted);

/** The id of the kernel that @wanted means, malloc'ed. -ENOENT with what to do. */
int kernel_choose(const char *home, const char *wanted, char **id, struct husk_error *err);
bool kernel_is_tuned(const char *id);
/** Is the kernel @id of the directory @kernels there, with the modules that this husk's guests use? */
bool kernel_is_current(const char *kernels, const char *id);

/** The kernel that @wanted means, as in kernel_pick(). -ENOENT with what to do when there is none. */
int kernel_find(const char *home, const char *wanted, struct kernel *out, struct husk_error *err);
void kernel_free(struct kernel *kernel);

/** Unpack the ELF kernel inside the bzImage @from to the file @to, with the tool of its compression.
 *  -ENOTSUP: not a bzImage, an unknown compression, no tool, or no PVH entry in what came out. */
int kernel_image_unpack(const char *from, const char *to, struct husk_error *err);
/** 0 when the file is an ELF kernel with a PVH entry, -ENOTSUP otherwise. */
int kernel_image_check(const char *path, struct husk_error *err);

#endif
