/* SPDX-License-Identifier: Apache-2.0 */
/* request.h - what an EXEC frame asks for */
#ifndef GUEST_REQUEST_H
#define GUEST_REQUEST_H

#include "agent/protocol.h"

#include <stddef.h>

/** A NULL-terminated list of owned strings. */
struct strings {
	char **items;
	size_t n;
};

/** A file that is written before the first command. */
struct staged_file {
	char *path;
	uint32_t mode; /* 07777 */
	uint8_t *contents;
	size_t size;
};

struct exec_request {
	uint32_t flags; /* AGENT_EXEC_FLAG_* */
	struct strings commands[AGENT_STEPS_MAX]; /* one behind the other */
	size_t n_commands;
	struct strings env, groups;
	struct staged_file *files;
	size_t n_files;
	char *cwd; /* absolute; NULL: not given */
	char *user; /* NULL: not given */
	uint16_t rows, columns; /* 0: not given */
	uint64_t timeout_ms; /* 0: none */
	const struct exec_request
		*base; /* the workload's, which a joined program is by what it does not say; NULL: none */
};

/** Read the payload of an EXEC frame; every entry checked. */
int exec_request_parse(const void *payload, size_t size, struct exec_request *out, struct husk_error *err);
void exec_request_free(struct exec_request *request);
/** Free what nobody needs once the last command has been launched. */
void exec_request_shrink(struct exec_request *request);

/* Where and as whom: the request's own word, the workload's, "/" and root. */
const char *exec_request_cwd(const struct exec_request *request);
const char *exec_request_user(const struct exec_request *request);

/** Append a copy of @text. 0 or -ENOMEM. */
int strings_add(struct strings *list, const char *text);
void strings_free(struct strings *list);

#endif
