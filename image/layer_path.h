/* SPDX-License-Identifier: Apache-2.0 */
/* layer_path.h - from the paths of a tar to places in a tree; see layer_path.c */
#ifndef IMAGE_LAYER_PATH_H
#define IMAGE_LAYER_PATH_H

#include "image/layer_tree.h"

/** A place for a name: its directory and the name, empty for the root itself. */
struct layer_place {
	uint32_t dir;
	size_t n;
	char name[LAYER_NAME_MAX + 1];
};

/** Refuse a path that no layer may have: too long, a component too long, "..", "". 0 or -errno; @what names it. */
int layer_path_check(const char *path, const char *what, struct husk_error *err);

/** Find the place of checked @path below @root. Missing directories are made (implied) when @create; otherwise -ENOENT.
 *  -ENOTDIR, -ELOOP: the path goes through something else. The error is set. */
int layer_path_walk(struct layer_tree *t, uint32_t root, const char *path, bool create, struct layer_place *place,
	struct husk_error *err);

/** Put @inode (no directory) at @place, instead of whatever is there. */
int layer_path_put(struct layer_tree *t, const struct layer_place *place, uint32_t inode, struct husk_error *err);
/** The directory at @place, made if it is not there or something else is; *@inode is it. It loses LAYER_IMPLIED unless
 *  @implied. */
int layer_path_directory(
	struct layer_tree *t, const struct layer_place *place, bool implied, uint32_t *inode, struct husk_error *err);
/** A whiteout at @place, which leaves what this layer itself has there. */
int layer_path_whiteout(struct layer_tree *t, const struct layer_place *place, struct husk_error *err);

#endif
