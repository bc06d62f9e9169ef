/* SPDX-License-Identifier: Apache-2.0 */
/* vsock_tx.c - what comes from the guest: each packet checked, then applied to its connection */
#include "vmm/virtio/vsock_internal.h"

#include <endian.h>

#define HEADER sizeof(struct virtio_vsock_hdr)

/** Write the collected payload to its host stream and return the buffers to the guest. */
static void flush(struct vsock *vsock)
{
	if (!vsock->tx.n)
		return;
	if (vsock->tx.conn)
		vsock_conn_write(vsock->tx.conn, vsock->tx.iov, vsock->tx.n_iov, vsock->tx.bytes);
	for (unsigned i = 0; i < vsock->tx.n; i++)
		virtqueue_push(&vsock->device.queues[VSOCK_TX], vsock->tx.head[i], 0);
	vsock->tx.conn = NULL;
	vsock->tx.n = vsock->tx.n_iov = vsock->tx.bytes = 0;
}

/** A guest program connects to a port of the host. */
static void on_request(struct vsock *vsock, const struct virtio_vsock_hdr *h)
{
	int fd = vsock->n_by_guest < vsock->by_guest_max && vsock->n_conns < VSOCK_CONNECTIONS_MAX
			 ? vsock->accept(vsock->data, h->dst_port)
			 : -EMFILE;
	struct vsock_conn *conn = fd >= 0 ? vsock_conn_new(vsock, fd, h->dst_port, h->src_port) : NULL;
	if (!conn) {
		struct virtio_vsock_hdr packet = {.dst_cid = htole64(h->dst_cid),
			.src_port = htole32(h->src_port),
			.dst_port = htole32(h->dst_port),
			.type = htole16(h->type)};
		vsock_refuse(vsock, &packet);
		return;
	}
	conn->state = VSOCK_ESTABLISHED;
	conn->by_guest = true;
	vsock->n_by_guest++;
	conn->peer_buf_alloc = h->buf_alloc;
	conn->peer_fwd_cnt = h->fwd_cnt;
	vsock_conn_wake(conn, VSOCK_SEND_RESPONSE);
	vsock_conn_watch(conn);
}

/** The guest's credit, which every packet carries. */
static void update_credit(struct vsock_conn *conn, const struct virtio_vsock_hdr *h)
{
	bool had_none = !vsock_conn_credit(conn);
	conn->peer_buf_alloc = h->buf_alloc;
	conn->peer_fwd_cnt = h->fwd_cnt;
	if (!vsock_conn_talks(conn) || !had_none || !vsock_conn_credit(conn))
		return;
	conn->asked = false;
	if (conn->first.size || vsock_conn_reads(conn)) {
		conn->readable = true;
		vsock_conn_wake(conn, 0);
	}
}

/** Payload: collected until the connection changes, the batch is full or the queue empty. True when it took the chain. */
static bool on_bytes(struct vsock *vsock, struct vsock_conn *conn, const struct virtio_vsock_hdr *h)
{
	struct virtqueue_chain *c = &vsock->chain;
	uint32_t in_flight = conn->rx_cnt - conn->fwd_cnt;
	if (vsock->tx.conn)
		in_flight += vsock->tx.bytes;
	if (conn->guest_no_send || h->len > c->read_bytes - HEADER || h->len > conn->buf_alloc - in_flight) {
		flush(vsock);
		if (vsock_conn_talks(conn))
			vsock_conn_abort(conn, true, -ECONNRESET);
		return false;
	}
	vsock->tx.conn = conn;
	vsock->tx.n_iov += iov_slice(c->iov, c->n_read, HEADER, h->len, vsock->tx.iov + vsock->tx.n_iov);
	vsock->tx.bytes += h->len;
	vsock->tx.head[vsock->tx.n++] = c->head;
	return true;
}

static void on_control(struct vsock *vsock, struct vsock_conn *conn, const struct virtio_vsock_hdr *h)
{
	bool talks = vsock_conn_talks(conn);
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RST:
		if (conn->state == VSOCK_CLOSING || conn->guest_no_send)
			vsock_conn_forget(conn);
		else
			vsock_conn_abort(conn, false, talks ? -ECONNRESET : -ECONNREFUSED);
		return;
	case VIRTIO_VSOCK_OP_RESPONSE:
		if (conn->state != VSOCK_REQUESTED || (conn->pending & VSOCK_SEND_REQUEST))
			break;
		vsock_conn_establish(conn);
		return;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		if (conn->state != VSOCK_ESTABLISHED)
			break;
		vsock_conn_shutdown(conn, h->flags);
		return;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		if (!talks)
			break;
		vsock_conn_wake(conn, VSOCK_SEND_UPDATE);
		return;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		if (!talks)
			break;
		vsock_conn_watch(conn);
		return;
	default: /* REQUEST for a connection that exists, INVALID, unknown; RW while it may not */
		break;
	}
	if (conn->state != VSOCK_CLOSING) /* there the guest's packets crossed our reset */
		vsock_conn_abort(conn, true, -ECONNRESET);
}

/** One packet, in vsock->chain; true when its chain is kept for flush(). */
static bool on_packet(struct vsock *vsock)
{
	struct virtio_vsock_hdr raw;
	iov_gather(vsock->chain.iov, vsock->chain.n_read, &raw, HEADER);
	struct virtio_vsock_hdr h = {
		.src_cid = le64toh(raw.src_cid),
		.dst_cid = le64toh(raw.dst_cid),
		.src_port = le32toh(raw.src_port),
		.dst_port = le32toh(raw.dst_port),
		.len = le32toh(raw.len),
		.type = le16toh(raw.type),
		.op = le16toh(raw.op),
		.flags = le32toh(raw.flags),
		.buf_alloc = le32toh(raw.buf_alloc),
		.fwd_cnt = le32toh(raw.fwd_cnt),
	};
	bool ours = h.src_cid == vsock->guest_cid && h.dst_cid == VSOCK_CID_HOST && h.type == VIRTIO_VSOCK_TYPE_STREAM;
	struct vsock_conn *conn = ours ? vsock_conn_find(vsock, h.dst_port, h.src_port) : NULL;
	if (conn != vsock->tx.conn || h.op != VIRTIO_VSOCK_OP_RW)
		flush(vsock); /* frees nothing, but may change a state */
	if (!conn) {
		if (ours && h.op == VIRTIO_VSOCK_OP_REQUEST)
			on_request(vsock, &h);
		else
			vsock_refuse(vsock, &raw);
		return false;
	}
	update_credit(conn, &h);
	if (h.op == VIRTIO_VSOCK_OP_RW && vsock_conn_talks(conn))
		return on_bytes(vsock, conn, &h);
	on_control(vsock, conn, &h);
	return false;
}

void vsock_receive(struct vsock *vsock)
{
	struct virtio_device *device = &vsock->device;
	struct virtqueue *q = &device->queues[VSOCK_TX];
	unsigned turns = 0;
	if (vsock->tx_paused)
		return;
	virtqueue_disable_kicks(q);
	for (; turns < VSOCK_TURNS; turns++) {
		if (vsock->n_resets == VSOCK_RESETS) {
			vsock->tx_paused = true;
			break;
		}
		int rc;
		while ((rc = virtqueue_pop(q, &vsock->chain)) == 0)
			if (!virtqueue_enable_kicks(q))
				break;
		if (rc < 0)
			virtio_broken(device, q->broken);
		if (rc <= 0)
			break;
		if (vsock->chain.read_bytes < HEADER) {
			virtio_broken(device, "a packet shorter than its header");
			break;
		}
		if (vsock->tx.n == VSOCK_BATCH || vsock->tx.bytes >= VSOCK_QUANTUM ||
			vsock->tx.n_iov + vsock->chain.n_read > VIRTQUEUE_SIZE_MAX)
			flush(vsock);
		uint16_t head = vsock->chain.head; /* a callback that connects makes the pump use the chain */
		if (!on_packet(vsock))
			virtqueue_push(q, head, 0);
	}
	flush(vsock);
	virtio_notify(device, VSOCK_TX);
	if (turns == VSOCK_TURNS)
		device->transport->again(device->transport_data, VSOCK_TX);
}
