/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - JSON that others wrote: bounded before it is parsed, and every member fetched by type */
#ifndef IMAGE_JSON_H
#define IMAGE_JSON_H

#include "base/cleanup.h"
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define JSON_BYTES_MAX (8u << 20)
#define JSON_DEPTH_MAX 32
#define JSON_VALUES_MAX 200000 /* values and members; what one costs in memory is some 100 bytes */

static inline void cleanup_json(json_t **json)
{
	json_decref(*json);
}
#define CLEANUP_JSON CLEANUP(cleanup_json)

/** Parse @n bytes, which must be one JSON object (or array, with @array) in UTF-8 without duplicate keys. -EBADMSG when
 *  they are not, -EFBIG beyond the bounds. @what names the document in the error. */
int json_read(const void *bytes, size_t n, bool array, const char *what, json_t **out, struct husk_error *err);
/** Read and parse the file at @path, which must hold an object. -ENOENT when there is none. */
int json_read_file(const char *path, json_t **out, struct husk_error *err);
/** Write @json to @path atomically, mode 0600. */
int json_write_file(const char *path, const json_t *json, struct husk_error *err);

/** Member @key as a string of at most @max bytes; *@out is NULL when it is absent or null, and lives as long as @object.
 *  -EBADMSG for another type, or one too long, or (with @required) an absent or empty one. */
int json_get_string(const json_t *object, const char *key, size_t max, bool required, const char *what,
	const char **out, struct husk_error *err);
/** Member @key as a number from 0 to @max; 0 when absent. */
int json_get_size(
	const json_t *object, const char *key, uint64_t max, const char *what, uint64_t *out, struct husk_error *err);
/** Member @key as an object or an array; NULL when absent or null. */
int json_get_object(const json_t *object, const char *key, const char *what, json_t **out, struct husk_error *err);
int json_get_array(const json_t *object, const char *key, const char *what, json_t **out, struct husk_error *err);
/** Member @key as an array of strings, copied to a NULL-terminated list (an empty one when absent). */
int json_get_strings(const json_t *object, const char *key, const char *what, char ***out, struct husk_error *err);
/** The keys of member @key, which is an object, as a list. */
int json_get_keys(const json_t *object, const char *key, const char *what, char ***out, struct husk_error *err);

void strings_free(char **list);

#endif
