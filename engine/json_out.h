/* SPDX-License-Identifier: Apache-2.0 */
/* json_out.h - JSON written straight into a buffer, for what is too much to build a tree of first */
#ifndef ENGINE_JSON_OUT_H
#define ENGINE_JSON_OUT_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

/** Zero-initialised is empty. Memory failures are noted, and looked at once at the end. */
struct json_out {
	struct buffer text;
	bool failed;
};

void json_out_raw(struct json_out *out, const char *text, size_t n);
void json_out_text(struct json_out *out, const char *text);
/** A string with its quotes; what is no UTF-8 in it becomes U+FFFD. */
void json_out_string(struct json_out *out, const char *text);
/** Further members of an object that has one already. */
void json_out_key(struct json_out *out, const char *key);
void json_out_string_member(struct json_out *out, const char *key, const char *text);
void json_out_number_member(struct json_out *out, const char *key, uint64_t n);
/** RFC 3339; nothing when @ns is 0. */
void json_out_time_member(struct json_out *out, const char *key, uint64_t ns);

#endif
