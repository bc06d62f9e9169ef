/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock.h - virtio-vsock (virtio 1.2 §5.10): the device and its muxer
 *
 * A connection is a host stream (a non-blocking unix or TCP stream descriptor) tied to a guest port. The muxer does credit
 * accounting, half-close in both directions, resets, and back-pressure: what is in flight towards a host stream that does
 * not take it is bounded by the buffer that was announced to the guest.
 */
#ifndef VMM_VIRTIO_VSOCK_H
#define VMM_VIRTIO_VSOCK_H

#include "base/buffer.h"
#include "base/loop.h"
#include "base/stats.h"
#include "vmm/virtio/device.h"

#define VSOCK_CID_HOST 2
#define VSOCK_CID_GUEST 3
#define VSOCK_CONNECTIONS_MAX 20000
#define VSOCK_CONNECT_TIMEOUT_MS 10000
#define VSOCK_FIRST_MAX (64u << 20) /* bytes that dials brought and no guest program has taken yet */

struct vsock;

/** The guest answered a connect of the host: @error is 0, or -ECONNREFUSED, -ECONNRESET, -ETIMEDOUT, or -EPIPE when the host
 *  stream's other end went away meanwhile. On success bytes flow; on an error the host stream has been closed. Called once
 *  - where an answer is awaited a second time, with the error, when the connection ends after all before the answer was OPEN
 *  or GIVE_BACK. Never from within vsock_dial(); not called any more after vsock_destroy(). May dial and cancel. */
typedef void vsock_connected_fn(void *data, int error);

/** A guest program connects to host port @port: return a non-blocking stream descriptor (ownership passes to the muxer) to
 *  accept, or a negative errno to refuse with a reset. */
typedef int vsock_accept_fn(void *data, uint32_t port);

/** Make the device; @loop drives its host streams. @accept decides on guest-initiated connections, of which there may be half
 *  as many as connections, or descriptors (RLIMIT_NOFILE now): a guest cannot take what the doors live on. */
int vsock_create(struct loop *loop, uint64_t guest_cid, vsock_accept_fn *accept, void *data, struct vsock **out,
	struct husk_error *err);
/** Count the payload of all streams in @meter. */
void vsock_count(struct vsock *vsock, struct net_meter *meter);
void vsock_destroy(struct vsock *vsock);
/** The device's face to a transport. */
struct virtio_device *vsock_device(struct vsock *vsock);

/** What an answer of the guest says. */
enum vsock_verdict {
	VSOCK_MORE, /* it is not whole yet */
	VSOCK_OPEN, /* the host stream and the guest may speak to each other now */
	VSOCK_GIVE_BACK, /* end the guest's side; the host stream is the caller's again, nothing was read from it or written */
};

/** The guest's first bytes, before anything goes to or comes from the host stream. @bytes are a copy that the guest cannot
 *  change, at most a few KiB at a time. *@used: how many of the @n bytes belong to the answer (with MORE: all); those behind
 *  it are the host stream's. With OPEN bytes may be appended to @first, which the guest gets before those of the host stream.
 *  It must not call into the muxer; a GIVE_BACK is followed up later, from the loop. Not called any more after connected()
 *  said an error. */
typedef enum vsock_verdict vsock_answer_fn(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first);

/** A connect of the host: what it means, and who hears of it. Everything but @port may be zero. */
struct vsock_dial {
	uint32_t port;
	bool hybrid; /* "OK <local port>\n" is written to the host stream before any byte of the guest, once connected */
	bool close_is_reset; /* a SHUTDOWN of both directions from a guest that has not shut down its sending before is passed on
				as a reset (agent/protocol.h: FORWARD); so is every other end that comes before it did, this
				process's own as well (SO_LINGER). Counted by vsock_undrained() */
	bool hang_up_is_reset; /* the host stream is a unix one whose other end shuts its sending down in an orderly end: an end of
				  file without, that is of one that was closed, is passed on as a reset, behind all bytes */
	struct buffer *first; /* bytes for the guest before those of the host stream; taken, also on failure */
	vsock_connected_fn *connected;
	vsock_answer_fn *answer; /* NULL: none is awaited. An answer that stays out is the caller's to time */
	void *data;
	/** May be NULL; outlives the connection. `active` counts it from when the host stream and the guest may speak to each
	 *  other (OPEN, or connected without an answer) until the host stream is closed. bytes_in: what was read from the host
	 *  stream for the guest, and what came with OPEN; bytes_out: what was written to the host stream, without the greeting.
	 *  Stages: FIRST_BYTE, from begun_ns (0: not wanted) until the guest's first byte for the host stream; READ and WRITE, one
	 *  call each that moved bytes. */
	struct door_meter *meter;
	uint64_t begun_ns; /* CLOCK_MONOTONIC */
};

/** Connect the host stream @fd (non-blocking, taken, also on failure) to guest port dial->port. Fails with -ENOSPC when
 *  there are VSOCK_CONNECTIONS_MAX already, with -ENOBUFS while first bytes of others, VSOCK_FIRST_MAX of them, wait for a
 *  guest that does not take them, with -ENOMEM without memory or when it cannot be watched. Until bytes may flow
 *  the host stream is only watched for its other end going away: closed without having left any bytes, or reset, it ends the
 *  dial with -EPIPE; bytes that were sent before a close are still delivered. A guest that does not answer within VSOCK_CONNECT_TIMEOUT_MS, be it because
 *  its driver is not up yet, gives -ETIMEDOUT. *@token (may be NULL) names it for vsock_cancel() until connected() said an
 *  error or the answer was OPEN or GIVE_BACK. */
struct vsock_conn;
int vsock_dial(
	struct vsock *vsock, int fd, const struct vsock_dial *dial, struct vsock_conn **token, struct husk_error *err);
/** A dial may go without a host stream, @fd -1, for the time when one comes: answer() is needed, may speak to the guest's
 *  program only by dial->first, and says MORE, or GIVE_BACK for good; connected() is called as ever. Once it has said 0,
 *  this ties the host stream @fd (taken, also on failure) to it, as a dial that the guest has accepted, with what @dial says
 *  in place of what was said before, but for the port; answer() is needed again. From then on one thing differs: when the
 *  guest ends it before the answer, connected() gets -ECONNRESET and the host stream is the caller's again, nothing was read
 *  from it or written. Fails as vsock_dial() does, and @token is void, nothing more is called. */
int vsock_attach(struct vsock_conn *token, int fd, const struct vsock_dial *dial, struct husk_error *err);
/** Give up a dial that is under way: the guest is told, the host stream closed, nothing more is called. */
void vsock_cancel(struct vsock_conn *token);

/** How many connections are undrained: of those with close_is_reset a connection is so from the time that bytes may flow
 *  until the guest has shut down its sending, all that it sent before has been written to the host stream and the end passed
 *  on, or until the host stream takes no more or is closed. *@progress (may be NULL) changes whenever one of them takes bytes
 *  or is drained. */
unsigned vsock_undrained(const struct vsock *vsock, uint64_t *progress);
/** Have @drained called each time that the last of them is drained; NULL: no more. Called from within the muxer, and must not
 *  call into it. */
void vsock_on_drained(struct vsock *vsock, void (*drained)(void *data), void *data);

/** vsock_dial() with what most callers need. */
int vsock_connect(struct vsock *vsock, int fd, uint32_t port, bool hybrid, vsock_connected_fn *connected, void *data,
	struct husk_error *err);

#endif
