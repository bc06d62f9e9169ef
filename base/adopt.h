/* SPDX-License-Identifier: Apache-2.0 */
/* adopt.h - structs of callers that were built with another version of husk.h */
#ifndef BASE_ADOPT_H
#define BASE_ADOPT_H

#include "base/error.h"

/** Copy the caller's struct at @from, whose first member is its size, over our defaults at @to of @size bytes. Members that
 *  the caller's header did not have keep their defaults; members that we do not know must be zero: -E2BIG. */
int adopt_struct(void *to, size_t size, const void *from, const char *what, struct husk_error *err);

/** @n structs in a row, each with its size in front, into an array of our own @size; *@out is malloc'ed, its strings are the
 *  caller's. */
int adopt_list(const void *given, size_t n, size_t size, const char *what, void **out, struct husk_error *err);
#define ADOPT_LIST(given, n, what, out, err) adopt_list((given), (n), sizeof(*(given)), (what), (out), (err))

#endif
