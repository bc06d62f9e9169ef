/* SPDX-License-Identifier: Apache-2.0 */
/*
 * new_file.h - a file that appears under its name whole or not at all, and never in the place of another
 *
 * Theory of operation: it is written beside its place, as NAME.partial-XXXXXX, readable by its owner only, and given its
 * name once its bytes are on disk. A crash leaves the partial file, which nothing ever opens and anybody may remove
 * (NAME.partial-*). What was placed can be withdrawn, for files that belong together: the first one goes again when the
 * second cannot be placed.
 */
#ifndef SNAPSHOT_NEW_FILE_H
#define SNAPSHOT_NEW_FILE_H

#include "base/cleanup.h"
#include "base/error.h"

#include <stdbool.h>

/** Zeroed and with fd -1 (NEW_FILE_NONE) it is none. */
struct new_file {
	int fd; /* for writing and reading; owned */
	char *path; /* its name once it is whole */
	char *partial; /* its name until then */
	bool placed;
};

#define NEW_FILE_NONE                                                                                                  \
	{                                                                                                              \
		.fd = -1                                                                                               \
	}

/** Begin the file that will be @path. -EEXIST: there is something already; others are those of open(2). */
int new_file_create(struct new_file *file, const char *path, struct husk_error *err);
/** Its bytes to disk. */
int new_file_sync(struct new_file *file, struct husk_error *err);
/** Give it its name, which is on disk as well when this returns. -EEXIST: somebody else was faster. It has to have been
 *  synced. */
int new_file_place(struct new_file *file, struct husk_error *err);
/** Remove it again from where it was placed. */
void new_file_withdraw(struct new_file *file);
/** Let go of it; one that was not placed is removed. */
void new_file_close(struct new_file *file);

#define CLEANUP_NEW_FILE CLEANUP(new_file_close)

#endif
