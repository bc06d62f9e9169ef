/* SPDX-License-Identifier: Apache-2.0 */
/* layer_tar.h - one layer's tar into a tree, its contents into the image; see layer_tar.c */
#ifndef IMAGE_LAYER_TAR_H
#define IMAGE_LAYER_TAR_H

#include "image/layer_data.h"
#include "image/layer_path.h"
#include "image/layer_stream.h"

/** What a layer's tar needs and gives. */
struct layer_tar {
	struct layer_tree *tree;
	struct layer_data *data;
	uint32_t root;
	/** Is the file at @place hidden by layers above, so that its contents need not be stored? NULL: never. */
	bool (*hidden)(void *data, const struct layer_place *place);
	void *hidden_data;
	uint64_t dropped_acls; /* out */
	uint64_t entries; /* out: of the tar */
};

/** Read all of @stream, the layer of @name (for messages). */
int layer_tar_read(struct layer_tar *tar, struct layer_stream *stream, const char *name, struct husk_error *err);

/** Does anything below @root say something only together with the layers below (layer.h, needs_lower)? */
bool layer_tree_needs_lower(const struct layer_tree *t, uint32_t root);

/** May squashfs and overlayfs have the extended attribute @name; *@acl is counted up when it is an ACL that is lost. */
bool layer_xattr_wanted(const char *name, bool *acl);

/** The squashfs (and Linux, new_encode_dev) form of a device number; -EINVAL when it does not fit. */
int layer_device(uint64_t major, uint64_t minor, uint32_t *device, struct husk_error *err);

#endif
