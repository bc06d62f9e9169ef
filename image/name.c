/* SPDX-License-Identifier: Apache-2.0 */
/*
 * name.c - what a user calls an image, in one canonical form
 *
 * Theory of operation: the words in front of the first ':' that name a local source win over a registry reference of the
 * same look (nobody can mean an image "oci" with the tag of a path). Paths become absolute and free of links, so that the
 * same directory has the same name from wherever it is called; a path that is gone keeps its text. File names under
 * names/ are the canonical name with all but a few characters written as %XX; a long one is cut and ends in a hash of the
 * whole, and the file itself holds the whole name, which readers compare.
 */
#include "image/name.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define NAME_FILE_MAX 200

static const struct {
	const char *prefix;
	enum source_kind kind;
	bool selector;
} kinds[] = {
	{"oci:", SOURCE_OCI, true},
	{"oci-archive:", SOURCE_OCI_ARCHIVE, true},
	{"docker-archive:", SOURCE_DOCKER_ARCHIVE, true},
	{"rootfs:", SOURCE_ROOTFS, false},
	{"tar:", SOURCE_TAR, false},
};

static char *absolute(const char *path)
{
	char *real = realpath(path, NULL);
	if (real || path[0] == '/')
		return real ? real : strdup(path);
	CLEANUP_FREE char *here = getcwd(NULL, 0);
	return here ? path_join(here, path) : strdup(path);
}

/** Where the selector of @text begins (its ':'), NULL when all of it is a path. */
static char *find_selector(char *text)
{
	if (access(text, F_OK) == 0)
		return NULL;
	size_t n = strlen(text);
	for (char *at = text + n; at > text; at--) {
		if (*at != ':')
			continue;
		*at = 0;
		bool found = access(text, F_OK) == 0;
		*at = ':';
		if (found)
			return at;
	}
	/* The path is gone: a tag has no '/'. */
	char *colon = strrchr(text, ':');
	return colon && colon != text && !strchr(colon, '/') ? colon : NULL;
}

static int parse_local(const char *text, size_t i, struct source_name *out, struct husk_error *err)
{
	CLEANUP_FREE char *rest = strdup(text + strlen(kinds[i].prefix));
	if (!rest)
		return error_set(err, -ENOMEM, "source '%.200s': out of memory", text);
	if (!*rest)
		return error_set(err, -EINVAL, "source '%s': a path must follow", text);
	char *colon = kinds[i].selector ? find_selector(rest) : NULL;
	if (colon)
		*colon = 0;
	if (colon && !colon[1])
		return error_set(err, -EINVAL, "source '%.200s': a tag must follow the last ':'", text);
	out->kind = kinds[i].kind;
	out->path = strcmp(rest, "-") == 0 && kinds[i].kind == SOURCE_TAR ? strdup("-") : absolute(rest);
	out->selector = colon ? strdup(colon + 1) : NULL;
	if (out->path)
		out->canonical =
			path_format("%s%s%s%s", kinds[i].prefix, out->path, colon ? ":" : "", colon ? colon + 1 : "");
	if (!out->path || !out->canonical || (colon && !out->selector))
		return error_set(err, -ENOMEM, "source '%.200s': out of memory", text);
	return 0;
}

int source_name_parse(const char *text, struct source_name *out, struct husk_error *err)
{
	struct source_name name = {0};
	int rc = -ENOENT;
	if (strlen(text) > 8192)
		return error_set(err, -EINVAL, "source '%.40s…': too long", text);
	for (size_t i = 0; i < ARRAY_SIZE(kinds) && rc == -ENOENT; i++)
		if (strncmp(text, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) {
			rc = parse_local(text, i, &name, err);
			break;
		}
	if (rc == -ENOENT) {
		name.kind = SOURCE_REGISTRY;
		rc = reference_parse(text, &name.reference, err);
		if (rc == 0 && !(name.canonical = reference_format(&name.reference)))
			rc = error_set(err, -ENOMEM, "reference '%.200s': out of memory", text);
	}
	if (rc < 0)
		source_name_free(&name);
	else
		*out = name;
	return rc;
}

void source_name_free(struct source_name *name)
{
	free(name->canonical);
	free(name->path);
	free(name->selector);
	reference_free(&name->reference);
	*name = (struct source_name){0};
}

char *name_file(const char *canonical)
{
	size_t n = strlen(canonical);
	char *file = malloc(3 * n + 1);
	if (!file)
		return NULL;
	size_t at = 0;
	uint64_t hash = 14695981039346656037u; /* FNV-1a */
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)canonical[i];
		hash = (hash ^ c) * 1099511628211u;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
			     c == '-' || (c == '.' && at);
		if (plain)
			file[at++] = (char)c;
		else
			at += (size_t)snprintf(file + at, 4, "%%%02X", c);
	}
	file[at] = 0;
	if (at > NAME_FILE_MAX) {
		char *cut = path_format("%.*s~%016llx", NAME_FILE_MAX - 20, file, (unsigned long long)hash);
		free(file);
		return cut;
	}
	return file;
}
