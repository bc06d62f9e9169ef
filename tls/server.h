/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.h - all clients of one TLS door: accepting, limits, time
 *
 * Theory of operation: sessions lie in one list per phase, oldest first, so the next deadline is always at a head and one
 * timer serves all. Limits keep strangers from taking more than their share: at most SESSIONS_MAX sessions, and at most
 * HANDSHAKES_MAX of them without a finished handshake. At a limit the listening socket is left alone, so that clients wait
 * in the kernel's queue instead of being turned away, and those who do not talk yet or no longer have less time.
 */
#ifndef TLS_SERVER_H
#define TLS_SERVER_H

#include "tls/session.h"

#define SESSIONS_MAX 4096
#define HANDSHAKES_MAX 512 /* a ClientHello under way may cost OpenSSL up to 128 KiB */
#define HANDSHAKE_MS 10000
#define PRESSED_MS 1000 /* of a handshake and of lingering at a limit */
#define DIAL_MS 10000
#define DIAL_RETRY_MS 5
#define LINGER_MS 5000
#define REST_MS 100 /* after an accept that failed for want of descriptors or memory */

struct session_list {
	struct session *first, *last;
	size_t n;
};

struct server {
	struct loop loop;
	struct loop_watch listener, timer;
	uint64_t rests_until_ns; /* nothing is accepted until then; 0: it is */
	uint64_t due_ns; /* when the timer fires; 0: it is not set */
	SSL_CTX *context;
	const char *inner; /* name of the door's unix socket in the working directory */
	struct session_list sessions[PHASES];
	size_t sessions_max, handshakes_max;
	uint64_t log_second; /* the log's allowance: lines left in this second, and lines left out */
	unsigned log_left, log_dropped;
	uint8_t record[RECORD_MAX]; /* bytes on their way; holds nothing between two events */
};

/** Set up to serve the listening socket @listener with @context by the unix socket @inner; all three outlive the server. */
int server_open(struct server *server, int listener, SSL_CTX *context, const char *inner, struct husk_error *err);
/** Serve until the process is ended; returns only when it cannot go on. */
int server_run(struct server *server, struct husk_error *err);

/** Put @session at the end of the list of @phase, which begins for it now. */
void server_enter(struct server *server, struct session *session, enum phase phase);
/** Take @session out of its list: it ends. */
void server_leave(struct server *server, struct session *session);
/** One line about a client; a flood of them is cut. */
__attribute__((format(printf, 3, 4))) void server_log(
	struct server *server, const union client_address *client, const char *format, ...);

#endif
