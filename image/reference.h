/* SPDX-License-Identifier: Apache-2.0 */
/* reference.h - image references, normalised as Docker does. Pure text; used by husk-image and by the engine */
#ifndef IMAGE_REFERENCE_H
#define IMAGE_REFERENCE_H

#include "base/error.h"

/** "debian" is docker.io / library/debian / latest. Owned strings. */
struct reference {
	char *registry;   /* "docker.io", "localhost:5000": host and port as written, lower case */
	char *repository; /* "library/debian" */
	char *tag;        /* NULL when only a digest is given */
	char *digest;     /* "sha256:…" or NULL */
};

/** Parse and normalise @text strictly (grammar of the distribution reference). Free with reference_free(). */
int reference_parse(const char *text, struct reference *out, struct husk_error *err);
/** Full canonical name, "docker.io/library/debian:12" or with "@sha256:…"; malloc'ed. */
char *reference_format(const struct reference *ref);
/** The short form that users type and that lists show ("debian:12"); malloc'ed. */
char *reference_familiar(const struct reference *ref);
void reference_free(struct reference *ref);

/** True when @digest is "sha256:" and 64 lower-case hex digits. */
int digest_check(const char *digest, struct husk_error *err);

#endif
