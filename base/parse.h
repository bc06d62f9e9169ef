/* SPDX-License-Identifier: Apache-2.0 */
/* parse.h - strict readings of the values that users write: all of the text or an error, never a part of it */
#ifndef BASE_PARSE_H
#define BASE_PARSE_H

#include "base/error.h"

#include <stdint.h>

/** A decimal whole number from @min to @max: digits only, no sign, no spaces. @what names it in the error. */
int parse_number(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out, struct husk_error *err);

/** Bytes: a decimal whole number with an optional b, k, m, g or t (powers of 1024, either case, optionally followed by
 *  "b" or "ib" as in 512MB, 512MiB, as Docker reads them). */
int parse_size(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out, struct husk_error *err);

/** Milliseconds: seconds as a decimal number with at most three places ("1.5"), or with a unit ms, s, m or h. */
int parse_duration(const char *text, const char *what, uint64_t *out_ms, struct husk_error *err);

/** A signal of Linux, 1 to 64: a number, a name with or without SIG in either case, RTMIN, RTMIN+n, RTMAX, RTMAX-n. RTMIN is the
 *  kernel's, 34 in all that users write, and not libc's, which keeps two for itself. */
int parse_signal(const char *text, const char *what, int *out, struct husk_error *err);

#endif
