/* SPDX-License-Identifier: Apache-2.0 */
/* vsock-test.c - the muxer: packets in every state, credit, half-close, resets, limits */
#include "tests/unit/fake_driver.h"

#include "base/fd.h"
#include "tests/tap.h"
#include "vmm/virtio/vsock_internal.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/socket.h>

#define RX_SIZE 64
#define RX_BUFFER 4096
#define HEADER sizeof(struct virtio_vsock_hdr)
#define PORT 7000u /* of the guest's program in connections that it makes */

static struct fake_driver d;
static struct loop loop;
static struct vsock *vsock;
static struct fake_queue *rx, *tx;
static uint64_t rx_gpa[RX_SIZE], tx_gpa;
static uint32_t guest_buf_alloc, guest_fwd_cnt;
static int host_end; /* the test's end of the last accepted connection */
static int connect_result; /* 1: not called */
static unsigned connect_calls;

static int accept_guest(void *data, uint32_t port)
{
	int pair[2];
	if (port != 5000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -ECONNREFUSED;
	host_end = pair[1];
	return pair[0];
}

static void connected(void *data, int error)
{
	connect_result = error;
	connect_calls++;
}

static void fill_rx(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		fake_desc(rx, (uint16_t)i, rx_gpa[i], RX_BUFFER, VRING_DESC_F_WRITE, 0);
		fake_offer(rx, (uint16_t)i);
	}
}

static void start(unsigned rx_buffers)
{
	fake_init(&d);
	fake_queue(&d, 0, RX_SIZE);
	fake_queue(&d, 1, 256);
	rx = &d.queues[0];
	tx = &d.queues[1];
	for (unsigned i = 0; i < RX_SIZE; i++)
		rx_gpa[i] = fake_alloc(&d, RX_BUFFER);
	tx_gpa = fake_alloc(&d, HEADER + (1u << 20));
	vsock_create(&loop, VSOCK_CID_GUEST, accept_guest, NULL, &vsock, NULL);
	fake_attach(&d, vsock_device(vsock), 2, VIRTIO_QUEUE_FEATURES);
	fill_rx(rx_buffers);
	guest_buf_alloc = 1 << 20;
	guest_fwd_cnt = 0;
	host_end = -1;
	connect_result = 1;
	connect_calls = 0;
}

static void stop(void)
{
	vsock_destroy(vsock);
	fake_destroy(&d);
	if (host_end >= 0)
		close(host_end);
}

static void rounds(unsigned n)
{
	while (n--)
		loop_round(&loop, 0, NULL);
	fake_kick(&d, 0);
}

/** Next packet of the device; false when there is none. Its buffer goes back to the device. */
static bool get(struct virtio_vsock_hdr *h, void *payload)
{
	uint32_t id, size;
	if (!fake_used(rx, &id, &size))
		return false;
	memcpy(h, d.ram + rx_gpa[id], HEADER);
	if (payload)
		memcpy(payload, d.ram + rx_gpa[id] + HEADER, size - HEADER);
	fake_offer(rx, (uint16_t)id);
	return size == HEADER + h->len;
}

static bool expect(uint16_t op, struct virtio_vsock_hdr *h)
{
	struct virtio_vsock_hdr mine;
	h = h ? h : &mine;
	return get(h, NULL) && h->op == op && h->src_cid == 2 && h->dst_cid == 3;
}

static bool quiet(void)
{
	struct virtio_vsock_hdr h;
	return !get(&h, NULL);
}

static void put_raw(const struct virtio_vsock_hdr *h, const void *payload, uint32_t n)
{
	uint32_t id, size;
	memcpy(d.ram + tx_gpa, h, HEADER);
	if (payload)
		memcpy(d.ram + tx_gpa + HEADER, payload, n);
	fake_desc(tx, 0, tx_gpa, (uint32_t)HEADER + n, 0, 0);
	fake_offer(tx, 0);
	fake_kick(&d, 1);
	while (fake_used(tx, &id, &size))
		;
}

static struct virtio_vsock_hdr make(uint16_t op, uint32_t src, uint32_t dst, uint32_t n)
{
	return (struct virtio_vsock_hdr){.src_cid = 3,
		.dst_cid = 2,
		.src_port = src,
		.dst_port = dst,
		.type = 1,
		.op = op,
		.len = n,
		.buf_alloc = guest_buf_alloc,
		.fwd_cnt = guest_fwd_cnt};
}

static void put(uint16_t op, uint32_t flags, const void *payload, uint32_t n)
{
	struct virtio_vsock_hdr h = make(op, PORT, 5000, n);
	h.flags = flags;
	put_raw(&h, payload, n);
}

static bool open_guest(void)
{
	put(VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	return expect(VIRTIO_VSOCK_OP_RESPONSE, NULL);
}

static void test_guest_connects(void)
{
	struct virtio_vsock_hdr h;
	char bytes[RX_BUFFER] = "";
	start(RX_SIZE);
	put(VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	CHECK(expect(VIRTIO_VSOCK_OP_RESPONSE, &h) && h.src_port == 5000 && h.dst_port == PORT && h.buf_alloc == 262144,
		"a connect of the guest is accepted");
	put(VIRTIO_VSOCK_OP_RW, 0, "from guest", 10);
	CHECK(read(host_end, bytes, sizeof(bytes)) == 10 && !memcmp(bytes, "from guest", 10), "its bytes arrive");
	CHECK(write(host_end, "from host", 9) == 9, "the host writes");
	rounds(1);
	CHECK(get(&h, bytes) && h.op == VIRTIO_VSOCK_OP_RW && h.len == 9 && !memcmp(bytes, "from host", 9) &&
			h.fwd_cnt == 10,
		"the host's bytes arrive, with the credit");
	put(VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
	CHECK(read(host_end, bytes, 1) == 0, "the guest's half-close is the host's end of file");
	CHECK(write(host_end, "more", 4) == 4, "the other direction lives on");
	rounds(1);
	CHECK(get(&h, bytes) && h.len == 4, "and delivers");
	shutdown(host_end, SHUT_WR);
	rounds(1);
	CHECK(expect(VIRTIO_VSOCK_OP_SHUTDOWN, &h) && h.flags == VIRTIO_VSOCK_SHUTDOWN_SEND, "the host's half-close");
	CHECK(expect(VIRTIO_VSOCK_OP_RST, NULL) && vsock->n_conns == 0, "both ended: the connection is gone");
	struct virtio_vsock_hdr other = make(VIRTIO_VSOCK_OP_REQUEST, PORT, 5001, 0);
	put_raw(&other, NULL, 0);
	CHECK(expect(VIRTIO_VSOCK_OP_RST, &h) && h.src_port == 5001, "a port that nobody has is refused");
	stop();
}

static bool open_host(int *fd, bool hybrid, struct virtio_vsock_hdr *h)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return false;
	*fd = pair[1];
	return vsock_connect(vsock, pair[0], 80, hybrid, connected, NULL, NULL) == 0 &&
	       expect(VIRTIO_VSOCK_OP_REQUEST, h);
}

static void test_host_connects(void)
{
	struct virtio_vsock_hdr h, answer;
	char bytes[64] = "", want[64];
	int fd;
	start(RX_SIZE);
	CHECK(open_host(&fd, true, &h) && h.dst_port == 80 && h.src_port >= 1u << 30, "a connect asks the guest");
	CHECK(connect_calls == 0, "and waits");
	answer = make(VIRTIO_VSOCK_OP_RESPONSE, 80, h.src_port, 0);
	put_raw(&answer, NULL, 0);
	CHECK(connect_result == 0 && connect_calls == 1, "the answer is told");
	ssize_t n = read(fd, bytes, sizeof(bytes));
	snprintf(want, sizeof(want), "OK %u\n", h.src_port);
	CHECK(n > 0 && !strcmp(bytes, want), "the hybrid greeting names the local port");
	answer.op = VIRTIO_VSOCK_OP_CREDIT_REQUEST;
	put_raw(&answer, NULL, 0);
	CHECK(expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, &h) && h.fwd_cnt == 0, "the greeting is no credit of the guest's");
	answer.op = VIRTIO_VSOCK_OP_RST;
	put_raw(&answer, NULL, 0);
	CHECK(read(fd, bytes, 1) == 0 && vsock->n_conns == 0 && quiet(), "a reset of the guest closes, unanswered");
	close(fd);
	CHECK(open_host(&fd, false, &h), "again");
	answer = make(VIRTIO_VSOCK_OP_RST, 80, h.src_port, 0);
	put_raw(&answer, NULL, 0);
	CHECK(connect_result == -ECONNREFUSED && read(fd, bytes, 1) == 0, "a refusal is told");
	close(fd);
	open_host(&fd, false, &h);
	vsock->timer.fn(&vsock->timer, EPOLLIN);
	CHECK(connect_calls == 2, "a timer that comes early ends nothing");
	CONTAINER_OF(vsock->connecting.next, struct vsock_conn, connecting)->deadline_ns = 0;
	vsock->timer.fn(&vsock->timer, EPOLLIN);
	CHECK(connect_result == -ETIMEDOUT && connect_calls == 3 && expect(VIRTIO_VSOCK_OP_RST, NULL), "a timeout");
	close(fd);
	open_host(&fd, false, &h);
	virtio_reset(vsock_device(vsock));
	CHECK(connect_result == -ECONNRESET && vsock->n_conns == 0, "a reset of the device ends connects");
	close(fd);
	stop();
}

static void test_credit(void)
{
	static char big[300 << 10];
	struct virtio_vsock_hdr h;
	start(RX_SIZE);
	guest_buf_alloc = 100;
	open_guest();
	CHECK(write(host_end, big, 1000) == 1000, "1000 bytes for a guest that has room for 100");
	rounds(2);
	CHECK(get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RW && h.len == 100, "it gets 100");
	CHECK(expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, NULL) && quiet(), "and is asked for more room, once");
	rounds(3);
	CHECK(quiet(), "nothing more comes");
	guest_fwd_cnt = 60;
	put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(get(&h, NULL) && h.len == 60, "what it made room for comes");
	expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, NULL);
	guest_fwd_cnt = 0x80000000;
	put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(quiet(), "a count that lies gives nothing");
	guest_fwd_cnt = 160;
	put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(get(&h, NULL) && h.len == 100, "a true one does");
	struct vsock_conn *conn = vsock_conn_find(vsock, 5000, PORT);
	conn->tx_cnt = conn->peer_fwd_cnt = guest_fwd_cnt = 0xfffffff0;
	put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	rounds(2);
	while (get(&h, NULL))
		;
	CHECK(conn->tx_cnt == 84 && vsock_conn_credit(conn) == 0, "counts wrap at 2^32");

	/* the other way: nobody reads host_end */
	uint32_t sent = 0;
	while (sent + 32768 <= 262144 && vsock_conn_find(vsock, 5000, PORT)) {
		put(VIRTIO_VSOCK_OP_RW, 0, big, 32768);
		sent += 32768;
	}
	CHECK(sent == 262144 && (conn = vsock_conn_find(vsock, 5000, PORT)) && conn->state == VSOCK_ESTABLISHED,
		"the announced buffer is taken");
	while (get(&h, NULL))
		;
	CHECK(conn->out.size <= 262144 && conn->rx_cnt == sent, "and bounded");
	uint32_t room = conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt);
	while (room >= 65536) {
		put(VIRTIO_VSOCK_OP_RW, 0, big, 65536);
		room = conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt);
	}
	while (get(&h, NULL))
		;
	put(VIRTIO_VSOCK_OP_RW, 0, big, room + 1);
	CHECK(expect(VIRTIO_VSOCK_OP_RST, NULL) && vsock->n_conns == 0, "one byte over the credit is a reset");
	stop();
}

static void test_drain(void)
{
	static char big[65536], sink[65536];
	struct virtio_vsock_hdr h;
	size_t got = 0;
	ssize_t n;
	start(RX_SIZE);
	open_guest();
	int small = 4096;
	setsockopt(vsock_conn_find(vsock, 5000, PORT)->watch.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (int i = 0; i < 4; i++)
		put(VIRTIO_VSOCK_OP_RW, 0, big, sizeof(big));
	put(VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	unsigned resets = 0, updates = 0;
	while (get(&h, NULL)) {
		resets += h.op == VIRTIO_VSOCK_OP_RST;
		updates += h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE;
	}
	CHECK(resets == 1 && vsock->n_conns == 1, "a guest that closed is answered at once, its bytes kept");
	CHECK(!vsock_conn_find(vsock, 5000, PORT), "its port is free");
	for (int i = 0; i < 1000 && (n = read(host_end, sink, sizeof(sink))) != 0; i++) {
		if (n > 0)
			got += (size_t)n;
		rounds(1);
	}
	CHECK(got == 4 * sizeof(big) && n == 0, "the host gets all of them and then the end");
	CHECK(vsock->n_conns == 0, "then nothing is left");
	close(host_end);
	host_end = -1;

	open_guest();
	close(host_end);
	host_end = -1;
	rounds(2);
	CHECK(expect(VIRTIO_VSOCK_OP_SHUTDOWN, &h) && (h.flags & VIRTIO_VSOCK_SHUTDOWN_SEND), "the host goes away");
	for (int i = 0; i < 3; i++) {
		put(VIRTIO_VSOCK_OP_RW, 0, "x", 1);
		rounds(1);
	}
	while (get(&h, NULL))
		resets += h.op == VIRTIO_VSOCK_OP_RST;
	CHECK(vsock->n_conns == 0 && resets >= 2, "writing to it ends the connection");
	stop();
}

/** An operation that fits no state gets a reset, and the muxer goes on. */
static void test_every_state(void)
{
	struct virtio_vsock_hdr h, packet;
	int fd;
	start(RX_SIZE);
	for (uint16_t op = 0; op < 12; op++) {
		packet = make(op, 1, 2, 0);
		put_raw(&packet, NULL, 0);
		bool answered = get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RST;
		if (op != VIRTIO_VSOCK_OP_RST && !answered)
			CHECK(false, "an operation on no connection is a reset");
	}
	CHECK(vsock->n_conns == 0 && !d.needs_reset, "every operation on no connection");
	for (uint16_t op = 0; op < 12; op++) {
		open_host(&fd, false, &h);
		packet = make(op, 80, h.src_port, 0);
		packet.flags = 3;
		put_raw(&packet, NULL, 0);
		while (get(&h, NULL))
			;
		packet.op = VIRTIO_VSOCK_OP_RST;
		put_raw(&packet, NULL, 0);
		close(fd);
	}
	CHECK(vsock->n_conns == 0 && connect_calls == 12, "every operation on a requested connection");
	for (uint16_t first = 0; first < 12; first++)
		for (uint16_t second = 0; second < 12; second++) {
			open_guest();
			put(first, 1, "x", 1);
			put(second, 2, "x", 1);
			rounds(1);
			put(VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
			while (get(&h, NULL))
				;
			close(host_end);
			host_end = -1;
		}
	CHECK(vsock->n_conns == 0 && !d.needs_reset, "every pair of operations on an established connection");
	open_guest();
	packet = make(VIRTIO_VSOCK_OP_RW, PORT, 5000, 1000);
	put_raw(&packet, "short", 5);
	CHECK(expect(VIRTIO_VSOCK_OP_RST, NULL), "a length beyond the packet is a reset");
	packet = make(VIRTIO_VSOCK_OP_RW, PORT, 5000, UINT32_MAX);
	open_guest();
	put_raw(&packet, "short", 5);
	CHECK(expect(VIRTIO_VSOCK_OP_RST, NULL), "a length of 2^32 - 1 too");
	packet = make(VIRTIO_VSOCK_OP_REQUEST, PORT, 5000, 0);
	packet.dst_cid = 7;
	put_raw(&packet, NULL, 0);
	CHECK(get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RST && h.src_cid == 7, "another CID is refused in its name");
	packet.dst_cid = 2;
	packet.src_cid = 9;
	put_raw(&packet, NULL, 0);
	CHECK(expect(VIRTIO_VSOCK_OP_RST, NULL) && vsock->n_conns == 0, "a forged source is refused");
	packet.src_cid = 3;
	packet.type = 2;
	put_raw(&packet, NULL, 0);
	CHECK(get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RST && h.type == 2, "an unknown type is refused as its own");
	stop();
}

static void test_limits(void)
{
	struct virtio_vsock_hdr h, packet;
	start(0);
	fake_desc(tx, 0, tx_gpa, HEADER, 0, 0);
	packet = make(VIRTIO_VSOCK_OP_REQUEST, 1, 9999, 0);
	memcpy(d.ram + tx_gpa, &packet, HEADER);
	for (unsigned i = 0; i < 3000; i++) {
		if ((uint16_t)(tx->avail_idx - __atomic_load_n(&tx->used->idx, __ATOMIC_ACQUIRE)) < tx->size)
			fake_offer(tx, 0);
		fake_kick(&d, 1);
	}
	CHECK(vsock->tx_paused && vsock->n_resets == VSOCK_RESETS, "without receive buffers the guest's packets wait");
	fill_rx(RX_SIZE);
	unsigned resets = 0;
	do {
		fake_kick(&d, 0);
		while (get(&h, NULL))
			resets++;
		fake_kick(&d, 0);
	} while (vsock->n_resets);
	while (get(&h, NULL))
		resets++;
	CHECK(resets == VSOCK_RESETS + 256, "and none is lost");
	CHECK(!d.needs_reset && !vsock->tx_paused, "the device goes on");
	stop();
	start(0);
	fake_desc(rx, 0, rx_gpa[0], HEADER, VRING_DESC_F_WRITE, 0);
	fake_offer(rx, 0);
	put(VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	CHECK(d.needs_reset, "a receive buffer that is too small breaks the device");
	stop();
	start(RX_SIZE);
	fake_desc(tx, 0, tx_gpa, HEADER - 1, 0, 0);
	fake_offer(tx, 0);
	fake_kick(&d, 1);
	CHECK(d.needs_reset, "so does a packet shorter than its header");
	stop();
}

int main(void)
{
	loop_init(&loop, NULL);
	test_guest_connects();
	test_host_connects();
	test_credit();
	test_drain();
	test_every_state();
	test_limits();
	loop_destroy(&loop);
	return tap_done();
}
