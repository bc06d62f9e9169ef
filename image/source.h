/* SPDX-License-Identifier: Apache-2.0 */
/* source.h - where an image comes from: one struct for registries, OCI layouts and archives. Runs in husk-image only */
#ifndef IMAGE_SOURCE_H
#define IMAGE_SOURCE_H

#include "image/manifest.h"
#include "image/name.h"
#include "image/store.h"

struct source;
struct tree;
struct registry;

/** Bytes of a layer present so far. */
typedef void source_progress(void *data, uint64_t bytes);

struct source_ops {
	/** Fill @plan but for what comes from the config's content. */
	int (*resolve)(struct source *source, const struct platform *platform, struct image_plan *plan,
		struct husk_error *err);
	/** The whole document that @blob points to, its digest checked; @manifest: a manifest or index, else a config. */
	int (*document)(struct source *source, const struct descriptor *blob, bool manifest, struct buffer *out,
		struct husk_error *err);
	/** A descriptor on the bytes of @layer, at their start; fetches them if need be. May be called again, and from
	 *  several threads. */
	int (*layer)(struct source *source, const struct plan_layer *layer, source_progress *progress, void *data,
		int *fd, struct husk_error *err);
	/** The image is committed: what was fetched for it may go. */
	void (*done)(struct source *source, const struct image_plan *plan);
	void (*close)(struct source *source);
};

struct source {
	const struct source_ops *ops;
	const struct source_name *name;
	struct store *store;
	struct tree *tree; /* local sources */
	struct registry *registry; /* SOURCE_REGISTRY */
};

/** Open a source other than rootfs: and tar:. Strings and store are borrowed. */
int source_open(const struct source_name *name, struct store *store, struct source *out, struct husk_error *err);
void source_close(struct source *source);
/** Describe the image of the source for @platform: whole plan, config parsed. -ENOENT when it is for another platform. */
int source_resolve(
	struct source *source, const struct platform *platform, struct image_plan *plan, struct husk_error *err);
/** For resolve operations: go down from the document in plan->manifest (with @media_type) to the manifest, take it, and
 *  fetch its config. */
int source_descend(struct source *source, const char *media_type, const struct platform *platform,
	struct image_plan *plan, struct husk_error *err);

/** "DEVICE:INODE:SIZE:MTIME" of the file at @path, which changes when the file does; malloc'ed. */
int file_identity(const char *path, char **out, struct husk_error *err);

/** A registry client with this program's options; close with registry_close(). */
int source_registry_open(const struct store *store, struct registry **out, struct husk_error *err);

extern const struct source_ops source_oci_ops, source_docker_ops, source_registry_ops;

/* ---- named files of a directory or an archive (source_tree.c) ---- */

/** @path: a directory, or a tar archive (compressed or not), whose members are unpacked to a temporary directory. */
int tree_open(const char *path, bool archive, struct store *store, struct tree **out, struct husk_error *err);
void tree_close(struct tree *tree);
/** Open the regular file @name for reading. -ENOENT. */
int tree_file(const struct tree *tree, const char *name, int *fd, struct husk_error *err);
/** Its whole content, at most @limit bytes. */
int tree_read(const struct tree *tree, const char *name, size_t limit, struct buffer *out, struct husk_error *err);

#endif
