/* SPDX-License-Identifier: Apache-2.0 */
/* forward.h - the FORWARD operation: a connection of the host becomes one to a TCP port in the guest */
#ifndef GUEST_FORWARD_H
#define GUEST_FORWARD_H

#include "guest/agent.h"

#include <netinet/in.h>

#define FORWARDS_MAX 20000

/** What all forwards of an agent share. */
struct forwards;

int forwards_open(struct loop *loop, struct forwards **out, struct husk_error *err);
/** How many there are, those that are being connected included. */
size_t forwards_count(const struct forwards *forwards);

/** Connect @c to the port that FORWARD names. Until that is done the connection stays the agent's, its forward set; an
 *  error is answered there. Afterwards its descriptor and buffers are the forward's, and its state is
 *  CONNECTION_HANDED_OVER. */
void forward_open(struct connection *c, const struct agent_frame *frame);
/** The connection ends while it is being connected. */
void forward_abandon(struct forward *forward);

/** An address to connect to. */
union forward_target {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};
#define FORWARD_TARGETS_MAX 8

/** Where a service on @port may be reached, in the order in which to try: the addresses of its @n @listeners, oldest first
 *  and at most FORWARD_TARGETS_MAX - 2, then both loopbacks; each once. How many. Exported for its test. */
size_t forward_targets(
	const struct agent_listener *listeners, size_t n, uint16_t port, union forward_target to[FORWARD_TARGETS_MAX]);

#endif
