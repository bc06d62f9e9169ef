/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_registry.c - images in a registry
 *
 * Theory of operation: documents come into memory, layers into partial/HEX.blob. That file survives an error, a signal and
 * a crash, and the next pull asks for the rest of it only; it goes when the image is committed, or when it is of no use
 * (a full disk). While it is written it holds a flock; who reads it later has it open, which is enough.
 */
#include "image/registry.h"

#include "base/fd.h"
#include "base/path.h"
#include "image/progress.h"
#include "image/source.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

static void on_notice(void *data, const char *text)
{
	progress_say(text);
}

int source_registry_open(const struct store *store, struct registry **out, struct husk_error *err)
{
	struct registry_options options = {
		.user_agent = "husk/" HUSK_VERSION,
		.notice = on_notice,
		.cancelled = store->stop,
	};
	return registry_open(&options, out, err);
}

static int registry_document(
	struct source *source, const struct descriptor *blob, bool manifest, struct buffer *out, struct husk_error *err)
{
	char media_type[128], digest[DIGEST_MAX];
	if (manifest)
		return registry_manifest(
			source->registry, &source->name->reference, blob->digest, out, media_type, digest, err);
	if (!blob->size || blob->size > MANIFEST_BYTES_MAX)
		return error_set(err, -EBADMSG, "%s: a config of %llu bytes", source->name->canonical,
			(unsigned long long)blob->size);
	CLEANUP_FD int fd = open(source->store->home, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, "fetch the config of %s", source->name->canonical);
	int rc = registry_blob(
		source->registry, &source->name->reference, blob->digest, blob->size, fd, NULL, NULL, err);
	if (rc < 0)
		return rc;
	rc = lseek(fd, 0, SEEK_SET) < 0 ? -errno : fd_read_to_end(fd, out, MANIFEST_BYTES_MAX);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "read the config of %s", source->name->canonical);
	}
	return 0;
}

static int registry_resolve(
	struct source *source, const struct platform *platform, struct image_plan *plan, struct husk_error *err)
{
	char media_type[128] = "";
	int rc = source->registry ? 0 : source_registry_open(source->store, &source->registry, err);
	if (rc == 0)
		rc = registry_manifest(source->registry, &source->name->reference, NULL, &plan->manifest, media_type,
			plan->manifest_digest, err);
	if (rc < 0)
		return rc;
	snprintf(plan->source_digest, DIGEST_MAX, "%s", plan->manifest_digest);
	return source_descend(source, media_type, platform, plan, err);
}

static char *blob_file(const struct descriptor *blob)
{
	return path_format("%s.blob", blob->digest + strlen("sha256:"));
}

/** Open the blob's partial file; wait while another process, with another image, fetches it. */
static int open_partial(struct source *source, const char *file, int *fd, struct husk_error *err)
{
	for (bool said = false;; said = true) {
		struct husk_error fault;
		int rc = store_temporary(source->store, file, false, fd, &fault);
		if (rc == 0)
			store_temporary_keep(file);
		else if (rc != -EBUSY && err)
			*err = fault;
		if (rc != -EBUSY)
			return rc;
		if (*source->store->stop)
			return error_set(err, -ECANCELED, "cancelled");
		if (!said)
			progress_say("waiting for another husk that fetches the same layer");
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	}
}

static int registry_layer(struct source *source, const struct plan_layer *layer, source_progress *progress, void *data,
	int *fd, struct husk_error *err)
{
	CLEANUP_FD int partial = -1;
	CLEANUP_FREE char *file = blob_file(&layer->blob);
	CLEANUP_FREE char *path = file ? store_path(source->store, "partial/%s", file) : NULL;
	if (!path)
		return error_set(err, -ENOMEM, "%s: out of memory", source->name->canonical);
	int rc = open_partial(source, file, &partial, err);
	if (rc < 0)
		return rc;
	rc = registry_blob(source->registry, &source->name->reference, layer->blob.digest, layer->blob.size, partial,
		progress, data, err);
	if (rc == -ENOSPC)
		unlink(path);
	if (rc < 0)
		return rc;
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	return *fd < 0 ? error_errno(err, "open %s", path) : 0;
}

static void registry_done(struct source *source, const struct image_plan *plan)
{
	for (size_t i = 0; i < plan->n_layers; i++) {
		CLEANUP_FREE char *file = blob_file(&plan->layers[i].blob);
		if (file)
			store_temporary_remove(source->store, file);
	}
}

static void registry_source_close(struct source *source)
{
	if (source->registry)
		registry_close(source->registry);
}

const struct source_ops source_registry_ops = {
	.resolve = registry_resolve,
	.document = registry_document,
	.layer = registry_layer,
	.done = registry_done,
	.close = registry_source_close,
};
