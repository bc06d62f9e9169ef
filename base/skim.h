/* SPDX-License-Identifier: Apache-2.0 */
/*
 * skim.h - a few members of a JSON object, without taking in the rest
 *
 * Theory of operation: `husk ps` reads a thousand records and needs a handful of members of each, as they stand. So the text is
 * walked through once; strings and brackets are followed, nothing is built. What is asked for is given as the very bytes of the
 * value. It is followed to its end and not checked: who cannot trust the text has to. The object has to close and nothing may come
 * behind it, so a text that was cut is told.
 */
#ifndef BASE_SKIM_H
#define BASE_SKIM_H

#include <stdbool.h>
#include <stddef.h>

/** A member to look for; `text` is NULL when it is not there. */
struct skim {
	const char *key; /* as it stands in the text: one that needs escapes is not found */
	const char *text; /* the value, n bytes within the object's text */
	size_t n;
};

/** Look for @members of the object that the @n bytes at @text are. False when they are none. */
bool skim_object(const char *text, size_t n, struct skim *members, size_t n_members);

/** The next element of an array: *@at is its '[' at first and moves on; @end is the end of the text. Its bytes into @out. False at
 *  the array's end, or when it is none. */
bool skim_element(const char **at, const char *end, struct skim *out);

/** True when the value is a string of printable ASCII without escapes, which it is for every parser. */
bool skim_is_plain(const struct skim *value);
/** True when it is the string @want, which needs no escapes. */
bool skim_is(const struct skim *value, const char *want);
/** A string malloc'ed, escapes resolved; one that is none, or is damaged, as far as it goes. NULL without memory. */
char *skim_string(const struct skim *value);

#endif
