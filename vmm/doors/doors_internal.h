/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors_internal.h - what the files of the doors share
 *
 * Theory of operation: doors.c is the set of doors, its clock and its log. What a door accepts is a connection for the guest
 * at once (UNIX, TCP, TLS, EXEC), or somebody who first says what he wants: a host program at vsock.sock (hybrid.c), a
 * router (handoff.c). These are the door's visitors; the connections that come of it are passages (passage.c).
 *
 * A passage lives until the guest's program has it or it is given up. WAITING: unread, watched for its client going away, in
 * the list `waiting`, which is ordered by the time that its clock began. QUEUED: it may ask, but DOORS_ASKING_MAX others
 * of its door do, and in a guest that is asked by more than it can answer all of them would run out of time; a queue is the
 * door's own, or a service that lets its clients wait would make those of the others wait too. ASKING: the muxer has it and
 * asks the guest's agent; in the list `asking`, ordered likewise. RETURNED: the agent said no, from within the muxer; an
 * eventfd brings it back to us from the loop, or the next one in the queue. One timer serves these lists: within each the
 * time to go is the same for all.
 *
 * guest_listeners.c keeps the table of what the workload listens on, standby.c the connections to the agent that stand ready.
 */
#ifndef VMM_DOORS_INTERNAL_H
#define VMM_DOORS_INTERNAL_H

#include "agent/protocol.h"
#include "base/list.h"
#include "vmm/doors/doors.h"
#include "vmm/doors/listener.h"

#define DOORS_WAITING_MAX 4096 /* per door; beyond that a connection is refused */
#define DOORS_ASKING_MAX 256 /* per door; beyond that a connection queues */
#define DOORS_QUEUED_MAX 16384 /* per door; beyond that a connection is refused */
#define DOORS_QUEUED_MS 60000 /* in the queue */
#define DOORS_PREFIX_MAX (64u << 20) /* bytes of prefixes that wait; beyond that routers are not read */
#define DOORS_ANSWER_MS 15000 /* for the agent's answer; more than VSOCK_CONNECT_TIMEOUT_MS, which is part of it */
#define DOORS_REFILL_MS 10 /* until used connections to the agent are replaced: first the guest serves */
#define DOORS_LOG_BURST 20 /* lines at once, */
#define DOORS_LOG_MS 1000 /* and one more per so many milliseconds */

struct door {
	struct doors *doors;
	struct vm_door is;
	const struct door_ops *ops;
	struct door_meter *meter;
	struct listener listener;
	struct list visitors; /* ops->dismiss() ends one */
	unsigned n_visitors;
	struct list queued; /* passages */
	unsigned n_waiting, n_queued, n_asking; /* passages */
};

struct door_ops {
	/** A connection was accepted; @fd is now the callee's. */
	void (*take)(struct door *door, int fd, uint64_t begun_ns);
	/** End a visitor by its member of door->visitors; NULL where there are none. */
	void (*dismiss)(struct door *door, struct list *visitor);
};

extern const struct door_ops hybrid_ops, handoff_ops;

/** What the agent tells of the workload's listeners. */
enum listeners_state {
	LISTENERS_UNKNOWN, /* it has not told yet, or tells no more: the table is empty */
	LISTENERS_KNOWN,
	LISTENERS_UNSUPPORTED, /* it cannot tell, and never will */
};

struct guest_listeners {
	enum listeners_state state;
	struct loop_watch watch;
	int fd; /* our end of the connection to the agent; -1: none */
	struct vsock_conn *token; /* until the agent has taken the connection */
	bool greeted;
	struct buffer in;
	uint64_t generation; /* of the table: one per LISTENING */
	size_t n_ports;
	uint16_t ports[AGENT_LISTENERS_MAX]; /* the oldest first */
	uint64_t listed[65536 / 64]; /* the same, a bit per port */
};

/** A connection to the agent that awaits its use. */
struct standby {
	struct doors *doors;
	struct vsock_conn *token; /* NULL: this place is free */
	bool ready; /* the agent has said HELLO */
	struct buffer heard; /* of it */
};

#define DOORS_REFUSED 16

struct doors {
	int refused[DOORS_REFUSED]; /* clients of EXEC without an agent: told, and not closed yet; -1: free */
	unsigned next_refused;
	struct doors_setup setup;
	struct vm_stats *own_stats; /* owned; NULL: setup.stats are used */
	struct vm_stats *stats;
	struct door *door[VM_DOORS_MAX];
	struct guest_listeners listeners;
	struct standby standby[DOORS_STANDBYS_MAX];
	uint64_t refill_ns; /* when the free places are filled; 0: not now */
	struct list waiting, asking, returned;
	size_t prefix_bytes; /* of all passages */
	struct loop_watch timer, again; /* again: an eventfd, for what has returned */
	uint64_t timer_ns; /* when it comes; 0: it does not */
	uint64_t wait_ns, answer_ns; /* for the port to be listened on, for the agent to answer */
	uint64_t started_ns; /* 0: the workload has not been started */
	bool stopped;
	unsigned log_tokens, log_dropped;
	uint64_t log_ns;
};

/* ---- doors.c ---- */
/** A line for the log, "<kind> door <endpoint>: " in front when @door is given. */
__attribute__((format(printf, 3, 4))) void doors_say(
	struct doors *doors, const struct door *door, const char *format, ...);
/** Have the timer come at @ns at the latest. */
void doors_timer_need(struct doors *doors, uint64_t ns);
/** TCP_NODELAY and keepalive, where @fd is TCP. */
void door_tune(int fd);
/** There is room for prefixes again. */
void doors_prefixes_freed(struct doors *doors);

/* ---- passage.c ---- */
/** Bring the connection @fd (taken) to the door's port. @prefix (may be NULL) is taken and goes first. */
void passage_begin(struct door *door, int fd, struct buffer *prefix, uint64_t begun_ns);
/** Bring the connection @fd (taken) to the vsock @port. */
void passage_begin_vsock(struct door *door, int fd, uint32_t port, bool hybrid, uint64_t begun_ns);
/** What can be asked for may have changed: look at all that wait. */
void passages_review(struct doors *doors);
/** Follow up what has returned, and let those in the queue ask whose turn it is. */
void passages_resume(struct doors *doors);
/** Give up those whose time is over, and have the timer come for the next. */
void passages_expire(struct doors *doors);
/** End all of @door. */
void passages_end(struct doors *doors, const struct door *door);

/* ---- guest_listeners.c ---- */
void guest_listeners_init(struct guest_listeners *listeners);
/** Ask the agent for its listeners. */
void guest_listeners_ask(struct doors *doors);
void guest_listeners_end(struct doors *doors);
/** The port to ask for on behalf of a door that leads to @port (0: the first); 0: there is none now. */
uint16_t guest_listeners_find(const struct guest_listeners *listeners, uint32_t port);

/* ---- standby.c ---- */
/** Is there a door whose connections ask the agent for a port? */
bool standbys_needed(const struct doors *doors);
/** The guest can be asked: have connections made for who comes, in a while. */
void standbys_want(struct doors *doors);
/** Make those that are due, or have the timer come for them. */
void standbys_refill(struct doors *doors);
/** One that is ready, for vsock_attach(); NULL when there is none. */
struct vsock_conn *standby_take(struct doors *doors);
/** End all. */
void standbys_end(struct doors *doors);

/* ---- handoff.c ---- */
/** Read the door's routers again that were left unread while DOORS_PREFIX_MAX was reached. */
void handoff_resume(struct door *door);

#endif
