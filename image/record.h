/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - what the store knows of an image: written by husk-image, read by husk-image and the engine
 *
 * The store's root is the husk home ($HUSK_HOME, /var/lib/husk for root, $XDG_DATA_HOME/husk for others):
 *
 *     blobs/sha256/HEX     manifests and configs as they came
 *     layers/HEX.img       one block image per layer, by diff ID (merged ones: by the digest of their diff IDs)
 *     images/HEX.json      one record per image, by image id (the digest of its config), schema version inside
 *     names/…              one file per name that points to an image id
 *     partial/             downloads and conversions under way
 *
 * Records are JSON, at most 8 MiB; a reader checks every type and length.
 */
#ifndef IMAGE_RECORD_H
#define IMAGE_RECORD_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define IMAGE_RECORD_SCHEMA 1

/** One read-only block image of the root, bottom first. */
struct image_layer {
	char *path; /* absolute */
	char *diff_id;
	uint64_t size; /* bytes, a multiple of 4096 */
};

/** Owned; free with image_record_free(). Lists are NULL-terminated arrays of strings, never NULL themselves. */
struct image_record {
	char *id;              /* "sha256:…" of the config */
	char *manifest_digest; /* "sha256:…", or NULL for images without one (tar:, rootfs:) */
	char **names;          /* canonical names */
	char *created;         /* RFC 3339 as in the config, or NULL */
	char *os, *architecture, *variant; /* variant may be NULL */
	uint64_t size;         /* bytes of all block images */
	/* config (OCI image-spec config.md) */
	char **env;
	char **entrypoint;
	char **cmd;
	char *working_dir; /* may be NULL */
	char *user;        /* may be NULL */
	char *stop_signal; /* may be NULL */
	char **volumes;
	struct image_layer *layers;
	size_t n_layers; /* 1 to 40 */
};

/** Find the image that @text names: a reference, a source that was pulled before ("oci:DIR"), an image id or a unique
 *  prefix of at least 3 hex digits of one. -ENOENT when the store of @home has none, -ENOTUNIQ for an ambiguous prefix.
 *  @platform ("linux/amd64", NULL: this machine's) must match, else -ENOENT with the reason. */
int image_find(const char *home, const char *text, const char *platform, struct image_record *out,
	struct husk_error *err);
/** All images, newest first; *@out is a malloc'ed array whose elements and itself the caller frees. */
int image_list(const char *home, struct image_record **out, size_t *n, struct husk_error *err);
void image_record_free(struct image_record *record);

#endif
