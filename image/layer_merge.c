/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_merge.c - several layers into one block image
 *
 * Theory of operation: the layers are read from the top down, each into a root of its own in one tree, so that when a
 * file's contents come by it is known whether a layer above replaces, whites out or covers it; then they are not stored.
 * After that the layers are laid over each other from the bottom up, exactly as unpacking one after the other would:
 * whiteouts remove, opaque directories empty, listed directories update what is there, implied ones leave it alone (and
 * are followed through a symbolic link that a lower layer has in their place), everything else replaces. A layer's hard
 * links to lower files are looked up before the layer is applied. What remains is an ordinary tree without whiteouts.
 *
 * Contents that were skipped can turn out to be wanted after all: a hidden file that a hard link of its own layer or of one
 * above keeps alive. Names that upper layers link to are therefore not skipped; for the rest (links within the layer) the
 * whole merge is done once more, without skipping, if the sources can be rewound. If they cannot, nothing is skipped.
 */
#include "image/layer.h"
#include "image/layer_squashfs.h"
#include "image/layer_tar.h"

#include "base/cleanup.h"

#include <string.h>

/** One component of a path. */
struct component {
	const char *name;
	size_t n;
};

struct merge {
	struct layer_tree tree;
	struct layer_data data;
	uint32_t *roots; /* of each layer */
	uint32_t *inodes; /* n + 1: where each layer's inodes begin, top layer first */
	size_t n;
	size_t reading; /* the layer that is being read */
	uint32_t wanted; /* root of the names that upper layers link to */
	bool keep; /* skip nothing */
	struct husk_error *err;
};

/* The path of @place as components; their number. */
static size_t split(
	const struct layer_tree *t, const struct layer_place *place, struct component parts[LAYER_DEPTH_MAX + 2])
{
	size_t n = 0;
	parts[n++] = (struct component){place->name, place->n};
	for (uint32_t dir = place->dir; n < LAYER_DEPTH_MAX + 2;) {
		uint32_t own = layer_inode(t, dir)->dir.dentry;
		if (own == LAYER_NONE)
			break;
		parts[n].name = layer_tree_text_at(t, layer_dentry(t, own)->name, &parts[n].n);
		n++;
		dir = layer_dentry(t, own)->parent;
	}
	return n;
}

/* Does the layer at @root hide lower files at the path (components in reverse)? With @exact: does it have the path? */
static bool has_path(const struct layer_tree *t, uint32_t root, const struct component *parts, size_t n, bool exact)
{
	uint32_t dir = root;
	while (n-- > 0) {
		if (!exact && layer_inode(t, dir)->flags & LAYER_OPAQUE)
			return true;
		uint32_t found = layer_tree_lookup(t, dir, parts[n].name, parts[n].n);
		if (found == LAYER_NONE)
			return false;
		dir = layer_dentry(t, found)->inode;
		if (!layer_is(layer_inode(t, dir), S_IFDIR))
			return !exact || n == 0;
	}
	return true;
}

static bool is_hidden(void *data, const struct layer_place *place)
{
	struct merge *m = data;
	struct component parts[LAYER_DEPTH_MAX + 2];
	if (m->keep)
		return false;
	size_t n = split(&m->tree, place, parts);
	if (has_path(&m->tree, m->wanted, parts, n, true))
		return false;
	for (size_t upper = m->n; --upper > m->reading;) {
		if (has_path(&m->tree, m->roots[upper], parts, n, false))
			return true;
	}
	return false;
}

/* Remember what the layer just read links to in lower ones. */
static int note_wanted(struct merge *m, uint32_t first_inode)
{
	struct layer_tree *t = &m->tree;
	for (uint32_t at = first_inode, end = t->inodes.used; at < end; at++) {
		struct layer_place place;
		struct husk_error ignored;
		if (layer_inode(t, at)->mode != LAYER_PENDING)
			continue;
		const char *target = layer_tree_text_at(t, layer_inode(t, at)->pending.target, NULL);
		uint32_t whiteout = layer_tree_whiteout(t, m->err);
		if (whiteout == LAYER_NONE)
			return -ENOMEM;
		int r = layer_path_walk(t, m->wanted, target, true, &place, &ignored);
		if (r == 0)
			r = layer_path_put(t, &place, whiteout, &ignored);
		if (r < 0)
			m->keep = true; /* names that contradict each other; rare enough not to be clever */
	}
	return 0;
}

static int read_layer(struct merge *m, const struct layer_source *source, const struct layer_options *options,
	struct layer_result *result)
{
	struct layer_stream *stream;
	struct layer_tar tar = {.tree = &m->tree,
		.data = &m->data,
		.root = m->roots[m->reading],
		.hidden = is_hidden,
		.hidden_data = m};
	uint32_t first_inode = m->tree.inodes.used;
	int r = layer_stream_open(source, options, &stream, m->err);
	if (r < 0)
		return r;
	r = layer_tar_read(&tar, stream, source->name, m->err);
	if (r == 0)
		r = layer_stream_finish(stream, result, m->err);
	layer_stream_close(stream);
	if (r == 0)
		r = note_wanted(m, first_inode);
	result->entries = tar.entries;
	result->dropped_acls = tar.dropped_acls;
	return r;
}

static void unlink_dentry(struct layer_tree *t, uint32_t dentry)
{
	layer_tree_unhash(t, dentry);
	layer_dentry(t, dentry)->inode = LAYER_NONE;
}

static int apply_dir(struct merge *m, uint32_t into, uint32_t from);

/* Kept out of the frames of apply_dir(), which is recursive: these two have room for whole paths. */
#define APART __attribute__((noinline))

static APART size_t path_of(const struct layer_tree *t, const struct layer_place *place, char *path, size_t room)
{
	struct component parts[LAYER_DEPTH_MAX + 2];
	size_t n = split(t, place, parts), used = 0;
	while (n-- > 0 && used + parts[n].n + 2 < room) {
		path[used++] = '/';
		memcpy(path + used, parts[n].name, parts[n].n);
		used += parts[n].n;
	}
	path[used] = 0;
	return used;
}

/* The directory that the symbolic link @name in @dir leads to; made if missing. */
static APART int follow(struct merge *m, uint32_t dir, const char *name, size_t n, uint32_t *to)
{
	char path[LAYER_PATH_MAX + 1];
	struct layer_place place = {.dir = dir, .n = n};
	memcpy(place.name, name, n);
	size_t used = path_of(&m->tree, &place, path, sizeof(path) - 2);
	strcpy(path + used, "/-"); /* the last component is not followed */
	int r = layer_path_walk(&m->tree, m->roots[m->n], path, true, &place, m->err);
	*to = place.dir;
	return r;
}

static void copy_attributes(struct layer_tree *t, uint32_t to, uint32_t from)
{
	struct layer_inode *a = layer_inode(t, to), *b = layer_inode(t, from);
	if (b->flags & LAYER_IMPLIED)
		return;
	a->mode = b->mode;
	a->uid = b->uid;
	a->gid = b->gid;
	a->mtime = b->mtime;
	a->xattr = b->xattr;
}

/* The directory @dentry of a layer, whose name is @below (or LAYER_NONE) in directory @into so far. */
static int apply_subdir(struct merge *m, uint32_t into, uint32_t dentry, uint32_t below)
{
	struct layer_tree *t = &m->tree;
	struct layer_dentry *d = layer_dentry(t, dentry);
	uint32_t from = d->inode;
	bool implied = layer_inode(t, from)->flags & LAYER_IMPLIED;
	uint32_t to = below == LAYER_NONE ? LAYER_NONE : layer_dentry(t, below)->inode;
	size_t n;
	const char *name = layer_tree_text_at(t, d->name, &n);
	if (to != LAYER_NONE && layer_is(layer_inode(t, to), S_IFDIR)) {
		d->inode = LAYER_NONE;
		copy_attributes(t, to, from);
		return apply_dir(m, to, from);
	}
	if (to != LAYER_NONE && implied && layer_is(layer_inode(t, to), S_IFLNK)) {
		d->inode = LAYER_NONE;
		int r = follow(m, into, name, n, &to);
		return r < 0 ? r : apply_dir(m, to, from);
	}
	if (to != LAYER_NONE && implied)
		return error_set(m->err, -ENOTDIR,
			"a path goes through \"%.*s\", which is no directory in a lower layer", (int)n, name);
	if (below != LAYER_NONE)
		unlink_dentry(t, below);
	layer_tree_rehash(t, dentry, into);
	layer_inode(t, from)->flags &= (uint16_t)~LAYER_IMPLIED;
	return apply_dir(m, from, from);
}

/* What a hard link to a lower layer stands for. */
static APART int resolve(struct merge *m, uint32_t into, struct layer_dentry *d)
{
	struct layer_inode *i = layer_inode(&m->tree, d->inode);
	if (i->pending.inode != LAYER_NONE) {
		d->inode = i->pending.inode;
		return 0;
	}
	char path[LAYER_PATH_MAX + 1];
	struct layer_place place = {.dir = into};
	const char *name = layer_tree_text_at(&m->tree, d->name, &place.n);
	memcpy(place.name, name, place.n);
	path_of(&m->tree, &place, path, sizeof(path));
	return error_set(m->err, -ENOENT, "hard link \"%.300s\" to \"%.300s\", which is in no layer below", path + 1,
		layer_tree_text_at(&m->tree, i->pending.target, NULL));
}

static int apply_child(struct merge *m, uint32_t into, uint32_t dentry)
{
	struct layer_tree *t = &m->tree;
	struct layer_dentry *d = layer_dentry(t, dentry);
	const struct layer_inode *i = layer_inode(t, d->inode);
	size_t n;
	const char *name = layer_tree_text_at(t, d->name, &n);
	layer_tree_unhash(t, dentry);
	uint32_t below = layer_tree_lookup(t, into, name, n);
	if (layer_is(i, S_IFDIR))
		return apply_subdir(m, into, dentry, below);
	bool whiteout = layer_is_whiteout(i);
	if (i->mode == LAYER_PENDING) {
		int r = resolve(m, into, d);
		if (r < 0)
			return r;
	}
	if (below != LAYER_NONE)
		unlink_dentry(t, below);
	if (whiteout)
		d->inode = LAYER_NONE;
	else
		layer_tree_rehash(t, dentry, into);
	return 0;
}

/* Lay the directory @from of a layer over the directory @into of the union; they are the same one when @from is new there,
 * and then this takes whiteouts and marks out of it. As deep as the layer's tree, which LAYER_DEPTH_MAX bounds. */
static int apply_dir(struct merge *m, uint32_t into, uint32_t from)
{
	struct layer_tree *t = &m->tree;
	uint32_t next, at = layer_inode(t, from)->dir.first_child;
	layer_inode(t, from)->dir.first_child = LAYER_NONE;
	if (layer_inode(t, from)->flags & LAYER_OPAQUE && into != from) {
		for (uint32_t old = layer_inode(t, into)->dir.first_child; old != LAYER_NONE;
			old = layer_dentry(t, old)->sibling) {
			if (layer_dentry(t, old)->inode != LAYER_NONE)
				unlink_dentry(t, old);
		}
		layer_inode(t, into)->dir.first_child = LAYER_NONE;
	}
	layer_inode(t, from)->flags &= (uint16_t)~LAYER_OPAQUE;
	for (int r; at != LAYER_NONE; at = next) {
		next = layer_dentry(t, at)->sibling;
		r = apply_child(m, into, at);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Look up what layer @layer links to in the union of those below it. */
static void resolve_pending(struct merge *m, size_t layer)
{
	struct layer_tree *t = &m->tree;
	uint32_t end = m->inodes[m->n - 1 - layer + 1];
	for (uint32_t at = m->inodes[m->n - 1 - layer]; at < end; at++) {
		struct layer_inode *i = layer_inode(t, at);
		struct layer_place place;
		struct husk_error ignored;
		if (i->mode != LAYER_PENDING)
			continue;
		const char *target = layer_tree_text_at(t, i->pending.target, NULL);
		if (layer_path_walk(t, m->roots[m->n], target, false, &place, &ignored) < 0 || place.n == 0)
			continue;
		uint32_t found = layer_tree_lookup(t, place.dir, place.name, place.n);
		uint32_t inode = found == LAYER_NONE ? LAYER_NONE : layer_dentry(t, found)->inode;
		if (inode != LAYER_NONE && !layer_is(layer_inode(t, inode), S_IFDIR))
			i->pending.inode = inode;
	}
}

static int merge_layers(struct merge *m, const struct layer_source *sources, const struct layer_options *options,
	struct layer_result *results)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i <= m->n; i++) {
		m->roots[i] = layer_tree_root(&m->tree, m->err); /* the last one is the union's */
		r = m->roots[i] == LAYER_NONE ? -ENOMEM : 0;
	}
	m->wanted = r == 0 ? layer_tree_root(&m->tree, m->err) : LAYER_NONE;
	if (m->wanted == LAYER_NONE)
		return -ENOMEM;
	for (size_t i = m->n; r == 0 && i-- > 0;) {
		m->reading = i;
		m->inodes[m->n - 1 - i] = m->tree.inodes.used;
		r = read_layer(m, &sources[i], options, &results[i]);
	}
	m->inodes[m->n] = m->tree.inodes.used;
	for (size_t i = 0; r == 0 && i < m->n; i++) {
		resolve_pending(m, i);
		copy_attributes(&m->tree, m->roots[m->n], m->roots[i]);
		r = apply_dir(m, m->roots[m->n], m->roots[i]);
		if (r < 0)
			error_prefix(m->err, r, "layer %s", sources[i].name);
	}
	return r;
}

/* One try. -ESTALE: something skipped is needed. */
static int attempt(const struct layer_source *sources, size_t n, int out_fd, const struct layer_options *options,
	struct layer_result *results, bool keep, struct husk_error *err)
{
	struct merge m = {.n = n, .keep = keep, .err = err};
	struct layer_squashfs_result written;
	CLEANUP_FREE uint32_t *roots = calloc(n + 1, sizeof(*roots));
	CLEANUP_FREE uint32_t *inodes = calloc(n + 1, sizeof(*inodes));
	m.roots = roots;
	m.inodes = inodes;
	if (!roots || !inodes)
		return error_set(err, -ENOMEM, "merge layers: out of memory");
	uint64_t max = options && options->max_entries ? options->max_entries : LAYER_ENTRIES_MAX;
	int r = layer_tree_init(&m.tree, max, err);
	if (r == 0)
		r = layer_data_init(&m.data, &m.tree, out_fd, err);
	if (r == 0)
		r = merge_layers(&m, sources, options, results);
	if (r == 0) {
		r = layer_squashfs_write(&m.data, m.roots[n], &written, err);
		results[n - 1].size = written.size;
		results[n - 1].entries = written.entries;
		if (r < 0 && r != -ESTALE)
			error_prefix(err, r, "merge layers");
	}
	layer_data_free(&m.data);
	layer_tree_free(&m.tree);
	return r;
}

static int rewind_all(
	const struct layer_source *sources, size_t n, const off_t *starts, int out_fd, struct husk_error *err)
{
	for (size_t i = 0; i < n; i++) {
		if (lseek(sources[i].fd, starts[i], SEEK_SET) < 0)
			return error_errno(err, "layer %s: rewind", sources[i].name);
	}
	return ftruncate(out_fd, 0) < 0 ? error_errno(err, "truncate block image") : 0;
}

int layer_merge(const struct layer_source *sources, size_t n, int out_fd, const struct layer_options *options,
	struct layer_result *results, struct husk_error *err)
{
	CLEANUP_FREE off_t *starts = calloc(n + 1, sizeof(*starts));
	CLEANUP_FREE struct layer_result *done = calloc(n + 1, sizeof(*done));
	bool keep = n == 1;
	if (!starts || !done)
		return error_set(err, -ENOMEM, "merge layers: out of memory");
	if (n == 0)
		return error_set(err, -EINVAL, "merge layers: there are none");
	for (size_t i = 0; i < n; i++) {
		starts[i] = lseek(sources[i].fd, 0, SEEK_CUR);
		keep = keep || starts[i] < 0;
	}
	int r = attempt(sources, n, out_fd, options, done, keep, err);
	if (r == -ESTALE && !keep) {
		r = rewind_all(sources, n, starts, out_fd, err);
		if (r == 0)
			r = attempt(sources, n, out_fd, options, done, true, err);
	}
	if (r == 0)
		memcpy(results, done, n * sizeof(*done));
	return r;
}
