/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.c - the calls of the OCI distribution API that husk needs
 *
 * Theory of operation: each call is one struct transfer with ops that take its body, run through run_authorized(), which
 * knows three things: where the registry is (docker.io answers at registry-1.docker.io), how to speak to it, and what to
 * do about a 401 (one new Authorization header, registry_auth.c, then the answer stands).
 *
 * How to speak: https, always. Loopback hosts are the exception: they get plain HTTP at first, and TLS when what answers
 * there is no HTTP server or answers 400 (as TLS servers do to plain requests) and a TLS handshake works.
 *
 * A manifest's media type is what Content-Type says; where that is none of the known types, what the JSON says. Both
 * given and different is refused, as is a document that is an index and a manifest at once (OCI image-spec, manifest.md
 * on mediaType; CVE-2021-41190). Digests are always computed here; Docker-Content-Digest is not looked at.
 */
#include "base/cleanup.h"
#include "base/path.h"
#include "image/registry_private.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#define MANIFEST_MAX (4 * 1024 * 1024)

#define TYPE_DOCKER "application/vnd.docker.distribution.manifest"
#define TYPE_OCI "application/vnd.oci.image."

static const char accept_manifests[] =
	TYPE_OCI "index.v1+json, " TYPE_OCI "manifest.v1+json, " TYPE_DOCKER ".list.v2+json, " TYPE_DOCKER ".v2+json";

int registry_open(const struct registry_options *options, struct registry **out, struct husk_error *err)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return error_set(err, -ENOMEM, "prepare the registry client: curl does not start");
	struct registry *registry = calloc(1, sizeof(*registry));
	if (!registry) {
		curl_global_cleanup();
		return error_set(err, -ENOMEM, "prepare the registry client: out of memory");
	}
	registry->options = *options;
	pthread_mutex_init(&registry->lock, NULL);
	pthread_mutex_init(&registry->auth_lock, NULL);
	if (!registry->options.retry_base_ms)
		registry->options.retry_base_ms = 500;
	if (!registry->options.stall_ms)
		registry->options.stall_ms = 30000;
	registry->user_agent = strdup(options->user_agent ? options->user_agent : "husk/" HUSK_VERSION);
	int rc = registry->user_agent ? docker_config_path(options->docker_config, &registry->config_path, err)
				      : error_set(err, -ENOMEM, "prepare the registry client: out of memory");
	if (rc < 0) {
		registry_close(registry);
		return rc;
	}
	*out = registry;
	return 0;
}

void registry_close(struct registry *registry)
{
	if (!registry)
		return;
	while (registry->n_pool)
		curl_easy_cleanup(registry->pool[--registry->n_pool]);
	auth_free(registry->authorizations);
	while (registry->known_hosts) {
		struct known_host *next = registry->known_hosts->next;
		free(registry->known_hosts);
		registry->known_hosts = next;
	}
	pthread_mutex_destroy(&registry->lock);
	pthread_mutex_destroy(&registry->auth_lock);
	free(registry->user_agent);
	free(registry->config_path);
	free(registry);
	curl_global_cleanup();
}

/** 1: @host speaks TLS; 0: it does not; -1: not known. Hosts that are not loopback always do. */
static int host_speaks_tls(struct registry *registry, const char *host)
{
	int known = -1;
	if (!host_is_loopback(host))
		return 1;
	pthread_mutex_lock(&registry->lock);
	for (struct known_host *h = registry->known_hosts; h; h = h->next)
		if (strcmp(h->host, host) == 0)
			known = h->tls;
	pthread_mutex_unlock(&registry->lock);
	return known;
}

static void host_learn(struct registry *registry, const char *host, bool tls)
{
	struct known_host *h = calloc(1, sizeof(*h) + strlen(host) + 1);
	if (!h)
		return; /* it will be found out again */
	memcpy(h->host, host, strlen(host));
	h->tls = tls;
	pthread_mutex_lock(&registry->lock);
	h->next = registry->known_hosts;
	registry->known_hosts = h;
	pthread_mutex_unlock(&registry->lock);
}

/** transfer_run() of @path at @host over the right scheme, found out at the first contact with a loopback host. */
static int run_at(
	struct registry *registry, const char *host, const char *path, struct transfer *t, struct husk_error *err)
{
	for (;;) {
		int tls = host_speaks_tls(registry, host);
		struct husk_error why = {0};
		CLEANUP_FREE char *url = path_format("http%s://%s%s", tls > 0 ? "s" : "", endpoint_host(host), path);
		if (!url)
			return error_set(err, -ENOMEM, "%s: out of memory", t->what);
		t->url = url;
		t->undecided = tls < 0;
		int rc = transfer_run(registry, t, &why);
		t->url = NULL;
		bool doubtful = rc == 0 ? t->status == 400 : t->spoke_no_http;
		if (tls >= 0 || (rc < 0 && !doubtful))
			return rc < 0 ? error_set(err, rc, "%s", why.message) : rc;
		bool speaks_tls = doubtful && transfer_probe_tls(registry, host);
		host_learn(registry, host, speaks_tls);
		if (!doubtful || (!speaks_tls && rc == 0))
			return rc;
	}
}

/** run_at() with whatever Authorization @scope needs. A 401 is the answer only when there is nothing left to try.
 *  @login: credentials to use instead of the stored ones, or NULL. *@header owns t->authorization. */
static int run_authorized(struct registry *registry, const char *host, const char *scope, const char *path,
	const struct credential *login, struct transfer *t, char **header, bool *had_credential, struct husk_error *err)
{
	bool renewed = false;
	for (;;) {
		free(*header);
		t->authorization = *header = auth_cached(registry, host, scope);
		uint64_t before = t->total;
		int rc = run_at(registry, host, path, t, err);
		if (rc < 0 || t->status != 401)
			return rc;
		if (t->total > before)
			renewed = false; /* the token was good and ran out under way */
		if (renewed)
			return 0;
		rc = auth_renew(registry, host, scope, *header, t, login, had_credential, err);
		if (rc <= 0)
			return rc;
		renewed = true;
	}
}

int registry_run(struct registry *registry, const char *host, const char *scope, const char *path,
	const struct credential *login, struct transfer *t, struct husk_error *err)
{
	CLEANUP_FREE char *header = NULL;
	bool had_credential = false;
	int rc = run_authorized(registry, host, scope, path, login, t, &header, &had_credential, err);
	bool fine = (t->status >= 200 && t->status < 300) || (t->status == 416 && t->offset);
	if (rc == 0 && !fine)
		rc = status_error(t, host, had_credential, err);
	t->authorization = NULL;
	return rc;
}

/* A body of limited size, kept in memory. */

struct document {
	struct buffer *body;
	size_t limit;
};

static int document_prepare(struct transfer *t, struct husk_error *err)
{
	struct document *d = t->data;
	buffer_consume(d->body, d->body->size);
	return 0;
}

static int document_begin(struct transfer *t, struct husk_error *err)
{
	struct document *d = t->data;
	if (t->content_length > (int64_t)d->limit)
		return error_set(err, -EFBIG, "the answer has %lld bytes, more than the %zu that are allowed",
			(long long)t->content_length, d->limit);
	return 0;
}

static int document_take(struct transfer *t, const void *bytes, size_t n, struct husk_error *err)
{
	struct document *d = t->data;
	if (d->body->size + n > d->limit)
		return error_set(err, -EFBIG, "the answer has more than the %zu bytes that are allowed", d->limit);
	return buffer_append(d->body, bytes, n) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
}

static const struct transfer_ops document_ops = {
	.prepare = document_prepare, .begin = document_begin, .take = document_take};

static int sha256_text(const struct buffer *body, char digest[DIGEST_MAX])
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	if (EVP_Digest(body->size ? buffer_bytes(body) : (const unsigned char *)"", body->size, hash, NULL,
		    EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	memcpy(digest, "sha256:", 7);
	for (size_t i = 0; i < 32; i++)
		snprintf(digest + 7 + 2 * i, 3, "%02x", hash[i]);
	return 0;
}

static bool type_known(const char *type)
{
	static const char *const known[] = {TYPE_OCI "index.v1+json", TYPE_OCI "manifest.v1+json",
		TYPE_DOCKER ".list.v2+json", TYPE_DOCKER ".v2+json"};
	for (size_t i = 0; type && i < ARRAY_SIZE(known); i++)
		if (strcmp(type, known[i]) == 0)
			return true;
	return false;
}

static bool type_is_schema1(const char *type)
{
	return type && strncmp(type, TYPE_DOCKER ".v1+", strlen(TYPE_DOCKER ".v1+")) == 0;
}

/** Find the type of manifest @document, whose Content-Type was @header. */
static int manifest_type(
	json_t *document, const char *header, const char *what, char media_type[128], struct husk_error *err)
{
	const char *inside = json_string_value(json_object_get(document, "mediaType"));
	bool index = json_object_get(document, "manifests");
	bool manifest = json_object_get(document, "config") || json_object_get(document, "layers");
	if (type_is_schema1(header) || type_is_schema1(inside) ||
		json_integer_value(json_object_get(document, "schemaVersion")) == 1)
		return error_set(err, -ENOTSUP,
			"%s: it is in the outdated schema 1, which names no verifiable layers; have it pushed again by "
			"a "
			"current tool",
			what);
	if (index && manifest)
		return error_set(err, -EBADMSG, "%s: it claims to be an index and an image at once", what);
	if (type_known(header) && type_known(inside) && strcmp(header, inside) != 0)
		return error_set(
			err, -EBADMSG, "%s: the registry says it is %s, it says it is %s", what, header, inside);
	const char *type = type_known(header) ? header : type_known(inside) ? inside : NULL;
	if (!type && !inside && (index || manifest))
		type = index ? TYPE_OCI "index.v1+json" : TYPE_OCI "manifest.v1+json";
	if (!type)
		return error_set(err, -EPROTO, "%s: what came is not the manifest of an image", what);
	snprintf(media_type, 128, "%s", type);
	return 0;
}

static int manifest_check(const struct transfer *t, const struct buffer *body, const char *selector,
	char media_type[128], char digest[DIGEST_MAX], struct husk_error *err)
{
	if (sha256_text(body, digest) < 0)
		return error_set(err, -ENOMEM, "%s: out of memory", t->what);
	if (strchr(selector, ':') && strcmp(digest, selector) != 0)
		return error_set(
			err, -EBADMSG, "%s: %s sent other bytes: their digest is %s", t->what, t->host, digest);
	json_error_t why;
	json_t *document = body->size ? json_loadb((const char *)buffer_bytes(body), body->size, 0, &why) : NULL;
	int rc;
	if (json_is_object(document))
		rc = manifest_type(document, t->content_type, t->what, media_type, err);
	else if (strcmp(t->content_type, "text/html") == 0 || (body->size && *buffer_bytes(body) == '<'))
		rc = error_set(err, -EPROTO, "%s: %s answered with a web page: not a registry, or something in between",
			t->what, t->host);
	else
		rc = error_set(err, -EPROTO, "%s: %s sent something that is not JSON", t->what, t->host);
	json_decref(document);
	return rc;
}

int registry_manifest(struct registry *registry, const struct reference *ref, const char *selector, struct buffer *body,
	char media_type[128], char digest[DIGEST_MAX], struct husk_error *err)
{
	if (!selector)
		selector = ref->digest ? ref->digest : ref->tag ? ref->tag : "latest";
	bool by_digest = strchr(selector, ':');
	if (by_digest && digest_check(selector, err) < 0)
		return -EINVAL;
	CLEANUP_FREE char *what = path_format(
		"fetch the manifest of %s/%s%s%s", ref->registry, ref->repository, by_digest ? "@" : ":", selector);
	CLEANUP_FREE char *path = path_format("/v2/%s/manifests/%s", ref->repository, selector);
	CLEANUP_FREE char *scope = path_format("repository:%s:pull", ref->repository);
	if (!what || !path || !scope)
		return error_set(err, -ENOMEM, "fetch the manifest of %s: out of memory", ref->repository);
	struct document document = {.body = body, .limit = MANIFEST_MAX};
	CLEANUP(transfer_free)
	struct transfer t = {.ops = &document_ops,
		.data = &document,
		.what = what,
		.host = endpoint_host(ref->registry),
		.accept = accept_manifests,
		.small = true,
		.not_found = by_digest ? "there is no such image" : "there is no such image or tag"};
	int rc = registry_run(registry, ref->registry, scope, path, NULL, &t, err);
	return rc < 0 ? rc : manifest_check(&t, body, selector, media_type, digest, err);
}

/** @host as users write it for husk login, to the name that references have; malloc'ed. */
static int login_host(const char *host, char **out, struct husk_error *err)
{
	CLEANUP(reference_free) struct reference ref = {0};
	const char *scheme = strstr(host, "://");
	if (scheme)
		host = scheme + 3;
	CLEANUP_FREE char *text = path_format("%.*s/x", (int)strcspn(host, "/"), host);
	if (!text)
		return error_set(err, -ENOMEM, "log in to %s: out of memory", host);
	if (reference_parse(text, &ref, NULL) < 0 || (!strcmp(ref.registry, "docker.io") && !strchr(text, '.')))
		return error_set(err, -EINVAL, "'%s' is not a registry host (HOST or HOST:PORT)", host);
	*out = steal_pointer(&ref.registry);
	return 0;
}

static int login_check_input(const char *host, const char *user, const char *password, struct husk_error *err)
{
	if (!*user || strchr(user, ':'))
		return error_set(err, -EINVAL, "log in to %s: a user name must not be empty or hold a ':'", host);
	if (!*password)
		return error_set(err, -EINVAL, "log in to %s: the password is empty", host);
	return 0;
}

int registry_login(
	struct registry *registry, const char *host, const char *user, const char *password, struct husk_error *err)
{
	CLEANUP_FREE char *name = NULL;
	CLEANUP_BUFFER struct buffer body = {0};
	int rc = login_check_input(host, user, password, err);
	if (rc == 0)
		rc = login_host(host, &name, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *what = path_format("log in to %s", name);
	if (!what)
		return error_set(err, -ENOMEM, "log in to %s: out of memory", name);
	struct credential login = {.user = (char *)user, .password = (char *)password};
	struct document document = {.body = &body, .limit = MANIFEST_MAX};
	CLEANUP(transfer_free)
	struct transfer t = {.ops = &document_ops,
		.data = &document,
		.what = what,
		.host = endpoint_host(name),
		.small = true,
		.secret = password,
		.not_found = "it has no /v2/, so it is not a registry"};
	rc = registry_run(registry, name, "", "/v2/", &login, &t, err);
	if (rc == 0 && strcmp(t.content_type, "text/html") == 0)
		rc = error_set(err, -EPROTO, "log in to %s: it answered with a web page: not a registry", name);
	return rc < 0 ? rc
		      : docker_config_put(
				registry->config_path, name, user, password, registry->options.cancelled, err);
}

int registry_logout(struct registry *registry, const char *host, struct husk_error *err)
{
	CLEANUP_FREE char *name = NULL;
	int rc = login_host(host, &name, err);
	return rc < 0 ? rc : docker_config_remove(registry->config_path, name, registry->options.cancelled, err);
}
