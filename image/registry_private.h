/* SPDX-License-Identifier: Apache-2.0 */
/* registry_private.h - what the rooms of the registry client share: registry.c, registry_auth.c, registry_transfer.c */
#ifndef IMAGE_REGISTRY_PRIVATE_H
#define IMAGE_REGISTRY_PRIVATE_H

#include "image/docker_config.h"
#include "image/registry.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdbool.h>

#define CONNECT_TIMEOUT_MS 15000L
#define POOL_MAX 8 /* idle easy handles, each with its live connections */

/** An Authorization header that worked or may work for one scope at one registry. */
struct authorization {
	struct authorization *next;
	char *host, *scope;
	char *header; /* "Bearer …" or "Basic …" */
	uint64_t expires_ns; /* CLOCK_MONOTONIC; 0: does not */
};

/** A loopback registry of which is known whether it speaks TLS. */
struct known_host {
	struct known_host *next;
	bool tls;
	char host[];
};

struct registry {
	struct registry_options options;
	char *user_agent, *config_path;
	pthread_mutex_t lock; /* the lists and the pool */
	pthread_mutex_t auth_lock; /* held while a token is fetched, so that many threads fetch one; before lock */
	struct authorization *authorizations;
	struct known_host *known_hosts;
	CURL *pool[POOL_MAX];
	size_t n_pool;
};

struct transfer;

/** How a transfer's body is taken; each returns 0 or a negative errno with @err filled (the message says why only: what
 *  and where are put in front). -EAGAIN asks for another attempt. */
struct transfer_ops {
	/** Before each attempt: set t->offset, drop what an earlier attempt left. */
	int (*prepare)(struct transfer *t, struct husk_error *err);
	/** Once per attempt, when the head of a 2xx answer is known. May be NULL. */
	int (*begin)(struct transfer *t, struct husk_error *err);
	int (*take)(struct transfer *t, const void *bytes, size_t n, struct husk_error *err);
	/** Once at the end of a 2xx answer. May be NULL. */
	int (*finish)(struct transfer *t, struct husk_error *err);
};

/** One HTTP request with its retries. */
struct transfer {
	/* what is asked */
	const struct transfer_ops *ops;
	void *data;
	const char *what; /* "fetch the manifest of debian:12", for messages */
	const char *host; /* for messages */
	const char *url;
	const char *accept; /* media types, NULL: any */
	const char *authorization; /* header value, NULL: none; goes to the origin of url only */
	const char *form; /* body of a POST, NULL: GET */
	const char *secret; /* what must not be repeated in messages, NULL: nothing beyond authorization */
	const char *not_found; /* what a 404 means here, NULL: nothing special */
	uint64_t offset; /* Range: from here on; 0: all */
	bool undecided; /* it is not known whether the host speaks TLS: no retry when it does not speak HTTP */
	bool small; /* an answer that must be whole within SMALL_TIMEOUT_MS */
	/* what came */
	long status;
	char content_type[128]; /* without parameters, lower case; "" when there was none */
	int64_t content_length; /* -1: not said */
	int64_t range_start; /* of Content-Range, -1: none */
	int64_t range_total; /* -1: not said */
	int64_t retry_after; /* seconds, 0: not said */
	struct buffer challenges; /* values of WWW-Authenticate, each with a newline behind it */
	struct buffer body; /* beginning of an answer that is not 2xx */
	uint64_t total; /* bytes that take() took, over all attempts */
	bool spoke_no_http; /* the attempt failed on bytes that are no HTTP answer */
};

/* registry.c */
/** Run @t for @path at registry @host with the authorization that @scope needs. A status that is not 2xx is an error, but
 *  416 for a transfer that asked for a range. @login: credentials instead of the stored ones, or NULL. */
int registry_run(struct registry *registry, const char *host, const char *scope, const char *path,
	const struct credential *login, struct transfer *t, struct husk_error *err);

/* registry_transfer.c */
/** Run with retries. 0 when the server gave an answer, whatever its status; else a negative errno. */
int transfer_run(struct registry *registry, struct transfer *t, struct husk_error *err);
void transfer_free(struct transfer *t);
/** Whether a TLS server answers at @host. */
bool transfer_probe_tls(struct registry *registry, const char *host);
/** Sleep in slices; -EINTR when cancelled. */
int registry_wait(struct registry *registry, uint64_t ms);

/* registry_auth.c */
/** malloc'ed header for @scope at @host that is believed good, NULL: none. */
char *auth_cached(struct registry *registry, const char *host, const char *scope);
/** After a 401 on @used (NULL: sent without): get a new header into the cache. @credential: NULL, those of config.json.
 *  1 when there is something new to try, 0 when there is not; *@had_credential says whether a user is known. */
int auth_renew(struct registry *registry, const char *host, const char *scope, const char *used,
	const struct transfer *answer, const struct credential *credential, bool *had_credential,
	struct husk_error *err);
void auth_free(struct authorization *list);

/** One challenge of a WWW-Authenticate header. */
struct challenge {
	char scheme[32];
	char realm[1024], service[512];
};
/** Read the next challenge at *@at, which moves behind it; false when there is none. Malformed text ends the list. */
bool challenge_next(const char **at, struct challenge *out);

/* registry_text.c */
/** Host of an endpoint URL: the registry, but for docker.io its API host. */
const char *endpoint_host(const char *host);
/** Whether @host (with or without a port) is this machine: localhost, 127.0.0.0/8, [::1]. */
bool host_is_loopback(const char *host);
/** What the server said in the body of an error, one bounded line of printable ASCII; "" when nothing usable. Secrets of
 *  the request are not repeated. */
void answer_text(const struct transfer *t, char text[256]);
/** Whether an answer is a web page. */
bool answer_is_html(const struct transfer *t);
/** Fill @err for a status that is not 2xx. @login_host: as the user writes it. @had_credential: one was sent. */
int status_error(const struct transfer *t, const char *login_host, bool had_credential, struct husk_error *err);

#endif
