/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ready.h - the agent's announcement that the guest is ready
 *
 * Theory of operation: husk-init connects once to host port AGENT_PORT and sends HELLO and READY (agent/protocol.h). The
 * worker accepts one such connection, before any workload runs and so from nobody but the agent, reads at most READY_MAX
 * bytes and closes it. What the guest says of its timings is noted and trusted for nothing.
 */
#ifndef VMM_READY_H
#define VMM_READY_H

#include "base/buffer.h"
#include "base/loop.h"

#define READY_MAX 1024

struct ready {
	struct loop *loop;
	struct loop_watch watch;
	int fd; /* owned; -1: none under way */
	bool done;
	struct buffer in;
	void (*ready)(void *data);
	void *data;
};

void ready_init(struct ready *ready, struct loop *loop, void (*fn)(void *data), void *data);
/** The guest connects: the descriptor for the muxer, or a negative errno when it has announced itself before. */
int ready_accept(struct ready *ready);

#endif
