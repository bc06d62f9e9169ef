/* SPDX-License-Identifier: Apache-2.0 */
/* tree.h - PUT and GET: trees of files over a connection */
#ifndef GUEST_TREE_H
#define GUEST_TREE_H

#include "agent/protocol.h"
#include "guest/agent.h"

/** What a PUT or GET frame asks for. Strings are owned. */
struct tree_request {
	bool put;
	char *path; /* absolute */
	char *user; /* NULL: root */
	char *name; /* PUT: the root's own; NULL: its contents are meant */
	uint32_t flags; /* AGENT_TREE_FLAG_* */
};

/** Read the payload of a PUT or GET frame; every entry checked. */
int tree_request_parse(const struct agent_frame *frame, struct tree_request *out, struct husk_error *err);
void tree_request_free(struct tree_request *request);

/** Hand the connection to a process that does what the PUT or GET frame asks for; an error is answered on @c. */
void tree_open(struct connection *c, const struct agent_frame *frame);
/** That process is over: take the connection back. */
void tree_reaped(struct connection *c, int status);

/* ---- inside the process: get.c and put.c ---- */

/** The connection, blocking: frames that have come and frames to go. */
struct tree {
	const struct tree_request *request;
	const char *path; /* of the root, for errors */
	int fd;
	struct buffer in, out;
	size_t used; /* bytes at the front of `in` of the frame that was handed out last */
	void (*abort)(void *data); /* called before the process ends without having done its work; may be NULL */
	void *data;
};

/** The next frame of the client; its bytes stay until the next call. The process ends when the client has gone. */
struct agent_frame tree_receive(struct tree *tree);
/** Send what is in `out`, as soon as it is @enough bytes. The process ends when the client has gone. */
void tree_send(struct tree *tree, size_t enough);
/** All is done: send what is left and end. */
_Noreturn void tree_finish(struct tree *tree);
/** Answer with ERROR and end. */
_Noreturn __attribute__((format(printf, 3, 4))) void tree_fail(
	struct tree *tree, enum agent_error code, const char *format, ...);
/** The same for a -errno at @name below the root ("": the root): says where, and @text. */
_Noreturn void tree_fail_text(struct tree *tree, int rc, const char *name, const char *text);
/** With the errno's own text. */
_Noreturn void tree_fail_at(struct tree *tree, int rc, const char *name);
/** Memory for the process's own books. */
void *tree_memory(struct tree *tree, size_t size);

_Noreturn void get_tree(struct tree *tree);
_Noreturn void put_tree(struct tree *tree);

#endif
