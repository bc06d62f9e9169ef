/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_data.c - file contents into the data part of a squashfs image
 *
 * Theory of operation: contents are cut into blocks of 128 KiB, compressed by libsquashfs's block processor on its threads
 * and come back, in order, to write_block() on our own thread, which appends them to the image and notes size and place.
 * A file of less than a block is packed with others into a fragment block, which is handed on between two files, because
 * a file's blocks must be adjacent. Larger files end in a short block of their own: a read then never inflates a
 * stranger's bytes.
 *
 * The block processor's own files, fragments and duplicate search are not used: it keeps two allocations per file, its
 * search compares every file with all blocks before it (quadratic) and trusts a 32-bit checksum unless it reads back.
 * Here a block costs four bytes ("slots"), and holes of any length one slot, found by looking at the bytes or told by the
 * tar's sparse map; so a sparse file of terabytes costs nothing until its inode is written. There, every 128 KiB of hole
 * takes four bytes; LAYER_HOLES_MAX bounds what a hostile tar can make of that.
 */
#include "image/layer_data.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "image/layer_lz4.h"

#include <sqfs/block.h>
#include <sqfs/error.h>
#include <sqfs/super.h>
#include <string.h>

#define WORKERS 2
#define BACKLOG 24 /* blocks in flight: 3 MiB */
#define FRAGMENT_USER ((void *)-1)
#define BLOCK_FLAGS (SQFS_BLK_IGNORE_SPARSE | SQFS_BLK_DONT_HASH | SQFS_BLK_DONT_DEDUPLICATE)

int layer_sqfs_error(const struct layer_file *f, int code, struct husk_error *err)
{
	if (f->error) {
		errno = f->error;
		return error_errno(err, "write block image");
	}
	if (code == SQFS_ERROR_ALLOC)
		return error_set(err, -ENOMEM, "out of memory");
	return error_set(err, -EIO, "write block image: libsquashfs says %d", code);
}

static int file_read(sqfs_file_t *base, sqfs_u64 offset, void *buffer, size_t size)
{
	struct layer_file *f = (struct layer_file *)base;
	for (uint8_t *at = buffer; size > 0;) {
		ssize_t n = pread(f->fd, at, size, (off_t)(f->start + offset));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			f->error = n < 0 ? errno : EIO;
			return SQFS_ERROR_IO;
		}
		at += n;
		offset += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

static int file_write(sqfs_file_t *base, sqfs_u64 offset, const void *buffer, size_t size)
{
	struct layer_file *f = (struct layer_file *)base;
	int rc = fd_write_all_at(f->fd, buffer, size, f->start + offset);

	if (rc < 0) {
		f->error = -rc;
		return SQFS_ERROR_IO;
	}
	offset += size;
	if (offset > f->size)
		f->size = offset;
	return 0;
}

static sqfs_u64 file_size(const sqfs_file_t *base)
{
	return ((const struct layer_file *)base)->size;
}

static int file_truncate(sqfs_file_t *base, sqfs_u64 size)
{
	struct layer_file *f = (struct layer_file *)base;
	if (ftruncate(f->fd, (off_t)(f->start + size)) < 0) {
		f->error = errno;
		return SQFS_ERROR_IO;
	}
	f->size = size;
	return 0;
}

static void nothing_to_destroy(sqfs_object_t *object)
{
}

void layer_file_init(struct layer_file *f, int fd, uint64_t start)
{
	*f = (struct layer_file){
		.base = {.base.destroy = nothing_to_destroy,
			.read_at = file_read,
			.write_at = file_write,
			.get_size = file_size,
			.truncate = file_truncate},
		.fd = fd,
		.start = start,
	};
}

/* A block's user pointer: its slot, and the inode whose first block it is (LAYER_NONE otherwise). */
static void *block_user(uint32_t inode, uint32_t slot)
{
	return (void *)((uintptr_t)inode << 32 | slot);
}

/* Called back by the block processor, on the thread that submits, in the order of submission. */
static int write_block(sqfs_block_writer_t *w, void *user, sqfs_u32 size, sqfs_u32 checksum, sqfs_u32 flags,
	const sqfs_u8 *bytes, sqfs_u64 *location)
{
	struct layer_data *d = (struct layer_data *)((char *)w - offsetof(struct layer_data, writer));
	uint32_t stored = flags & SQFS_BLK_IS_COMPRESSED ? size : size | 1 << 24;
	*location = d->file.size;
	if (d->abandoned)
		return 0;
	int r = file_write(&d->file.base, *location, bytes, size);
	if (r < 0)
		return r;
	if (user == FRAGMENT_USER)
		return sqfs_frag_table_append(d->fragments, *location, stored, NULL);
	*(uint32_t *)layer_pool_at(&d->slots, (uint32_t)(uintptr_t)user) = stored;
	uint32_t inode = (uint32_t)((uintptr_t)user >> 32);
	if (inode != LAYER_NONE)
		layer_inode(d->tree, inode)->file.start = *location;
	return 0;
}

static sqfs_u64 count_blocks(const sqfs_block_writer_t *w)
{
	return 0;
}

static int create_processor(struct layer_data *d)
{
	int r = layer_lz4_create(LAYER_BLOCK, &d->compressor);
	if (r < 0)
		return r;
	d->fragments = sqfs_frag_table_create(0);
	d->writer = (sqfs_block_writer_t){
		.base.destroy = nothing_to_destroy, .write_data_block = write_block, .get_block_count = count_blocks};
	const sqfs_block_processor_desc_t desc = {
		.size = sizeof(desc),
		.max_block_size = LAYER_BLOCK,
		.num_workers = WORKERS,
		.max_backlog = BACKLOG,
		.cmp = d->compressor,
		.wr = &d->writer,
	};
	return d->fragments ? sqfs_block_processor_create_ex(&desc, &d->processor) : SQFS_ERROR_ALLOC;
}

int layer_data_init(struct layer_data *d, struct layer_tree *tree, int fd, struct husk_error *err)
{
	*d = (struct layer_data){.tree = tree, .slots.item = sizeof(uint32_t)};
	layer_file_init(&d->file, fd, 0);
	/* The superblock is written last; the compressor's options follow it. */
	d->file.size = sizeof(sqfs_super_t);
	d->block = malloc(LAYER_BLOCK);
	d->fragment = malloc(LAYER_BLOCK);
	int r = d->block && d->fragment ? create_processor(d) : SQFS_ERROR_ALLOC;
	if (r == 0) {
		r = d->compressor->write_options(d->compressor, &d->file.base);
		if (r > 0)
			r = 0;
	}
	return r < 0 ? layer_sqfs_error(&d->file, r, err) : 0;
}

void layer_data_free(struct layer_data *d)
{
	/* Blocks in flight would leak: let them come back, and drop them. */
	d->abandoned = true;
	if (d->processor)
		sqfs_block_processor_sync(d->processor);
	if (d->processor)
		sqfs_destroy(d->processor);
	if (d->fragments)
		sqfs_destroy(d->fragments);
	if (d->compressor)
		sqfs_destroy(d->compressor);
	layer_pool_free(&d->slots);
	free(d->block);
	free(d->fragment);
	*d = (struct layer_data){0};
}

void layer_data_begin(struct layer_data *d, uint32_t inode)
{
	struct layer_inode *i = layer_inode(d->tree, inode);
	d->inode = inode;
	d->placed = false;
	d->fill = 0;
	i->file.slots = d->slots.used;
}

static int add_slot(struct layer_data *d, uint32_t value, uint32_t *slot, struct husk_error *err)
{
	struct layer_inode *i = layer_inode(d->tree, d->inode);
	*slot = layer_pool_add(&d->slots);
	if (*slot == LAYER_NONE)
		return error_set(err, -ENOMEM, "out of memory");
	*(uint32_t *)layer_pool_at(&d->slots, *slot) = value;
	i->file.n_slots++;
	return 0;
}

static int add_holes(struct layer_data *d, uint64_t blocks, struct husk_error *err)
{
	struct layer_inode *i = layer_inode(d->tree, d->inode);
	uint32_t slot, *last = NULL;
	if (i->file.n_slots)
		last = layer_pool_at(&d->slots, i->file.slots + i->file.n_slots - 1);
	/* blocks is at most LAYER_HOLES_MAX / LAYER_BLOCK, so the sum stays below bit 31. */
	if (last && *last & LAYER_SLOT_HOLES) {
		*last += (uint32_t)blocks;
		return 0;
	}
	return add_slot(d, LAYER_SLOT_HOLES | (uint32_t)blocks, &slot, err);
}

static int count_hole(struct layer_data *d, uint64_t n, struct husk_error *err)
{
	if (n > LAYER_HOLES_MAX - d->holes)
		return error_set(err, -EFBIG, "more than %llu TiB of holes in sparse files",
			(unsigned long long)(LAYER_HOLES_MAX >> 40));
	d->holes += n;
	return 0;
}

static int submit_block(struct layer_data *d, const uint8_t *bytes, size_t n, struct husk_error *err)
{
	uint32_t slot;
	if (bytes_are_zero(bytes, n)) {
		int r = count_hole(d, n, err);
		return r < 0 ? r : add_holes(d, 1, err);
	}
	int r = add_slot(d, 0, &slot, err);
	if (r < 0)
		return r;
	void *user = block_user(d->placed ? LAYER_NONE : d->inode, slot);
	d->placed = true;
	r = sqfs_block_processor_submit_block(d->processor, user, BLOCK_FLAGS, bytes, n);
	return r < 0 ? layer_sqfs_error(&d->file, r, err) : 0;
}

int layer_data_bytes(struct layer_data *d, const void *bytes, size_t n, struct husk_error *err)
{
	layer_inode(d->tree, d->inode)->file.size += n;
	for (const uint8_t *at = bytes; n > 0;) {
		if (d->fill == 0 && n >= LAYER_BLOCK) {
			int r = submit_block(d, at, LAYER_BLOCK, err);
			if (r < 0)
				return r;
			at += LAYER_BLOCK;
			n -= LAYER_BLOCK;
			continue;
		}
		size_t take = LAYER_BLOCK - d->fill < n ? LAYER_BLOCK - d->fill : n;
		memcpy(d->block + d->fill, at, take);
		d->fill += (uint32_t)take;
		at += take;
		n -= take;
		if (d->fill < LAYER_BLOCK)
			continue;
		d->fill = 0;
		int r = submit_block(d, d->block, LAYER_BLOCK, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int layer_data_hole(struct layer_data *d, uint64_t n, struct husk_error *err)
{
	static const uint8_t zeros[4096];
	int r = 0;
	/* To the end of the block under way, */
	while (r == 0 && n > 0 && d->fill > 0) {
		size_t take = LAYER_BLOCK - d->fill;
		take = take < sizeof(zeros) ? take : sizeof(zeros);
		take = take < n ? take : (size_t)n;
		r = layer_data_bytes(d, zeros, take, err);
		n -= take;
	}
	/* then whole blocks, */
	uint64_t whole = n / LAYER_BLOCK;
	if (r == 0 && whole > 0) {
		r = count_hole(d, whole * LAYER_BLOCK, err);
		if (r == 0)
			r = add_holes(d, whole, err);
		layer_inode(d->tree, d->inode)->file.size += whole * LAYER_BLOCK;
		n -= whole * LAYER_BLOCK;
	}
	/* then into the next one. */
	while (r == 0 && n > 0) {
		size_t take = n < sizeof(zeros) ? (size_t)n : sizeof(zeros);
		r = layer_data_bytes(d, zeros, take, err);
		n -= take;
	}
	return r;
}

static int flush_fragment(struct layer_data *d, struct husk_error *err)
{
	if (d->fragment_fill == 0)
		return 0;
	int r = sqfs_block_processor_submit_block(
		d->processor, FRAGMENT_USER, BLOCK_FLAGS | SQFS_BLK_FRAGMENT_BLOCK, d->fragment, d->fragment_fill);
	d->fragment_fill = 0;
	return r < 0 ? layer_sqfs_error(&d->file, r, err) : 0;
}

int layer_data_end(struct layer_data *d, struct husk_error *err)
{
	struct layer_inode *i = layer_inode(d->tree, d->inode);
	uint32_t n = d->fill;
	if (n == 0)
		return 0;
	d->fill = 0;
	if (i->file.n_slots > 0 || bytes_are_zero(d->block, n))
		return submit_block(d, d->block, n, err);
	if (d->fragment_fill + n > LAYER_BLOCK) {
		int r = flush_fragment(d, err);
		if (r < 0)
			return r;
	}
	if (d->fragment_fill == 0)
		d->n_fragments++;
	i->file.fragment = d->n_fragments - 1;
	i->file.fragment_offset = d->fragment_fill;
	memcpy(d->fragment + d->fragment_fill, d->block, n);
	d->fragment_fill += n;
	return 0;
}

int layer_data_finish(struct layer_data *d, struct husk_error *err)
{
	int r = flush_fragment(d, err);
	if (r < 0)
		return r;
	r = sqfs_block_processor_finish(d->processor);
	if (r < 0)
		return layer_sqfs_error(&d->file, r, err);
	sqfs_destroy(d->processor);
	d->processor = NULL;
	return 0;
}
