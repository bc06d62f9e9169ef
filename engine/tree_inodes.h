/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_inodes.h - the files that a copy has made, by device and inode
 *
 * A set of bounded size: an endless tree must not become memory. Once it is full no further file is remembered, and hard links to
 * those are refused.
 */
#ifndef ENGINE_TREE_INODES_H
#define ENGINE_TREE_INODES_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#define TREE_INODES_MAX (1u << 22) /* slots of 8 bytes; three quarters of them are filled */

/** Zero-initialised is empty. An open hash table; 0 is a free slot. */
struct tree_inodes {
	uint64_t *slots;
	size_t n, room;
};

static inline uint64_t tree_inode_key(const struct stat *st)
{
	uint64_t key = ((uint64_t)st->st_ino ^ ((uint64_t)st->st_dev << 40 | (uint64_t)st->st_dev >> 24));
	return key ? key : UINT64_MAX;
}

/** Where @key is, or would be. */
static inline size_t tree_inode_slot(const uint64_t *slots, size_t room, uint64_t key)
{
	size_t at = (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (room - 1);
	while (slots[at] && slots[at] != key)
		at = (at + 1) & (room - 1);
	return at;
}

static inline int tree_inodes_grow(struct tree_inodes *set)
{
	size_t room = set->room ? set->room * 2 : 256;
	uint64_t *slots = calloc(room, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < set->room; i++)
		if (set->slots[i])
			slots[tree_inode_slot(slots, room, set->slots[i])] = set->slots[i];
	free(set->slots);
	set->slots = slots;
	set->room = room;
	return 0;
}

/** 0 or -ENOMEM. */
static inline int tree_inodes_add(struct tree_inodes *set, const struct stat *st)
{
	uint64_t key = tree_inode_key(st);
	if (set->n >= set->room / 4 * 3) {
		if (set->room >= TREE_INODES_MAX)
			return 0;
		if (tree_inodes_grow(set) < 0)
			return -ENOMEM;
	}
	size_t at = tree_inode_slot(set->slots, set->room, key);
	set->n += !set->slots[at];
	set->slots[at] = key;
	return 0;
}

static inline bool tree_inodes_have(const struct tree_inodes *set, const struct stat *st)
{
	uint64_t key = tree_inode_key(st);
	return set->room && set->slots[tree_inode_slot(set->slots, set->room, key)] == key;
}

static inline void tree_inodes_free(struct tree_inodes *set)
{
	free(set->slots);
	*set = (struct tree_inodes){0};
}

#endif
