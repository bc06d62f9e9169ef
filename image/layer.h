/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer.h - OCI layers (tar, compressed or not) into read-only squashfs block images
 *
 * Runs in husk-image only: it parses hostile bytes.
 */
#ifndef IMAGE_LAYER_H
#define IMAGE_LAYER_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define DIGEST_MAX 72            /* "sha256:" and 64 hex digits and NUL */
#define LAYER_ENTRIES_MAX 4000000 /* default cap on the entries of one block image */

/** Where the bytes of one layer come from. fd is read from its current offset to its end; it may be a pipe. */
struct layer_source {
	int fd;
	const char *name;    /* for messages */
	const char *digest;  /* expected digest of the bytes as read ("sha256:…"), NULL: not checked */
	const char *diff_id; /* expected digest of the uncompressed tar, NULL: not checked */
	uint64_t size;       /* expected number of bytes as read, 0: not checked */
};

struct layer_options {
	uint64_t max_entries; /* 0: LAYER_ENTRIES_MAX */
	/** Called now and then with the bytes read so far; may be NULL. */
	void (*progress)(void *data, uint64_t bytes);
	void *progress_data;
};

/** What became of a layer. */
struct layer_result {
	char digest[DIGEST_MAX];  /* of the bytes as read */
	char diff_id[DIGEST_MAX]; /* of the uncompressed tar */
	uint64_t size;            /* bytes of the block image, a multiple of 4096 */
	uint64_t entries;
	uint64_t dropped_acls;    /* entries whose POSIX ACLs squashfs cannot hold */
	/** The layer says something only together with the layers below it: a hard link to a file of a lower layer, or a
	 *  directory that is implied by a path but not listed (its owner and mode come from below). Its block image alone
	 *  would be wrong above others; merge the image's layers instead. */
	bool needs_lower;
};

/** Convert one layer to a squashfs image at the start of @out_fd (empty, seekable, open for reading and writing).
 *  Whiteouts become character devices 0/0, opaque markers trusted.overlay.opaque=y; trusted.overlay.* of the tar is
 *  stripped. */
int layer_convert(const struct layer_source *source, int out_fd, const struct layer_options *options,
	struct layer_result *result, struct husk_error *err);

/** Convert @n layers, bottom first, to the one squashfs image of their union, without any whiteout. results[i] is filled
 *  for each; results[n - 1].size is the block image's. Each source is read once, from the top layer down. */
int layer_merge(const struct layer_source *sources, size_t n, int out_fd, const struct layer_options *options,
	struct layer_result *results, struct husk_error *err);

/** Convert the directory tree at @path (as seen by this process) to one squashfs image, as if it were a layer; the
 *  diff_id of the result identifies the content. Sockets are left out. Does not cross file systems. */
int layer_from_tree(const char *path, int out_fd, const struct layer_options *options, struct layer_result *result,
	struct husk_error *err);

#endif
