/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.h - the client side of the OCI distribution API, on libcurl. Runs in husk-image only.
 *
 * One client serves one pull or one verb; it may be used from several threads at once (each transfer has its own easy
 * handle; tokens are shared under a lock). The process must ignore SIGPIPE.
 *
 * Registries are spoken to over https. A loopback host (localhost, 127.0.0.0/8, [::1]) gets plain HTTP unless TLS answers
 * there, and never goes through a proxy. Credentials come from config.json and its credential helpers when a registry
 * asks for them, and go to that registry and the token server it names, to no other host.
 *
 * Errors: -EACCES 401 and 403, -ENOENT 404, -EBUSY 429, -EREMOTEIO 5xx, -EBADMSG bytes other than promised, -EFBIG too
 * many of them, -EPROTO no registry, -ENOTSUP schema 1, -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH (unknown
 * name), -EKEYREJECTED (certificate), -EINTR cancelled.
 */
#ifndef IMAGE_REGISTRY_H
#define IMAGE_REGISTRY_H

#include "base/buffer.h"
#include "image/layer.h"
#include "image/reference.h"

struct registry;

struct registry_options {
	const char *docker_config; /* path of config.json; NULL: $DOCKER_CONFIG/config.json or ~/.docker/config.json */
	const char *user_agent;
	/** Called before a retry is waited for, with a text of one line; may be NULL. Called from any transfer's thread. */
	void (*notice)(void *data, const char *text);
	void *notice_data;
	/** Checked often; when it turns nonzero transfers end with -EINTR. May be NULL. */
	const volatile int *cancelled;
	uint32_t retry_base_ms; /* the first back-off, doubled from retry to retry; 0: 500 */
	uint32_t stall_ms; /* a transfer that moved less than 1 KiB in this time has stalled; 0: 30000 */
};

int registry_open(const struct registry_options *options, struct registry **out, struct husk_error *err);
void registry_close(struct registry *registry);

/** Fetch the manifest or index that @selector (a tag or digest; NULL: the reference's own) names. Checks the digest when
 *  the selector is one. @media_type and @digest (of the bytes) are filled. At most 4 MiB. */
int registry_manifest(struct registry *registry, const struct reference *ref, const char *selector, struct buffer *body,
	char media_type[128], char digest[DIGEST_MAX], struct husk_error *err);

/** Progress of one blob: bytes present so far (resumed ones included). */
typedef void registry_progress(void *data, uint64_t bytes);

/** Fetch a blob of @size bytes into @fd, a read-write file that may hold a beginning left by an earlier attempt: what is
 *  there is kept and the rest is asked for with a Range. The whole is verified against @digest; on a mismatch the file is
 *  emptied and -EBADMSG returned (when a part was there before, after one more fetch of the whole). Retries transient
 *  failures with back-off. Takes no more bytes than @size. On other errors the file keeps what came. */
int registry_blob(struct registry *registry, const struct reference *ref, const char *digest, uint64_t size, int fd,
	registry_progress *progress, void *progress_data, struct husk_error *err);

/** Check @user and @password against @host and store them: in the credential helper that config.json names,
 *  else in its auths (0600, atomically, keeping all else that
 *  is in the file). */
int registry_login(
	struct registry *registry, const char *host, const char *user, const char *password, struct husk_error *err);
/** Remove the stored credentials of @host; -ENOENT when there are none. */
int registry_logout(struct registry *registry, const char *host, struct husk_error *err);

#endif
