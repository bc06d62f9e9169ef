/* SPDX-License-Identifier: Apache-2.0 */
/* layer_tree.h - the names and inodes of a layer (or of several) in little memory; see layer_tree.c */
#ifndef IMAGE_LAYER_TREE_H
#define IMAGE_LAYER_TREE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define LAYER_NONE UINT32_MAX
#define LAYER_PATH_MAX 4096
#define LAYER_NAME_MAX 255
#define LAYER_DEPTH_MAX 2048 /* LAYER_PATH_MAX cannot say more */
#define LAYER_IDS_MAX 65535 /* squashfs counts them in 16 bits */
#define LAYER_XATTR_MAX 65536 /* XATTR_SIZE_MAX of Linux */
#define LAYER_XATTRS_MAX 131072 /* of one inode */

/** Items of one size in pages that never move, counted from 0. */
struct layer_pool {
	size_t item;
	uint32_t used;
	uint32_t n_pages;
	uint8_t **pages;
};

#define LAYER_POOL_PAGE 16384 /* items */

static inline void *layer_pool_at(const struct layer_pool *pool, uint32_t index)
{
	return pool->pages[index / LAYER_POOL_PAGE] + pool->item * (index % LAYER_POOL_PAGE);
}

/** Zeroed items one after the other; the index of the new one, LAYER_NONE without memory. */
uint32_t layer_pool_add(struct layer_pool *pool);
void layer_pool_free(struct layer_pool *pool);

enum layer_flags {
	LAYER_IMPLIED = 1, /* a directory that a path named and no entry described */
	LAYER_OPAQUE = 2, /* a directory that hides the lower one of its name */
	LAYER_SKIPPED = 4, /* a file whose data was not stored, since an upper layer hides it */
	LAYER_COVERED = 16, /* a directory at or below an opaque one */
	LAYER_SEEN = 8, /* writing: number or place is known */
};

/** mode's type 0: a hard link to a file of a lower layer, not found yet. */
#define LAYER_PENDING 0

/** One inode. uid and gid are indices of tree.ids. */
struct layer_inode {
	uint16_t mode;
	uint16_t flags;
	uint16_t uid, gid;
	uint32_t mtime;
	uint32_t xattr; /* index of tree.xattrs, LAYER_NONE without */
	uint32_t links;
	uint32_t number;
	uint64_t place; /* squashfs inode reference */
	union {
		struct {
			uint64_t size;
			uint64_t start;
			uint32_t slots; /* first of the block sizes, see layer_data.h */
			uint32_t n_slots;
			uint32_t fragment; /* LAYER_NONE without */
			uint32_t fragment_offset;
		} file;
		struct {
			uint32_t first_child; /* dentry */
			uint32_t dentry; /* its own name, LAYER_NONE for a root */
			uint32_t subdirs;
			uint32_t depth;
		} dir;
		struct {
			uint32_t target; /* text */
		} symlink;
		struct {
			uint32_t target; /* text */
			uint32_t inode; /* once found, LAYER_NONE before */
		} pending;
		uint32_t device;
	};
};

/** One name in one directory. */
struct layer_dentry {
	uint32_t parent; /* inode */
	uint32_t inode; /* LAYER_NONE: unlinked */
	uint32_t name; /* text */
	uint32_t hash_next;
	uint32_t sibling;
};

/** A set of extended attributes as squashfs stores it: entries sorted by name. */
struct layer_xattrs {
	uint32_t count;
	uint32_t size;
	uint64_t place;
	uint64_t hash;
	uint8_t bytes[];
};

/** Bytes of variable length in pages; texts are u16 length, bytes, NUL. */
struct layer_arena {
	uint8_t **pages;
	uint32_t n_pages;
	uint32_t fill; /* of the last page */
};

struct layer_tree {
	struct layer_pool inodes; /* struct layer_inode */
	struct layer_pool dentries; /* struct layer_dentry */
	struct layer_arena text;
	uint64_t seed[2];
	uint32_t *heads; /* hash table of dentries by parent and name */
	uint32_t n_heads;
	uint32_t *ids;
	uint32_t n_ids;
	uint32_t *id_table; /* open addressing: index of ids, plus 1 */
	struct layer_xattrs **xattrs;
	uint32_t n_xattrs;
	uint32_t *xattr_table; /* open addressing: index of xattrs, plus 1 */
	uint32_t xattr_table_size;
	uint64_t xattr_bytes;
	uint32_t whiteout; /* the inode that all whiteouts share, LAYER_NONE before the first */
	uint64_t max_entries;
};

/** The attributes of an entry, before it has an inode. */
struct layer_attributes {
	uint16_t mode; /* type and permissions */
	int64_t uid, gid;
	int64_t mtime;
	uint32_t xattr; /* of layer_tree_xattrs() */
};

int layer_tree_init(struct layer_tree *t, uint64_t max_entries, struct husk_error *err);
void layer_tree_free(struct layer_tree *t);

static inline struct layer_inode *layer_inode(const struct layer_tree *t, uint32_t index)
{
	return layer_pool_at(&t->inodes, index);
}

static inline struct layer_dentry *layer_dentry(const struct layer_tree *t, uint32_t index)
{
	return layer_pool_at(&t->dentries, index);
}

static inline bool layer_is(const struct layer_inode *i, uint16_t type)
{
	return (i->mode & S_IFMT) == type;
}

static inline bool layer_is_whiteout(const struct layer_inode *i)
{
	return layer_is(i, S_IFCHR) && i->device == 0;
}

/* In all that follows: an index, or LAYER_NONE with the error set. */

/** A new root directory: 0755, owner 0, mtime 0, implied. */
uint32_t layer_tree_root(struct layer_tree *t, struct husk_error *err);
/** A new inode of @mode, everything else zero. */
uint32_t layer_tree_inode(struct layer_tree *t, uint16_t mode, struct husk_error *err);
/** Text kept until the end. */
uint32_t layer_tree_text(struct layer_tree *t, const char *text, size_t n, struct husk_error *err);
const char *layer_tree_text_at(const struct layer_tree *t, uint32_t text, size_t *n);
/** Enter @inode as @name (which must be free) in directory @dir. */
uint32_t layer_tree_link(
	struct layer_tree *t, uint32_t dir, const char *name, size_t n, uint32_t inode, struct husk_error *err);
/** The whiteout inode, character device 0/0. */
uint32_t layer_tree_whiteout(struct layer_tree *t, struct husk_error *err);

/** The dentry of @name in directory @dir; LAYER_NONE: there is none (and no error set). */
uint32_t layer_tree_lookup(const struct layer_tree *t, uint32_t dir, const char *name, size_t n);
/** Take a dentry out of the name table, and put it into directory @dir; for moves between directories. */
void layer_tree_unhash(struct layer_tree *t, uint32_t dentry);
void layer_tree_rehash(struct layer_tree *t, uint32_t dentry, uint32_t dir);
/** The parent directory of directory @dir; a root's is itself. */
uint32_t layer_tree_parent(const struct layer_tree *t, uint32_t dir);

/** Set mode, owner, mtime and extended attributes; 0 or -errno. */
int layer_tree_attributes(
	struct layer_tree *t, uint32_t inode, const struct layer_attributes *a, struct husk_error *err);

/** A name and value while a set is put together. */
struct layer_xattr {
	const char *name;
	const void *value;
	size_t size;
};
/** *@index is that of the set (LAYER_NONE when it is empty); names that squashfs cannot hold must not be in it. Sorts @x. */
int layer_tree_xattrs(struct layer_tree *t, struct layer_xattr *x, size_t n, uint32_t *index, struct husk_error *err);
/** The set @index with trusted.overlay.opaque=y in addition; LAYER_NONE with the error set. */
uint32_t layer_tree_xattrs_opaque(struct layer_tree *t, uint32_t index, struct husk_error *err);

#endif
