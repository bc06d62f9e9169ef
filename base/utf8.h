/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.h - sequences of UTF-8: RFC 3629 §4 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/** The length of the character at @text, which is NUL-terminated: 1 to 4, and 0 when it is none. */
size_t utf8_length(const char *text);

/** True for the character at @text, @length bytes, when a terminal obeys it instead of showing it: C0, DEL and C1. */
bool utf8_is_control(const char *text, size_t length);

#endif
