/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pull_local.c - root file systems without a manifest: rootfs:PATH and tar:FILE
 *
 * Theory of operation: what the block image will be called is known when it is made, so it is made under a temporary name
 * and renamed by its diff ID. The image's config is made here and holds nothing but platform and diff ID: the same content
 * gives the same image id. A tar on standard input is first copied to a file, because one that does not list all its
 * directories has to be read a second time.
 */
#include "image/pull.h"

#include "base/fd.h"
#include "base/path.h"
#include "image/progress.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK (1u << 20)

static void on_bytes(void *data, uint64_t bytes)
{
	progress_bytes(0, bytes);
}

static int make_config(
	const struct platform *platform, const char *diff_id, struct image_plan *plan, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = json_pack("{s:s s:s s:{} s:{s:s s:[s]}}", "architecture", platform->architecture,
		"os", platform->os, "config", "rootfs", "type", "layers", "diff_ids", diff_id);
	if (json && platform->variant[0])
		json_object_set_new(json, "variant", json_string(platform->variant));
	CLEANUP_FREE char *text = json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	plan->layers = calloc(1, sizeof(*plan->layers));
	if (!text || !plan->layers || buffer_append(&plan->config, text, strlen(text)) < 0 ||
		store_digest(text, strlen(text), plan->id) < 0)
		return error_set(err, -ENOMEM, "make the config: out of memory");
	plan->n_layers = 1;
	plan->platform = *platform;
	snprintf(plan->layers[0].diff_id, DIGEST_MAX, "%s", diff_id);
	return 0;
}

/** Copy standard input to the temporary @name, rewound. */
static int spool(struct store *store, const char *name, int *out, struct husk_error *err)
{
	CLEANUP_FD int fd = -1;
	CLEANUP_FREE char *chunk = malloc(CHUNK);
	int rc = chunk ? store_temporary(store, name, true, &fd, err) : error_set(err, -ENOMEM, "out of memory");
	if (rc < 0)
		return rc;
	for (;;) {
		ssize_t n = read(STDIN_FILENO, chunk, CHUNK);
		if (store->stop && *store->stop)
			return error_set(err, -ECANCELED, "cancelled");
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, "read standard input");
		if (n == 0)
			break;
		rc = fd_write_all(fd, chunk, (size_t)n);
		if (rc < 0) {
			errno = -rc;
			return error_errno(err, "copy standard input to the store");
		}
	}
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(err, "rewind the copy of standard input");
	*out = steal_fd(&fd);
	return 0;
}

/** Convert the tar in @fd; one that needs lower layers is merged, with nothing below. *@key gets the block image's. */
static int convert_tar(const struct source_name *name, int fd, int out, struct layer_result *result, char key[65],
	struct husk_error *err)
{
	struct layer_options options = {.progress = on_bytes};
	struct layer_source source = {.fd = fd, .name = name->canonical};
	struct stat st;
	if (fstat(fd, &st) == 0)
		progress_layers(1, (uint64_t)st.st_size);
	int rc = layer_convert(&source, out, &options, result, err);
	if (rc < 0)
		return rc;
	snprintf(key, 65, "%s", result->diff_id + strlen("sha256:"));
	if (!result->needs_lower)
		return 0;
	struct plan_layer layer = {0};
	source.diff_id = layer.diff_id;
	snprintf(layer.diff_id, DIGEST_MAX, "%s", result->diff_id);
	if (lseek(fd, 0, SEEK_SET) < 0 || ftruncate(out, 0) < 0 || lseek(out, 0, SEEK_SET) < 0)
		return error_errno(err, "rewind %s", name->canonical);
	rc = pull_chain_key(&layer, 1, key, err);
	return rc < 0 ? rc : layer_merge(&source, 1, out, &options, result, err);
}

static int pull_tar(struct store *store, const struct source_name *name, const char *spooled, int out,
	struct layer_result *result, char key[65], struct husk_error *err)
{
	CLEANUP_FD int fd = -1;
	struct stat st;
	bool standard_input = strcmp(name->path, "-") == 0;
	int rc = 0;
	if (standard_input)
		rc = spool(store, spooled, &fd, err);
	else if ((fd = open(name->path, O_RDONLY | O_CLOEXEC)) < 0)
		rc = error_errno(err, "open %s", name->path);
	if (rc == 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
		rc = error_set(err, -EINVAL, "open %s: not a regular file", name->path);
	if (rc == 0)
		rc = convert_tar(name, fd, out, result, key, err);
	if (standard_input)
		store_temporary_remove(store, spooled);
	return rc;
}

int pull_root(struct store *store, const struct source_name *name, const struct platform *platform,
	struct image_plan *plan, struct pulled_layers *out, struct husk_error *err)
{
	char temporary[64], spooled[64], key[65];
	struct layer_options options = {.progress = on_bytes};
	struct layer_result result = {0};
	CLEANUP_FD int fd = -1;
	snprintf(temporary, sizeof(temporary), "root-%d.img", (int)getpid());
	snprintf(spooled, sizeof(spooled), "root-%d.tar", (int)getpid());
	int rc = store_temporary(store, temporary, true, &fd, err);
	if (rc < 0)
		return rc;
	if (name->kind == SOURCE_TAR) {
		rc = pull_tar(store, name, spooled, fd, &result, key, err);
	} else {
		progress_layers(1, 0);
		rc = layer_from_tree(name->path, fd, &options, &result, err);
		snprintf(key, sizeof(key), "%.64s", rc == 0 ? result.diff_id + strlen("sha256:") : "");
	}
	out->dropped_acls = result.dropped_acls;
	if (rc == 0)
		rc = make_config(platform, result.diff_id, plan, err);
	if (rc == 0)
		rc = pull_adopt(store, temporary, key, fd, result.size, out, err);
	if (rc < 0)
		store_temporary_remove(store, temporary);
	return rc;
}
