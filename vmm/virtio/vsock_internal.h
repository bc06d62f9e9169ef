/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_internal.h - what the files of the vsock device share
 *
 * Theory of operation: vsock.c is the device and its calls, vsock_conn.c a connection's life and its host stream,
 * vsock_tx.c takes the guest's packets (queue tx), vsock_rx.c gives it ours (queue rx).
 *
 * Towards the guest nothing is ever queued as a packet. A connection that has something to say stands in the list `ready`
 * with a set of control packets to send (`pending`) and perhaps a host stream to read (`readable`); the pump serves the
 * list in turn, as long as the guest has given buffers, and reads a stream straight into them, many buffers with one
 * call, at most VSOCK_QUANTUM bytes per turn. So memory does not grow and a turn is fair. Only resets for packets that
 * belong to no connection need a queue; when it is full, the guest's packets wait.
 *
 * Towards the host bytes are written straight from the guest's buffers, consecutive packets of one connection with one
 * call. What the stream does not take is kept in `out`, which the announced buffer bounds: a guest that sends more than
 * its credit has broken the protocol and gets a reset.
 *
 * A connect of the host may bring bytes for the guest that come before those of the host stream (`first`), and a callback
 * that hears the guest's first bytes (`answer`) and decides by them: until it has, the host stream is left as it is. It may
 * even come later: a connection without one stays ASKING until it is attached.
 *
 * States: REQUESTED (we asked, the guest has not answered), ASKING (it has, and the callback awaits its answer), ESTABLISHED,
 * CLOSING (a reset is to be sent, the guest's last bytes may still flow to the host), ORPHAN (as CLOSING, the guest knows, no
 * longer in the table). Both directions end apart: `host_eof` and `guest_no_receive` end what flows to the guest,
 * `guest_no_send` (once `out` is empty) and `host_closed` what flows to the host. With both ended the connection is CLOSING.
 *
 * How ends are passed on (to "reset" a unix stream is to close it; TCP gets SO_LINGER 0, hence RST):
 *
 *   event                                         state             effect
 *   host: end of file                             ESTABLISHED       SHUTDOWN(SEND), once all bytes have been sent
 *   host: the same in one, hang_up_is_reset       ESTABLISHED       RST, host stream closed
 *   host: other end closed, all read (HUP)        ESTABLISHED       none: as in TCP, it shows when the guest sends
 *   host: a write fails, or a reset (ERR)         ESTABLISHED       SHUTDOWN(RCV); `out` dropped; what came before is still read
 *   host: a read fails (the reset itself)         ESTABLISHED       RST, host stream reset
 *   host: reset, or closed without bytes          REQUESTED, ASKING RST, host stream closed, connected(-EPIPE)
 *   guest: SHUTDOWN(SEND)                         ESTABLISHED       shutdown(SHUT_WR) once `out` has been written
 *   guest: SHUTDOWN(RCV)                          ESTABLISHED       shutdown(SHUT_RD)
 *   guest: both by now                            ESTABLISHED       RST at once (the guest's port is free), then `out`, then close
 *   guest: both, not SEND before, close_is_reset  ESTABLISHED       RST, host stream reset, `out` dropped
 *   guest: RST, before SHUTDOWN(SEND)             ESTABLISHED       host stream reset, `out` dropped
 *   guest: RST, after SHUTDOWN(SEND)              ESTABLISHED       `out` is written, then close
 *   guest: RST                                    CLOSING           `out` is written, then close
 *   guest: RST or SHUTDOWN                        REQUESTED, ASKING host stream closed (attached: let go), connected(error)
 *   both directions ended                         ESTABLISHED       RST
 *   the device is reset                           ESTABLISHED       `out` is written, then close
 *   the same before SEND, close_is_reset          ESTABLISHED       `out` is written, then host stream reset
 *   we die before SEND, close_is_reset            ESTABLISHED       host stream reset, by the kernel
 *
 * A reset drops what waits in `out` as TCP drops what waits in the sender's queue: the receiver had no room for it. Linux
 * sends RST in an orderly course too: in answer to our SHUTDOWN of both directions, and eight seconds after its own if no
 * RST has come. Then the connection is CLOSING already, or the guest has ended its sending before, and nothing is lost.
 *
 * A stream with close_is_reset has SO_LINGER 0 for as long as it is `undrained`, so that whatever closes it early is no end
 * that a client could take for that of a whole answer.
 */
#ifndef VMM_VIRTIO_VSOCK_INTERNAL_H
#define VMM_VIRTIO_VSOCK_INTERNAL_H

#include "base/buffer.h"
#include "base/list.h"
#include "vmm/virtio/vsock.h"

#include <linux/virtio_vsock.h>

#define VSOCK_RX 0
#define VSOCK_TX 1
#define VSOCK_EVENT 2
#define VSOCK_BUCKETS 4096
#define VSOCK_QUANTUM (128u << 10) /* bytes of one connection per turn, either way */
#define VSOCK_BATCH 64 /* buffers of one turn */
#define VSOCK_PACKET_MAX (64u << 10) /* payload of one packet of ours, as large as Linux makes its own */
#define VSOCK_TURNS 256 /* packets or turns per kick; then the other devices */
#define VSOCK_RESETS 1024
#define VSOCK_FIRST_PORT (1u << 30)

enum vsock_state { VSOCK_REQUESTED, VSOCK_ASKING, VSOCK_ESTABLISHED, VSOCK_CLOSING, VSOCK_ORPHAN };

/* control packets to send, in this order */
enum vsock_pending {
	VSOCK_SEND_REQUEST = 1,
	VSOCK_SEND_RESPONSE = 2,
	VSOCK_SEND_UPDATE = 4,
	VSOCK_SEND_ASK = 8, /* CREDIT_REQUEST */
	VSOCK_SEND_SHUTDOWN = 16,
	VSOCK_SEND_RESET = 32,
};

struct vsock_conn {
	struct vsock *vsock;
	struct vsock_conn *next_in_bucket;
	struct list all, ready, connecting;
	uint32_t local_port, peer_port;
	uint8_t state, pending;
	bool readable; /* `first` or the host stream may have bytes for the guest */
	bool host_eof; /* the host sends no more */
	bool host_closed; /* the host takes no more */
	bool host_hung_up; /* epoll reports HUP for good */
	bool guest_no_send, guest_no_receive;
	bool hybrid, close_is_reset, hang_up_is_reset, asked;
	bool counted; /* in meter->active */
	bool undrained; /* the guest's orderly end has not been passed on; closing the host stream now is a reset */
	bool by_guest; /* it asked */
	bool attached; /* the host stream came later */
	struct loop_watch watch; /* fd owned, -1: closed */
	/* guest to host: free-running counts (§5.10.6.3) */
	uint32_t buf_alloc, rx_cnt, fwd_cnt, told_fwd_cnt;
	struct buffer out;
	size_t greeting; /* bytes of out that are ours, no credit of the guest's */
	/* host to guest */
	uint32_t peer_buf_alloc, peer_fwd_cnt, tx_cnt;
	struct buffer first;
	/* what the dial said */
	uint64_t deadline_ns;
	vsock_connected_fn *connected;
	vsock_answer_fn *answer;
	void *data;
	struct door_meter *meter;
	uint64_t begun_ns; /* 0: the guest's first byte has come, or nobody wants to know when */
};

/** A reset for a packet that belongs to no connection. */
struct vsock_reset {
	uint64_t src_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct vsock {
	struct virtio_device device;
	struct loop *loop;
	uint64_t guest_cid;
	vsock_accept_fn *accept;
	void *data;
	struct net_meter *meter; /* NULL: none counts */
	uint32_t next_port, hash_seed;
	unsigned n_conns, n_by_guest, by_guest_max;
	size_t first_bytes; /* of all connections */
	unsigned n_undrained;
	uint64_t progress; /* of what is undrained: bytes written, and connections drained */
	void (*drained)(void *data);
	void *drained_data;
	struct vsock_conn *buckets[VSOCK_BUCKETS];
	struct list all, ready, connecting;
	struct loop_watch timer;
	struct vsock_reset resets[VSOCK_RESETS];
	unsigned first_reset, n_resets;
	bool tx_paused;
	bool reset_event; /* it was loaded: the driver is still to be told to forget its connections */
	struct vsock_conn *current; /* whose host event is handled; NULL once it was freed */

	/* scratch of one turn */
	struct virtqueue_chain chain;
	struct {
		struct vsock_conn *conn;
		unsigned n, n_iov;
		uint32_t bytes;
		uint16_t head[VSOCK_BATCH];
		struct iovec iov[VIRTQUEUE_SIZE_MAX];
	} tx;
	struct {
		unsigned n, n_iov, n_data;
		uint16_t head[VSOCK_BATCH];
		unsigned first[VSOCK_BATCH + 1];
		uint32_t room[VSOCK_BATCH];
		struct iovec iov[VIRTQUEUE_SIZE_MAX], data[VIRTQUEUE_SIZE_MAX];
	} rx;
};

/* ---- vsock_conn.c ---- */
struct vsock_conn *vsock_conn_find(const struct vsock *vsock, uint32_t local_port, uint32_t peer_port);
/** Make one over @fd (taken, also on failure; -1: there is none yet), watched for its end; NULL without memory or beyond the
 *  limit. */
struct vsock_conn *vsock_conn_new(struct vsock *vsock, int fd, uint32_t local_port, uint32_t peer_port);
/** Give @conn, which has none, the host stream @fd (taken, also on failure). */
int vsock_conn_adopt(struct vsock_conn *conn, int fd);
/** Put it in the list of those with something to send. */
void vsock_conn_wake(struct vsock_conn *conn, unsigned pending);
/** Watch the host stream for what can be worked on. */
void vsock_conn_watch(struct vsock_conn *conn);
/** The guest answered a connect. Calls connected(). */
void vsock_conn_establish(struct vsock_conn *conn);
/** Write @iov's @bytes to the host, keeping what it does not take; what belongs to an answer goes to answer(). Changes @iov;
 *  frees nothing. */
void vsock_conn_write(struct vsock_conn *conn, struct iovec *iov, unsigned n_iov, uint32_t bytes);
/** The guest's SHUTDOWN @flags. */
void vsock_conn_shutdown(struct vsock_conn *conn, uint32_t flags);
/** Move on to CLOSING when both directions have ended. */
void vsock_conn_settle(struct vsock_conn *conn);
/** Something is wrong: reset the host stream and, with @tell, the guest. May free @conn; calls its connected(). */
void vsock_conn_abort(struct vsock_conn *conn, bool tell, int error);
/** The guest's RST came, or ours was sent. May free @conn. */
void vsock_conn_forget(struct vsock_conn *conn);
void vsock_conn_free(struct vsock_conn *conn);
/** Forget its first bytes, sent or not. */
void vsock_conn_drop_first(struct vsock_conn *conn);
/** Bytes the guest has room for. */
uint32_t vsock_conn_credit(const struct vsock_conn *conn);
/** True while bytes of the host stream may flow to the guest. */
bool vsock_conn_reads(const struct vsock_conn *conn);
/** True while the guest may send, and be sent, more than control packets. */
static inline bool vsock_conn_talks(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_ASKING || conn->state == VSOCK_ESTABLISHED;
}

/* ---- vsock_rx.c ---- */
/** Answer a packet with a reset (never a reset). There must be room: n_resets < VSOCK_RESETS. */
void vsock_refuse(struct vsock *vsock, const struct virtio_vsock_hdr *packet);
/** Send what there is to send, as far as there are buffers. */
void vsock_pump(struct vsock *vsock);

/* ---- vsock_tx.c ---- */
/** Take the guest's packets. */
void vsock_receive(struct vsock *vsock);

#endif
