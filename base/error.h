/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - the one error contract: return 0 or a negative errno, fill a caller-owned struct husk_error */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <errno.h>
#include <husk.h>

/** Fill @err (may be NULL) with @code (a negative errno value) and a formatted message; returns @code. */
__attribute__((format(printf, 3, 4))) int error_set(struct husk_error *err, int code, const char *format, ...);

/** As error_set() with -errno as the code and ": " and its text appended: return error_errno(err, "open %s", path); */
__attribute__((format(printf, 2, 3))) int error_errno(struct husk_error *err, const char *format, ...);

/**
 * Put a formatted context and ": " in front of the message that is already in @err (may be NULL); returns @code, which is the
 * one that the failed call returned: a caller who wants no message gets the code all the same.
 */
__attribute__((format(printf, 3, 4))) int error_prefix(struct husk_error *err, int code, const char *format, ...);

#endif
