/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference.c - image references, normalised as Docker does
 *
 * Theory of operation: a reference is `[registry/]repository[:tag][@digest]`. The text is cut from the right: what
 * follows the first '@' is the digest, what follows a ':' behind the last '/' is the tag. The part before the first '/'
 * is a registry when it can be nothing else: it has a '.' or a ':', an upper-case letter (repositories have none), or is
 * "localhost". Else the registry is docker.io, where names of one component live in library/. Then each piece is held
 * against the grammar of the distribution project (reference/reference.go, its EBNF) and refused with the piece named.
 */
#include "image/reference.h"

#include "base/cleanup.h"
#include "base/parse.h"
#include "base/path.h"

#include <stdbool.h>
#include <string.h>

#define DEFAULT_REGISTRY "docker.io"
#define LEGACY_REGISTRY "index.docker.io"
#define OFFICIAL_PREFIX "library/"
#define REPOSITORY_MAX 255
#define TAG_MAX 128
#define TEXT_MAX 1024 /* longer than any valid reference */

/* The locale must not matter, so no <ctype.h>. */
static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
	return is_lower(c) || is_upper(c) || is_digit(c);
}

int digest_check(const char *digest, struct husk_error *err)
{
	static const char prefix[] = "sha256:";
	size_t n = strlen(prefix);
	if (strncmp(digest, prefix, n) != 0)
		return error_set(err, -EINVAL, "digest '%.80s': only sha256:… is supported", digest);
	const char *hex = digest + n;
	size_t good = strspn(hex, "0123456789abcdef");
	if (good != 64 || hex[good])
		return error_set(
			err, -EINVAL, "digest '%.80s': sha256: must be followed by 64 lower-case hex digits", digest);
	return 0;
}

/** Whether @host[0, n) is a list of DNS labels or of numbers, joined by single dots. */
static bool host_valid(const char *host, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool at_edge = i == 0 || i == n - 1 || host[i - 1] == '.' || host[i + 1] == '.';
		if (host[i] == '-' || host[i] == '.') {
			if (at_edge)
				return false;
		} else if (!is_word(host[i])) {
			return false;
		}
	}
	return n > 0;
}

/** Whether @registry is host[:port] or [IPv6][:port]. */
static bool registry_valid(const char *registry)
{
	const char *port;
	if (registry[0] == '[') {
		size_t n = strspn(registry + 1, "0123456789abcdefABCDEF:.");
		if (n < 2 || registry[n + 1] != ']')
			return false;
		port = registry + n + 2;
	} else {
		size_t n = strcspn(registry, ":");
		if (!host_valid(registry, n))
			return false;
		port = registry + n;
	}
	uint64_t number;
	return !*port || (*port == ':' && parse_number(port + 1, "port", 1, 65535, &number, NULL) == 0);
}

/** The end of one path component at @at, NULL when there is no valid one: runs of [a-z0-9] joined by one '.', one or two
 *  '_', or any number of '-'. */
static const char *component_end(const char *at)
{
	for (;;) {
		const char *run = at;
		while (is_lower(*at) || is_digit(*at))
			at++;
		if (at == run)
			return NULL;
		if (*at == '.')
			at++;
		else if (*at == '_')
			at += at[1] == '_' ? 2 : 1;
		else if (*at == '-')
			at += strspn(at, "-");
		else
			return at;
	}
}

static bool repository_valid(const char *repository)
{
	const char *at = repository;
	for (;;) {
		at = component_end(at);
		if (!at)
			return false;
		if (!*at)
			return strlen(repository) <= REPOSITORY_MAX;
		if (*at++ != '/')
			return false;
	}
}

static bool tag_valid(const char *tag)
{
	size_t n = strlen(tag);
	if (n == 0 || n > TAG_MAX || tag[0] == '.' || tag[0] == '-')
		return false;
	for (; *tag; tag++)
		if (!is_word(*tag) && !strchr("_.-", *tag))
			return false;
	return true;
}

/** Whether the @n bytes before a '/' name a registry rather than the first component of a repository. */
static bool is_registry(const char *first, size_t n)
{
	if (n == strlen("localhost") && strncmp(first, "localhost", n) == 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (first[i] == '.' || first[i] == ':' || is_upper(first[i]))
			return true;
	return false;
}

/** Split @name (no tag, no digest) into registry and repository; both malloc'ed, NULL without memory. */
static void split_name(const char *name, char **registry, char **repository)
{
	const char *slash = strchr(name, '/');
	const char *rest = name;
	if (slash && is_registry(name, (size_t)(slash - name))) {
		*registry = strndup(name, (size_t)(slash - name));
		rest = slash + 1;
		for (char *c = *registry; c && *c; c++)
			if (is_upper(*c))
				*c = (char)(*c - 'A' + 'a');
		if (*registry && strcmp(*registry, LEGACY_REGISTRY) == 0) {
			free(*registry);
			*registry = strdup(DEFAULT_REGISTRY);
		}
	} else {
		*registry = strdup(DEFAULT_REGISTRY);
	}
	bool official = *registry && strcmp(*registry, DEFAULT_REGISTRY) == 0 && !strchr(rest, '/');
	*repository = path_format("%s%s", official ? OFFICIAL_PREFIX : "", rest);
}

static bool is_bare_id(const char *name)
{
	size_t n = strspn(name, "0123456789abcdef");
	return n == 64 && !name[n];
}

static int check_pieces(const char *text, const struct reference *ref, struct husk_error *err)
{
	if (!registry_valid(ref->registry))
		return error_set(err, -EINVAL, "image '%s': '%s' is not a registry host (HOST or HOST:PORT)", text,
			ref->registry);
	if (!repository_valid(ref->repository)) {
		for (const char *c = ref->repository; *c; c++)
			if (is_upper(*c))
				return error_set(
					err, -EINVAL, "image '%s': the repository name must be lower case", text);
		return error_set(err, -EINVAL,
			"image '%s': '%s' is not a repository name (a-z, 0-9, and . _ - between them, parts joined by "
			"/)",
			text, ref->repository);
	}
	if (ref->tag && !tag_valid(ref->tag))
		return error_set(err, -EINVAL,
			"image '%s': '%s' is not a tag (A-Z, a-z, 0-9, _ . -, at most 128, not starting with . or -)",
			text, ref->tag);
	int rc = ref->digest ? digest_check(ref->digest, err) : 0;
	return rc < 0 ? error_prefix(err, rc, "image '%s'", text) : 0;
}

int reference_parse(const char *text, struct reference *out, struct husk_error *err)
{
	if (!*text)
		return error_set(err, -EINVAL, "an image name must not be empty");
	if (strlen(text) > TEXT_MAX)
		return error_set(err, -EINVAL, "image '%.40s…': the name is too long", text);
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~')
			return error_set(err, -EINVAL, "an image name holds a byte that no name may hold (0x%02x)",
				(unsigned)(unsigned char)*c);

	CLEANUP_FREE char *name = strdup(text);
	if (!name)
		return error_set(err, -ENOMEM, "image '%s': out of memory", text);
	CLEANUP(reference_free) struct reference ref = {0};
	bool complete = true;
	char *at = strchr(name, '@');
	if (at) {
		*at = 0;
		complete &= (ref.digest = strdup(at + 1)) != NULL;
	}
	char *slash = strrchr(name, '/');
	char *colon = strrchr(slash ? slash : name, ':');
	if (colon) {
		*colon = 0;
		complete &= (ref.tag = strdup(colon + 1)) != NULL;
	} else if (!at) {
		complete &= (ref.tag = strdup("latest")) != NULL;
	}
	if (is_bare_id(name))
		return error_set(err, -EINVAL, "image '%s': 64 hex digits are an image id, not a name", text);
	split_name(name, &ref.registry, &ref.repository);
	if (!complete || !ref.registry || !ref.repository)
		return error_set(err, -ENOMEM, "image '%s': out of memory", text);
	int rc = check_pieces(text, &ref, err);
	if (rc < 0)
		return rc;
	*out = ref;
	ref = (struct reference){0};
	return 0;
}

/** "@name[:tag][@digest]" */
static char *with_selectors(const char *prefix, const char *name, const struct reference *ref)
{
	return path_format("%s%s%s%s%s%s", prefix, name, ref->tag ? ":" : "", ref->tag ? ref->tag : "",
		ref->digest ? "@" : "", ref->digest ? ref->digest : "");
}

char *reference_format(const struct reference *ref)
{
	CLEANUP_FREE char *prefix = path_format("%s/", ref->registry);
	return prefix ? with_selectors(prefix, ref->repository, ref) : NULL;
}

char *reference_familiar(const struct reference *ref)
{
	const char *repository = ref->repository;
	if (strcmp(ref->registry, DEFAULT_REGISTRY) != 0)
		return reference_format(ref);
	const char *slash = strchr(repository, '/');
	bool official = slash && strncmp(repository, OFFICIAL_PREFIX, (size_t)(slash + 1 - repository)) == 0;
	if (official && !strchr(slash + 1, '/') && !is_bare_id(slash + 1))
		return with_selectors("", slash + 1, ref);
	/* A first component that reads like a registry needs the registry in front to be read back. */
	if (is_registry(repository, strcspn(repository, "/")))
		return reference_format(ref);
	return with_selectors("", repository, ref);
}

void reference_free(struct reference *ref)
{
	free(ref->registry);
	free(ref->repository);
	free(ref->tag);
	free(ref->digest);
	*ref = (struct reference){0};
}
