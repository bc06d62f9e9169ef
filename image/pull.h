/* SPDX-License-Identifier: Apache-2.0 */
/* pull.h - bring an image into the store */
#ifndef IMAGE_PULL_H
#define IMAGE_PULL_H

#include "image/source.h"

enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER };

/** One pull; strings are borrowed. */
struct pull_request {
	const char *source;
	const char *name; /* another name for the image, a reference; or NULL */
	const char *platform; /* NULL: this machine's */
	enum pull_policy policy;
	bool offline;
};

/** Make sure that the store has the image; @id is set. */
int pull_image(struct store *store, const struct pull_request *request, char id[DIGEST_MAX], struct husk_error *err);

/* ---- pull_layers.c ---- */

/** The block images of one image, bottom first. Free with pulled_layers_free(), which also lets go of the locks that keep
 *  them from being removed. */
struct pulled_layers {
	struct pulled_layer {
		char key[65]; /* layers/KEY.img */
		char diff_id[DIGEST_MAX]; /* of a merged one: "sha256:" and its key */
		uint64_t size;
	} * layers;
	size_t n;
	char **spare; /* keys of block images that were made and not used, because the layers had to be merged */
	uint64_t dropped_acls;
	struct store_lock *locks;
	size_t n_locks;
};

void pulled_layers_free(struct pulled_layers *layers);
/** Let go of the locks only: the image is committed. */
void pulled_layers_unlock(struct pulled_layers *layers);
/** Fetch and convert the layers of @plan as far as the store has them not. @stop is set when one of them fails. */
int pull_layers(struct source *source, const struct image_plan *plan, volatile int *stop, struct pulled_layers *out,
	struct husk_error *err);
/** Block images that are made anew in a temporary file @name and are known by what comes out: rename it to @key. */
int pull_adopt(struct store *store, const char *name, const char *key, int fd, uint64_t size, struct pulled_layers *out,
	struct husk_error *err);
/** The key of the merged image of @n layers. */
int pull_chain_key(const struct plan_layer *layers, size_t n, char key[65], struct husk_error *err);

/* ---- pull_local.c ---- */

/** rootfs: and tar: - one block image, and a config made for it. */
int pull_root(struct store *store, const struct source_name *name, const struct platform *platform,
	struct image_plan *plan, struct pulled_layers *out, struct husk_error *err);

#endif
