/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_oci.c - images in an OCI layout: a directory or an archive of one (image-spec image-layout.md)
 *
 * Theory of operation: index.json lists manifests, perhaps with tags (the annotation org.opencontainers.image.ref.name);
 * all else is a file blobs/sha256/HEX. Without a tag in the source's name the layout must leave no choice: one tag or
 * none, or "latest" among several.
 */
#include "image/source.h"

#include "base/path.h"

#include <string.h>

#define REF_NAME "org.opencontainers.image.ref.name"

static char *blob_name(const char *digest)
{
	return path_format("blobs/sha256/%s", digest + strlen("sha256:"));
}

static int oci_document(
	struct source *source, const struct descriptor *blob, bool manifest, struct buffer *out, struct husk_error *err)
{
	CLEANUP_FREE char *name = blob_name(blob->digest);
	char digest[DIGEST_MAX];
	if (!name)
		return error_set(err, -ENOMEM, "%s: out of memory", source->name->canonical);
	int rc = tree_read(source->tree, name, MANIFEST_BYTES_MAX, out, err);
	if (rc < 0)
		return rc;
	if (!out->size || (blob->size && blob->size != out->size))
		return error_set(err, -EBADMSG, "%s: blob %s has %zu bytes instead of %llu", source->name->canonical,
			blob->digest, out->size, (unsigned long long)blob->size);
	if (store_digest(buffer_bytes(out), out->size, digest) < 0 || strcmp(digest, blob->digest) != 0)
		return error_set(err, -EBADMSG, "%s: blob %s has the wrong digest %s", source->name->canonical,
			blob->digest, digest);
	return 0;
}

/** The tag to look for: the one asked for, or the one that leaves no doubt. *@tag stays NULL when there are no tags. */
static int choose_tag(const struct source *source, const json_t *index, const char **tag, struct husk_error *err)
{
	char list[512] = "";
	const char *only = NULL;
	bool several = false, latest = false;
	json_t *entries = json_object_get(index, "manifests");
	*tag = source->name->selector;
	for (size_t i = 0; !*tag && i < json_array_size(entries); i++) {
		json_t *annotations = json_object_get(json_array_get(entries, i), "annotations");
		const char *name = json_string_value(json_object_get(annotations, REF_NAME));
		size_t n = strlen(list);
		if (!name || (only && strcmp(only, name) == 0))
			continue;
		several |= only != NULL;
		latest |= strcmp(name, "latest") == 0;
		only = name;
		if (n + strlen(name) + 3 < sizeof(list))
			snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", name);
	}
	if (*tag || !only)
		return 0;
	if (several && !latest)
		return error_set(
			err, -EINVAL, "%s: it holds several images; add a tag (%s)", source->name->canonical, list);
	*tag = several ? "latest" : only;
	return 0;
}

static int oci_resolve(
	struct source *source, const struct platform *platform, struct image_plan *plan, struct husk_error *err)
{
	const char *what = source->name->canonical, *tag;
	CLEANUP_BUFFER struct buffer text = {0};
	CLEANUP_JSON json_t *index = NULL;
	struct descriptor blob;
	int rc = tree_read(source->tree, "index.json", MANIFEST_BYTES_MAX, &text, err);
	if (rc == 0 && !text.size)
		rc = error_set(err, -EBADMSG, "%s: index.json is empty", what);
	if (rc == 0)
		rc = json_read(buffer_bytes(&text), text.size, false, what, &index, err);
	if (rc == 0)
		rc = choose_tag(source, index, &tag, err);
	if (rc == 0)
		rc = manifest_select(index, platform, tag, what, &blob, err);
	if (rc < 0)
		return rc;
	snprintf(plan->source_digest, DIGEST_MAX, "%s", blob.digest);
	snprintf(plan->manifest_digest, DIGEST_MAX, "%s", blob.digest);
	rc = oci_document(source, &blob, true, &plan->manifest, err);
	return rc < 0 ? rc : source_descend(source, blob.media_type, platform, plan, err);
}

static int oci_layer(struct source *source, const struct plan_layer *layer, source_progress *progress, void *data,
	int *fd, struct husk_error *err)
{
	CLEANUP_FREE char *name = blob_name(layer->blob.digest);
	return name ? tree_file(source->tree, name, fd, err)
		    : error_set(err, -ENOMEM, "%s: out of memory", source->name->canonical);
}

const struct source_ops source_oci_ops = {
	.resolve = oci_resolve,
	.document = oci_document,
	.layer = oci_layer,
};
