/* SPDX-License-Identifier: Apache-2.0 */
/* tree.h - trees of files between host and guest: the host's end of each way */
#ifndef ENGINE_TREE_H
#define ENGINE_TREE_H

#include "engine/tree_link.h"

#include <stdbool.h>
#include <sys/stat.h>

/** openat2(2) that follows no link and leads nowhere but beneath @dir: the descriptor or -errno. */
int tree_open_beneath(int dir, const char *name, uint64_t flags, uint32_t mode);

/** Open what is at @from, a link itself unless @follow. *@fd is owned by the caller. */
int tree_open_source(const char *from, bool follow, int *fd, struct stat *st, struct husk_error *err);
/** Send it over @link, which has asked PUT, and wait until the guest has it. @from is for messages. */
int tree_send(struct tree_link *link, int fd, const struct stat *st, const char *from, struct husk_error *err);

/** Where a tree that comes is to be written.
 *  path: of the host
 *  name: the root's own, by which it goes into a directory at path; NULL: what is in the root goes into path
 *  archive: keep owners, where we may */
struct tree_target {
	const char *path;
	const char *name;
	bool archive;
};

/** Write what comes over @link, which has asked GET. Nothing is written but at the target, and beneath it. */
int tree_receive(struct tree_link *link, const struct tree_target *target, struct husk_error *err);

#endif
