/* SPDX-License-Identifier: Apache-2.0 */
/* format.h - text out of doubles, without floating point */
#ifndef GUEST_SANDBOX_FORMAT_H
#define GUEST_SANDBOX_FORMAT_H

#include "runtime.h"

#define FORMAT_PRECISION_MAX 64
#define FORMAT_DOUBLE_MAX (310 + 1 + FORMAT_PRECISION_MAX)

/** The digits of the absolute value of the double with these @bits, not NUL-terminated: as %f has them, exactly
 *  rounded, to even when it is half-way. At most FORMAT_PRECISION_MAX digits are behind the point, whatever
 *  @precision. Returns how long. */
size_t format_double(char *text, uint64_t bits, unsigned precision, bool upper, bool point);

#endif
