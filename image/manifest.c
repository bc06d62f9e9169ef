/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.c - OCI and Docker manifests, indexes and configs
 *
 * Theory of operation: the documents are the OCI image-spec's (manifest.md, image-index.md, config.md) and Docker's schema
 * 2, which differ in media types only. They come from strangers: json.c bounds them, here every field that husk uses is
 * checked for type, length and range, and the rest is not looked at. An index is answered with one descriptor, chosen as
 * containerd does: the entry whose platform ranks best, the first among equals.
 */
#include "image/manifest.h"

#include "image/reference.h"

#include <string.h>

#define BLOB_MAX (1ull << 42)
#define REF_NAME "org.opencontainers.image.ref.name"

void image_plan_free(struct image_plan *plan)
{
	buffer_free(&plan->manifest);
	buffer_free(&plan->config);
	for (size_t i = 0; i < plan->n_layers; i++)
		free(plan->layers[i].member);
	free(plan->layers);
	*plan = (struct image_plan){0};
}

static int parse_descriptor(const json_t *json, const char *what, struct descriptor *out, struct husk_error *err)
{
	const char *digest, *media_type;
	if (!json_is_object(json))
		return error_set(err, -EBADMSG, "%s: a descriptor is missing or no object", what);
	int rc = json_get_string(json, "digest", 1024, true, what, &digest, err);
	if (rc == 0) {
		rc = digest_check(digest, err);
		rc = rc < 0 ? error_prefix(err, rc, "%s", what) : 0;
	}
	if (rc == 0)
		rc = json_get_size(json, "size", BLOB_MAX, what, &out->size, err);
	if (rc == 0)
		rc = json_get_string(json, "mediaType", sizeof(out->media_type) - 1, false, what, &media_type, err);
	if (rc < 0)
		return rc;
	snprintf(out->digest, sizeof(out->digest), "%s", digest);
	snprintf(out->media_type, sizeof(out->media_type), "%s", media_type ? media_type : "");
	return 0;
}

bool manifest_is_index(const char *media_type, const json_t *json)
{
	if (strstr(media_type, "image.index") || strstr(media_type, "manifest.list"))
		return true;
	if (strstr(media_type, "manifest.v1+json") || strstr(media_type, "manifest.v2+json"))
		return false;
	return json_is_array(json_object_get(json, "manifests"));
}

/** The platform of an index's entry; false when it has none. */
static int entry_platform(
	const json_t *entry, const char *what, struct platform *out, bool *has, struct husk_error *err)
{
	json_t *json;
	const char *os, *architecture, *variant;
	int rc = json_get_object(entry, "platform", what, &json, err);
	*has = json != NULL;
	if (rc < 0 || !json)
		return rc;
	rc = json_get_string(json, "os", 256, false, what, &os, err);
	if (rc == 0)
		rc = json_get_string(json, "architecture", 256, false, what, &architecture, err);
	if (rc == 0)
		rc = json_get_string(json, "variant", 256, false, what, &variant, err);
	if (rc == 0)
		platform_set(out, os, architecture, variant);
	return rc;
}

static int entry_tag(const json_t *entry, const char *what, const char **tag, struct husk_error *err)
{
	json_t *annotations;
	*tag = NULL;
	int rc = json_get_object(entry, "annotations", what, &annotations, err);
	return rc == 0 && annotations ? json_get_string(annotations, REF_NAME, 4096, false, what, tag, err) : rc;
}

/** What an index offers, for messages. */
static void list_platform(char *list, size_t size, const struct platform *platform)
{
	char text[3 * PLATFORM_FIELD];
	size_t n = strlen(list);
	platform_format(platform, text);
	if (!strstr(text, "unknown") && n + strlen(text) + 3 < size)
		snprintf(list + n, size - n, "%s%s", n ? ", " : "", text);
}

int manifest_select(const json_t *json, const struct platform *platform, const char *tag, const char *what,
	struct descriptor *out, struct husk_error *err)
{
	char offered[512] = "", wanted[3 * PLATFORM_FIELD];
	json_t *entries, *best = NULL, *unnamed = NULL;
	int best_rank = -1;
	bool tag_found = !tag;
	int rc = json_get_array(json, "manifests", what, &entries, err);
	for (size_t i = 0; rc == 0 && i < json_array_size(entries); i++) {
		json_t *entry = json_array_get(entries, i);
		struct platform have;
		bool has = false;
		const char *name = NULL;
		if (!json_is_object(entry))
			return error_set(err, -EBADMSG, "%s: an entry of the index is no object", what);
		rc = tag ? entry_tag(entry, what, &name, err) : 0;
		if (rc < 0 || (tag && (!name || strcmp(name, tag) != 0)))
			continue;
		tag_found = true;
		rc = entry_platform(entry, what, &have, &has, err);
		if (rc == 0 && !has && !unnamed)
			unnamed = entry;
		if (rc < 0 || !has)
			continue;
		list_platform(offered, sizeof(offered), &have);
		int rank = platform_rank(platform, &have);
		if (rank >= 0 && (!best || rank < best_rank)) {
			best = entry;
			best_rank = rank;
		}
	}
	if (rc < 0)
		return rc;
	if (best || unnamed)
		return parse_descriptor(best ? best : unnamed, what, out, err);
	platform_format(platform, wanted);
	if (!tag_found)
		return error_set(err, -ENOENT, "%s: no image has the tag '%s'", what, tag);
	return error_set(err, -ENOENT, "%s: no image for platform %s%s%s%s", what, wanted,
		offered[0] ? " (there is " : "", offered, offered[0] ? ")" : "");
}

int manifest_parse(const json_t *json, const char *what, struct image_plan *plan, struct descriptor *config,
	struct husk_error *err)
{
	uint64_t schema;
	json_t *layers;
	int rc = json_get_size(json, "schemaVersion", 1000, what, &schema, err);
	if (rc == 0 && schema != 2)
		rc = error_set(err, -EBADMSG, "%s: manifest of schema version %llu; only 2 is supported", what,
			(unsigned long long)schema);
	if (rc == 0)
		rc = parse_descriptor(json_object_get(json, "config"), what, config, err);
	if (rc == 0)
		rc = json_get_array(json, "layers", what, &layers, err);
	if (rc < 0)
		return rc;
	size_t n = json_array_size(layers);
	if (n < 1 || n > MANIFEST_LAYERS_MAX)
		return error_set(err, -EBADMSG, "%s: an image of %zu layers", what, n);
	plan->layers = calloc(n, sizeof(*plan->layers));
	if (!plan->layers)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	plan->n_layers = n;
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = parse_descriptor(json_array_get(layers, i), what, &plan->layers[i].blob, err);
	return rc;
}

static int parse_diff_ids(struct image_plan *plan, const json_t *json, const char *what, struct husk_error *err)
{
	json_t *rootfs, *ids = NULL;
	int rc = json_get_object(json, "rootfs", what, &rootfs, err);
	if (rc == 0 && rootfs)
		rc = json_get_array(rootfs, "diff_ids", what, &ids, err);
	if (rc < 0)
		return rc;
	if (!ids)
		return error_set(err, -EBADMSG, "%s: no container image: its config has no rootfs.diff_ids", what);
	if (json_array_size(ids) != plan->n_layers)
		return error_set(err, -EBADMSG, "%s: %zu layers, but the config has %zu diff IDs", what, plan->n_layers,
			json_array_size(ids));
	for (size_t i = 0; i < plan->n_layers; i++) {
		const char *id = json_string_value(json_array_get(ids, i));
		if (!id)
			return error_set(err, -EBADMSG, "%s: a diff ID is no string", what);
		if (digest_check(id, err) < 0)
			return error_prefix(err, -EBADMSG, "%s", what);
		snprintf(plan->layers[i].diff_id, DIGEST_MAX, "%s", id);
	}
	return 0;
}

int config_parse(struct image_plan *plan, const struct platform *fallback, const char *what, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = NULL;
	const char *os = NULL, *architecture = NULL, *variant = NULL;
	int rc = plan->config.size ? json_read(buffer_bytes(&plan->config), plan->config.size, false, what, &json, err)
				   : error_set(err, -EBADMSG, "%s: an empty config", what);
	if (rc == 0)
		rc = parse_diff_ids(plan, json, what, err);
	if (rc == 0)
		rc = json_get_string(json, "os", 256, false, what, &os, err);
	if (rc == 0)
		rc = json_get_string(json, "architecture", 256, false, what, &architecture, err);
	if (rc == 0)
		rc = json_get_string(json, "variant", 256, false, what, &variant, err);
	if (rc < 0)
		return rc;
	platform_set(&plan->platform, os && *os ? os : fallback->os,
		architecture && *architecture ? architecture : fallback->architecture,
		architecture && *architecture ? variant : fallback->variant);
	CLEANUP_JSON json_t *config = NULL;
	CLEANUP_FREE char *created = NULL;
	rc = config_record(plan, &config, &created, err);
	return rc < 0 ? error_prefix(err, rc, "%s", what) : 0;
}

static int copy_list(const json_t *from, const char *key, const char *as, json_t *to, struct husk_error *err)
{
	char **list;
	int rc = json_get_strings(from, key, "config", &list, err);
	if (rc < 0)
		return rc;
	strings_free(list);
	json_t *value = json_object_get(from, key);
	if (json_is_array(value))
		json_object_set(to, as, value);
	return 0;
}

static int copy_text(const json_t *from, const char *key, const char *as, json_t *to, struct husk_error *err)
{
	const char *text;
	int rc = json_get_string(from, key, 32768, false, "config", &text, err);
	if (rc == 0 && text && *text)
		json_object_set(to, as, json_object_get(from, key));
	return rc;
}

static int copy_volumes(const json_t *from, json_t *to, struct husk_error *err)
{
	char **volumes;
	int rc = json_get_keys(from, "Volumes", "config", &volumes, err);
	if (rc < 0)
		return rc;
	json_t *list = json_array();
	for (char **at = volumes; *at; at++)
		json_array_append_new(list, json_string(*at));
	json_object_set_new(to, "volumes", list);
	strings_free(volumes);
	return 0;
}

int config_record(const struct image_plan *plan, json_t **config, char **created, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = NULL;
	CLEANUP_JSON json_t *out = json_object();
	json_t *from;
	const char *time = NULL;
	int rc = json_read(buffer_bytes(&plan->config), plan->config.size, false, "config", &json, err);
	if (rc == 0)
		rc = json_get_object(json, "config", "config", &from, err);
	if (rc == 0)
		rc = json_get_string(json, "created", 128, false, "config", &time, err);
	if (rc == 0 && from) {
		rc = copy_list(from, "Env", "env", out, err);
		if (rc == 0)
			rc = copy_list(from, "Entrypoint", "entrypoint", out, err);
		if (rc == 0)
			rc = copy_list(from, "Cmd", "cmd", out, err);
		if (rc == 0)
			rc = copy_text(from, "WorkingDir", "working_dir", out, err);
		if (rc == 0)
			rc = copy_text(from, "User", "user", out, err);
		if (rc == 0)
			rc = copy_text(from, "StopSignal", "stop_signal", out, err);
		if (rc == 0)
			rc = copy_volumes(from, out, err);
	}
	*created = NULL;
	if (rc == 0 && time && *time && !(*created = strdup(time)))
		rc = error_set(err, -ENOMEM, "config: out of memory");
	if (rc == 0)
		*config = steal_pointer(&out);
	return rc;
}
