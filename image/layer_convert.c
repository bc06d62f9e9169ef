/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_convert.c - one layer into one block image
 *
 * Theory of operation: the layer's bytes pass once, from the stream's thread (read, digest, inflate) through the tar
 * reader into the tree (names, attributes) and the data writer (contents, compressed by its workers). At the tar's end
 * the rest of the stream is drained and its digests compared, and only then the image is completed: without its
 * superblock, which is written last, a file that was left behind is no squashfs.
 */
#include "image/layer.h"
#include "image/layer_squashfs.h"
#include "image/layer_tar.h"

#include <string.h>

static int convert(const struct layer_source *source, const struct layer_options *options, struct layer_tar *tar,
	struct layer_result *result, struct husk_error *err)
{
	struct layer_stream *stream;
	int r = layer_stream_open(source, options, &stream, err);
	if (r < 0)
		return r;
	r = layer_tar_read(tar, stream, source->name, err);
	if (r == 0)
		r = layer_stream_finish(stream, result, err);
	layer_stream_close(stream);
	return r;
}

/* Below an opaque directory a whiteout hides nothing, and overlayfs would list it, since it does not merge there: leave it
 * out. Dentries of directories come before those of what is in them. */
static void drop_idle_whiteouts(struct layer_tree *t)
{
	for (uint32_t at = 0; at < t->dentries.used; at++) {
		struct layer_dentry *d = layer_dentry(t, at);
		struct layer_inode *i = layer_inode(t, d->inode);
		const struct layer_inode *parent = layer_inode(t, d->parent);
		bool covered = parent->flags & (LAYER_COVERED | LAYER_OPAQUE);
		if (covered && layer_is(i, S_IFDIR))
			i->flags |= LAYER_COVERED;
		else if (covered && layer_is_whiteout(i))
			d->inode = LAYER_NONE;
	}
}

int layer_convert(const struct layer_source *source, int out_fd, const struct layer_options *options,
	struct layer_result *result, struct husk_error *err)
{
	struct layer_tree tree;
	struct layer_data data = {0};
	struct layer_squashfs_result written;
	struct layer_result done = {0};
	uint64_t max = options && options->max_entries ? options->max_entries : LAYER_ENTRIES_MAX;
	int r = layer_tree_init(&tree, max, err);
	if (r == 0)
		r = layer_data_init(&data, &tree, out_fd, err);
	struct layer_tar tar = {.tree = &tree, .data = &data};
	if (r == 0) {
		tar.root = layer_tree_root(&tree, err);
		r = tar.root == LAYER_NONE ? -ENOMEM : 0;
	}
	bool reading = r == 0;
	if (r == 0)
		r = convert(source, options, &tar, &done, err);
	if (r == 0) {
		reading = false;
		drop_idle_whiteouts(&tree);
		done.needs_lower = layer_tree_needs_lower(&tree, tar.root);
		r = layer_squashfs_write(&data, tar.root, &written, err);
	}
	layer_data_free(&data);
	layer_tree_free(&tree);
	if (r < 0)
		return reading ? r : error_prefix(err, r, "layer %s", source->name);
	done.size = written.size;
	done.entries = written.entries;
	done.dropped_acls = tar.dropped_acls;
	*result = done;
	return 0;
}
