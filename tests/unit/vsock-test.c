/* SPDX-License-Identifier: Apache-2.0 */
/* vsock-test.c - the muxer: packets in every state, credit, half-close, resets, limits */
#include "tests/unit/fake_vsock.h"

#include "base/fd.h"
#include "tests/tap.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/socket.h>

static int connect_result; /* 1: not called */
static unsigned connect_calls;

static void connected(void *data, int error)
{
	connect_result = error;
	connect_calls++;
}

static void start(unsigned rx_buffers)
{
	guest_start(rx_buffers);
	connect_result = 1;
	connect_calls = 0;
}

static void test_guest_connects(void)
{
	struct virtio_vsock_hdr h;
	char bytes[RX_BUFFER] = "";
	struct net_meter meter = {0};
	start(RX_SIZE);
	vsock_count(guest.vsock, &meter);
	guest_put(VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RESPONSE, &h) && h.src_port == HOST_PORT && h.dst_port == GUEST_PORT &&
			h.buf_alloc == 262144,
		"a connect of the guest is accepted");
	guest_put(VIRTIO_VSOCK_OP_RW, 0, "from guest", 10);
	CHECK(read(guest.host_end, bytes, sizeof(bytes)) == 10 && !memcmp(bytes, "from guest", 10), "its bytes arrive");
	CHECK(write(guest.host_end, "from host", 9) == 9, "the host writes");
	guest_rounds(1);
	CHECK(guest_get(&h, bytes) && h.op == VIRTIO_VSOCK_OP_RW && h.len == 9 && !memcmp(bytes, "from host", 9) &&
			h.fwd_cnt == 10,
		"the host's bytes arrive, with the credit");
	guest_put(VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
	CHECK(read(guest.host_end, bytes, 1) == 0, "the guest's half-close is the host's end of file");
	CHECK(write(guest.host_end, "more", 4) == 4, "the other direction lives on");
	guest_rounds(1);
	CHECK(guest_get(&h, bytes) && h.len == 4, "and delivers");
	CHECK(meter.out_bytes == 10 && meter.in_bytes == 13, "the payload of both directions is counted, and nothing else");
	shutdown(guest.host_end, SHUT_WR);
	guest_rounds(1);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, &h) && h.flags == VIRTIO_VSOCK_SHUTDOWN_SEND,
		"the host's half-close");
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && guest.vsock->n_conns == 0,
		"both ended: the connection is gone");
	struct virtio_vsock_hdr other = guest_make(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, 5001, 0);
	guest_put_raw(&other, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, &h) && h.src_port == 5001, "a port that nobody has is refused");
	guest_stop();
}

static bool open_host(int *fd, bool hybrid, struct virtio_vsock_hdr *h)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return false;
	*fd = pair[1];
	return vsock_connect(guest.vsock, pair[0], 80, hybrid, connected, NULL, NULL) == 0 &&
	       guest_expect(VIRTIO_VSOCK_OP_REQUEST, h);
}

static void test_host_connects(void)
{
	struct virtio_vsock_hdr h, answer;
	char bytes[64] = "", want[64];
	int fd;
	start(RX_SIZE);
	CHECK(open_host(&fd, true, &h) && h.dst_port == 80 && h.src_port >= 1u << 30, "a connect asks the guest");
	CHECK(connect_calls == 0, "and waits");
	answer = guest_make(VIRTIO_VSOCK_OP_RESPONSE, 80, h.src_port, 0);
	guest_put_raw(&answer, NULL, 0);
	CHECK(connect_result == 0 && connect_calls == 1, "the answer is told");
	ssize_t n = read(fd, bytes, sizeof(bytes));
	snprintf(want, sizeof(want), "OK %u\n", h.src_port);
	CHECK(n > 0 && !strcmp(bytes, want), "the hybrid greeting names the local port");
	answer.op = VIRTIO_VSOCK_OP_CREDIT_REQUEST;
	guest_put_raw(&answer, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, &h) && h.fwd_cnt == 0,
		"the greeting is no credit of the guest's");
	answer.op = VIRTIO_VSOCK_OP_RST;
	guest_put_raw(&answer, NULL, 0);
	CHECK(read(fd, bytes, 1) == 0 && guest.vsock->n_conns == 0 && guest_quiet(),
		"a reset of the guest closes, unanswered");
	close(fd);
	CHECK(open_host(&fd, false, &h), "again");
	answer = guest_make(VIRTIO_VSOCK_OP_RST, 80, h.src_port, 0);
	guest_put_raw(&answer, NULL, 0);
	CHECK(connect_result == -ECONNREFUSED && read(fd, bytes, 1) == 0, "a refusal is told");
	close(fd);
	open_host(&fd, false, &h);
	guest.vsock->timer.fn(&guest.vsock->timer, EPOLLIN);
	CHECK(connect_calls == 2, "a timer that comes early ends nothing");
	CONTAINER_OF(guest.vsock->connecting.next, struct vsock_conn, connecting)->deadline_ns = 0;
	guest.vsock->timer.fn(&guest.vsock->timer, EPOLLIN);
	CHECK(connect_result == -ETIMEDOUT && connect_calls == 3 && guest_expect(VIRTIO_VSOCK_OP_RST, NULL),
		"a timeout");
	close(fd);
	open_host(&fd, false, &h);
	virtio_reset(vsock_device(guest.vsock));
	CHECK(connect_result == -ECONNRESET && guest.vsock->n_conns == 0, "a reset of the device ends connects");
	close(fd);
	guest_stop();
}

static void test_credit(void)
{
	static char big[300 << 10];
	struct virtio_vsock_hdr h;
	start(RX_SIZE);
	guest.buf_alloc = 100;
	guest_open();
	CHECK(write(guest.host_end, big, 1000) == 1000, "1000 bytes for a guest that has room for 100");
	guest_rounds(2);
	CHECK(guest_get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RW && h.len == 100, "it gets 100");
	CHECK(guest_expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, NULL) && guest_quiet(), "and is asked for more room, once");
	guest_rounds(3);
	CHECK(guest_quiet(), "nothing more comes");
	guest.fwd_cnt = 60;
	guest_put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(guest_get(&h, NULL) && h.len == 60, "what it made room for comes");
	guest_expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, NULL);
	guest.fwd_cnt = 0x80000000;
	guest_put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(guest_quiet(), "a count that lies gives nothing");
	guest.fwd_cnt = 160;
	guest_put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(guest_get(&h, NULL) && h.len == 100, "a true one does");
	struct vsock_conn *conn = vsock_conn_find(guest.vsock, HOST_PORT, GUEST_PORT);
	conn->tx_cnt = conn->peer_fwd_cnt = guest.fwd_cnt = 0xfffffff0;
	guest_put(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	guest_rounds(2);
	while (guest_get(&h, NULL))
		;
	CHECK(conn->tx_cnt == 84 && vsock_conn_credit(conn) == 0, "counts wrap at 2^32");

	/* the other way: nobody reads guest.host_end */
	uint32_t sent = 0;
	while (sent + 32768 <= 262144 && vsock_conn_find(guest.vsock, HOST_PORT, GUEST_PORT)) {
		guest_put(VIRTIO_VSOCK_OP_RW, 0, big, 32768);
		sent += 32768;
	}
	CHECK(sent == 262144 && (conn = vsock_conn_find(guest.vsock, HOST_PORT, GUEST_PORT)) &&
			conn->state == VSOCK_ESTABLISHED,
		"the announced buffer is taken");
	while (guest_get(&h, NULL))
		;
	CHECK(conn->out.size <= 262144 && conn->rx_cnt == sent, "and bounded");
	uint32_t room = conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt);
	while (room >= 65536) {
		guest_put(VIRTIO_VSOCK_OP_RW, 0, big, 65536);
		room = conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt);
	}
	while (guest_get(&h, NULL))
		;
	guest_put(VIRTIO_VSOCK_OP_RW, 0, big, room + 1);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && guest.vsock->n_conns == 0,
		"one byte over the credit is a reset");
	guest_stop();
}

static void test_drain(void)
{
	static char big[65536], sink[65536];
	struct virtio_vsock_hdr h;
	size_t got = 0;
	ssize_t n;
	start(RX_SIZE);
	guest_open();
	int small = 4096;
	setsockopt(vsock_conn_find(guest.vsock, HOST_PORT, GUEST_PORT)->watch.fd, SOL_SOCKET, SO_SNDBUF, &small,
		sizeof(small));
	for (int i = 0; i < 4; i++)
		guest_put(VIRTIO_VSOCK_OP_RW, 0, big, sizeof(big));
	guest_put(VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	unsigned resets = 0, updates = 0;
	while (guest_get(&h, NULL)) {
		resets += h.op == VIRTIO_VSOCK_OP_RST;
		updates += h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE;
	}
	CHECK(resets == 1 && guest.vsock->n_conns == 1, "a guest that closed is answered at once, its bytes kept");
	CHECK(!vsock_conn_find(guest.vsock, HOST_PORT, GUEST_PORT), "its port is free");
	for (int i = 0; i < 1000 && (n = read(guest.host_end, sink, sizeof(sink))) != 0; i++) {
		if (n > 0)
			got += (size_t)n;
		guest_rounds(1);
	}
	CHECK(got == 4 * sizeof(big) && n == 0, "the host gets all of them and then the end");
	CHECK(guest.vsock->n_conns == 0, "then nothing is left");
	close(guest.host_end);
	guest.host_end = -1;

	guest_open();
	close(guest.host_end);
	guest.host_end = -1;
	guest_rounds(2);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, &h) && (h.flags & VIRTIO_VSOCK_SHUTDOWN_SEND),
		"the host goes away");
	for (int i = 0; i < 3; i++) {
		guest_put(VIRTIO_VSOCK_OP_RW, 0, "x", 1);
		guest_rounds(1);
	}
	while (guest_get(&h, NULL))
		resets += h.op == VIRTIO_VSOCK_OP_RST;
	CHECK(guest.vsock->n_conns == 0 && resets >= 2, "writing to it ends the connection");
	guest_stop();
}

/** An operation that fits no state gets a reset, and the muxer goes on. */
static void test_every_state(void)
{
	struct virtio_vsock_hdr h, packet;
	int fd;
	start(RX_SIZE);
	for (uint16_t op = 0; op < 12; op++) {
		packet = guest_make(op, 1, 2, 0);
		guest_put_raw(&packet, NULL, 0);
		bool answered = guest_get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RST;
		if (op != VIRTIO_VSOCK_OP_RST && !answered)
			CHECK(false, "an operation on no connection is a reset");
	}
	CHECK(guest.vsock->n_conns == 0 && !guest.driver.needs_reset, "every operation on no connection");
	for (uint16_t op = 0; op < 12; op++) {
		open_host(&fd, false, &h);
		packet = guest_make(op, 80, h.src_port, 0);
		packet.flags = 3;
		guest_put_raw(&packet, NULL, 0);
		while (guest_get(&h, NULL))
			;
		packet.op = VIRTIO_VSOCK_OP_RST;
		guest_put_raw(&packet, NULL, 0);
		close(fd);
	}
	CHECK(guest.vsock->n_conns == 0 && connect_calls == 12, "every operation on a requested connection");
	for (uint16_t first = 0; first < 12; first++)
		for (uint16_t second = 0; second < 12; second++) {
			guest_open();
			guest_put(first, 1, "x", 1);
			guest_put(second, 2, "x", 1);
			guest_rounds(1);
			guest_put(VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
			while (guest_get(&h, NULL))
				;
			close(guest.host_end);
			guest.host_end = -1;
		}
	CHECK(guest.vsock->n_conns == 0 && !guest.driver.needs_reset,
		"every pair of operations on an established connection");
	guest_open();
	packet = guest_make(VIRTIO_VSOCK_OP_RW, GUEST_PORT, HOST_PORT, 1000);
	guest_put_raw(&packet, "short", 5);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "a length beyond the packet is a reset");
	packet = guest_make(VIRTIO_VSOCK_OP_RW, GUEST_PORT, HOST_PORT, UINT32_MAX);
	guest_open();
	guest_put_raw(&packet, "short", 5);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "a length of 2^32 - 1 too");
	packet = guest_make(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT, 0);
	packet.dst_cid = 7;
	guest_put_raw(&packet, NULL, 0);
	CHECK(guest_get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RST && h.src_cid == 7,
		"another CID is refused in its name");
	packet.dst_cid = 2;
	packet.src_cid = 9;
	guest_put_raw(&packet, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && guest.vsock->n_conns == 0, "a forged source is refused");
	packet.src_cid = 3;
	packet.type = 2;
	guest_put_raw(&packet, NULL, 0);
	CHECK(guest_get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RST && h.type == 2,
		"an unknown type is refused as its own");
	guest_stop();
}

static void test_limits(void)
{
	struct virtio_vsock_hdr h, packet;
	start(0);
	fake_desc(guest.tx, 0, guest.tx_gpa, HEADER, 0, 0);
	packet = guest_make(VIRTIO_VSOCK_OP_REQUEST, 1, 9999, 0);
	memcpy(guest.driver.ram + guest.tx_gpa, &packet, HEADER);
	for (unsigned i = 0; i < 3000; i++) {
		if ((uint16_t)(guest.tx->avail_idx - __atomic_load_n(&guest.tx->used->idx, __ATOMIC_ACQUIRE)) <
			guest.tx->size)
			fake_offer(guest.tx, 0);
		fake_kick(&guest.driver, 1);
	}
	CHECK(guest.vsock->tx_paused && guest.vsock->n_resets == VSOCK_RESETS,
		"without receive buffers the guest's packets wait");
	guest_fill_rx(RX_SIZE);
	unsigned resets = 0;
	do {
		fake_kick(&guest.driver, 0);
		while (guest_get(&h, NULL))
			resets++;
		fake_kick(&guest.driver, 0);
	} while (guest.vsock->n_resets);
	while (guest_get(&h, NULL))
		resets++;
	CHECK(resets == VSOCK_RESETS + 256, "and none is lost");
	CHECK(!guest.driver.needs_reset && !guest.vsock->tx_paused, "the device goes on");
	guest_stop();
	start(0);
	fake_desc(guest.rx, 0, guest.rx_gpa[0], HEADER, VRING_DESC_F_WRITE, 0);
	fake_offer(guest.rx, 0);
	guest_put(VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	CHECK(guest.driver.needs_reset, "a receive buffer that is too small breaks the device");
	guest_stop();
	start(RX_SIZE);
	fake_desc(guest.tx, 0, guest.tx_gpa, HEADER - 1, 0, 0);
	fake_offer(guest.tx, 0);
	fake_kick(&guest.driver, 1);
	CHECK(guest.driver.needs_reset, "so does a packet shorter than its header");
	guest_stop();
}

int main(void)
{
	test_guest_connects();
	test_host_connects();
	test_credit();
	test_drain();
	test_every_state();
	test_limits();
	return tap_done();
}
