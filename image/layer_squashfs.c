/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_squashfs.c - a tree's inodes, directories and tables into a squashfs image
 *
 * Theory of operation: squashfs (Linux, fs/squashfs/squashfs_fs.h) keeps inodes and directory listings in two tables of
 * compressed 8 KiB blocks. A listing points at its entries' inodes and an inode of a directory at its listing, so
 * directories are written from the leaves to the root: they are put into an array breadth first, and the array is walked
 * backwards. For each: the inodes of its entries that are not directories, its listing, its own inode.
 *
 * libsquashfs compresses and writes the blocks. Inodes and listings are put together here, because its own inode and
 * directory writers keep every entry in allocations of its own, put a file's block list on the stack, count 16 bits of
 * index entries unchecked and give directories the wrong number of links; and the xattr writer writes past its array when
 * there are exactly 512 sets.
 *
 * The listings' table follows the inodes' but is made together with it: it is written far behind, past the highest place
 * where the inode table can end, and moved down when that is known. Between the two lies a hole of the file, not data.
 *
 * The image depends on the tree and nothing else: entries sorted bytewise, inode numbers in the order of writing, every
 * time 0 that is not an entry's.
 */
#include "image/layer_writer.h"

#include "base/cleanup.h"

#include <sqfs/block.h>
#include <sqfs/table.h>
#include <sqfs/xattr.h>
#include <string.h>

static bool is_written(const struct layer_inode *i)
{
	return i->mode != LAYER_PENDING;
}

/* The dentries of @dir that are written, unsorted, in w->children; their number or LAYER_NONE without memory. */
static uint32_t list_children(struct writer *w, uint32_t dir)
{
	uint32_t n = 0;
	for (uint32_t at = layer_inode(w->t, dir)->dir.first_child; at != LAYER_NONE;) {
		const struct layer_dentry *d = layer_dentry(w->t, at);
		if (d->inode != LAYER_NONE && d->parent == dir && is_written(layer_inode(w->t, d->inode))) {
			if (n == w->children_room) {
				uint32_t room = w->children_room ? 2 * w->children_room : 1024;
				uint32_t *more = realloc(w->children, room * sizeof(*more));
				if (!more) {
					writer_no_memory(w);
					return LAYER_NONE;
				}
				w->children = more;
				w->children_room = room;
			}
			w->children[n++] = at;
		}
		at = d->sibling;
	}
	return n;
}

static uint64_t count_blocks(struct writer *w, const struct layer_inode *i)
{
	uint64_t blocks = 0;
	for (uint32_t s = 0; s < i->file.n_slots; s++) {
		uint32_t slot = *(uint32_t *)layer_pool_at(&w->d->slots, i->file.slots + s);
		blocks += slot & LAYER_SLOT_HOLES ? slot & ~LAYER_SLOT_HOLES : 1;
	}
	return blocks;
}

/* Count an inode that is seen for the first time: its number (in the order of writing) and its bytes at most. */
static void count_inode(struct writer *w, struct layer_inode *i)
{
	i->flags |= LAYER_SEEN;
	w->inode_count++;
	w->inode_bytes += 64;
	size_t n = 0;
	if (layer_is(i, S_IFLNK))
		layer_tree_text_at(w->t, i->symlink.target, &n);
	w->inode_bytes += n;
	if (layer_is(i, S_IFREG))
		w->inode_bytes += 4 * count_blocks(w, i);
}

/* All directories breadth first into w->dirs; inodes get their number of links. */
static int collect(struct writer *w)
{
	uint32_t room = 1024;
	w->dirs = malloc(room * sizeof(*w->dirs));
	if (!w->dirs)
		return writer_no_memory(w);
	w->dirs[w->n_dirs++] = w->root;
	for (uint32_t at = 0; at < w->n_dirs; at++) {
		uint32_t dir = w->dirs[at], n = list_children(w, dir);
		if (n == LAYER_NONE)
			return -ENOMEM;
		w->entries += n;
		/* An index entry at most per entry, with its name: 12 + 255 bytes. */
		w->inode_bytes += 268 * (uint64_t)n;
		layer_inode(w->t, dir)->dir.subdirs = 0;
		for (uint32_t c = 0; c < n; c++) {
			uint32_t inode = layer_dentry(w->t, w->children[c])->inode;
			struct layer_inode *i = layer_inode(w->t, inode);
			i->links++;
			if (i->flags & LAYER_SKIPPED)
				return error_set(w->err, -ESTALE, "the contents of a file were skipped");
			if (!layer_is(i, S_IFDIR))
				continue;
			layer_inode(w->t, dir)->dir.subdirs++;
			if (w->n_dirs == room) {
				room *= 2;
				uint32_t *more = realloc(w->dirs, room * sizeof(*more));
				if (!more)
					return writer_no_memory(w);
				w->dirs = more;
			}
			w->dirs[w->n_dirs++] = inode;
		}
	}
	return 0;
}

/* A directory's inode names its parent's number before the parent is written, so directories get their numbers here. */
static int number(struct writer *w)
{
	for (uint32_t at = w->n_dirs; at-- > 0;) {
		uint32_t n = list_children(w, w->dirs[at]);
		if (n == LAYER_NONE)
			return -ENOMEM;
		for (uint32_t c = 0; c < n; c++) {
			struct layer_inode *i = layer_inode(w->t, layer_dentry(w->t, w->children[c])->inode);
			if (!layer_is(i, S_IFDIR) && !(i->flags & LAYER_SEEN))
				count_inode(w, i);
		}
		struct layer_inode *dir = layer_inode(w->t, w->dirs[at]);
		count_inode(w, dir);
		dir->number = w->inode_count;
	}
	return 0;
}

static int by_name(const void *a, const void *b, void *data)
{
	const struct layer_tree *t = data;
	size_t n, m;
	const char *x = layer_tree_text_at(t, layer_dentry(t, *(const uint32_t *)a)->name, &n);
	const char *y = layer_tree_text_at(t, layer_dentry(t, *(const uint32_t *)b)->name, &m);
	int order = memcmp(x, y, n < m ? n : m);
	return order ? order : (n > m) - (n < m);
}

/* One directory with all it holds but directories, which are written already. */
static int write_dir(struct writer *w, uint32_t dir, uint32_t *next_number)
{
	uint32_t n = list_children(w, dir);
	if (n == LAYER_NONE)
		return -ENOMEM;
	if (n > 1)
		qsort_r(w->children, n, sizeof(*w->children), by_name, w->t);
	for (uint32_t c = 0; c < n; c++) {
		struct layer_inode *i = layer_inode(w->t, layer_dentry(w->t, w->children[c])->inode);
		if (layer_is(i, S_IFDIR) || i->number != 0)
			continue;
		i->number = (*next_number)++;
		int r = writer_put_inode(w, i);
		if (r < 0)
			return r;
	}
	struct layer_inode *i = layer_inode(w->t, dir);
	if (i->flags & LAYER_OPAQUE) {
		i->xattr = layer_tree_xattrs_opaque(w->t, i->xattr, w->err);
		if (i->xattr == LAYER_NONE)
			return -ENOMEM;
	}
	uint64_t place, size;
	int r = writer_put_listing(w, n, &place, &size);
	if (r < 0)
		return r;
	(*next_number)++; /* number() has given it to the directory */
	/* The root's parent is a number that no inode has. */
	uint32_t parent = dir == w->root ? w->inode_count + 1 : layer_inode(w->t, layer_tree_parent(w->t, dir))->number;
	return writer_put_dir(w, i, parent, place, size);
}

static int write_trees(struct writer *w)
{
	struct layer_file *f = &w->d->file;
	w->super.inode_table_start = f->size;
	/* Two bytes of head for each block of 8 KiB, and the last one in full. */
	uint64_t bound = w->inode_bytes + w->inode_bytes / 4096 + 2 * SQFS_META_BLOCK_SIZE;
	layer_file_init(&w->dir_file, f->fd, f->size + bound);
	w->inodes = sqfs_meta_writer_create(&f->base, w->d->compressor, 0);
	w->listings = sqfs_meta_writer_create(&w->dir_file.base, w->d->compressor, 0);
	if (!w->inodes || !w->listings)
		return writer_no_memory(w);
	uint32_t next_number = 1;
	for (uint32_t at = w->n_dirs; at-- > 0;) {
		int r = write_dir(w, w->dirs[at], &next_number);
		if (r < 0)
			return r;
	}
	int r = writer_check(w, sqfs_meta_writer_flush(w->inodes));
	return r < 0 ? r : writer_check(w, sqfs_meta_writer_flush(w->listings));
}

/* The listings to where they belong. */
static int move_listings(struct writer *w)
{
	struct layer_file *f = &w->d->file;
	CLEANUP_FREE uint8_t *piece = malloc(LAYER_BLOCK);
	if (!piece)
		return writer_no_memory(w);
	w->super.directory_table_start = f->size;
	for (uint64_t at = 0; at < w->dir_file.size;) {
		uint64_t left = w->dir_file.size - at;
		size_t n = left < LAYER_BLOCK ? (size_t)left : LAYER_BLOCK;
		int r = writer_check(w, w->dir_file.base.read_at(&w->dir_file.base, at, piece, n));
		if (r == 0)
			r = writer_check(w, f->base.write_at(&f->base, f->size, piece, n));
		if (r < 0)
			return r;
		at += n;
	}
	return writer_check(w, f->base.truncate(&f->base, f->size));
}

static int write_ids(struct writer *w)
{
	for (uint32_t i = 0; i < w->t->n_ids; i++)
		w->t->ids[i] = htole32(w->t->ids[i]);
	w->super.id_count = (uint16_t)w->t->n_ids;
	return writer_check(w, sqfs_write_table(&w->d->file.base, w->d->compressor, w->t->ids,
				       w->t->n_ids * sizeof(*w->t->ids), &w->super.id_table_start));
}

/* The sets themselves; each remembers its place. */
static int write_xattr_sets(struct writer *w)
{
	sqfs_meta_writer_t *m = sqfs_meta_writer_create(&w->d->file.base, w->d->compressor, 0);
	if (!m)
		return writer_no_memory(w);
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < w->t->n_xattrs; i++) {
		struct layer_xattrs *set = w->t->xattrs[i];
		uint64_t block;
		uint32_t offset;
		sqfs_meta_writer_get_position(m, &block, &offset);
		set->place = block << 16 | offset;
		r = writer_check(w, sqfs_meta_writer_append(m, set->bytes, set->size));
	}
	if (r == 0)
		r = writer_check(w, sqfs_meta_writer_flush(m));
	sqfs_destroy(m);
	return r;
}

/* squashfs_xattr_id_table: where the sets begin, how many, and where the blocks of their descriptors are. */
static int write_xattrs(struct writer *w)
{
	struct layer_file *f = &w->d->file;
	uint32_t n = w->t->n_xattrs, per_block = SQFS_META_BLOCK_SIZE / sizeof(sqfs_xattr_id_t);
	if (n == 0)
		return 0;
	uint32_t blocks = (n + per_block - 1) / per_block;
	uint64_t start = f->size;
	size_t table_size = sizeof(sqfs_xattr_id_table_t) + blocks * sizeof(uint64_t);
	CLEANUP_FREE sqfs_xattr_id_table_t *table = calloc(1, table_size);
	if (!table)
		return writer_no_memory(w);
	int r = write_xattr_sets(w);
	sqfs_meta_writer_t *m = sqfs_meta_writer_create(&f->base, w->d->compressor, 0);
	if (r == 0 && !m)
		r = writer_no_memory(w);
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		const struct layer_xattrs *set = w->t->xattrs[i];
		const sqfs_xattr_id_t id = {
			.xattr = htole64(set->place), .count = htole32(set->count), .size = htole32(set->size)};
		if (i % per_block == 0)
			table->locations[i / per_block] = htole64(f->size);
		r = writer_check(w, sqfs_meta_writer_append(m, &id, sizeof(id)));
	}
	if (r == 0)
		r = writer_check(w, sqfs_meta_writer_flush(m));
	if (m)
		sqfs_destroy(m);
	table->xattr_table_start = htole64(start);
	table->xattr_ids = htole32(n);
	w->super.xattr_id_table_start = f->size;
	w->super.flags &= (uint16_t)~SQFS_FLAG_NO_XATTRS;
	return r < 0 ? r : writer_check(w, f->base.write_at(&f->base, f->size, table, table_size));
}

static int write_super(struct writer *w)
{
	struct layer_file *f = &w->d->file;
	w->super.inode_count = w->inode_count;
	w->super.root_inode_ref = layer_inode(w->t, w->root)->place;
	w->super.bytes_used = f->size;
	w->super.flags |= SQFS_FLAG_COMPRESSOR_OPTIONS;
	w->super.flags &= (uint16_t)~SQFS_FLAG_ALWAYS_FRAGMENTS;
	int r = writer_check(w, sqfs_super_write(&w->super, &f->base));
	if (r < 0)
		return r;
	uint64_t whole = (f->size + 4095) & ~UINT64_C(4095);
	return writer_check(w, f->base.truncate(&f->base, whole));
}

static int write_all(struct writer *w)
{
	int r = writer_check(w, sqfs_super_init(&w->super, LAYER_BLOCK, 0, SQFS_COMP_LZ4));
	if (r == 0)
		r = collect(w);
	if (r == 0)
		r = number(w);
	if (r == 0)
		r = write_trees(w);
	if (r == 0)
		r = move_listings(w);
	if (r == 0)
		r = writer_check(
			w, sqfs_frag_table_write(w->d->fragments, &w->d->file.base, &w->super, w->d->compressor));
	if (r == 0)
		r = write_ids(w);
	if (r == 0)
		r = write_xattrs(w);
	return r < 0 ? r : write_super(w);
}

int layer_squashfs_write(
	struct layer_data *d, uint32_t root, struct layer_squashfs_result *result, struct husk_error *err)
{
	int r = layer_data_finish(d, err);
	if (r < 0)
		return r;
	struct writer w = {.d = d, .t = d->tree, .err = err, .root = root};
	r = write_all(&w);
	if (w.inodes)
		sqfs_destroy(w.inodes);
	if (w.listings)
		sqfs_destroy(w.listings);
	free(w.dirs);
	free(w.children);
	free(w.index);
	result->size = d->file.size;
	result->entries = w.entries;
	return r;
}
