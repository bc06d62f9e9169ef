/* SPDX-License-Identifier: Apache-2.0 */
/* streams.h - the caller's streams, in a form that a worker may have */
#ifndef ENGINE_STREAMS_H
#define ENGINE_STREAMS_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>

/** How a stream reaches the worker. */
enum stdio_way {
	STDIO_NONE, /* the caller gave none */
	STDIO_PASS, /* the caller's own description: a regular file, or a memory device */
	STDIO_REOPEN, /* the caller's pipe, opened anew, non-blocking */
	STDIO_RELAY, /* a pipe of ours, and a thread that copies: terminals, sockets, all else */
};

/** One direction that a thread copies. Set up by stdio_prepare(), run by stdio_start(). */
struct stdio_relay {
	int from, to; /* owned, unless they are the caller's */
	bool from_ours, to_ours;
	int stop; /* eventfd of the set: end now */
	int done; /* eventfd of the set: counts ended threads that write to the caller */
	bool input;
	bool running;
	pthread_t thread;
};

/** The three streams of one VM. */
struct stdio {
	int fd[3]; /* for the worker, owned until stdio_handed_over(); -1: none */
	enum stdio_way way[3];
	struct stdio_relay relay[3];
	int stop, done;
	unsigned outputs; /* relays that write to the caller and have not been joined */
};

#define STDIO_INIT                                                                                                     \
	{                                                                                                              \
		.fd = {-1, -1, -1}, .stop = -1, .done = -1                                                             \
	}

/** Judge the caller's descriptors @given (-1: none) and make what the worker gets. */
int stdio_prepare(struct stdio *io, const int given[3], struct husk_error *err);
/** The worker has its ends: close ours, and start the threads. */
int stdio_start(struct stdio *io, struct husk_error *err);
/** Readable (POLLIN) when a relay that writes to the caller has ended; -1: there is none. */
int stdio_done_fd(const struct stdio *io);
/** True when all output has been delivered. Call when stdio_done_fd() is readable, or at any time. */
bool stdio_delivered(struct stdio *io);
/** Stop every thread, also one that has not delivered all, and free. */
void stdio_destroy(struct stdio *io);

#endif
