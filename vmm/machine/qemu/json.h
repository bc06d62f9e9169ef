/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - a bounded, strict JSON tokenizer for QMP
 *
 * Theory of operation: one pass over one message in memory fills an array of tokens that point into it, in document order; a
 * container's token tells where its content ends in the array, so that siblings are found by skipping. Nothing is
 * allocated, converted or unescaped. Nesting and the number of tokens are limited; what is no JSON by RFC 8259 is refused
 * as a whole. Strings are compared as they are written: a name that is written with escapes matches nothing.
 */
#ifndef VMM_MACHINE_QEMU_JSON_H
#define VMM_MACHINE_QEMU_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 16

enum json_kind { JSON_OBJECT = 1, JSON_ARRAY, JSON_STRING, JSON_NUMBER, JSON_TRUE, JSON_FALSE, JSON_NULL };

/** text[start, start + size): a string without its quotes, anything else as it stands. */
struct json_token {
	enum json_kind kind;
	uint32_t start, size;
	uint32_t next; /* index of the token behind this value and all it contains */
};

struct json {
	const char *text;
	const struct json_token *tokens;
	uint32_t n;
};

/** Tokenize exactly one value. 0, -EPROTO when it is no JSON, -E2BIG when it has more than @max tokens or nests deeper than
 *  JSON_DEPTH_MAX. */
int json_parse(struct json *json, const char *text, size_t size, struct json_token *tokens, size_t max);

/** Index of the value of member @name of the object at @object, or -1: no such member, or no object (-1 included). */
long json_member(const struct json *json, long object, const char *name);

/** True when the value at @at (may be -1) is the string @text. */
bool json_is(const struct json *json, long at, const char *text);

/** The value at @at (may be -1) is a whole number from 0 to INT64_MAX, written without exponent. */
bool json_number(const struct json *json, long at, uint64_t *out);

/** Copy the string at @at (may be -1) as printable text of at most @room - 1 bytes; "" when it is no string. */
void json_copy(const struct json *json, long at, char *out, size_t room);

#endif
