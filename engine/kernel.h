/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h - the guest kernels of a home: fetched from the distribution's packages, found at start
 *
 * HOME/kernels/<id>/ holds one kernel, whole or not there at all:
 *
 *     image      what the machine loads: an uncompressed ELF with a PVH entry where the package's could be unpacked (it
 *                saves the guest the decompression), else the package's own bzImage
 *     bzimage    the package's own
 *     modules/   the modules a guest needs, flat and uncompressed
 *     load       their file names, one a line, dependencies first
 *
 * The id is the package's name and version, so a newer package is another kernel.
 */
#ifndef ENGINE_KERNEL_H
#define ENGINE_KERNEL_H

#include "base/error.h"

#include <stddef.h>

/** A fetched kernel; owned, free with kernel_free(). */
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

/** The kernel @id, or the newest fetched one for NULL. -ENOENT with what to do when there is none. */
int kernel_find(const char *home, const char *id, struct kernel *out, struct husk_error *err);
void kernel_free(struct kernel *kernel);

/** Unpack the ELF kernel inside the bzImage @from to the file @to, with the tool of its compression.
 *  -ENOTSUP: not a bzImage, an unknown compression, no tool, or no PVH entry in what came out. */
int kernel_image_unpack(const char *from, const char *to, struct husk_error *err);

#endif
