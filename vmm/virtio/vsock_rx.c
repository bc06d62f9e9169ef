/* SPDX-License-Identifier: Apache-2.0 */
/* vsock_rx.c - what goes to the guest: resets, control packets, bytes of the host streams */
#include "vmm/virtio/vsock_internal.h"

#include <endian.h>
#include <poll.h>
#include <sys/socket.h>

#define HEADER sizeof(struct virtio_vsock_hdr)

/** Take the guest's next buffer into vsock->chain; false when there is none, or the device is broken. */
static bool take_buffer(struct vsock *vsock)
{
	struct virtqueue *q = &vsock->device.queues[VSOCK_RX];
	int rc;
	while ((rc = virtqueue_pop(q, &vsock->chain)) == 0)
		if (!virtqueue_enable_kicks(q))
			return false;
	if (rc < 0) {
		virtio_broken(&vsock->device, q->broken);
		return false;
	}
	if (vsock->chain.write_bytes <= HEADER) {
		virtio_broken(&vsock->device, "a receive buffer without room for a packet");
		return false;
	}
	return true;
}

/** Fill the buffer in vsock->chain with a packet without payload. */
static void put_header(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
	struct virtqueue_chain *c = &vsock->chain;
	iov_scatter(c->iov + c->n_read, c->n_write, header, HEADER);
	virtqueue_push(&vsock->device.queues[VSOCK_RX], c->head, HEADER);
}

/** A header of @conn's; it carries our credit, so the guest is up to date after it. */
static struct virtio_vsock_hdr make_header(struct vsock_conn *conn, uint16_t op, uint32_t length)
{
	conn->told_fwd_cnt = conn->fwd_cnt;
	conn->pending &= (uint8_t)~VSOCK_SEND_UPDATE;
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(VSOCK_CID_HOST),
		.dst_cid = htole64(conn->vsock->guest_cid),
		.src_port = htole32(conn->local_port),
		.dst_port = htole32(conn->peer_port),
		.len = htole32(length),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16(op),
		.buf_alloc = htole32(conn->buf_alloc),
		.fwd_cnt = htole32(conn->fwd_cnt),
	};
}

void vsock_refuse(struct vsock *vsock, const struct virtio_vsock_hdr *packet)
{
	if (le16toh(packet->op) == VIRTIO_VSOCK_OP_RST)
		return;
	unsigned at = (vsock->first_reset + vsock->n_resets++) % VSOCK_RESETS;
	vsock->resets[at] = (struct vsock_reset){
		.src_cid = le64toh(packet->dst_cid),
		.src_port = le32toh(packet->dst_port),
		.dst_port = le32toh(packet->src_port),
		.type = le16toh(packet->type),
	};
}

static bool send_reset(struct vsock *vsock)
{
	if (!take_buffer(vsock))
		return false;
	const struct vsock_reset *r = &vsock->resets[vsock->first_reset];
	struct virtio_vsock_hdr header = {
		.src_cid = htole64(r->src_cid),
		.dst_cid = htole64(vsock->guest_cid),
		.src_port = htole32(r->src_port),
		.dst_port = htole32(r->dst_port),
		.type = htole16(r->type),
		.op = htole16(VIRTIO_VSOCK_OP_RST),
	};
	put_header(vsock, &header);
	vsock->first_reset = (vsock->first_reset + 1) % VSOCK_RESETS;
	vsock->n_resets--;
	return true;
}

static const struct {
	uint8_t pending;
	uint16_t op;
} controls[] = {
	{VSOCK_SEND_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
	{VSOCK_SEND_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
	{VSOCK_SEND_UPDATE, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
	{VSOCK_SEND_ASK, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
	{VSOCK_SEND_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
	{VSOCK_SEND_RESET, VIRTIO_VSOCK_OP_RST},
};

/** Send the first of @conn's pending control packets; false without a buffer. */
static bool send_control(struct vsock_conn *conn)
{
	unsigned i = 0;
	if (!take_buffer(conn->vsock))
		return false;
	while (!(conn->pending & controls[i].pending))
		i++;
	conn->pending &= (uint8_t)~controls[i].pending;
	struct virtio_vsock_hdr header = make_header(conn, controls[i].op, 0);
	if (controls[i].op == VIRTIO_VSOCK_OP_SHUTDOWN)
		header.flags = htole32((conn->host_eof ? VIRTIO_VSOCK_SHUTDOWN_SEND : 0) |
				       (conn->host_closed ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0));
	put_header(conn->vsock, &header);
	return true;
}

/** Collect buffers for @limit bytes in vsock->rx; how many bytes they hold, 0 when there is none. */
static uint32_t collect(struct vsock *vsock, uint32_t limit)
{
	struct virtqueue_chain *c = &vsock->chain;
	uint32_t total = 0;
	vsock->rx.n = vsock->rx.n_iov = vsock->rx.n_data = 0;
	while (total < limit && vsock->rx.n < VSOCK_BATCH && take_buffer(vsock)) {
		if (vsock->rx.n_iov + c->n_write > VIRTQUEUE_SIZE_MAX) { /* only odd guests get here */
			virtqueue_unpop(&vsock->device.queues[VSOCK_RX], 1);
			break;
		}
		uint64_t room = c->write_bytes - HEADER;
		if (room > VSOCK_PACKET_MAX)
			room = VSOCK_PACKET_MAX;
		if (room > limit - total)
			room = limit - total;
		const struct iovec *writable = c->iov + c->n_read;
		unsigned i = vsock->rx.n++;
		vsock->rx.head[i] = c->head;
		vsock->rx.room[i] = (uint32_t)room;
		vsock->rx.first[i] = vsock->rx.n_iov;
		for (unsigned k = 0; k < c->n_write; k++)
			vsock->rx.iov[vsock->rx.n_iov++] = writable[k];
		vsock->rx.first[i + 1] = vsock->rx.n_iov;
		vsock->rx.n_data += iov_slice(writable, c->n_write, HEADER, room, vsock->rx.data + vsock->rx.n_data);
		total += (uint32_t)room;
	}
	return total;
}

/** Give the collected buffers back to the guest: as many as @bytes fill as packets, the others as if never taken. */
static void deliver(struct vsock_conn *conn, uint32_t bytes)
{
	struct vsock *vsock = conn->vsock;
	struct virtqueue *q = &vsock->device.queues[VSOCK_RX];
	const uint32_t asked = bytes;
	unsigned i = 0;
	for (; i < vsock->rx.n && bytes; i++) {
		uint32_t n = bytes < vsock->rx.room[i] ? bytes : vsock->rx.room[i];
		struct virtio_vsock_hdr header = make_header(conn, VIRTIO_VSOCK_OP_RW, n);
		unsigned first = vsock->rx.first[i];
		iov_scatter(&vsock->rx.iov[first], vsock->rx.first[i + 1] - first, &header, HEADER);
		virtqueue_push(q, vsock->rx.head[i], (uint32_t)HEADER + n);
		conn->tx_cnt += n;
		bytes -= n;
	}
	virtqueue_unpop(q, vsock->rx.n - i);
	if (vsock->meter)
		stats_add(&vsock->meter->in_bytes, asked - bytes);
}

/** Put bytes that were given for the guest into the collected buffers. */
static void send_first(struct vsock_conn *conn, uint32_t room)
{
	struct vsock *vsock = conn->vsock;
	uint32_t n = conn->first.size < room ? (uint32_t)conn->first.size : room;
	iov_scatter(vsock->rx.data, vsock->rx.n_data, buffer_bytes(&conn->first), n);
	deliver(conn, n);
	buffer_consume(&conn->first, n);
	vsock->first_bytes -= n;
	if (!conn->first.size)
		vsock_conn_drop_first(conn);
}

/** The host stream is at its end because its other end was closed, without a word. Once our side is shut down that looks the
 *  same, and is an orderly end. */
static bool hung_up(const struct vsock_conn *conn)
{
	struct pollfd p = {.fd = conn->watch.fd};
	bool shut = conn->guest_no_send && !conn->out.size;
	return conn->hang_up_is_reset && !shut && poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

/** Read the host stream into the collected buffers. */
static void read_stream(struct vsock_conn *conn, uint32_t room)
{
	struct vsock *vsock = conn->vsock;
	uint64_t begun = conn->meter ? clock_monotonic_ns() : 0;
	struct msghdr msg = {.msg_iov = vsock->rx.data, .msg_iovlen = vsock->rx.n_data};
	ssize_t n;
	do /* a router may have kept a descriptor of the stream, and made it a blocking one */
		n = recvmsg(conn->watch.fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	int error = n < 0 ? errno : 0;
	deliver(conn, n > 0 ? (uint32_t)n : 0);
	if (n > 0 && conn->meter) {
		conn->meter->bytes_in += (uint64_t)n;
		histogram_add(&conn->meter->stage[DOOR_READ], clock_monotonic_ns() - begun);
	}
	if (n < (ssize_t)room) /* dry for now; epoll tells when there is more, or the end */
		conn->readable = false;
	if (n == 0 && hung_up(conn)) {
		vsock_conn_abort(conn, true, -ECONNRESET);
	} else if (n == 0) {
		conn->host_eof = true;
		vsock_conn_wake(conn, VSOCK_SEND_SHUTDOWN);
		vsock_conn_settle(conn);
	} else if (error && error != EAGAIN) {
		vsock_conn_abort(conn, true, -error);
	}
}

/** One turn of what flows to the guest; false without a buffer. */
static bool send_bytes(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;
	uint32_t credit = vsock_conn_credit(conn);
	if (!conn->first.size && !vsock_conn_reads(conn)) {
		conn->readable = false;
		return true;
	}
	if (!credit) { /* the guest's next update makes it readable again */
		conn->readable = false;
		if (!conn->asked)
			vsock_conn_wake(conn, VSOCK_SEND_ASK);
		conn->asked = true;
		return true;
	}
	uint32_t room = collect(vsock, credit < VSOCK_QUANTUM ? credit : VSOCK_QUANTUM);
	if (!room)
		return false;
	if (conn->first.size)
		send_first(conn, room);
	else
		read_stream(conn, room);
	return true;
}

/** One turn of the first connection in the list; false when the guest has no buffer for it. */
static bool serve(struct vsock_conn *conn)
{
	if (conn->pending) {
		bool reset = conn->pending == VSOCK_SEND_RESET;
		if (!send_control(conn))
			return false;
		if (reset) {
			vsock_conn_forget(conn);
			return true;
		}
	} else if (conn->readable && !send_bytes(conn)) {
		return false;
	}
	list_remove(&conn->ready);
	if (conn->pending || conn->readable)
		list_append(&conn->vsock->ready, &conn->ready);
	if (conn != conn->vsock->current) /* the handler of its event does that in the end */
		vsock_conn_watch(conn);
	return true;
}

void vsock_pump(struct vsock *vsock)
{
	struct virtio_device *device = &vsock->device;
	if (!virtio_usable(device, VSOCK_RX))
		return;
	unsigned turns = 0;
	virtqueue_disable_kicks(&device->queues[VSOCK_RX]);
	for (; turns < VSOCK_TURNS && !device->broken; turns++) {
		if (vsock->n_resets) {
			if (!send_reset(vsock))
				break;
		} else if (list_empty(&vsock->ready) ||
			   !serve(CONTAINER_OF(vsock->ready.next, struct vsock_conn, ready))) {
			break;
		}
	}
	virtio_notify(device, VSOCK_RX);
	if (device->broken)
		return;
	if (turns == VSOCK_TURNS)
		device->transport->again(device->transport_data, VSOCK_RX);
	if (vsock->tx_paused && vsock->n_resets < VSOCK_RESETS / 2) {
		vsock->tx_paused = false;
		device->transport->again(device->transport_data, VSOCK_TX);
	}
}
