/* SPDX-License-Identifier: Apache-2.0 */
/* request.h - what an EXEC frame asks for */
#ifndef GUEST_REQUEST_H
#define GUEST_REQUEST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A NULL-terminated list of owned strings. */
struct strings {
	char **items;
	size_t n;
};

struct exec_request {
	uint32_t flags; /* AGENT_EXEC_FLAG_* */
	struct strings args, env, groups;
	char *cwd; /* absolute */
	char *user; /* NULL: root */
	uint16_t rows, columns; /* 0: not given */
};

/** Read the payload of an EXEC frame; every entry checked. */
int exec_request_parse(const void *payload, size_t size, struct exec_request *out, struct husk_error *err);
void exec_request_free(struct exec_request *request);

/** Append a copy of @text. 0 or -ENOMEM. */
int strings_add(struct strings *list, const char *text);
void strings_free(struct strings *list);

#endif
