/* SPDX-License-Identifier: Apache-2.0 */
/* layer_squashfs.h - a tree's inodes, directories and tables into a squashfs image; see layer_squashfs.c */
#ifndef IMAGE_LAYER_SQUASHFS_H
#define IMAGE_LAYER_SQUASHFS_H

#include "image/layer_data.h"

/** What the written image is. */
struct layer_squashfs_result {
	uint64_t size; /* bytes, a multiple of 4096 */
	uint64_t entries; /* names, the root not among them */
};

/** Behind the contents that @d has written, write everything else: the tree below @root. Pending hard links are left out.
 *  Ends @d's work. -ESTALE: a file below @root is LAYER_SKIPPED. */
int layer_squashfs_write(
	struct layer_data *d, uint32_t root, struct layer_squashfs_result *result, struct husk_error *err);

#endif
