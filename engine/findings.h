/* SPDX-License-Identifier: Apache-2.0 */
/*
 * findings.h - a list of findings in the making
 *
 * Theory of operation: findings are appended, their strings go into one buffer; at the end the list and all its strings are
 * put into one allocation, so that the caller of the library has one thing to free.
 */
#ifndef ENGINE_FINDINGS_H
#define ENGINE_FINDINGS_H

#include "base/buffer.h"
#include "base/error.h"

#define FINDINGS_MAX 32

/** Zero-initialised is empty. Messages and remedies are offsets into text, -1 for none. */
struct findings {
	struct {
		enum husk_finding_status status;
		const char *topic;
		long message, remedy;
	} list[FINDINGS_MAX];
	size_t n;
	struct buffer text;
};

/** Append one; @remedy may be NULL. What finds no room is left out. */
__attribute__((format(printf, 5, 6))) void findings_add(struct findings *f, enum husk_finding_status status,
	const char *topic, const char *remedy, const char *format, ...);
/** Give them to the caller as one allocation, and be empty. */
int findings_give(struct findings *f, struct husk_finding **out, size_t *n, struct husk_error *err);

#endif
