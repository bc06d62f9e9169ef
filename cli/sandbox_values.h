/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_values.h - values of sandbox functions as the words of a command line, and back */
#ifndef CLI_SANDBOX_VALUES_H
#define CLI_SANDBOX_VALUES_H

#include <husk.h>
#include <stdio.h>

/** Read @text as a value of @type. What it points to is @text, or *@owned, malloc'ed, when a file was read. -EINVAL,
 *  -ERANGE, and for files the errors of open(2) and read(2). */
int sandbox_value_parse(const char *text, enum husk_sandbox_type type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err);
/** A line, but of bytes the bytes, and of void nothing. @terminal: someone looks at it, so no control characters but
 *  tabs and line ends. */
void sandbox_value_print(FILE *out, const struct husk_sandbox_value *value, bool terminal);
void sandbox_text_print(FILE *out, const char *text, size_t n, bool terminal);
/** "i32 add(i32, i32)" */
void sandbox_signature_print(FILE *out, const struct husk_sandbox_signature *signature);

#endif
