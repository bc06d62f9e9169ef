/* SPDX-License-Identifier: Apache-2.0 */
/*
 * joined.h - a program that is run in a VM beside its main workload
 *
 * Theory of operation: joined_request.c makes of what the caller wants one frame for the agent. joined.c runs it: HELLO and that
 * frame go out in one write, and a thread of the library's own, with every signal blocked, moves the streams with the agent's
 * client until the program has ended and all output is delivered. Other threads reach it through a mailbox (signals, a size, the
 * wish to end) and an eventfd, never through the client, so that an output function of the caller's which blocks, or which calls
 * back into the library, blocks nobody else.
 *
 * What the agent says is hostile. The client bounds every frame; the thread has two deadlines, until the agent has said STARTED and,
 * with a time limit, GRACE_MS after that: it is the agent which kills the program in time and says so.
 */
#ifndef ENGINE_JOINED_H
#define ENGINE_JOINED_H

#include "base/buffer.h"
#include "engine/engine.h"

#define JOINED_GRACE_MS 5000 /* how much later than the program's time limit its agent may tell of it */
#define JOINED_LEAVE_MS 5000 /* in which its agent lets a client go */
#define JOINED_STEPS_MAX 64 /* AGENT_STEPS_MAX; joined.c checks that */

/** Append the payload of the agent's EXEC for @config to @out. -EINVAL, -E2BIG: it cannot be asked for, and why. */
int joined_payload(const struct husk_exec_config *config, struct buffer *out, struct husk_error *err);

/** As husk_exec_start() for the VM @id; @config is one of this library's size. */
int joined_start(const struct husk *husk, const char *id, const struct husk_exec_config *config, struct husk_exec **out,
	struct husk_error *err);
int joined_fd(const struct husk_exec *exec);
/** As husk_exec_wait(); *@outcome (may be NULL) is one of this library's size. */
int joined_wait(struct husk_exec *exec, int64_t timeout_ms, struct husk_exec_outcome *outcome, struct husk_error *err);
void joined_signal(struct husk_exec *exec, unsigned number);
void joined_resize(struct husk_exec *exec, uint16_t rows, uint16_t columns);
/** As husk_exec_leave(). */
int joined_leave(struct husk_exec *exec, struct husk_error *err);
void joined_close(struct husk_exec *exec);

#endif
