/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_inodes.c - inodes and directory listings in squashfs's form
 *
 * Theory of operation: an inode has a basic form and an extended one, which is taken only when something does not fit the
 * basic one (more than one link, attributes, holes, 64-bit sizes). A listing is a row of groups; a group's entries share
 * the metadata block of their inodes and are numbered relative to its first. Large directories have an index in their
 * inode: for every metadata block of the listing the first name that begins a group there, so that a lookup reads one or
 * two blocks. All layouts: Linux, fs/squashfs/squashfs_fs.h.
 */
#include "image/layer_writer.h"

#include "base/bytes.h"

#include <sqfs/block.h>
#include <sqfs/dir.h>
#include <sqfs/inode.h>
#include <stdlib.h>
#include <string.h>

#define DIR_INDEX_MAX 65535

static int put(struct writer *w, const void *bytes, size_t n)
{
	return writer_check(w, sqfs_meta_writer_append(w->inodes, bytes, n));
}

/* The common head of all inodes; remembers the place. */
static int put_head(struct writer *w, struct layer_inode *i, uint16_t type)
{
	uint64_t block;
	uint32_t offset;
	sqfs_meta_writer_get_position(w->inodes, &block, &offset);
	if (block > UINT32_MAX)
		return error_set(w->err, -EFBIG, "the inode table is larger than squashfs can say");
	i->place = block << 16 | offset;
	const sqfs_inode_t head = {
		.type = htole16(type),
		.mode = htole16(i->mode & 07777),
		.uid_idx = htole16(i->uid),
		.gid_idx = htole16(i->gid),
		.mod_time = htole32(i->mtime),
		.inode_number = htole32(i->number),
	};
	return put(w, &head, sizeof(head));
}

static int put_slots(struct writer *w, const struct layer_inode *i)
{
	static const uint8_t holes[4096];
	for (uint32_t s = 0; s < i->file.n_slots; s++) {
		uint32_t slot = *(uint32_t *)layer_pool_at(&w->d->slots, i->file.slots + s);
		int r = 0;
		if (!(slot & LAYER_SLOT_HOLES)) {
			slot = htole32(slot);
			r = put(w, &slot, sizeof(slot));
		} else {
			for (size_t n = 4 * (size_t)(slot & ~LAYER_SLOT_HOLES); r == 0 && n > 0;) {
				size_t take = n < sizeof(holes) ? n : sizeof(holes);
				r = put(w, holes, take);
				n -= take;
			}
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* Bytes of a file that are in holes. */
static uint64_t sparse_bytes(struct writer *w, const struct layer_inode *i)
{
	uint64_t blocks = 0, last = 0;
	for (uint32_t s = 0; s < i->file.n_slots; s++) {
		uint32_t slot = *(uint32_t *)layer_pool_at(&w->d->slots, i->file.slots + s);
		last = slot & LAYER_SLOT_HOLES;
		blocks += last ? slot & ~LAYER_SLOT_HOLES : 0;
	}
	uint64_t bytes = blocks * LAYER_BLOCK;
	uint64_t tail = i->file.size % LAYER_BLOCK;
	return last && tail ? bytes - (LAYER_BLOCK - tail) : bytes;
}

static int put_file(struct writer *w, struct layer_inode *i)
{
	uint64_t sparse = sparse_bytes(w, i);
	bool fits = i->file.size <= UINT32_MAX && i->file.start <= UINT32_MAX;
	int r;
	if (fits && i->links == 1 && i->xattr == LAYER_NONE && sparse == 0) {
		const sqfs_inode_file_t file = {
			.blocks_start = htole32((uint32_t)i->file.start),
			.fragment_index = htole32(i->file.fragment),
			.fragment_offset = htole32(i->file.fragment_offset),
			.file_size = htole32((uint32_t)i->file.size),
		};
		r = put_head(w, i, SQFS_INODE_FILE);
		if (r == 0)
			r = put(w, &file, sizeof(file));
	} else {
		const sqfs_inode_file_ext_t file = {
			.blocks_start = htole64(i->file.start),
			.file_size = htole64(i->file.size),
			.sparse = htole64(sparse),
			.nlink = htole32(i->links),
			.fragment_idx = htole32(i->file.fragment),
			.fragment_offset = htole32(i->file.fragment_offset),
			.xattr_idx = htole32(i->xattr),
		};
		r = put_head(w, i, SQFS_INODE_EXT_FILE);
		if (r == 0)
			r = put(w, &file, sizeof(file));
	}
	return r < 0 ? r : put_slots(w, i);
}

static int put_symlink(struct writer *w, struct layer_inode *i)
{
	size_t n;
	const char *target = layer_tree_text_at(w->t, i->symlink.target, &n);
	bool ext = i->xattr != LAYER_NONE;
	const sqfs_inode_slink_t link = {.nlink = htole32(i->links), .target_size = htole32((uint32_t)n)};
	const uint32_t xattr = htole32(i->xattr);
	int r = put_head(w, i, ext ? SQFS_INODE_EXT_SLINK : SQFS_INODE_SLINK);
	if (r == 0)
		r = put(w, &link, sizeof(link));
	if (r == 0)
		r = put(w, target, n);
	return r == 0 && ext ? put(w, &xattr, sizeof(xattr)) : r;
}

/* Devices, fifos and sockets: links, a device number if it is one, attributes if there are any. */
static int put_special(struct writer *w, struct layer_inode *i)
{
	bool device = layer_is(i, S_IFBLK) || layer_is(i, S_IFCHR), ext = i->xattr != LAYER_NONE;
	uint16_t type = layer_is(i, S_IFBLK)   ? SQFS_INODE_BDEV
			: layer_is(i, S_IFCHR) ? SQFS_INODE_CDEV
			: layer_is(i, S_IFIFO) ? SQFS_INODE_FIFO
					       : SQFS_INODE_SOCKET;
	uint32_t words[3] = {htole32(i->links)};
	size_t n = 1;
	if (device)
		words[n++] = htole32(i->device);
	if (ext)
		words[n++] = htole32(i->xattr);
	/* The extended types follow the basic ones in the same order. */
	int r = put_head(w, i, ext ? type + (SQFS_INODE_EXT_DIR - SQFS_INODE_DIR) : type);
	return r < 0 ? r : put(w, words, n * sizeof(words[0]));
}

int writer_put_inode(struct writer *w, struct layer_inode *i)
{
	if (layer_is(i, S_IFREG))
		return put_file(w, i);
	return layer_is(i, S_IFLNK) ? put_symlink(w, i) : put_special(w, i);
}

static int add_index(struct writer *w, uint32_t offset, uint64_t block, uint32_t name)
{
	if (w->n_index == DIR_INDEX_MAX)
		return 0; /* lookups behind it read on from the last one */
	if (w->n_index == w->index_room) {
		uint32_t room = w->index_room ? 2 * w->index_room : 256;
		struct index_entry *more = realloc(w->index, room * sizeof(*more));
		if (!more)
			return writer_no_memory(w);
		w->index = more;
		w->index_room = room;
	}
	w->index[w->n_index++] = (struct index_entry){.offset = offset, .block = (uint32_t)block, .name = name};
	return 0;
}

/* How many of the children from @at on can share a header: inodes in one metadata block, numbers within 15 bits, at most
 * 256 and about a block of listing, so that an index entry is never far. */
static uint32_t group_size(struct writer *w, uint32_t at, uint32_t n)
{
	const struct layer_inode *first = layer_inode(w->t, layer_dentry(w->t, w->children[at])->inode);
	size_t bytes = 0;
	uint32_t count = 0;
	for (; at + count < n && count < SQFS_MAX_DIR_ENT; count++) {
		const struct layer_dentry *d = layer_dentry(w->t, w->children[at + count]);
		const struct layer_inode *i = layer_inode(w->t, d->inode);
		int64_t diff = (int64_t)i->number - first->number;
		size_t name_n;
		layer_tree_text_at(w->t, d->name, &name_n);
		bytes += sizeof(sqfs_dir_entry_t) + name_n;
		if (i->place >> 16 != first->place >> 16 || diff > 32767 || diff < -32767)
			break;
		if (count > 0 && bytes > SQFS_META_BLOCK_SIZE - sizeof(sqfs_dir_header_t))
			break;
	}
	return count;
}

static uint16_t entry_type(const struct layer_inode *i)
{
	switch (i->mode & S_IFMT) {
	case S_IFDIR:
		return SQFS_INODE_DIR;
	case S_IFREG:
		return SQFS_INODE_FILE;
	case S_IFLNK:
		return SQFS_INODE_SLINK;
	case S_IFBLK:
		return SQFS_INODE_BDEV;
	case S_IFCHR:
		return SQFS_INODE_CDEV;
	case S_IFIFO:
		return SQFS_INODE_FIFO;
	default:
		return SQFS_INODE_SOCKET;
	}
}

static int put_group(struct writer *w, uint32_t at, uint32_t count, uint64_t *size)
{
	const struct layer_inode *first = layer_inode(w->t, layer_dentry(w->t, w->children[at])->inode);
	const sqfs_dir_header_t header = {
		.count = htole32(count - 1),
		.start_block = htole32((uint32_t)(first->place >> 16)),
		.inode_number = htole32(first->number),
	};
	int r = writer_check(w, sqfs_meta_writer_append(w->listings, &header, sizeof(header)));
	*size += sizeof(header);
	for (uint32_t c = at; r == 0 && c < at + count; c++) {
		const struct layer_dentry *d = layer_dentry(w->t, w->children[c]);
		const struct layer_inode *i = layer_inode(w->t, d->inode);
		size_t n;
		const char *name = layer_tree_text_at(w->t, d->name, &n);
		uint8_t entry[8 + LAYER_NAME_MAX];
		put_le16(entry, (uint16_t)i->place);
		put_le16(entry + 2, (uint16_t)(i->number - first->number));
		put_le16(entry + 4, entry_type(i));
		put_le16(entry + 6, (uint16_t)(n - 1));
		memcpy(entry + 8, name, n);
		r = writer_check(w, sqfs_meta_writer_append(w->listings, entry, 8 + n));
		*size += 8 + n;
	}
	return r;
}

/* The listing of @n sorted children: its place and bytes. */
int writer_put_listing(struct writer *w, uint32_t n, uint64_t *place, uint64_t *size)
{
	uint64_t block, last;
	uint32_t offset;
	sqfs_meta_writer_get_position(w->listings, &last, &offset);
	*place = last << 16 | offset;
	*size = 0;
	w->n_index = 0;
	for (uint32_t at = 0; at < n;) {
		sqfs_meta_writer_get_position(w->listings, &block, &offset);
		int r = 0;
		if (block != last)
			r = add_index(w, (uint32_t)*size, block, layer_dentry(w->t, w->children[at])->name);
		last = block;
		uint32_t count = group_size(w, at, n);
		if (r == 0)
			r = put_group(w, at, count, size);
		if (r < 0)
			return r;
		at += count;
	}
	if (*size > UINT32_MAX - 3 || *place >> 16 > UINT32_MAX)
		return error_set(w->err, -EFBIG, "a directory is larger than squashfs can say");
	return 0;
}

static int put_index(struct writer *w)
{
	int r = 0;
	for (uint32_t at = 0; r == 0 && at < w->n_index; at++) {
		size_t n;
		const char *name = layer_tree_text_at(w->t, w->index[at].name, &n);
		const sqfs_dir_index_t index = {
			.index = htole32(w->index[at].offset),
			.start_block = htole32(w->index[at].block),
			.size = htole32((uint32_t)n - 1),
		};
		r = put(w, &index, sizeof(index));
		if (r == 0)
			r = put(w, name, n);
	}
	return r;
}

int writer_put_dir(struct writer *w, struct layer_inode *i, uint32_t parent, uint64_t place, uint64_t size)
{
	int r;
	if (i->xattr == LAYER_NONE && size + 3 <= UINT16_MAX && w->n_index == 0) {
		const sqfs_inode_dir_t dir = {
			.start_block = htole32((uint32_t)(place >> 16)),
			.nlink = htole32(i->dir.subdirs + 2),
			.size = htole16((uint16_t)(size + 3)),
			.offset = htole16((uint16_t)place),
			.parent_inode = htole32(parent),
		};
		r = put_head(w, i, SQFS_INODE_DIR);
		return r < 0 ? r : put(w, &dir, sizeof(dir));
	}
	const sqfs_inode_dir_ext_t dir = {
		.nlink = htole32(i->dir.subdirs + 2),
		.size = htole32((uint32_t)(size + 3)),
		.start_block = htole32((uint32_t)(place >> 16)),
		.parent_inode = htole32(parent),
		.inodex_count = htole16((uint16_t)w->n_index),
		.offset = htole16((uint16_t)place),
		.xattr_idx = htole32(i->xattr),
	};
	r = put_head(w, i, SQFS_INODE_EXT_DIR);
	if (r == 0)
		r = put(w, &dir, sizeof(dir));
	return r < 0 ? r : put_index(w);
}
