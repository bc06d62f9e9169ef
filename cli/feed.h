/* SPDX-License-Identifier: Apache-2.0 */
/* feed.h - what is typed, on its way to a guest */
#ifndef CLI_FEED_H
#define CLI_FEED_H

#include "cli/detach_keys.h"

#include <poll.h>

#define FEED_ROOM 65536

/** From a descriptor to another one, past the detach keys. feed_init() begins it. */
struct feed {
	int from, to; /* not owned, and owned; -1: not any more */
	bool detached; /* the keys were typed */
	struct detach_keys keys; /* none: all goes through */
	size_t n;
	unsigned char bytes[FEED_ROOM + DETACH_KEYS_MAX];
};

/** @to is taken, and its description made non-blocking. */
void feed_init(struct feed *feed, int from, int to);
/** What to poll for; a descriptor of -1 is nothing. */
void feed_poll(const struct feed *feed, struct pollfd fds[2]);
/** Move what can be, without blocking, after poll(2) has filled @fds. */
void feed_move(struct feed *feed, const struct pollfd fds[2]);
/** Close `to`. */
void feed_close(struct feed *feed);

#endif
