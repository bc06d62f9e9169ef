/* SPDX-License-Identifier: Apache-2.0 */
/* layer_writer.h - what layer_squashfs.c and layer_inodes.c share */
#ifndef IMAGE_LAYER_WRITER_H
#define IMAGE_LAYER_WRITER_H

#include "image/layer_squashfs.h"

#include <sqfs/meta_writer.h>
#include <sqfs/super.h>

/** One index entry of a large directory: where in the listing a header starts a new metadata block. */
struct index_entry {
	uint32_t offset; /* in the listing */
	uint32_t block; /* metadata block, from the table's start */
	uint32_t name; /* text */
};

/** An image being completed. */
struct writer {
	struct layer_data *d;
	struct layer_tree *t;
	struct husk_error *err;
	uint32_t root;
	uint32_t *dirs; /* inodes, breadth first */
	uint32_t n_dirs;
	uint32_t *children; /* dentries of one directory, sorted */
	uint32_t children_room;
	struct index_entry *index;
	uint32_t n_index, index_room;
	uint32_t inode_count;
	uint64_t entries;
	uint64_t inode_bytes; /* upper bound of the inode table */
	struct layer_file dir_file;
	sqfs_meta_writer_t *inodes, *listings;
	sqfs_super_t super;
};

static inline int writer_no_memory(struct writer *w)
{
	return error_set(w->err, -ENOMEM, "out of memory");
}

static inline int writer_check(struct writer *w, int code)
{
	return code < 0 ? layer_sqfs_error(w->dir_file.error ? &w->dir_file : &w->d->file, code, w->err) : 0;
}

/** Write an inode that is no directory. */
int writer_put_inode(struct writer *w, struct layer_inode *i);
/** Write the listing of the @n sorted w->children, all of which are written; its place and bytes, and w->index. */
int writer_put_listing(struct writer *w, uint32_t n, uint64_t *place, uint64_t *size);
/** Write the inode of the directory whose listing was just written. */
int writer_put_dir(struct writer *w, struct layer_inode *i, uint32_t parent, uint64_t place, uint64_t size);

#endif
