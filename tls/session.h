/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one client: its handshake, its way into the VM, the bytes both ways, the end
 *
 * Theory of operation: a session passes through phases, each with a limit in time but the third:
 *
 *     HANDSHAKE   until TLS stands; the VM knows nothing of the client yet
 *     DIAL        the door is being entered; it may be full for a moment
 *     RELAY       bytes both ways
 *     LINGER      all is said; what the client still sends is dropped until it ends, since closing a socket with unread
 *                 bytes would reset it and could take our last words from the client
 *
 * How ends are passed on:
 *
 *     close_notify of the client       shutdown(SHUT_WR) inside; the way back stays open
 *     end of file inside               close_notify to the client; the way in stays open
 *     client's TCP ends without one    a truncation, as a reset is: the inner connection is closed at once, not shut down
 *     the inner side resets, or ends both ways before we have ended ours
 *                                      TCP reset: a unix stream has no reset of its own, and a clean end would tell the
 *                                      client that what it got is whole
 *     the door refuses                 TCP reset
 *     a fault of TLS                   OpenSSL's alert, and the inner connection is closed at once
 *
 * Memory: bytes go through one buffer of the server's. Only what the other side does not take at once - at most a record's
 * worth, 16 KiB - is kept in the session, and nothing more is read from that direction until it is gone.
 *
 * OpenSSL and epoll: level-triggered epoll sees what lies in the socket, not what OpenSSL holds. A read always has room for
 * a whole record and OpenSSL does not read ahead, so it never holds any. Both SSL_read and SSL_write may have to wait for
 * either readiness; each has its own note of what it waits for, and any event of the client's tries both.
 */
#ifndef TLS_SESSION_H
#define TLS_SESSION_H

#include "base/buffer.h"
#include "base/loop.h"

#include <netinet/in.h>
#include <openssl/ssl.h>

#define RECORD_MAX 16384 /* plaintext bytes of a TLS record */

enum phase { PHASE_HANDSHAKE, PHASE_DIAL, PHASE_RELAY, PHASE_LINGER, PHASES };

struct server;

/** The address of a client, for the log. */
union client_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct session {
	struct server *server;
	enum phase phase;
	uint64_t since_ns; /* in this phase since */
	struct session *next, *previous; /* in the server's list of the phase */

	union client_address address;
	SSL *ssl;
	struct loop_watch client, inner; /* inner.fd is -1 until the door is entered */
	uint32_t read_waits, write_waits; /* the EPOLL* bit that SSL_read, SSL_write need to go on */

	struct buffer to_inner, to_client; /* what could not be passed on at once */
	bool client_ended; /* close_notify has come */
	bool inner_ended; /* end of file has come */
	bool notified; /* close_notify is sent */
	bool inner_shut; /* our sending is shut down inside */
	bool inner_deaf; /* inside nothing is taken any more: what the client sends is dropped */
};

/** Take the accepted, non-blocking socket @fd (also on failure) and await the client's first words. */
int session_create(struct server *server, int fd, const union client_address *address, struct husk_error *err);
/** Close both sides at once and free it. */
void session_free(struct session *session);
/** Try to enter the door. False: it is full for now; true: done, and perhaps the session is gone. */
bool session_dial(struct session *session);
/** End with a TCP reset, since the VM cannot be reached. */
void session_reset(struct session *session);

#endif
