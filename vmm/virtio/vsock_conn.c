/* SPDX-License-Identifier: Apache-2.0 */
/* vsock_conn.c - a vsock connection's life, and its host stream */
#include "base/cleanup.h"
#include "vmm/virtio/vsock_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_CHUNK 4096 /* bytes of the guest that answer() gets at once */

static void on_host(struct loop_watch *watch, uint32_t events);

static struct vsock_conn **bucket_of(const struct vsock *vsock, uint32_t local_port, uint32_t peer_port)
{
	uint64_t key = ((uint64_t)local_port << 32 | peer_port) ^ vsock->hash_seed;
	key *= 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio: the high bits are well mixed */
	return (struct vsock_conn **)&vsock->buckets[key >> 52];
}

struct vsock_conn *vsock_conn_find(const struct vsock *vsock, uint32_t local_port, uint32_t peer_port)
{
	struct vsock_conn *conn = *bucket_of(vsock, local_port, peer_port);
	while (conn && (conn->local_port != local_port || conn->peer_port != peer_port))
		conn = conn->next_in_bucket;
	return conn;
}

static void unhash(struct vsock_conn *conn)
{
	struct vsock_conn **at = bucket_of(conn->vsock, conn->local_port, conn->peer_port);
	while (*at && *at != conn)
		at = &(*at)->next_in_bucket;
	if (*at)
		*at = conn->next_in_bucket;
}

/** The more connections there are, the less each may have in flight: all of them together stay below half a GiB. */
static uint32_t choose_buf_alloc(unsigned n_conns)
{
	return n_conns < 256 ? 256u << 10 : n_conns < 2048 ? 64u << 10 : 16u << 10;
}

/** Let a unix stream take a whole announced buffer, so that a reader that keeps up costs no copy into `out`. The kernel
 *  counts its own overhead in, hence twice; TCP sizes its buffers by itself. */
static void widen(int fd, uint32_t buf_alloc)
{
	int domain = 0, size = (int)(2 * buf_alloc);
	socklen_t length = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int vsock_conn_adopt(struct vsock_conn *conn, int fd)
{
	int rc = loop_add(conn->vsock->loop, &conn->watch, fd, 0, on_host, NULL);
	if (rc < 0) {
		close(fd);
		conn->watch.fd = -1;
	} else if (conn->buf_alloc == choose_buf_alloc(0)) {
		widen(fd, conn->buf_alloc);
	}
	return rc;
}

struct vsock_conn *vsock_conn_new(struct vsock *vsock, int fd, uint32_t local_port, uint32_t peer_port)
{
	CLEANUP_FD int owned = fd;
	struct vsock_conn *conn = vsock->n_conns < VSOCK_CONNECTIONS_MAX ? calloc(1, sizeof(*conn)) : NULL;
	if (!conn)
		return NULL;
	conn->vsock = vsock;
	conn->local_port = local_port;
	conn->peer_port = peer_port;
	conn->watch.fd = -1;
	conn->buf_alloc = choose_buf_alloc(vsock->n_conns);
	if (fd >= 0 && vsock_conn_adopt(conn, steal_fd(&owned)) < 0) {
		free(conn);
		return NULL;
	}
	vsock->n_conns++;
	struct vsock_conn **bucket = bucket_of(vsock, local_port, peer_port);
	conn->next_in_bucket = *bucket;
	*bucket = conn;
	list_append(&vsock->all, &conn->all);
	list_init(&conn->ready);
	list_init(&conn->connecting);
	return conn;
}

void vsock_conn_drop_first(struct vsock_conn *conn)
{
	conn->vsock->first_bytes -= conn->first.size;
	buffer_free(&conn->first);
}

/** What it is to a TCP client when the host stream is closed: a reset, or an end. */
static void close_resets(const struct vsock_conn *conn, bool reset)
{
	struct linger linger = {.l_onoff = reset};
	setsockopt(conn->watch.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/** The host has all that it can get. */
static void drained(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;
	if (!conn->undrained)
		return;
	conn->undrained = false;
	vsock->progress++;
	if (--vsock->n_undrained == 0 && vsock->drained)
		vsock->drained(vsock->drained_data);
}

/** The guest sends no more, and all that it sent has been written: pass that end on. */
static void end_stream(struct vsock_conn *conn)
{
	if (conn->undrained)
		close_resets(conn, false);
	shutdown(conn->watch.fd, SHUT_WR);
	drained(conn);
}

static void close_stream(struct vsock_conn *conn)
{
	int fd = conn->watch.fd;
	if (fd < 0)
		return;
	loop_remove(conn->vsock->loop, &conn->watch);
	close(fd);
	conn->watch.fd = -1;
	conn->readable = false;
	drained(conn);
	buffer_free(&conn->out);
	vsock_conn_drop_first(conn);
	if (conn->counted)
		conn->meter->active--;
	conn->counted = false;
}

void vsock_conn_free(struct vsock_conn *conn)
{
	close_stream(conn);
	unhash(conn); /* an orphan is not in the table; then nothing is found */
	if (conn->vsock->current == conn)
		conn->vsock->current = NULL;
	list_remove(&conn->all);
	list_remove(&conn->ready);
	list_remove(&conn->connecting);
	vsock_conn_drop_first(conn);
	conn->vsock->n_conns--;
	conn->vsock->n_by_guest -= conn->by_guest;
	free(conn);
}

void vsock_conn_wake(struct vsock_conn *conn, unsigned pending)
{
	conn->pending |= (uint8_t)pending;
	if (list_empty(&conn->ready))
		list_append(&conn->vsock->ready, &conn->ready);
}

uint32_t vsock_conn_credit(const struct vsock_conn *conn)
{
	uint32_t in_flight = conn->tx_cnt - conn->peer_fwd_cnt; /* wraps as the counts do */
	return in_flight < conn->peer_buf_alloc ? conn->peer_buf_alloc - in_flight : 0;
}

bool vsock_conn_reads(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_ESTABLISHED && !conn->host_eof && !conn->guest_no_receive;
}

void vsock_conn_watch(struct vsock_conn *conn)
{
	struct loop *loop = conn->vsock->loop;
	uint32_t wanted = 0;
	if (conn->watch.fd < 0)
		return;
	if (vsock_conn_reads(conn) && !conn->readable && vsock_conn_credit(conn))
		wanted |= EPOLLIN;
	if (conn->out.size)
		wanted |= EPOLLOUT;
	if (!wanted && conn->host_hung_up) { /* epoll would report the hang-up in every round */
		loop_remove(loop, &conn->watch);
	} else if (conn->watch.added) {
		loop_modify(loop, &conn->watch, wanted);
	} else if (loop_add(loop, &conn->watch, conn->watch.fd, wanted, on_host, NULL) < 0) {
		vsock_conn_abort(conn, true, -ENOMEM);
	}
}

/** @n bytes have gone to the host, or nowhere: the guest may send as many more. */
static void consumed(struct vsock_conn *conn, size_t n)
{
	size_t ours = n < conn->greeting ? n : conn->greeting;
	conn->greeting -= ours;
	conn->fwd_cnt += (uint32_t)(n - ours);
	if (conn->fwd_cnt - conn->told_fwd_cnt >= conn->buf_alloc / 4 && vsock_conn_talks(conn))
		vsock_conn_wake(conn, VSOCK_SEND_UPDATE);
}

/** The host takes no more: what it was to get is dropped, and the guest told so. */
static void host_closed(struct vsock_conn *conn)
{
	if (conn->host_closed)
		return;
	conn->host_closed = true;
	drained(conn);
	size_t dropped = conn->out.size;
	buffer_free(&conn->out);
	consumed(conn, dropped);
	if (conn->state == VSOCK_ESTABLISHED)
		vsock_conn_wake(conn, VSOCK_SEND_SHUTDOWN);
}

/** One write to the host stream: bytes it took, 0 when it takes none at the moment, or none any more. */
static size_t send_to_host(struct vsock_conn *conn, struct iovec *iov, unsigned n_iov)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n_iov};
	struct door_meter *meter = conn->meter;
	uint64_t begun = meter ? clock_monotonic_ns() : 0;
	ssize_t n;
	do
		n = sendmsg(conn->watch.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		if (errno != EAGAIN)
			host_closed(conn);
		return 0;
	}
	if (meter) {
		meter->bytes_out += (size_t)n > conn->greeting ? (size_t)n - conn->greeting : 0;
		histogram_add(&meter->stage[DOOR_WRITE], clock_monotonic_ns() - begun);
	}
	if (conn->undrained)
		conn->vsock->progress += (size_t)n;
	consumed(conn, (size_t)n);
	return (size_t)n;
}

/** Send what was kept. */
static void drain(struct vsock_conn *conn)
{
	while (conn->out.size) {
		struct iovec iov = {.iov_base = buffer_bytes(&conn->out), .iov_len = conn->out.size};
		size_t n = send_to_host(conn, &iov, 1);
		if (!n)
			return;
		buffer_consume(&conn->out, n);
	}
	buffer_free(&conn->out); /* an idle connection holds no buffer */
	if (conn->guest_no_send)
		end_stream(conn);
}

/** The host stream and the guest may speak to each other. */
static void open_stream(struct vsock_conn *conn)
{
	conn->state = VSOCK_ESTABLISHED;
	if (conn->meter) {
		conn->meter->active++;
		conn->counted = true;
	}
	if (conn->close_is_reset) {
		close_resets(conn, true);
		conn->undrained = true;
		conn->vsock->n_undrained++;
	}
	if (conn->hybrid && buffer_printf(&conn->out, "OK %u\n", conn->local_port) == 0) {
		conn->greeting = conn->out.size;
		drain(conn);
	}
	conn->readable = true; /* most clients have spoken by now */
	vsock_conn_wake(conn, 0);
}

/** The host stream is the caller's again. */
static void let_go(struct vsock_conn *conn)
{
	loop_remove(conn->vsock->loop, &conn->watch);
	conn->watch.fd = -1;
}

/** Keep the guest's side's end to be told and let go of the host stream. */
static void give_back(struct vsock_conn *conn)
{
	let_go(conn);
	vsock_conn_abort(conn, true, 0);
}

/** The guest's @bytes while its answer is awaited; how many of them are not for the host stream. */
static uint32_t hear(struct vsock_conn *conn, const struct iovec *iov, unsigned n_iov, uint32_t bytes)
{
	uint8_t copy[ANSWER_CHUNK]; /* what is judged does not change meanwhile */
	uint32_t heard = 0;
	size_t at = 0;
	for (unsigned i = 0; i < n_iov && conn->state == VSOCK_ASKING;) {
		size_t n = iov[i].iov_len - at, used, said = conn->first.size;
		if (n > sizeof(copy))
			n = sizeof(copy);
		used = n;
		memcpy(copy, (const uint8_t *)iov[i].iov_base + at, n);
		enum vsock_verdict verdict = conn->answer(conn->data, copy, n, &used, &conn->first);
		conn->vsock->first_bytes += conn->first.size - said;
		if (verdict == VSOCK_GIVE_BACK || (verdict == VSOCK_OPEN && conn->watch.fd < 0)) {
			give_back(conn);
			return bytes;
		}
		if (verdict == VSOCK_OPEN) {
			if (conn->meter)
				conn->meter->bytes_in += conn->first.size - said;
			open_stream(conn);
		}
		at += used < n ? used : n;
		heard += (uint32_t)(used < n ? used : n);
		if (at == iov[i].iov_len) {
			at = 0;
			i++;
		}
	}
	return heard;
}

/** Drop the first @n bytes of @iov; how many iovecs are left, at its front. */
static unsigned iov_drop(struct iovec *iov, unsigned n_iov, size_t n)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < n_iov; i++) {
		size_t skip = n < iov[i].iov_len ? n : iov[i].iov_len;
		n -= skip;
		if (skip < iov[i].iov_len)
			iov[kept++] = (struct iovec){
				.iov_base = (uint8_t *)iov[i].iov_base + skip, .iov_len = iov[i].iov_len - skip};
	}
	return kept;
}

void vsock_conn_write(struct vsock_conn *conn, struct iovec *iov, unsigned n_iov, uint32_t bytes)
{
	conn->rx_cnt += bytes;
	if (conn->vsock->meter)
		stats_add(&conn->vsock->meter->out_bytes, bytes);
	if (conn->state == VSOCK_ASKING) {
		uint32_t heard = hear(conn, iov, n_iov, bytes);
		consumed(conn, heard);
		n_iov = iov_drop(iov, n_iov, heard);
		bytes -= heard;
	}
	if (bytes && conn->begun_ns) {
		histogram_add(&conn->meter->stage[DOOR_FIRST_BYTE], clock_monotonic_ns() - conn->begun_ns);
		conn->begun_ns = 0;
	}
	if (bytes && !conn->out.size && !conn->host_closed)
		n_iov = iov_drop(iov, n_iov, send_to_host(conn, iov, n_iov));
	for (unsigned i = 0; i < n_iov && !conn->host_closed; i++)
		if (buffer_append(&conn->out, iov[i].iov_base, iov[i].iov_len) < 0) {
			vsock_conn_abort(conn, true, -ENOMEM);
			return;
		}
	if (conn->host_closed)
		for (unsigned i = 0; i < n_iov; i++)
			consumed(conn, iov[i].iov_len);
	vsock_conn_settle(conn);
	vsock_conn_watch(conn);
}

void vsock_conn_shutdown(struct vsock_conn *conn, uint32_t flags)
{
	bool both = (flags & VIRTIO_VSOCK_SHUTDOWN_RCV) && (flags & VIRTIO_VSOCK_SHUTDOWN_SEND);
	if (both && conn->close_is_reset && !conn->guest_no_send) {
		vsock_conn_abort(conn, true, -ECONNRESET);
		return;
	}
	if ((flags & VIRTIO_VSOCK_SHUTDOWN_RCV) && !conn->guest_no_receive) {
		conn->guest_no_receive = true;
		conn->readable = false;
		vsock_conn_drop_first(conn);
		shutdown(conn->watch.fd, SHUT_RD);
	}
	if ((flags & VIRTIO_VSOCK_SHUTDOWN_SEND) && !conn->guest_no_send) {
		conn->guest_no_send = true;
		if (!conn->out.size)
			end_stream(conn);
	}
	vsock_conn_settle(conn);
	vsock_conn_watch(conn);
}

void vsock_conn_settle(struct vsock_conn *conn)
{
	bool to_guest_ended = conn->host_eof || conn->guest_no_receive;
	bool to_host_ended = (conn->guest_no_send && !conn->out.size) || conn->host_closed;
	bool guest_done = conn->guest_no_send && conn->guest_no_receive;
	if (conn->state == VSOCK_ESTABLISHED && (guest_done || (to_guest_ended && to_host_ended))) {
		conn->state = VSOCK_CLOSING;
		conn->readable = false;
		conn->pending &= VSOCK_SEND_RESPONSE | VSOCK_SEND_SHUTDOWN;
		vsock_conn_wake(conn, VSOCK_SEND_RESET);
	}
	if (conn->state == VSOCK_CLOSING && to_host_ended)
		close_stream(conn);
}

void vsock_conn_forget(struct vsock_conn *conn)
{
	if (conn->watch.fd < 0 || !conn->out.size) {
		vsock_conn_free(conn);
		return;
	}
	unhash(conn); /* the host still gets what the guest sent */
	conn->state = VSOCK_ORPHAN;
	conn->pending = 0;
	list_remove(&conn->ready);
	vsock_conn_watch(conn);
}

void vsock_conn_abort(struct vsock_conn *conn, bool tell, int error)
{
	vsock_connected_fn *connected = conn->state < VSOCK_ESTABLISHED && error ? conn->connected : NULL;
	void *data = conn->data;
	if (conn->attached && conn->state == VSOCK_ASKING && error == -ECONNRESET)
		let_go(conn);
	if (conn->watch.fd >= 0 && conn->state == VSOCK_ESTABLISHED)
		close_resets(conn, true);
	close_stream(conn);
	conn->readable = false;
	if (tell && conn->state != VSOCK_ORPHAN) {
		conn->state = VSOCK_CLOSING;
		conn->pending = 0;
		list_remove(&conn->connecting);
		vsock_conn_wake(conn, VSOCK_SEND_RESET);
	} else {
		vsock_conn_free(conn);
	}
	if (connected)
		connected(data, error);
}

void vsock_conn_establish(struct vsock_conn *conn)
{
	vsock_connected_fn *connected = conn->connected;
	void *data = conn->data;
	list_remove(&conn->connecting);
	if (conn->answer) {
		conn->state = VSOCK_ASKING;
		conn->readable = true;
		vsock_conn_wake(conn, 0);
	} else {
		open_stream(conn);
	}
	vsock_conn_watch(conn);
	if (connected)
		connected(data, 0);
}

/** The host stream hung up before bytes may flow: true when it is of no use any more. Bytes that were sent before an orderly
 *  close still have their way to go. */
static bool is_gone(const struct vsock_conn *conn, uint32_t events)
{
	uint8_t byte;
	return (events & EPOLLERR) || recv(conn->watch.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static void on_host(struct loop_watch *watch, uint32_t events)
{
	struct vsock_conn *conn = CONTAINER_OF(watch, struct vsock_conn, watch);
	struct vsock *vsock = conn->vsock;
	if (events & (EPOLLHUP | EPOLLERR))
		conn->host_hung_up = true;
	if (conn->state < VSOCK_ESTABLISHED) {
		if (is_gone(conn, events))
			vsock_conn_abort(conn, !(conn->pending & VSOCK_SEND_REQUEST), -EPIPE);
		else
			vsock_conn_watch(conn);
		vsock_pump(vsock);
		return;
	}
	if (conn->out.size)
		drain(conn);
	if (conn->state == VSOCK_ORPHAN) {
		if (!conn->out.size) {
			vsock_conn_free(conn);
			return;
		}
	} else {
		if (events & EPOLLERR)
			host_closed(conn);
		vsock_conn_settle(conn);
		if (vsock_conn_reads(conn) && vsock_conn_credit(conn) && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
			conn->readable = true;
			vsock_conn_wake(conn, 0);
		}
	}
	/* The pump may read the stream dry, so that nothing changes, or end the connection. */
	vsock->current = conn;
	vsock_pump(vsock);
	if (vsock->current)
		vsock_conn_watch(vsock->current);
	vsock->current = NULL;
}
