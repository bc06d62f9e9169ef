/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.c - from a source's name to the plan of an image
 *
 * Theory of operation: every source but a plain root file system leads to a config and a list of layers. OCI layouts and
 * registries do so through documents that point to each other by digest: an index, perhaps another, a manifest, a config.
 * source_descend() walks them with the source's own `document` operation, so selection and checks exist once.
 */
#include "image/source.h"

#include "base/path.h"

#include <string.h>
#include <sys/stat.h>

#define INDEXES_MAX 4 /* that point to each other */

int source_open(const struct source_name *name, struct store *store, struct source *out, struct husk_error *err)
{
	*out = (struct source){.name = name, .store = store};
	switch (name->kind) {
	case SOURCE_REGISTRY:
		out->ops = &source_registry_ops;
		return 0;
	case SOURCE_OCI:
	case SOURCE_OCI_ARCHIVE:
		out->ops = &source_oci_ops;
		return tree_open(name->path, name->kind != SOURCE_OCI, store, &out->tree, err);
	case SOURCE_DOCKER_ARCHIVE:
		out->ops = &source_docker_ops;
		return tree_open(name->path, true, store, &out->tree, err);
	case SOURCE_ROOTFS:
	case SOURCE_TAR:
		break;
	}
	return error_set(err, -EINVAL, "%s has no manifest", name->canonical);
}

void source_close(struct source *source)
{
	if (source->ops && source->ops->close)
		source->ops->close(source);
	tree_close(source->tree);
	*source = (struct source){0};
}

/** plan->manifest becomes the document that @blob points to. */
static int follow(struct source *source, const struct descriptor *blob, struct image_plan *plan, struct husk_error *err)
{
	buffer_free(&plan->manifest);
	snprintf(plan->manifest_digest, DIGEST_MAX, "%s", blob->digest);
	return source->ops->document(source, blob, true, &plan->manifest, err);
}

int source_descend(struct source *source, const char *media_type, const struct platform *platform,
	struct image_plan *plan, struct husk_error *err)
{
	const char *what = source->name->canonical;
	struct descriptor blob = {0};
	snprintf(blob.media_type, sizeof(blob.media_type), "%s", media_type);
	for (int depth = 0;; depth++) {
		CLEANUP_JSON json_t *json = NULL;
		if (!plan->manifest.size)
			return error_set(err, -EBADMSG, "%s: an empty manifest", what);
		int rc = json_read(buffer_bytes(&plan->manifest), plan->manifest.size, false, what, &json, err);
		if (rc < 0)
			return rc;
		if (!manifest_is_index(blob.media_type, json)) {
			rc = manifest_parse(json, what, plan, &blob, err);
			return rc < 0 ? rc : source->ops->document(source, &blob, false, &plan->config, err);
		}
		if (depth == INDEXES_MAX)
			return error_set(err, -EBADMSG, "%s: indexes of indexes, more than %d deep", what, INDEXES_MAX);
		rc = manifest_select(json, platform, NULL, what, &blob, err);
		if (rc == 0)
			rc = follow(source, &blob, plan, err);
		if (rc < 0)
			return rc;
	}
}

int source_resolve(
	struct source *source, const struct platform *platform, struct image_plan *plan, struct husk_error *err)
{
	int rc = source->ops->resolve(source, platform, plan, err);
	if (rc < 0)
		return rc;
	rc = config_parse(plan, platform, source->name->canonical, err);
	if (rc < 0)
		return rc;
	if (store_digest(buffer_bytes(&plan->config), plan->config.size, plan->id) < 0)
		return error_set(err, -ENOMEM, "%s: out of memory", source->name->canonical);
	if (platform_rank(platform, &plan->platform) < 0) {
		char wanted[3 * PLATFORM_FIELD], have[3 * PLATFORM_FIELD];
		platform_format(platform, wanted);
		platform_format(&plan->platform, have);
		return error_set(err, -ENOENT, "%s: no image for platform %s (there is %s)", source->name->canonical,
			wanted, have);
	}
	return 0;
}

int file_identity(const char *path, char **out, struct husk_error *err)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return error_errno(err, "open %s", path);
	*out = path_format("%llx:%llx:%llx:%llx.%lx", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
		(unsigned long long)st.st_size, (unsigned long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
	return *out ? 0 : error_set(err, -ENOMEM, "open %s: out of memory", path);
}
