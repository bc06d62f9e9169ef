/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_path.c - from the paths of a tar to places in a tree
 *
 * Theory of operation: paths are hostile, but they lead nowhere except through the tree in memory, so there is nothing to
 * escape to. Absolute names and "." mean what they mean below the root; ".." in a name is refused, because no honest
 * builder writes it and readers differ on it. A directory component that is a symbolic link of the same layer is
 * followed, as containerd does, with the root as the top: "/" and ".." of a link's target stay below it. The last
 * component is never followed. Directories that a path needs and nobody listed are made and marked implied.
 *
 * Within a layer the last entry of a name wins, as when Docker unpacks it: a directory over a directory updates it and
 * keeps what is in it, everything else replaces. A whiteout speaks of the layers below only (image-spec, layer.md): it
 * leaves an entry of the same name in the same layer alone, whichever comes first, and where that is a directory, it makes
 * it opaque.
 */
#include "image/layer_path.h"

#include "base/cleanup.h"

#include <string.h>

#define LINKS_MAX 40 /* as Linux, MAXSYMLINKS */
#define WALK_MAX (4 * LAYER_PATH_MAX)

/** Cut the first component of @path: its length, and *@path moved to it. 0: there is none. "." is none. */
static size_t next_component(const char **path)
{
	for (;;) {
		while (**path == '/')
			(*path)++;
		size_t n = strcspn(*path, "/");
		if (n != 1 || **path != '.')
			return n;
		(*path)++;
	}
}

int layer_path_check(const char *path, const char *what, struct husk_error *err)
{
	if (!path || !*path)
		return error_set(err, -EINVAL, "%s without a name", what);
	if (strlen(path) > LAYER_PATH_MAX)
		return error_set(
			err, -ENAMETOOLONG, "%s \"%.64s…\" is longer than %d bytes", what, path, LAYER_PATH_MAX);
	const char *at = path;
	for (size_t n; (n = next_component(&at)) > 0; at += n) {
		if (n > LAYER_NAME_MAX)
			return error_set(err, -ENAMETOOLONG, "%s \"%.300s\" has a component longer than %d bytes", what,
				path, LAYER_NAME_MAX);
		if (n == 2 && at[0] == '.' && at[1] == '.')
			return error_set(err, -EINVAL, "%s \"%.300s\" contains \"..\"", what, path);
	}
	return 0;
}

/** A walk under way. */
struct walk {
	struct layer_tree *t;
	uint32_t root, dir;
	unsigned links;
	bool create;
	const char *at; /* in rest */
	char *rest; /* WALK_MAX */
	char *spare; /* WALK_MAX */
	struct husk_error *err;
};

static int enter_missing(struct walk *w, size_t n)
{
	if (!w->create)
		return error_set(w->err, -ENOENT, "no such file in this layer");
	struct layer_place place = {.dir = w->dir, .n = n};
	memcpy(place.name, w->at, n);
	return layer_path_directory(w->t, &place, true, &w->dir, w->err);
}

/* Put a link's target before what is left of the path. */
static int enter_link(struct walk *w, size_t n, const struct layer_inode *link)
{
	size_t target_n;
	const char *target = layer_tree_text_at(w->t, link->symlink.target, &target_n);
	const char *rest = w->at + n;
	if (++w->links > LINKS_MAX)
		return error_set(w->err, -ELOOP, "goes through too many symbolic links");
	if (target_n + strlen(rest) + 1 > WALK_MAX)
		return error_set(w->err, -ENAMETOOLONG, "becomes too long through symbolic links");
	if (target[0] == '/')
		w->dir = w->root;
	memcpy(w->spare, target, target_n);
	strcpy(w->spare + target_n, rest);
	char *used = w->rest;
	w->at = w->rest = w->spare;
	w->spare = used;
	return 0;
}

/* One component that is not the last. */
static int enter(struct walk *w, size_t n)
{
	if (n == 2 && w->at[0] == '.' && w->at[1] == '.') {
		w->dir = w->dir == w->root ? w->dir : layer_tree_parent(w->t, w->dir);
		w->at += n;
		return 0;
	}
	if (n > LAYER_NAME_MAX)
		return error_set(
			w->err, -ENAMETOOLONG, "a link's target has a component longer than %d bytes", LAYER_NAME_MAX);
	uint32_t found = layer_tree_lookup(w->t, w->dir, w->at, n);
	const struct layer_inode *i = found == LAYER_NONE ? NULL : layer_inode(w->t, layer_dentry(w->t, found)->inode);
	if (i && layer_is(i, S_IFLNK))
		return enter_link(w, n, i);
	if (i && layer_is(i, S_IFDIR)) {
		w->dir = layer_dentry(w->t, found)->inode;
	} else if (!i || layer_is_whiteout(i)) {
		int r = enter_missing(w, n);
		if (r < 0)
			return r;
	} else {
		return error_set(w->err, -ENOTDIR, "goes through \"%.*s\", which is not a directory", (int)n, w->at);
	}
	w->at += n;
	return 0;
}

static int walk(struct walk *w, struct layer_place *place)
{
	for (;;) {
		size_t n = next_component(&w->at);
		const char *behind = w->at + n;
		if (n == 0 || next_component(&behind) == 0) {
			/* A target of ".." alone would be the last only if nothing followed it, and then it is no name. */
			place->dir = w->dir;
			place->n = n;
			memcpy(place->name, w->at, n);
			place->name[n] = 0;
			return 0;
		}
		int r = enter(w, n);
		if (r < 0)
			return r;
	}
}

int layer_path_walk(struct layer_tree *t, uint32_t root, const char *path, bool create, struct layer_place *place,
	struct husk_error *err)
{
	char rest[WALK_MAX], spare[WALK_MAX];
	struct walk w = {.t = t, .root = root, .dir = root, .create = create, .rest = rest, .spare = spare, .err = err};
	strcpy(rest, path);
	w.at = rest;
	return walk(&w, place);
}

int layer_path_put(struct layer_tree *t, const struct layer_place *place, uint32_t inode, struct husk_error *err)
{
	if (place->n == 0)
		return error_set(err, -EINVAL, "the root is not a directory");
	uint32_t found = layer_tree_lookup(t, place->dir, place->name, place->n);
	if (found == LAYER_NONE)
		return layer_tree_link(t, place->dir, place->name, place->n, inode, err) == LAYER_NONE ? -ENOMEM : 0;
	layer_dentry(t, found)->inode = inode;
	return 0;
}

int layer_path_directory(
	struct layer_tree *t, const struct layer_place *place, bool implied, uint32_t *inode, struct husk_error *err)
{
	if (place->n == 0) {
		*inode = place->dir;
		if (!implied)
			layer_inode(t, place->dir)->flags &= (uint16_t)~LAYER_IMPLIED;
		return 0;
	}
	const struct layer_attributes defaults = {.mode = S_IFDIR | 0755, .xattr = LAYER_NONE};
	uint32_t found = layer_tree_lookup(t, place->dir, place->name, place->n);
	struct layer_inode *i = found == LAYER_NONE ? NULL : layer_inode(t, layer_dentry(t, found)->inode);
	if (i && layer_is(i, S_IFDIR)) {
		*inode = layer_dentry(t, found)->inode;
		if (!implied)
			i->flags &= (uint16_t)~LAYER_IMPLIED;
		return 0;
	}
	bool opaque = i && layer_is_whiteout(i);
	*inode = layer_tree_inode(t, S_IFDIR | 0755, err);
	if (*inode == LAYER_NONE)
		return -ENOMEM;
	int r = layer_tree_attributes(t, *inode, &defaults, err);
	if (r < 0)
		return r;
	/* What stands in for something whited out takes nothing from below. */
	layer_inode(t, *inode)->flags = opaque ? LAYER_OPAQUE : implied ? LAYER_IMPLIED : 0;
	if (found == LAYER_NONE)
		return layer_tree_link(t, place->dir, place->name, place->n, *inode, err) == LAYER_NONE ? -ENOMEM : 0;
	layer_dentry(t, found)->inode = *inode;
	layer_inode(t, *inode)->dir.dentry = found;
	layer_inode(t, *inode)->dir.depth = layer_inode(t, place->dir)->dir.depth + 1;
	return 0;
}

int layer_path_whiteout(struct layer_tree *t, const struct layer_place *place, struct husk_error *err)
{
	uint32_t found = layer_tree_lookup(t, place->dir, place->name, place->n);
	if (found != LAYER_NONE) {
		struct layer_inode *i = layer_inode(t, layer_dentry(t, found)->inode);
		if (layer_is(i, S_IFDIR)) {
			i->flags |= LAYER_OPAQUE;
			i->flags &= (uint16_t)~LAYER_IMPLIED;
		}
		return 0;
	}
	uint32_t whiteout = layer_tree_whiteout(t, err);
	if (whiteout == LAYER_NONE)
		return -ENOMEM;
	return layer_tree_link(t, place->dir, place->name, place->n, whiteout, err) == LAYER_NONE ? -ENOMEM : 0;
}
