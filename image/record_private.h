/* SPDX-License-Identifier: Apache-2.0 */
/* record_private.h - reading the store piece by piece, for husk-image itself. All of it only reads */
#ifndef IMAGE_RECORD_PRIVATE_H
#define IMAGE_RECORD_PRIVATE_H

#include "image/json.h"
#include "image/layer.h"
#include "image/platform.h"
#include "image/record.h"

/** One file under names/. Owned; free with name_record_free(). */
struct name_record {
	char *name; /* canonical */
	char *image_id; /* "sha256:…" */
	char *source_digest; /* what the name meant at its source: a manifest's or index's digest; or NULL */
	char *identity; /* of the file the image was made from (file_identity()); or NULL */
};

/** Read the name @canonical. -ENOENT when there is none. */
int name_load(const char *home, const char *canonical, struct name_record *out, struct husk_error *err);
/** Read all names; *@out is malloc'ed, its elements and itself are the caller's. */
int names_load(const char *home, struct name_record **out, size_t *n, struct husk_error *err);
void name_record_free(struct name_record *name);
void names_free(struct name_record *names, size_t n);

/** Read the image @id; *@raw (may be NULL) gets the whole document. Names are left empty. */
int record_load(const char *home, const char *id, struct image_record *out, json_t **raw, struct husk_error *err);
/** The same with its names. */
int record_load_named(const char *home, const char *id, struct image_record *out, json_t **raw, struct husk_error *err);
/** The ids of all records, whether they can be read or not; a NULL-terminated list for strings_free(). */
int record_ids(const char *home, char ***out, struct husk_error *err);
/** -ENOENT with the reason when a block image of @record is missing or of the wrong size. */
int record_check_layers(const struct image_record *record, struct husk_error *err);
/** The id that @text names: a name, an id, or a prefix of one. *@name (may be NULL) is set to the canonical name when it
 *  was one, else to NULL. */
int record_resolve(const char *home, const char *text, char id[DIGEST_MAX], char **name, struct husk_error *err);

#endif
