/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.c - reading what the store knows of its images
 *
 * Theory of operation: a record is images/HEX.json, where HEX is the image id; a name is names/FILE.json (name.c) and
 * points to an id. Both appear by rename and are never changed in place, so a reader needs no lock: what it opens is
 * whole. A file that vanishes between readdir and open was removed and is skipped; one that is there and cannot be read
 * is an error that names it. Names are the only truth about names: a record does not list its own.
 *
 * The engine calls image_find() for registry references and ids. For local sources ("oci:DIR") it always runs
 * `husk-image pull`, which looks whether the source has changed.
 */
#include "image/record.h"

#include "base/path.h"
#include "image/name.h"
#include "image/record_private.h"

#include <string.h>
#include <sys/stat.h>

#define TEXT_MAX 65536
#define LAYERS_MAX 40

static void cleanup_record(struct image_record *record)
{
	image_record_free(record);
}

void image_record_free(struct image_record *record)
{
	free(record->id);
	free(record->manifest_digest);
	strings_free(record->names);
	free(record->created);
	free(record->os);
	free(record->architecture);
	free(record->variant);
	strings_free(record->env);
	strings_free(record->entrypoint);
	strings_free(record->cmd);
	free(record->working_dir);
	free(record->user);
	free(record->stop_signal);
	strings_free(record->volumes);
	for (size_t i = 0; i < record->n_layers; i++) {
		free(record->layers[i].path);
		free(record->layers[i].diff_id);
	}
	free(record->layers);
	*record = (struct image_record){0};
}

/** A copy of member @key; *@out is NULL when it is absent. */
static int copy_string(
	const json_t *object, const char *key, bool required, const char *what, char **out, struct husk_error *err)
{
	const char *text;
	int rc = json_get_string(object, key, TEXT_MAX, required, what, &text, err);
	*out = NULL;
	if (rc < 0 || !text)
		return rc;
	*out = strdup(text);
	return *out ? 0 : error_set(err, -ENOMEM, "%s: out of memory", what);
}

static bool is_image_file(const char *file)
{
	return strspn(file, "0123456789abcdef") == 64 && strcmp(file + 64, ".img") == 0;
}

static int load_layer(
	const char *home, const json_t *json, const char *what, struct image_layer *out, struct husk_error *err)
{
	const char *file;
	int rc = json_get_string(json, "file", 80, true, what, &file, err);
	if (rc == 0)
		rc = json_get_size(json, "size", UINT64_MAX >> 1, what, &out->size, err);
	if (rc == 0)
		rc = copy_string(json, "diff_id", true, what, &out->diff_id, err);
	if (rc < 0)
		return rc;
	if (!is_image_file(file) || !out->size || out->size % 4096)
		return error_set(err, -EBADMSG, "%s: a layer's file or size makes no sense", what);
	out->path = path_format("%s/layers/%s", home, file);
	return out->path ? 0 : error_set(err, -ENOMEM, "%s: out of memory", what);
}

static int load_layers(
	const char *home, const json_t *json, const char *what, struct image_record *out, struct husk_error *err)
{
	json_t *layers;
	int rc = json_get_array(json, "layers", what, &layers, err);
	if (rc < 0)
		return rc;
	size_t n = json_array_size(layers);
	if (n < 1 || n > LAYERS_MAX)
		return error_set(err, -EBADMSG, "%s: %zu layers", what, n);
	out->layers = calloc(n, sizeof(*out->layers));
	if (!out->layers)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	for (out->n_layers = 0; rc == 0 && out->n_layers < n; out->n_layers++)
		rc = load_layer(home, json_array_get(layers, out->n_layers), what, &out->layers[out->n_layers], err);
	return rc;
}

static int load_config(const json_t *record, const char *what, struct image_record *out, struct husk_error *err)
{
	json_t *json;
	int rc = json_get_object(record, "config", what, &json, err);
	if (rc == 0 && !json)
		rc = error_set(err, -EBADMSG, "%s: 'config' is missing", what);
	if (rc == 0)
		rc = json_get_strings(json, "env", what, &out->env, err);
	if (rc == 0)
		rc = json_get_strings(json, "entrypoint", what, &out->entrypoint, err);
	if (rc == 0)
		rc = json_get_strings(json, "cmd", what, &out->cmd, err);
	if (rc == 0)
		rc = json_get_strings(json, "volumes", what, &out->volumes, err);
	if (rc == 0)
		rc = copy_string(json, "working_dir", false, what, &out->working_dir, err);
	if (rc == 0)
		rc = copy_string(json, "user", false, what, &out->user, err);
	if (rc == 0)
		rc = copy_string(json, "stop_signal", false, what, &out->stop_signal, err);
	return rc;
}

static int load_head(const json_t *json, const char *what, struct image_record *out, struct husk_error *err)
{
	uint64_t schema;
	int rc = json_get_size(json, "schema", UINT32_MAX, what, &schema, err);
	if (rc == 0 && schema != IMAGE_RECORD_SCHEMA)
		rc = error_set(err, -EBADMSG, "%s: schema version %llu; this husk knows %d", what,
			(unsigned long long)schema, IMAGE_RECORD_SCHEMA);
	if (rc == 0)
		rc = copy_string(json, "id", true, what, &out->id, err);
	if (rc == 0)
		rc = copy_string(json, "manifest_digest", false, what, &out->manifest_digest, err);
	if (rc == 0)
		rc = copy_string(json, "created", false, what, &out->created, err);
	if (rc == 0)
		rc = copy_string(json, "os", true, what, &out->os, err);
	if (rc == 0)
		rc = copy_string(json, "architecture", true, what, &out->architecture, err);
	if (rc == 0)
		rc = copy_string(json, "variant", false, what, &out->variant, err);
	if (rc == 0)
		rc = json_get_size(json, "size", UINT64_MAX >> 1, what, &out->size, err);
	return rc;
}

int record_load(const char *home, const char *id, struct image_record *out, json_t **raw, struct husk_error *err)
{
	CLEANUP(cleanup_record) struct image_record record = {0};
	CLEANUP_JSON json_t *json = NULL;
	int rc = digest_check(id, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *path = path_format("%s/images/%s.json", home, id + strlen("sha256:"));
	record.names = calloc(1, sizeof(*record.names));
	if (!path || !record.names)
		return error_set(err, -ENOMEM, "image %s: out of memory", id);
	rc = json_read_file(path, &json, err);
	if (rc == 0)
		rc = load_head(json, path, &record, err);
	if (rc == 0 && strcmp(record.id, id) != 0)
		rc = error_set(err, -EBADMSG, "%s: the record of another image (%s)", path, record.id);
	if (rc == 0)
		rc = load_config(json, path, &record, err);
	if (rc == 0)
		rc = load_layers(home, json, path, &record, err);
	if (rc < 0)
		return rc;
	*out = record;
	record = (struct image_record){0};
	if (raw)
		*raw = steal_pointer(&json);
	return 0;
}

int record_check_layers(const struct image_record *record, struct husk_error *err)
{
	for (size_t i = 0; i < record->n_layers; i++) {
		struct stat st;
		if (stat(record->layers[i].path, &st) < 0 || !S_ISREG(st.st_mode) ||
			(uint64_t)st.st_size != record->layers[i].size)
			return error_set(err, -ENOENT, "image %.19s: its layer %s is missing or damaged; pull it again",
				record->id, record->layers[i].path);
	}
	return 0;
}

int record_ids(const char *home, char ***out, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(home, "images");
	CLEANUP_DIR DIR *dir = path ? opendir(path) : NULL;
	if (!dir && errno != ENOENT)
		return error_errno(err, "open %s/images", home);
	size_t n = 0, room = 16;
	char **ids = calloc(room, sizeof(*ids));
	struct dirent *entry;
	while (ids && dir && (entry = readdir(dir))) {
		if (strspn(entry->d_name, "0123456789abcdef") != 64 || strcmp(entry->d_name + 64, ".json") != 0)
			continue;
		if (n + 2 > room) {
			char **more = realloc(ids, (room *= 2) * sizeof(*ids));
			if (!more)
				break;
			ids = more;
		}
		ids[n] = path_format("sha256:%.64s", entry->d_name);
		ids[n + 1] = NULL;
		if (!ids[n++])
			break;
	}
	if (!ids || (n && !ids[n - 1])) {
		strings_free(ids);
		return error_set(err, -ENOMEM, "list images: out of memory");
	}
	*out = ids;
	return 0;
}

void name_record_free(struct name_record *name)
{
	free(name->name);
	free(name->image_id);
	free(name->source_digest);
	free(name->identity);
	*name = (struct name_record){0};
}

void names_free(struct name_record *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		name_record_free(&names[i]);
	free(names);
}

static int name_load_file(const char *path, struct name_record *out, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = NULL;
	CLEANUP(name_record_free) struct name_record name = {0};
	uint64_t schema = 0;
	int rc = json_read_file(path, &json, err);
	if (rc == 0)
		rc = json_get_size(json, "schema", UINT32_MAX, path, &schema, err);
	if (rc == 0 && schema != IMAGE_RECORD_SCHEMA)
		rc = error_set(err, -EBADMSG, "%s: schema version %llu; this husk knows %d", path,
			(unsigned long long)schema, IMAGE_RECORD_SCHEMA);
	if (rc == 0)
		rc = copy_string(json, "name", true, path, &name.name, err);
	if (rc == 0)
		rc = copy_string(json, "image_id", true, path, &name.image_id, err);
	if (rc == 0 && digest_check(name.image_id, NULL) < 0)
		rc = error_set(err, -EBADMSG, "%s: '%s' is no image id", path, name.image_id);
	if (rc == 0)
		rc = copy_string(json, "source_digest", false, path, &name.source_digest, err);
	if (rc == 0)
		rc = copy_string(json, "identity", false, path, &name.identity, err);
	if (rc < 0)
		return rc;
	*out = name;
	name = (struct name_record){0};
	return 0;
}

int name_load(const char *home, const char *canonical, struct name_record *out, struct husk_error *err)
{
	CLEANUP_FREE char *file = name_file(canonical);
	CLEANUP_FREE char *path = file ? path_format("%s/names/%s.json", home, file) : NULL;
	if (!path)
		return error_set(err, -ENOMEM, "name %s: out of memory", canonical);
	int rc = name_load_file(path, out, err);
	if (rc == 0 && strcmp(out->name, canonical) != 0) {
		name_record_free(out);
		rc = error_set(err, -ENOENT, "%s: the record of another name", path);
	}
	return rc;
}

int names_load(const char *home, struct name_record **out, size_t *n, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(home, "names");
	CLEANUP_DIR DIR *dir = path ? opendir(path) : NULL;
	struct name_record *names = NULL;
	size_t count = 0;
	int rc = 0;
	if (!dir && errno != ENOENT)
		return error_errno(err, "open %s/names", home);
	struct dirent *entry;
	while (rc == 0 && dir && (entry = readdir(dir))) {
		size_t length = strlen(entry->d_name);
		if (length < 6 || strcmp(entry->d_name + length - 5, ".json") != 0)
			continue;
		CLEANUP_FREE char *file = path_join(path, entry->d_name);
		struct name_record *more = file ? reallocarray(names, count + 1, sizeof(*names)) : NULL;
		if (!more) {
			rc = error_set(err, -ENOMEM, "list names: out of memory");
			break;
		}
		names = more;
		struct husk_error fault;
		rc = name_load_file(file, &names[count], &fault);
		if (rc == 0)
			count++;
		else if (rc == -ENOENT)
			rc = 0;
		else if (err)
			*err = fault;
	}
	if (rc < 0) {
		names_free(names, count);
		return rc;
	}
	*out = names;
	*n = count;
	return 0;
}

/** Give @record the names among @names that point to it. */
static int attach_names(struct image_record *record, const struct name_record *names, size_t n, struct husk_error *err)
{
	size_t count = 0;
	char **list = calloc(n + 1, sizeof(*list));
	for (size_t i = 0; list && i < n; i++) {
		if (strcmp(names[i].image_id, record->id) != 0)
			continue;
		list[count] = strdup(names[i].name);
		if (!list[count++]) {
			strings_free(list);
			list = NULL;
		}
	}
	if (!list)
		return error_set(err, -ENOMEM, "image %s: out of memory", record->id);
	strings_free(record->names);
	record->names = list;
	return 0;
}

/** The one image whose id begins with @hex. */
static int resolve_prefix(const char *home, const char *hex, char id[DIGEST_MAX], struct husk_error *err)
{
	char **ids;
	int rc = record_ids(home, &ids, err);
	if (rc < 0)
		return rc;
	size_t found = 0;
	for (char **at = ids; *at; at++)
		if (strncmp(*at + strlen("sha256:"), hex, strlen(hex)) == 0 && found++ == 0)
			snprintf(id, DIGEST_MAX, "%s", *at);
	strings_free(ids);
	if (found > 1)
		return error_set(
			err, -ENOTUNIQ, "image id '%s' is the beginning of %zu images; write more of it", hex, found);
	return found ? 0 : -ENOENT;
}

int record_resolve(const char *home, const char *text, char id[DIGEST_MAX], char **name, struct husk_error *err)
{
	struct husk_error fault = {0};
	CLEANUP(source_name_free) struct source_name parsed = {0};
	CLEANUP(name_record_free) struct name_record record = {0};
	int rc = source_name_parse(text, &parsed, &fault);
	bool is_name = rc == 0;
	if (name)
		*name = NULL;
	if (rc == 0) {
		rc = name_load(home, parsed.canonical, &record, &fault);
		if (rc == 0) {
			snprintf(id, DIGEST_MAX, "%s", record.image_id);
			if (name)
				*name = steal_pointer(&record.name);
			return 0;
		}
		if (rc != -ENOENT) {
			if (err)
				*err = fault;
			return rc;
		}
	}
	const char *hex = strncmp(text, "sha256:", 7) == 0 ? text + 7 : text;
	size_t digits = strspn(hex, "0123456789abcdef");
	if (digits >= 3 && digits <= 64 && !hex[digits]) {
		rc = resolve_prefix(home, hex, id, err);
		if (rc != -ENOENT)
			return rc;
	} else if (!is_name) {
		if (err)
			*err = fault;
		return rc;
	}
	return error_set(err, -ENOENT, "image '%s' is not in the store", text);
}

int record_load_named(const char *home, const char *id, struct image_record *out, json_t **raw, struct husk_error *err)
{
	struct name_record *names = NULL;
	size_t n = 0;
	int rc = record_load(home, id, out, raw, err);
	if (rc < 0)
		return rc;
	rc = names_load(home, &names, &n, err);
	if (rc == 0)
		rc = attach_names(out, names, n, err);
	names_free(names, n);
	if (rc < 0)
		image_record_free(out);
	return rc;
}

static int check_platform(
	const struct image_record *record, const char *text, const char *platform, struct husk_error *err)
{
	struct platform want, have;
	int rc = platform_parse(platform, &want, err);
	if (rc < 0)
		return rc;
	platform_set(&have, record->os, record->architecture, record->variant);
	if (platform_rank(&want, &have) >= 0)
		return 0;
	char wanted[3 * PLATFORM_FIELD], had[3 * PLATFORM_FIELD];
	platform_format(&want, wanted);
	platform_format(&have, had);
	return error_set(err, -ENOENT, "image '%s' is in the store for %s, not for %s", text, had, wanted);
}

int image_find(
	const char *home, const char *text, const char *platform, struct image_record *out, struct husk_error *err)
{
	char id[DIGEST_MAX];
	int rc = record_resolve(home, text, id, NULL, err);
	if (rc < 0)
		return rc;
	CLEANUP(cleanup_record) struct image_record record = {0};
	rc = record_load_named(home, id, &record, NULL, err);
	if (rc == 0)
		rc = check_platform(&record, text, platform, err);
	if (rc == 0)
		rc = record_check_layers(&record, err);
	if (rc < 0)
		return rc;
	*out = record;
	record = (struct image_record){0};
	return 0;
}

/** An image and when it came, for sorting. */
struct dated {
	struct image_record record;
	uint64_t pulled;
};

static int newest_first(const void *left, const void *right)
{
	const struct dated *a = left, *b = right;
	if (a->pulled != b->pulled)
		return a->pulled > b->pulled ? -1 : 1;
	return strcmp(a->record.id, b->record.id);
}

static int load_dated(const char *home, const char *id, const struct name_record *names, size_t n, struct dated *out,
	struct husk_error *err)
{
	struct husk_error fault;
	CLEANUP_JSON json_t *raw = NULL;
	int rc = record_load(home, id, &out->record, &raw, &fault);
	if (rc == -ENOENT)
		return rc;
	if (rc == 0)
		rc = json_get_size(raw, "pulled", UINT64_MAX >> 1, id, &out->pulled, &fault);
	if (rc == 0)
		rc = attach_names(&out->record, names, n, &fault);
	if (rc < 0) {
		image_record_free(&out->record);
		if (err)
			*err = fault;
	}
	return rc;
}

int image_list(const char *home, struct image_record **out, size_t *n, struct husk_error *err)
{
	char **ids = NULL;
	struct name_record *names = NULL;
	size_t n_names = 0, count = 0, room = 0;
	int rc = record_ids(home, &ids, err);
	if (rc == 0)
		rc = names_load(home, &names, &n_names, err);
	while (rc == 0 && ids[room])
		room++;
	CLEANUP_FREE struct dated *list = calloc(room + 1, sizeof(*list));
	struct image_record *records = calloc(room + 1, sizeof(*records));
	if (rc == 0 && (!list || !records))
		rc = error_set(err, -ENOMEM, "list images: out of memory");
	for (size_t i = 0; rc == 0 && i < room; i++) {
		rc = load_dated(home, ids[i], names, n_names, &list[count], err);
		if (rc == 0)
			count++;
		else if (rc == -ENOENT)
			rc = 0;
	}
	if (rc == 0)
		qsort(list, count, sizeof(*list), newest_first);
	for (size_t i = 0; list && i < count; i++) {
		if (rc == 0)
			records[i] = list[i].record;
		else
			image_record_free(&list[i].record);
	}
	strings_free(ids);
	names_free(names, n_names);
	if (rc < 0) {
		free(records);
		return rc;
	}
	*out = records;
	*n = count;
	return 0;
}
