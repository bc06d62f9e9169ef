/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listener.h - a listening socket in the event loop, and what it does when descriptors have run out
 *
 * Theory of operation: each wake-up accepts up to LISTENER_BUDGET connections, so that a flood at one door leaves the loop
 * to the others. What accept4(2) says about one connection (it was aborted, its network went away) concerns that
 * connection alone. When this process has no descriptor left, a spare one is given up so that the connection can be taken
 * and closed: its client hears at once, and a backlog that stays full would wake the loop in every round. Where that does
 * not help (the spare is gone as well, the whole system is out of files or memory, the socket itself is broken) the watch
 * is taken out and a timer puts it back: no acceptor ends, none spins.
 */
#ifndef VMM_DOORS_LISTENER_H
#define VMM_DOORS_LISTENER_H

#include "base/loop.h"

#define LISTENER_BUDGET 32 /* connections per wake-up */
#define LISTENER_PAUSE_MS 50

struct listener {
	struct loop *loop;
	struct loop_watch watch; /* not added: closed, or paused until the timer comes */
	struct loop_watch timer;
	int fd; /* owned; -1: closed */
	int spare; /* owned, a duplicate of fd; -1: given up at the moment */
	/** A connection: non-blocking, close-on-exec, now the callee's, or -1 for one that was closed because descriptors have
	 *  run out. @begun_ns: when its accept began. It must not close the listener. */
	void (*take)(void *data, int fd, uint64_t begun_ns);
	void *data;
};

/** Listen on @fd, a listening socket (taken, also on failure; made non-blocking). */
int listener_open(struct listener *listener, struct loop *loop, int fd,
	void (*take)(void *data, int fd, uint64_t begun_ns), void *data, struct husk_error *err);
/** Close it; fine when it is closed already, or zero-initialised with fd -1. */
void listener_close(struct listener *listener);

#endif
