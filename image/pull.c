/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pull.c - bring an image into the store
 *
 * Theory of operation: a pull first looks whether anything is to be done. For a registry reference the policy says; a local
 * archive or tar counts as unchanged while its file is the same (device, inode, size, mtime); an OCI layout is cheap to
 * resolve, so its manifest is always looked at; a root file system tree cannot be compared and is converted each time.
 * Then it takes the lock of the name and looks again (another pull may have done it), resolves name to manifest and
 * config, takes the lock of the image and looks whether the store has that (under another name, perhaps), fetches and
 * converts layers, commits the record, and last lets the name point to it.
 */
#include "image/pull.h"

#include "base/path.h"
#include "image/progress.h"

#include <string.h>
#include <time.h>

/** All of one pull. */
struct pull {
	struct store *store;
	const struct pull_request *request;
	struct source_name name;
	struct platform platform;
	char *identity; /* archives and tars: of the file, taken before it is read */
	struct image_plan plan;
	struct pulled_layers layers;
};

static void pull_free(struct pull *p)
{
	source_name_free(&p->name);
	free(p->identity);
	image_plan_free(&p->plan);
	pulled_layers_free(&p->layers);
}

static bool is_file(const struct pull *p)
{
	return p->name.kind == SOURCE_OCI_ARCHIVE || p->name.kind == SOURCE_DOCKER_ARCHIVE ||
	       (p->name.kind == SOURCE_TAR && strcmp(p->name.path, "-") != 0);
}

/** 0 when the store has the image of this name for this platform, complete. */
static int find_named(struct pull *p, char id[DIGEST_MAX], struct husk_error *err)
{
	struct image_record record;
	char platform[3 * PLATFORM_FIELD];
	platform_format(&p->platform, platform);
	int rc = image_find(p->store->home, p->name.canonical, platform, &record, err);
	if (rc < 0)
		return rc;
	snprintf(id, DIGEST_MAX, "%s", record.id);
	image_record_free(&record);
	return 0;
}

static bool file_unchanged(struct pull *p)
{
	CLEANUP(name_record_free) struct name_record name = {0};
	return p->identity && name_load(p->store->home, p->name.canonical, &name, NULL) == 0 && name.identity &&
	       strcmp(name.identity, p->identity) == 0;
}

/** 1 when there is nothing to do (@id is set), 0 when there is. */
static int satisfied(struct pull *p, char id[DIGEST_MAX], struct husk_error *err)
{
	bool remote = p->name.kind == SOURCE_REGISTRY;
	if (p->request->policy == PULL_NEVER)
		return find_named(p, id, err) < 0 ? (err ? err->code : -ENOENT) : 1;
	if (remote && p->request->offline) {
		struct husk_error fault;
		int rc = find_named(p, id, &fault);
		if (rc == -ENOENT)
			return error_set(err, -ENETUNREACH, "%s, and --offline forbids to pull it", fault.message);
		if (rc < 0 && err)
			*err = fault;
		return rc < 0 ? rc : 1;
	}
	if (p->request->policy == PULL_ALWAYS || (!remote && !file_unchanged(p)))
		return 0;
	return find_named(p, id, NULL) == 0;
}

/** True when the store has plan->id, complete. */
static bool has_image(struct pull *p)
{
	struct image_record record;
	if (record_load(p->store->home, p->plan.id, &record, NULL, NULL) < 0)
		return false;
	bool complete = record_check_layers(&record, NULL) == 0;
	image_record_free(&record);
	return complete;
}

static json_t *source_layers(const struct image_plan *plan)
{
	json_t *list = json_array();
	for (size_t i = 0; i < plan->n_layers; i++) {
		const struct plan_layer *layer = &plan->layers[i];
		json_t *entry = json_pack("{s:s s:I}", "diff_id", layer->diff_id, "size", (json_int_t)layer->blob.size);
		if (layer->blob.digest[0])
			json_object_set_new(entry, "digest", json_string(layer->blob.digest));
		if (layer->blob.media_type[0])
			json_object_set_new(entry, "media_type", json_string(layer->blob.media_type));
		json_array_append_new(list, entry);
	}
	return list;
}

static int make_record(const struct pull *p, json_t **out, struct husk_error *err)
{
	const struct image_plan *plan = &p->plan;
	CLEANUP_JSON json_t *config = NULL;
	CLEANUP_FREE char *created = NULL;
	struct timespec now;
	uint64_t size = 0;
	int rc = config_record(plan, &config, &created, err);
	if (rc < 0)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	json_t *layers = json_array();
	for (size_t i = 0; i < p->layers.n; i++) {
		const struct pulled_layer *layer = &p->layers.layers[i];
		CLEANUP_FREE char *file = path_format("%s.img", layer->key);
		json_array_append_new(layers, json_pack("{s:s s:s s:I}", "diff_id", layer->diff_id, "file",
						      file ? file : "", "size", (json_int_t)layer->size));
		size += layer->size;
	}
	*out = json_pack("{s:i s:s s:s* s:s* s:s s:s s:s* s:I s:I s:O s:o s:o}", "schema", IMAGE_RECORD_SCHEMA, "id",
		plan->id, "manifest_digest", plan->manifest.size ? plan->manifest_digest : NULL, "created", created,
		"os", plan->platform.os, "architecture", plan->platform.architecture, "variant",
		plan->platform.variant[0] ? plan->platform.variant : NULL, "size", (json_int_t)size, "pulled",
		(json_int_t)now.tv_sec * 1000000000 + now.tv_nsec, "config", config, "layers", layers, "source_layers",
		source_layers(plan));
	return *out ? 0 : error_set(err, -ENOMEM, "record of %s: out of memory", plan->id);
}

static int commit(struct pull *p, struct husk_error *err)
{
	CLEANUP_JSON json_t *record = NULL;
	CLEANUP_FREE char **keys = calloc(p->layers.n + 1, sizeof(*keys));
	int rc = keys ? make_record(p, &record, err) : error_set(err, -ENOMEM, "commit: out of memory");
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < p->layers.n; i++)
		keys[i] = p->layers.layers[i].key;
	struct store_commit how = {
		.id = p->plan.id,
		.record = record,
		.manifest = p->plan.manifest.size ? buffer_bytes(&p->plan.manifest) : NULL,
		.manifest_size = p->plan.manifest.size,
		.manifest_digest = p->plan.manifest_digest,
		.config = buffer_bytes(&p->plan.config),
		.config_size = p->plan.config.size,
		.layers = keys,
	};
	rc = store_commit(p->store, &how, err);
	if (rc == 0 && p->layers.dropped_acls) {
		char line[256];
		snprintf(line, sizeof(line),
			"%.100s: POSIX ACLs of %llu files were dropped: the block image cannot hold them",
			p->name.canonical, (unsigned long long)p->layers.dropped_acls);
		progress_say(line);
	}
	return rc;
}

/** Fetch what plan->id is made of and commit it, unless the store has it by now. */
static int fetch_image(struct pull *p, struct source *source, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FREE char *name = path_format("image-%s", p->plan.id + strlen("sha256:"));
	CLEANUP_FREE char *doing = path_format("pulls %.200s", p->name.canonical);
	if (!name || !doing)
		return error_set(err, -ENOMEM, "pull: out of memory");
	int rc = store_lock(p->store, name, doing, &lock, err);
	if (rc < 0)
		return rc;
	if (!has_image(p)) {
		rc = pull_layers(source, &p->plan, p->store->stop, &p->layers, err);
		if (rc == 0)
			rc = commit(p, err);
		pulled_layers_unlock(&p->layers);
		if (rc == 0 && p->layers.spare)
			store_sweep_layers(p->store, p->layers.spare, NULL, NULL); /* else gc will */
	}
	if (rc == 0 && source->ops->done)
		source->ops->done(source, &p->plan);
	return rc;
}

static int pull_source(struct pull *p, struct husk_error *err)
{
	struct source source;
	int rc = source_open(&p->name, p->store, &source, err);
	if (rc < 0)
		return rc;
	rc = source_resolve(&source, &p->platform, &p->plan, err);
	if (rc == 0)
		rc = fetch_image(p, &source, err);
	source_close(&source);
	return rc;
}

static int pull_root_image(struct pull *p, struct husk_error *err)
{
	int rc = pull_root(p->store, &p->name, &p->platform, &p->plan, &p->layers, err);
	return rc == 0 && !has_image(p) ? commit(p, err) : rc;
}

/** Let the source's canonical name point to the image. */
static int give_name(struct pull *p, struct husk_error *err)
{
	struct name_record name = {
		.name = p->name.canonical,
		.image_id = p->plan.id,
		.source_digest = p->plan.source_digest[0] ? p->plan.source_digest : NULL,
		.identity = p->identity,
	};
	bool standard_input = p->name.kind == SOURCE_TAR && !is_file(p);
	return standard_input ? 0 : store_name(p->store, &name, err);
}

/** The part under the name's lock. */
static int pull_locked(struct pull *p, char id[DIGEST_MAX], struct husk_error *err)
{
	int rc = is_file(p) && p->request->policy != PULL_NEVER ? file_identity(p->name.path, &p->identity, err) : 0;
	if (rc == 0)
		rc = satisfied(p, id, err);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	if (p->name.kind == SOURCE_ROOTFS || p->name.kind == SOURCE_TAR)
		rc = pull_root_image(p, err);
	else
		rc = pull_source(p, err);
	if (rc == 0)
		rc = give_name(p, err);
	if (rc == 0)
		snprintf(id, DIGEST_MAX, "%s", p->plan.id);
	return rc;
}

static int add_name(struct pull *p, const struct reference *reference, const char *id, struct husk_error *err)
{
	CLEANUP_FREE char *canonical = reference_format(reference);
	CLEANUP_FREE char *copy = strdup(id);
	if (!canonical || !copy)
		return error_set(err, -ENOMEM, "name the image: out of memory");
	return store_name(p->store, &(struct name_record){.name = canonical, .image_id = copy}, err);
}

static int check_request(const struct pull_request *request, struct reference *reference, struct husk_error *err)
{
	if (request->offline && request->policy == PULL_ALWAYS)
		return error_set(err, -EINVAL, "--offline and --policy always cannot both be met");
	int rc = request->name ? reference_parse(request->name, reference, err) : 0;
	if (rc == 0 && reference->digest)
		rc = error_set(err, -EINVAL, "name '%s': an image cannot be given a digest", request->name);
	return rc;
}

int pull_image(struct store *store, const struct pull_request *request, char id[DIGEST_MAX], struct husk_error *err)
{
	CLEANUP(pull_free) struct pull p = {.store = store, .request = request};
	CLEANUP(reference_free) struct reference reference = {0};
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	int rc = check_request(request, &reference, err);
	if (rc == 0)
		rc = source_name_parse(request->source, &p.name, err);
	if (rc == 0)
		rc = platform_parse(request->platform, &p.platform, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *file = name_file(p.name.canonical);
	CLEANUP_FREE char *lock_name = file ? path_format("name-%s", file) : NULL;
	CLEANUP_FREE char *doing = path_format("pulls %.200s", p.name.canonical);
	if (!lock_name || !doing)
		return error_set(err, -ENOMEM, "pull: out of memory");
	rc = store_lock(store, lock_name, doing, &lock, err);
	if (rc == 0)
		rc = pull_locked(&p, id, err);
	if (rc == 0 && request->name)
		rc = add_name(&p, &reference, id, err);
	return rc;
}
