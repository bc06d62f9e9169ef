/* SPDX-License-Identifier: Apache-2.0 */
/* name.h - what a user calls an image: a registry reference or a local source, in one canonical form. Pure text but for
 * the look whether a file is there */
#ifndef IMAGE_NAME_H
#define IMAGE_NAME_H

#include "base/error.h"
#include "image/reference.h"

enum source_kind {
	SOURCE_REGISTRY,
	SOURCE_OCI,
	SOURCE_OCI_ARCHIVE,
	SOURCE_DOCKER_ARCHIVE,
	SOURCE_ROOTFS,
	SOURCE_TAR,
};

/** Owned; free with source_name_free(). */
struct source_name {
	enum source_kind kind;
	char *canonical; /* "docker.io/library/debian:12", "oci:/abs/dir:tag" */
	char *path; /* local sources: absolute when it can be, "-" for standard input */
	char *selector; /* tag or reference behind the path, or NULL */
	struct reference reference; /* SOURCE_REGISTRY only */
};

/** Parse @text. Local sources are "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:REFERENCE]",
 *  "rootfs:PATH" and "tar:FILE"; where a path may hold ':' the longest one that exists is taken. */
int source_name_parse(const char *text, struct source_name *out, struct husk_error *err);
void source_name_free(struct source_name *name);

/** The file under names/ that stands for @canonical: no '/', not hidden, at most 200 bytes; malloc'ed. */
char *name_file(const char *canonical);

#endif
