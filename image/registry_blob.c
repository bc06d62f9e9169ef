/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_blob.c - fetch one blob into a file, resuming what an earlier attempt left
 *
 * Theory of operation: the file's length is the state. What it holds is hashed once, then each attempt asks for the rest
 * with a Range and hashes on; so at any moment the hash covers exactly the file. A server may answer with the whole blob
 * (200) or refuse the range (416): then the file is emptied and begun anew. Lengths are checked before bytes are taken:
 * an answer that announces, or sends, more than the manifest's size is refused at once. At the end the digest decides; a
 * file with the wrong one is emptied. When part of it came from an earlier run, which may have ended in a crash, it is
 * fetched once more from the start before the registry is blamed.
 */
#include "base/cleanup.h"
#include "base/path.h"
#include "image/registry_private.h"

#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK (256 * 1024)

struct blob {
	struct registry *registry;
	int fd;
	uint64_t size, have; /* have: bytes in the file, all of them hashed */
	EVP_MD_CTX *hash;
	bool no_range; /* ranges of this blob's server are no good */
	bool resumed; /* some of the bytes came from an earlier run */
	registry_progress *progress;
	void *progress_data;
};

static void hash_cleanup(EVP_MD_CTX **hash)
{
	EVP_MD_CTX_free(*hash);
}

static int blob_restart(struct blob *blob, struct husk_error *err)
{
	if (ftruncate(blob->fd, 0) < 0)
		return error_errno(err, "empty the file of the download");
	if (EVP_DigestInit_ex(blob->hash, EVP_sha256(), NULL) != 1)
		return error_set(err, -ENOMEM, "out of memory");
	blob->have = 0;
	blob->resumed = false;
	return 0;
}

/** Hash what an earlier run left in the file. */
static int blob_adopt(struct blob *blob, struct husk_error *err)
{
	struct stat st;
	CLEANUP_FREE char *chunk = malloc(CHUNK);
	if (!chunk)
		return error_set(err, -ENOMEM, "out of memory");
	if (fstat(blob->fd, &st) < 0)
		return error_errno(err, "look at the file of the download");
	if (EVP_DigestInit_ex(blob->hash, EVP_sha256(), NULL) != 1)
		return error_set(err, -ENOMEM, "out of memory");
	if ((uint64_t)st.st_size > blob->size)
		return blob_restart(blob, err);
	while (blob->have < (uint64_t)st.st_size) {
		ssize_t n = pread(blob->fd, chunk, CHUNK, (off_t)blob->have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? error_errno(err, "read the file of the download")
				     : error_set(err, -EIO, "the file of the download shrank");
		if (registry_wait(blob->registry, 0) < 0)
			return error_set(err, -EINTR, "cancelled");
		EVP_DigestUpdate(blob->hash, chunk, (size_t)n);
		blob->have += (uint64_t)n;
	}
	blob->resumed = blob->have > 0;
	return 0;
}

static int blob_prepare(struct transfer *t, struct husk_error *err)
{
	struct blob *blob = t->data;
	int rc = blob->have && (blob->no_range || blob->have == blob->size) ? blob_restart(blob, err) : 0;
	t->offset = blob->have;
	return rc;
}

static int wrong_length(struct blob *blob, const char *verb, uint64_t length, struct husk_error *err)
{
	(void)blob_restart(blob, NULL);
	return error_set(err, -EBADMSG, "it %s %llu bytes, the manifest says %llu", verb, (unsigned long long)length,
		(unsigned long long)blob->size);
}

static int blob_begin(struct transfer *t, struct husk_error *err)
{
	struct blob *blob = t->data;
	int rc = 0;
	if (t->status == 206) {
		if (t->range_start != (int64_t)blob->have) {
			blob->no_range = true;
			return error_set(err, -EAGAIN, "it sent another part than was asked for");
		}
		if (t->range_total >= 0 && (uint64_t)t->range_total != blob->size)
			return wrong_length(blob, "has", (uint64_t)t->range_total, err);
	} else if (blob->have) {
		rc = blob_restart(blob, err); /* the Range was ignored: this is the whole */
	}
	if (rc == 0 && t->content_length >= 0 && blob->have + (uint64_t)t->content_length > blob->size)
		rc = wrong_length(blob, "announces", blob->have + (uint64_t)t->content_length, err);
	if (rc == 0 && t->status != 206 && t->content_length >= 0 && (uint64_t)t->content_length != blob->size)
		rc = wrong_length(blob, "announces", (uint64_t)t->content_length, err);
	return rc;
}

static int blob_take(struct transfer *t, const void *bytes, size_t n, struct husk_error *err)
{
	struct blob *blob = t->data;
	if (n > blob->size - blob->have)
		return wrong_length(blob, "sends at least", blob->have + n, err);
	EVP_DigestUpdate(blob->hash, bytes, n);
	for (size_t done = 0; done < n;) {
		ssize_t written = pwrite(blob->fd, (const char *)bytes + done, n - done, (off_t)(blob->have + done));
		if (written < 0 && errno != EINTR)
			return error_errno(err, "write the download");
		done += written > 0 ? (size_t)written : 0;
	}
	blob->have += n;
	if (blob->progress)
		blob->progress(blob->progress_data, blob->have);
	return 0;
}

static int blob_finish(struct transfer *t, struct husk_error *err)
{
	struct blob *blob = t->data;
	if (blob->have < blob->size)
		return error_set(err, -EAGAIN, "the answer ended after %llu of %llu bytes",
			(unsigned long long)blob->have, (unsigned long long)blob->size);
	return 0;
}

static const struct transfer_ops blob_ops = {
	.prepare = blob_prepare, .begin = blob_begin, .take = blob_take, .finish = blob_finish};

/** Hold the file against @digest; empties it when it has another. */
static int blob_verify(struct blob *blob, const char *digest, struct husk_error *err)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	char text[DIGEST_MAX] = "sha256:";
	if (EVP_DigestFinal_ex(blob->hash, hash, NULL) != 1)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < 32; i++)
		snprintf(text + 7 + 2 * i, 3, "%02x", hash[i]);
	if (strcmp(text, digest) == 0)
		return 0;
	if (blob_restart(blob, err) < 0)
		return err->code;
	return error_set(err, -EBADMSG, "the bytes that came have another digest, %s", text);
}

/** Fetch what the file lacks and verify the whole; -EBADMSG when that fails. */
static int blob_fetch(struct blob *blob, const char *registry_host, const char *scope, const char *path,
	const char *digest, struct transfer *t, struct husk_error *err)
{
	if (blob->have < blob->size || blob->size == 0) {
		int rc = registry_run(blob->registry, registry_host, scope, path, NULL, t, err);
		if (rc == 0 && t->status == 416) {
			blob->no_range = true;
			rc = registry_run(blob->registry, registry_host, scope, path, NULL, t, err);
		}
		if (rc < 0)
			return rc;
	}
	struct husk_error why = {0};
	bool resumed = blob->resumed;
	int rc = blob_verify(blob, digest, &why);
	if (rc == 0 || rc != -EBADMSG || !resumed)
		return rc < 0 ? error_set(err, rc, "%s: %s: %s", t->what, t->host, why.message) : 0;
	if (blob->registry->options.notice) {
		char text[HUSK_ERROR_MESSAGE_MAX];
		snprintf(text, sizeof(text), "%s: what an earlier attempt left was wrong; starting over", t->what);
		blob->registry->options.notice(blob->registry->options.notice_data, text);
	}
	return blob_fetch(blob, registry_host, scope, path, digest, t, err);
}

int registry_blob(struct registry *registry, const struct reference *ref, const char *digest, uint64_t size, int fd,
	registry_progress *progress, void *progress_data, struct husk_error *err)
{
	if (digest_check(digest, err) < 0)
		return -EINVAL;
	CLEANUP_FREE char *what = path_format("fetch blob %.19s of %s/%s", digest, ref->registry, ref->repository);
	CLEANUP_FREE char *path = path_format("/v2/%s/blobs/%s", ref->repository, digest);
	CLEANUP_FREE char *scope = path_format("repository:%s:pull", ref->repository);
	CLEANUP(hash_cleanup) EVP_MD_CTX *hash = EVP_MD_CTX_new();
	if (!what || !path || !scope || !hash)
		return error_set(err, -ENOMEM, "fetch a blob of %s: out of memory", ref->repository);
	struct blob blob = {.registry = registry,
		.fd = fd,
		.size = size,
		.hash = hash,
		.progress = progress,
		.progress_data = progress_data};
	struct husk_error why = {0};
	int rc = blob_adopt(&blob, &why);
	if (rc < 0)
		return error_set(err, rc, "%s: %s", what, why.message);
	if (progress && blob.have)
		progress(progress_data, blob.have);
	CLEANUP(transfer_free)
	struct transfer t = {.ops = &blob_ops,
		.data = &blob,
		.what = what,
		.host = endpoint_host(ref->registry),
		.not_found = "the registry has lost this part of the image"};
	return blob_fetch(&blob, ref->registry, scope, path, digest, &t, err);
}
