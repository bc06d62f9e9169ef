/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_auth.c - from a 401 to an Authorization header: challenges, bearer tokens, basic
 *
 * Theory of operation: the first request to a registry goes without credentials. Its 401 carries challenges (RFC 9110
 * §11.6.1): with Bearer a token is fetched from the realm (distribution spec/auth/token.md; with an identity token the
 * OAuth2 form of spec/auth/oauth.md), with Basic the user's name and password are sent to the registry itself. What
 * was got is kept per host and scope until it expires or is refused. The credentials of a host go to that host and to the
 * realm it names, which must be https; plain HTTP is for loopback realms of loopback registries.
 *
 * Many threads may meet a 401 at once: the first to hold auth_lock fetches a token, the others find it in the cache.
 */
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/path.h"
#include "image/registry_private.h"

#include <jansson.h>
#include <string.h>
#include <strings.h>

#define TOKEN_ANSWER_MAX (1024 * 1024)
#define TOKEN_MAX 65536
#define TOKEN_SECONDS 60 /* life of a token whose server does not say (spec/auth/token.md) */
#define TOKEN_SPARE 5 /* seconds before its end at which a token is not begun with */
#define CLIENT_ID "husk"

static bool is_token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip(const char *at, const char *what)
{
	return at + strspn(at, what);
}

/** Copy a token at @at into @out; what follows it, NULL when there is none or it is too long. */
static const char *read_token(const char *at, char *out, size_t size)
{
	size_t n = 0;
	while (is_token_char(at[n]))
		n++;
	if (n == 0 || n >= size)
		return NULL;
	memcpy(out, at, n);
	out[n] = 0;
	return at + n;
}

/** The same for a token or a quoted string with backslash escapes. */
static const char *read_value(const char *at, char *out, size_t size)
{
	if (*at != '"')
		return read_token(at, out, size);
	size_t n = 0;
	for (at++; *at != '"'; at++) {
		if (*at == '\\')
			at++;
		if (!*at || *at == '\n' || n + 1 >= size)
			return NULL;
		out[n++] = *at;
	}
	out[n] = 0;
	return at + 1;
}

bool challenge_next(const char **at, struct challenge *out)
{
	*out = (struct challenge){0};
	const char *p = read_token(skip(*at, ", \t\n"), out->scheme, sizeof(out->scheme));
	if (!p)
		return false;
	*at = p;
	for (;;) {
		char name[32], value[1024];
		const char *before = skip(p, ", \t");
		p = read_token(before, name, sizeof(name));
		if (p)
			p = skip(p, " \t");
		if (!p || *p != '=') {
			/* A name without a value begins the next challenge; the end of a line ends this one. */
			*at = before;
			return *before == '\n' || !*before || p;
		}
		p = read_value(skip(p + 1, " \t"), value, sizeof(value));
		if (!p)
			return false;
		if (strcasecmp(name, "realm") == 0)
			memcpy(out->realm, value, sizeof(value));
		else if (strcasecmp(name, "service") == 0)
			snprintf(out->service, sizeof(out->service), "%.511s", value);
	}
}

static void authorization_free(struct authorization *a)
{
	free(a->host);
	free(a->scope);
	free(a->header);
	free(a);
}

void auth_free(struct authorization *list)
{
	while (list) {
		struct authorization *next = list->next;
		authorization_free(list);
		list = next;
	}
}

char *auth_cached(struct registry *registry, const char *host, const char *scope)
{
	char *header = NULL;
	pthread_mutex_lock(&registry->lock);
	for (struct authorization *a = registry->authorizations; a; a = a->next)
		if (strcmp(a->host, host) == 0 && strcmp(a->scope, scope) == 0 &&
			(!a->expires_ns || a->expires_ns > clock_monotonic_ns()))
			header = strdup(a->header);
	pthread_mutex_unlock(&registry->lock);
	return header;
}

/** Put @header (stolen; NULL: forget) into the cache. */
static int auth_store(struct registry *registry, const char *host, const char *scope, char *header, uint64_t seconds)
{
	struct authorization *fresh = header ? calloc(1, sizeof(*fresh)) : NULL;
	if (fresh) {
		*fresh = (struct authorization){.host = strdup(host), .scope = strdup(scope), .header = header};
		fresh->expires_ns = seconds ? clock_monotonic_ns() + seconds * 1000000000ULL : 0;
	}
	if (header && (!fresh || !fresh->host || !fresh->scope)) {
		if (fresh)
			authorization_free(fresh);
		else
			free(header);
		return -ENOMEM;
	}
	pthread_mutex_lock(&registry->lock);
	for (struct authorization **at = &registry->authorizations; *at;) {
		struct authorization *a = *at;
		if (strcmp(a->host, host) == 0 && strcmp(a->scope, scope) == 0) {
			*at = a->next;
			authorization_free(a);
		} else {
			at = &a->next;
		}
	}
	if (fresh) {
		fresh->next = registry->authorizations;
		registry->authorizations = fresh;
	}
	pthread_mutex_unlock(&registry->lock);
	return 0;
}

/** Whether a token may be asked for at @realm, given that @host named it. */
static int realm_check(const char *realm, const char *host, struct husk_error *err)
{
	const char *rest = strncasecmp(realm, "https://", 8) == 0 ? realm + 8 : NULL;
	if (!rest && strncasecmp(realm, "http://", 7) == 0 && host_is_loopback(host)) {
		CURLU *url = curl_url();
		char *name = NULL;
		if (url && curl_url_set(url, CURLUPART_URL, realm, CURLU_DISALLOW_USER) == CURLUE_OK &&
			curl_url_get(url, CURLUPART_HOST, &name, 0) == CURLUE_OK && host_is_loopback(name))
			rest = realm + 7;
		curl_free(name);
		curl_url_cleanup(url);
	}
	for (const char *c = realm; rest && *c; c++)
		if (*c <= ' ' || *c > '~')
			rest = NULL;
	if (!rest || strchr(rest, '@'))
		return error_set(err, -EPROTO, "log in to %s: its token server is not an https URL", host);
	return 0;
}

static int token_prepare(struct transfer *t, struct husk_error *err)
{
	((struct buffer *)t->data)->size = 0;
	return 0;
}

static int token_take(struct transfer *t, const void *bytes, size_t n, struct husk_error *err)
{
	struct buffer *body = t->data;
	if (body->size + n > TOKEN_ANSWER_MAX)
		return error_set(err, -EFBIG, "the token server's answer is too long");
	return buffer_append(body, bytes, n) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
}

static const struct transfer_ops token_ops = {.prepare = token_prepare, .take = token_take};

/** A header value that the server chose must not smuggle anything into husk's requests. */
static bool token_valid(const char *token)
{
	size_t n = 0;
	for (; token && token[n]; n++)
		if (token[n] <= ' ' || token[n] > '~')
			return false;
	return n > 0 && n <= TOKEN_MAX;
}

/** Take the token out of the server's answer into *@header and its life into *@seconds. */
static int token_read(
	const struct buffer *body, const char *host, char **header, uint64_t *seconds, struct husk_error *err)
{
	json_t *answer = body->size ? json_loadb((const char *)buffer_bytes(body), body->size, 0, NULL) : NULL;
	const char *token = json_string_value(json_object_get(answer, "token"));
	if (!token || !*token)
		token = json_string_value(json_object_get(answer, "access_token"));
	json_int_t life = json_integer_value(json_object_get(answer, "expires_in"));
	*seconds = life > TOKEN_SECONDS && life < 86400 * 365 ? (uint64_t)life : TOKEN_SECONDS;
	*seconds -= TOKEN_SPARE;
	int rc = 0;
	if (!token_valid(token))
		rc = error_set(err, -EPROTO, "log in to %s: the token server's answer has no token", host);
	else if (!(*header = path_format("Bearer %s", token)))
		rc = error_set(err, -ENOMEM, "log in to %s: out of memory", host);
	json_decref(answer);
	return rc;
}

/** Append "&@name=@value" (escaped) to @out. */
static int query_add(struct buffer *out, const char *name, const char *value)
{
	char *escaped = *value ? curl_easy_escape(NULL, value, 0) : NULL;
	int rc = !*value ? 0 : escaped ? buffer_printf(out, "%s%s=%s", out->size ? "&" : "", name, escaped) : -ENOMEM;
	curl_free(escaped);
	return rc;
}

/** Fill URL, form and header of the request for a token. */
static int token_request(const struct challenge *challenge, const char *scope, const struct credential *credential,
	char **url, char **form, char **basic)
{
	CLEANUP_BUFFER struct buffer query = {0};
	bool oauth = credential->identity_token;
	int rc = query_add(&query, "service", challenge->service) | query_add(&query, "scope", scope);
	if (oauth)
		rc |= query_add(&query, "grant_type", "refresh_token") | query_add(&query, "client_id", CLIENT_ID) |
		      query_add(&query, "refresh_token", credential->identity_token);
	else if (credential->user)
		rc |= query_add(&query, "account", credential->user);
	if (rc < 0 || buffer_append(&query, "", 1) < 0)
		return -ENOMEM;
	const char *text = (const char *)buffer_bytes(&query);
	if (oauth) {
		*url = strdup(challenge->realm);
		*form = strdup(text);
		return *url && *form ? 0 : -ENOMEM;
	}
	*url = path_format("%s%s%s", challenge->realm, strchr(challenge->realm, '?') ? "&" : "?", text);
	if (credential->user && credential->password) {
		CLEANUP_FREE char *encoded = basic_encode(credential->user, credential->password);
		*basic = encoded ? path_format("Basic %s", encoded) : NULL;
		if (!*basic)
			return -ENOMEM;
	}
	return *url ? 0 : -ENOMEM;
}

static int token_fetch(struct registry *registry, const char *host, const char *scope,
	const struct challenge *challenge, const struct credential *credential, char **header, uint64_t *seconds,
	struct husk_error *err)
{
	CLEANUP_FREE char *url = NULL;
	CLEANUP_FREE char *form = NULL;
	CLEANUP_FREE char *basic = NULL;
	CLEANUP_FREE char *what = path_format("log in to %s", host);
	CLEANUP_BUFFER struct buffer body = {0};
	char realm_host[256] = "";
	int rc = realm_check(challenge->realm, host, err);
	if (rc < 0)
		return rc;
	if (!what || token_request(challenge, scope, credential, &url, &form, &basic) < 0)
		return error_set(err, -ENOMEM, "log in to %s: out of memory", host);
	sscanf(strstr(challenge->realm, "://") + 3, "%255[^/?#]", realm_host);
	CLEANUP(transfer_free)
	struct transfer t = {.ops = &token_ops,
		.data = &body,
		.what = what,
		.host = realm_host,
		.url = url,
		.form = form,
		.authorization = basic,
		.small = true,
		.accept = "application/json",
		.secret = credential->identity_token ? credential->identity_token : credential->password};
	rc = transfer_run(registry, &t, err);
	if (rc < 0)
		return rc;
	if (t.status < 200 || t.status > 299)
		return status_error(&t, host, credential->user || credential->identity_token, err);
	return token_read(&body, host, header, seconds, err);
}

/** Choose among the challenges of @answer: Bearer before Basic; false when neither is there. */
static bool challenge_choose(const struct transfer *answer, struct challenge *chosen, bool *bearer)
{
	CLEANUP_BUFFER struct buffer text = {0};
	if (!answer->challenges.size ||
		buffer_append(&text, buffer_bytes(&answer->challenges), answer->challenges.size) < 0 ||
		buffer_append(&text, "", 1) < 0)
		return false;
	const char *at = (const char *)buffer_bytes(&text);
	struct challenge next;
	bool found = false;
	for (*bearer = false; !*bearer && challenge_next(&at, &next);) {
		*bearer = strcasecmp(next.scheme, "Bearer") == 0 && next.realm[0];
		if (*bearer || strcasecmp(next.scheme, "Basic") == 0) {
			*chosen = next;
			found = true;
		}
	}
	return found;
}

/** The header for a challenge; NULL in *@header when the user has nothing for it. */
static int header_make(struct registry *registry, const char *host, const char *scope, const struct transfer *answer,
	const struct credential *credential, char **header, uint64_t *seconds, struct husk_error *err)
{
	struct challenge challenge;
	bool bearer;
	if (!challenge_choose(answer, &challenge, &bearer))
		return 0;
	if (bearer && credential->registry_token) {
		if (!token_valid(credential->registry_token))
			return error_set(
				err, -EINVAL, "log in to %s: the registrytoken of config.json is malformed", host);
		*header = path_format("Bearer %s", credential->registry_token);
	} else if (bearer) {
		return token_fetch(registry, host, scope, &challenge, credential, header, seconds, err);
	} else if (credential->user && credential->password) {
		CLEANUP_FREE char *encoded = basic_encode(credential->user, credential->password);
		*header = encoded ? path_format("Basic %s", encoded) : NULL;
	} else {
		return 0;
	}
	return *header ? 0 : error_set(err, -ENOMEM, "log in to %s: out of memory", host);
}

/** auth_renew() with auth_lock held. */
static int renew_locked(struct registry *registry, const char *host, const char *scope, const char *used,
	const struct transfer *answer, const struct credential *credential, bool *had_credential,
	struct husk_error *err)
{
	CLEANUP_FREE char *cached = auth_cached(registry, host, scope);
	CLEANUP_FREE char *header = NULL;
	CLEANUP(credential_free) struct credential stored = {0};
	uint64_t seconds = 0;
	if (cached && (!used || strcmp(cached, used) != 0))
		return 1; /* another thread was here */
	if (!credential) {
		int rc = docker_config_get(registry->config_path, host, registry->options.cancelled, &stored, err);
		if (rc == -ENOENT && registry->options.notice)
			registry->options.notice(registry->options.notice_data, err->message);
		if (rc < 0 && rc != -ENOENT)
			return rc;
		credential = &stored;
	}
	*had_credential = credential->user || credential->identity_token || credential->registry_token;
	int rc = header_make(registry, host, scope, answer, credential, &header, &seconds, err);
	if (rc < 0)
		return rc;
	bool fresh = header && (!used || strcmp(header, used) != 0);
	if (auth_store(registry, host, scope, fresh ? steal_pointer(&header) : NULL, seconds) < 0)
		return error_set(err, -ENOMEM, "log in to %s: out of memory", host);
	return fresh;
}

int auth_renew(struct registry *registry, const char *host, const char *scope, const char *used,
	const struct transfer *answer, const struct credential *credential, bool *had_credential,
	struct husk_error *err)
{
	struct husk_error why = {0};
	pthread_mutex_lock(&registry->auth_lock);
	int rc = renew_locked(registry, host, scope, used, answer, credential, had_credential, &why);
	pthread_mutex_unlock(&registry->auth_lock);
	return rc < 0 ? error_set(err, rc, "%s", why.message) : rc;
}
