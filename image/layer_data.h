/* SPDX-License-Identifier: Apache-2.0 */
/* layer_data.h - file contents into the data part of a squashfs image; see layer_data.c */
#ifndef IMAGE_LAYER_DATA_H
#define IMAGE_LAYER_DATA_H

#include "image/layer_tree.h"

#include <sqfs/block_processor.h>
#include <sqfs/block_writer.h>
#include <sqfs/compressor.h>
#include <sqfs/frag_table.h>
#include <sqfs/io.h>

#define LAYER_BLOCK (128 << 10)
#define LAYER_HOLES_MAX (UINT64_C(8) << 40) /* bytes of all holes of an image */

/** The image as libsquashfs sees it. start is added to every offset. */
struct layer_file {
	sqfs_file_t base;
	int fd;
	int error; /* errno of the first failure */
	uint64_t start;
	uint64_t size;
};

void layer_file_init(struct layer_file *f, int fd, uint64_t start);

/* A slot is the stored size of one block of 128 KiB as in a squashfs inode (bit 24: stored uncompressed), or, with bit 31,
 * a number of blocks that are holes. */
#define LAYER_SLOT_HOLES 0x80000000u

/** What writes file contents. */
struct layer_data {
	struct layer_file file;
	struct layer_tree *tree;
	sqfs_compressor_t *compressor;
	sqfs_block_writer_t writer;
	sqfs_block_processor_t *processor;
	sqfs_frag_table_t *fragments;
	struct layer_pool slots; /* uint32_t */
	uint64_t holes; /* bytes so far */
	bool abandoned; /* what comes back is dropped */
	uint32_t n_fragments; /* fragment blocks begun */
	uint32_t fragment_fill;
	uint8_t *fragment;
	/* the file that is being written */
	uint32_t inode;
	bool placed; /* its first block was handed on */
	uint32_t fill;
	uint8_t *block;
};

int layer_data_init(struct layer_data *d, struct layer_tree *tree, int fd, struct husk_error *err);
void layer_data_free(struct layer_data *d);

/** One file at a time: begin, its bytes and holes in order, end. */
void layer_data_begin(struct layer_data *d, uint32_t inode);
int layer_data_bytes(struct layer_data *d, const void *bytes, size_t n, struct husk_error *err);
int layer_data_hole(struct layer_data *d, uint64_t n, struct husk_error *err);
int layer_data_end(struct layer_data *d, struct husk_error *err);

/** Wait until all is written; nothing may follow but layer_data_free(). */
int layer_data_finish(struct layer_data *d, struct husk_error *err);

/** What a code of libsquashfs means; @f says more when it was an I/O error. */
int layer_sqfs_error(const struct layer_file *f, int code, struct husk_error *err);

#endif
