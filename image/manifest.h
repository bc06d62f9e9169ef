/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.h - OCI and Docker manifests, indexes and configs: hostile JSON into checked structs. Pure: no I/O */
#ifndef IMAGE_MANIFEST_H
#define IMAGE_MANIFEST_H

#include "base/buffer.h"
#include "image/json.h"
#include "image/layer.h"
#include "image/platform.h"

#include <stdbool.h>

#define MANIFEST_LAYERS_MAX 512
#define MANIFEST_BYTES_MAX (4u << 20)

/** What points to a blob. */
struct descriptor {
	char digest[DIGEST_MAX];
	uint64_t size;
	char media_type[128];
};

/** One layer of a plan. */
struct plan_layer {
	struct descriptor blob; /* digest empty: not known (docker-archive) */
	char diff_id[DIGEST_MAX]; /* from the config */
	char *member; /* docker-archive: its name in the archive; owned, else NULL */
};

/** An image as its source describes it. Free with image_plan_free(). */
struct image_plan {
	struct buffer manifest; /* as it came; empty: none */
	char manifest_digest[DIGEST_MAX];
	struct buffer config;
	char id[DIGEST_MAX]; /* digest of config */
	struct plan_layer *layers;
	size_t n_layers;
	struct platform platform;
	char source_digest[DIGEST_MAX]; /* of what the name meant, an index's perhaps; or empty */
};

void image_plan_free(struct image_plan *plan);

/** True when the document is an index (manifest list): by @media_type, or, when that says nothing, by its content. */
bool manifest_is_index(const char *media_type, const json_t *json);
/** The manifest of index @json for @platform; entries without platform only when none with one matches. With @tag, only
 *  entries annotated with it. -ENOENT, with what there is. */
int manifest_select(const json_t *json, const struct platform *platform, const char *tag, const char *what,
	struct descriptor *out, struct husk_error *err);
/** The manifest @json: its config's descriptor, and plan->layers without diff IDs. */
int manifest_parse(const json_t *json, const char *what, struct image_plan *plan, struct descriptor *config,
	struct husk_error *err);
/** Read plan->config: platform and the layers' diff IDs (their number must match), and check the types of what a run
 *  reads later. Fields that say no platform get @fallback's. */
int config_parse(struct image_plan *plan, const struct platform *fallback, const char *what, struct husk_error *err);
/** The record's "config" object and the creation time (may be NULL) from plan->config. */
int config_record(const struct image_plan *plan, json_t **config, char **created, struct husk_error *err);

#endif
