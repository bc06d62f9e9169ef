/* SPDX-License-Identifier: Apache-2.0 */
/* adopt.h - structs of callers that were built with another version of husk.h */
#ifndef LIB_ADOPT_H
#define LIB_ADOPT_H

#include "base/error.h"

/** Copy the caller's struct at @from, whose first member is its size, over our defaults at @to of @size bytes. Members that
 *  the caller's header did not have keep their defaults; members that we do not know must be zero: -E2BIG. */
int adopt_struct(void *to, size_t size, const void *from, const char *what, struct husk_error *err);

/** Doors of a configuration into an array of our own size; *@out is malloc'ed, its strings are the caller's. */
int adopt_doors(const struct husk_door *given, size_t n, struct husk_door **out, struct husk_error *err);

#endif
