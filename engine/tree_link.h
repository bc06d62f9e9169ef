/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_link.h - a connection to a VM's agent that carries a tree of files
 *
 * Theory of operation: the caller's own thread sends and receives, and sleeps in poll(2) only, which also hears the caller's wish to
 * end and the clock: when nothing has moved for timeout_ms, it is over. So an agent that hangs costs that time and no more; one that
 * goes on for ever costs what the caller gives it room for, on a disk. Frames are judged by their header before they are kept, and
 * of what was not asked for there is nothing but an ERROR. One side at a time sends: what is sent waits in a buffer of SEND_MAX bytes.
 */
#ifndef ENGINE_TREE_LINK_H
#define ENGINE_TREE_LINK_H

#include "agent/protocol.h"
#include "engine/engine.h"

#define TREE_CHUNK (256u << 10) /* of one DATA frame that we make */

/** Zero-initialised but for fd -1 is closed. */
struct tree_link {
	const struct husk *husk;
	char id[16];
	int fd; /* non-blocking */
	const struct husk_copy_options *options;
	struct buffer in, out;
	size_t used; /* of `in`: the frame that was handed out */
	bool greeted; /* HELLO has come */
	uint64_t moved_ns; /* when something last moved */
	uint64_t bytes; /* of contents, for the caller's progress */
};

#define TREE_LINK_INIT                                                                                                 \
	{                                                                                                              \
		.fd = -1                                                                                               \
	}

/** Connect to the agent of VM @id and ask @type (PUT or GET) with @flags of AGENT_TREE_FLAG_* for @path; @name may be NULL. */
int tree_link_open(struct tree_link *link, const struct husk *husk, const char *id, enum agent_type type,
	const char *path, const char *name, uint32_t flags, const struct husk_copy_options *options,
	struct husk_error *err);
void tree_link_close(struct tree_link *link);

/** Send the frames in link->out, all of them, or when they are many. */
int tree_link_send(struct tree_link *link, bool all, struct husk_error *err);
/** PUT: say END and wait until the agent has it all. */
int tree_link_finish(struct tree_link *link, struct husk_error *err);
/** GET: the next frame, ENTRY, DATA or END; its bytes are valid until the next call. */
int tree_link_receive(struct tree_link *link, struct agent_frame *frame, struct husk_error *err);
/** @n bytes of contents have moved: tell the caller. */
void tree_link_count(struct tree_link *link, size_t n);
/** Tell the caller that @name is not copied. */
void tree_link_skip(const struct tree_link *link, const char *name, const char *why);
/** -ECANCELED once the caller wants it; a look without waiting. */
int tree_link_canceled(const struct tree_link *link, struct husk_error *err);

/** @name as it may be shown: bytes that are not printable become '?'. @room bytes at @text, which is returned. */
const char *tree_name_text(const char *name, char *text, size_t room);

#endif
