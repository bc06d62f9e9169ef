/* SPDX-License-Identifier: Apache-2.0 */
/* verb_images.c - husk-image images, inspect, rmi, gc */
#include "image/json.h"
#include "image/record_private.h"
#include "image/verbs.h"

#include <getopt.h>
#include <string.h>

static json_t *name_list(const struct image_record *record)
{
	json_t *list = json_array();
	for (char **name = record->names; *name; name++)
		json_array_append_new(list, json_string(*name));
	return list;
}

/** The head that both forms share. */
static json_t *describe(const struct image_record *record)
{
	struct platform platform;
	char text[3 * PLATFORM_FIELD];
	platform_set(&platform, record->os, record->architecture, record->variant);
	platform_format(&platform, text);
	return json_pack("{s:s s:o s:s* s:s* s:s s:s s:s* s:s s:I}", "id", record->id, "names", name_list(record),
		"digest", record->manifest_digest, "created", record->created, "os", record->os, "architecture",
		record->architecture, "variant", record->variant, "platform", text, "size", (json_int_t)record->size);
}

static int print_json(const json_t *json, struct buffer *out, struct husk_error *err)
{
	CLEANUP_FREE char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	if (!text || buffer_printf(out, "%s\n", text) < 0)
		return error_set(err, -ENOMEM, "print JSON: out of memory");
	return 0;
}

int verb_images(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	struct image_record *records;
	size_t n;
	bool json = argc == 1 || (argc == 3 && strcmp(argv[1], "--format") == 0 && strcmp(argv[2], "json") == 0) ||
		    (argc == 2 && strcmp(argv[1], "--format=json") == 0);
	if (!json)
		return error_set(err, -EINVAL, "usage: images [--format json]");
	int rc = image_list(store->home, &records, &n, err);
	if (rc < 0)
		return rc;
	CLEANUP_JSON json_t *list = json_array();
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(list, describe(&records[i]));
		image_record_free(&records[i]);
	}
	free(records);
	return print_json(list, out, err);
}

/** The "config" object of the image's config as it came. */
static int load_config(
	const struct store *store, const struct image_record *record, json_t **out, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "blobs/sha256/%s", record->id + strlen("sha256:"));
	CLEANUP_JSON json_t *config = NULL;
	json_t *inner;
	if (!path)
		return error_set(err, -ENOMEM, "inspect: out of memory");
	int rc = json_read_file(path, &config, err);
	if (rc == 0)
		rc = json_get_object(config, "config", path, &inner, err);
	if (rc == 0)
		*out = inner ? json_incref(inner) : json_object();
	return rc;
}

/** Block images and, below them, the layers as the source had them. */
static void add_layers(json_t *to, const struct image_record *record, const json_t *raw)
{
	json_t *layers = json_array(), *source = json_object_get(raw, "source_layers");
	for (size_t i = 0; i < record->n_layers; i++) {
		const struct image_layer *layer = &record->layers[i];
		json_array_append_new(layers, json_pack("{s:s s:s s:I}", "diff_id", layer->diff_id, "path", layer->path,
						      "size", (json_int_t)layer->size));
	}
	json_object_set_new(to, "layers", layers);
	if (json_is_array(source))
		json_object_set(to, "source_layers", source);
}

int verb_inspect(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	CLEANUP(image_record_free) struct image_record record = {0};
	CLEANUP_JSON json_t *config = NULL;
	CLEANUP_JSON json_t *raw = NULL;
	char id[DIGEST_MAX];
	if (argc != 2)
		return error_set(err, -EINVAL, "usage: inspect REF");
	int rc = record_resolve(store->home, argv[1], id, NULL, err);
	if (rc == 0)
		rc = record_load_named(store->home, id, &record, &raw, err);
	if (rc == 0)
		rc = load_config(store, &record, &config, err);
	if (rc < 0)
		return rc;
	CLEANUP_JSON json_t *json = describe(&record);
	if (json) {
		json_object_set(json, "config", config);
		add_layers(json, &record, raw);
	}
	return print_json(json, out, err);
}

int verb_rmi(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {0}};
	bool force = false;
	int rc = 0, option;
	while ((option = getopt_long(argc, argv, "+f", options, NULL)) != -1) {
		if (option != 'f')
			return error_set(err, -EINVAL, "rmi: unknown option");
		force = true;
	}
	if (optind == argc)
		return error_set(err, -EINVAL, "usage: rmi [-f] REF...");
	for (int i = optind; rc == 0 && i < argc; i++)
		rc = store_remove(store, argv[i], force, out, err);
	return rc;
}

int verb_gc(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	static const struct option options[] = {
		{"dry-run", no_argument, NULL, 'd'}, {"images", no_argument, NULL, 'i'}, {0}};
	bool images = false;
	int option;
	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (option == '?')
			return error_set(err, -EINVAL, "usage: gc [--images] [--dry-run]");
		store->dry_run |= option == 'd';
		images |= option == 'i';
	}
	if (optind != argc)
		return error_set(err, -EINVAL, "usage: gc [--images] [--dry-run]");
	int rc = images ? store_collect_images(store, out, err) : 0;
	return rc < 0 ? rc : store_collect(store, out, err);
}
