/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors.h - the doors of one VM that were given to it as listening sockets, and who waits in them
 *
 * Theory of operation: a door is a listening descriptor with an id (struct vm_door). A connection that it accepts is
 * tied to the guest by the muxer and from then on costs the doors nothing: EXEC goes to the agent's port; UNIX, TCP, TLS
 * and what HANDOFF hands over go there too, with a FORWARD request to the TCP port in the guest in front
 * (docs/agent-protocol.md), and are the guest's when the agent says OK.
 *
 * Readiness: one connection to the agent (LISTENERS) keeps a table of the workload's listeners. A connection whose port is
 * not in it - or, when the door names no port, while the table is empty - waits, unread, until a LISTENING brings it or its
 * time is over. The time counts from its accept or from the workload's exec, whichever is later; before the exec it has no
 * end. A connection that is refused although its port is listed waits for the next LISTENING. With an agent that cannot tell
 * listeners (ERROR UNSUPPORTED) it is asked once and not again.
 *
 * Of the way to the service the connection to the agent is the longest part: a few are kept ready while there is a door that
 * needs FORWARD, and one that has been used is replaced once the guest has had time to serve whom it was used for.
 *
 * What the guest says is hostile: frames are bounded, the table is, and nothing in it is used but ports to ask the agent
 * for. What comes from host programs is no better: a router's framing errors close the router's connection with all
 * descriptors that came.
 */
#ifndef VMM_DOORS_DOORS_H
#define VMM_DOORS_DOORS_H

#include "base/loop.h"
#include "base/stats.h"
#include "vmm/virtio/vsock.h"

struct doors;

#define DOORS_STANDBYS_MAX 8

struct doors_setup {
	struct loop *loop;
	struct vsock *vsock;
	struct vm_stats *stats; /* mapped; NULL: the doors keep their own, without what the muxer counts */
	uint64_t listen_wait_ms;
	unsigned standbys; /* connections to the agent that are kept for those to come, at most DOORS_STANDBYS_MAX */
	bool no_agent; /* a foreign initramfs: EXEC doors say so, in the agent's own words for a refusal */
	/** A line for the VM's log, without newline: at most one per connection given up, and rate-limited. May be NULL. */
	void (*log)(void *data, const char *line);
	void *data;
};

/** Make an empty set. Everything in @setup outlives it. */
int doors_create(const struct doors_setup *setup, struct doors **out, struct husk_error *err);
/** Close all doors and all that waits; connections that reached the guest are the muxer's and stay. */
void doors_destroy(struct doors *doors);

/** Open a door on the listening socket @fd (non-blocking or not; taken, also on failure): UNIX, TCP, TLS (its unix socket),
 *  EXEC, VSOCK or HANDOFF, with an id that is free. -EINVAL, -EEXIST, -ENOTSOCK, -ESHUTDOWN after doors_stop(). */
int doors_add(struct doors *doors, const struct vm_door *door, int fd, struct husk_error *err);
/** Close a door: its listening socket, what waits in it and, of HANDOFF, its routers' connections. -ENOENT. Connections that
 *  reached the guest stay. */
int doors_remove(struct doors *doors, uint32_t id, struct husk_error *err);

/** The agent answers: watch its listeners. */
void doors_agent_ready(struct doors *doors);
/** The workload's exec has succeeded: the clocks begin. */
void doors_workload_started(struct doors *doors);
/** The VM ends: accept nothing more, close what waits. */
void doors_stop(struct doors *doors);

/** The counters of a door; its own when no file was given. Never NULL for an id of 1 to VM_DOORS_MAX. */
struct door_meter *doors_meter(struct doors *doors, uint32_t id);

#endif
