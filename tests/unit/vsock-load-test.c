/* SPDX-License-Identifier: Apache-2.0 */
/* vsock-load-test.c - the muxer among many and bad peers: fairness, floods of connects, what an idle connection costs */
#include "tests/descriptors.h"
#include "tests/unit/fake_vsock.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define CONNECTIONS 10000u
#define FLOOD 100000u
#define BUSY 1000u

/** A connection that the host made: its end, and what answers its REQUEST. */
struct open {
	int end;
	struct virtio_vsock_hdr h;
};

static bool ask(struct open *open)
{
	int pair[2];
	const struct vsock_dial dial = {.port = 80};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return false;
	open->end = pair[1];
	return vsock_dial(guest.vsock, pair[0], &dial, NULL, NULL) == 0 &&
	       guest_expect(VIRTIO_VSOCK_OP_REQUEST, &open->h);
}

static bool open_one(struct open *open)
{
	if (!ask(open))
		return false;
	guest_answer(&open->h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	return true;
}

/** Bytes that the next packets carry for @open, of those that are there now. */
static uint32_t bytes_for(const struct open *open, uint32_t *others)
{
	struct virtio_vsock_hdr h;
	uint32_t bytes = 0;
	while (guest_get(&h, NULL))
		*(h.dst_port == open->h.dst_port && h.src_port == open->h.src_port ? &bytes : others) += h.len;
	return bytes;
}

/** A byte each way over @open. */
static bool alive(const struct open *open)
{
	char byte;
	uint32_t others = 0;
	bool sent = write(open->end, "x", 1) == 1;
	guest_rounds(2);
	bool got = bytes_for(open, &others) == 1;
	guest_answer(&open->h, VIRTIO_VSOCK_OP_RW, 0, "y", 1);
	return sent && got && read(open->end, &byte, 1) == 1 && byte == 'y';
}

static void test_bad_peers(void)
{
	static char big[65536];
	struct open deaf, endless, closed, good;
	uint32_t others = 0;
	guest_start(RX_SIZE);
	open_one(&deaf);
	open_one(&good);
	uint32_t sent = 0;
	struct vsock_conn *conn = vsock_conn_find(guest.vsock, deaf.h.src_port, 80);
	while (conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt) >= sizeof(big)) {
		guest_answer(&deaf.h, VIRTIO_VSOCK_OP_RW, 0, big, sizeof(big));
		sent += sizeof(big);
	}
	guest_count(0);
	CHECK(sent >= 2 * sizeof(big) && conn->out.size > 0 && conn->out.capacity <= 2 * (size_t)conn->buf_alloc,
		"a client that never reads: the guest's bytes are kept as far as announced");
	CHECK(alive(&good), "another one is not slowed");

	guest.buf_alloc = 0;
	open_one(&endless);
	while (write(endless.end, big, sizeof(big)) > 0)
		;
	guest_rounds(3);
	CHECK(bytes_for(&endless, &others) == 0,
		"a guest program that never reads: its client's bytes stay where they are");
	guest.buf_alloc = 1 << 20;
	conn = vsock_conn_find(guest.vsock, endless.h.src_port, 80);
	CHECK(!conn->out.data && !conn->first.data && list_empty(&conn->ready),
		"in the client's socket, without work for them");
	CHECK(alive(&good), "another one is not slowed");

	open_one(&closed);
	CHECK(write(closed.end, big, sizeof(big)) > 0 && shutdown(closed.end, SHUT_RDWR) == 0 && close(closed.end) == 0,
		"a client goes away while it is busy");
	guest_rounds(20);
	bytes_for(&good, &others);
	CHECK(alive(&good), "another one is not hurt");
	close(deaf.end);
	close(endless.end);
	close(good.end);
	guest_stop();
}

static void test_fairness(void)
{
	static char big[65536];
	struct virtio_vsock_hdr h;
	struct open busy, other;
	uint32_t before = 0, single = 0;
	guest_start(4); /* receive buffers, and two want them */
	guest.buf_alloc = 64 << 20;
	open_one(&busy);
	open_one(&other);
	for (unsigned i = 0; i < 100 && !single; i++) {
		while (write(busy.end, big, sizeof(big)) > 0)
			;
		if (i == 10)
			CHECK(write(other.end, "x", 1) == 1,
				"a busy client and, at some time, a single byte of another");
		guest_rounds(2);
		while (guest_get(&h, NULL)) {
			single |= h.src_port == other.h.src_port && h.len;
			before += i >= 10 && !single ? h.len : 0;
		}
	}
	CHECK(single && before <= 4 * 4 * RX_BUFFER, "the byte has its turn");
	CHECK(before > 0, "the other was busy");
	close(busy.end);
	close(other.end);
	guest_stop();
}

static void test_busy(void)
{
	static struct open open[BUSY];
	static uint32_t got[BUSY];
	static char big[65536];
	struct virtio_vsock_hdr h;
	uint32_t least = UINT32_MAX, most = 0;
	guest_start(16);
	for (unsigned i = 0; i < BUSY; i++) {
		open_one(&open[i]);
		while (write(open[i].end, big, sizeof(big)) > 0)
			;
	}
	uint32_t first = open[0].h.src_port; /* ports are given in order */
	for (unsigned round = 0; round < BUSY * 3 / 2; round++) {
		guest_rounds(1);
		while (guest_get(&h, NULL))
			if (h.op == VIRTIO_VSOCK_OP_RW && h.src_port - first < BUSY)
				got[h.src_port - first] += h.len;
	}
	for (unsigned i = 0; i < BUSY; i++) {
		least = got[i] < least ? got[i] : least;
		most = got[i] > most ? got[i] : most;
		close(open[i].end);
	}
	printf("# %u busy connections got %u to %u bytes each\n", BUSY, least, most);
	CHECK(least > 0 && most - least <= 4 * 16 * RX_BUFFER, "of 1,000 busy clients none starves");
	guest_stop();
}

/** Dial with 1 MiB of first bytes. */
static int dial_large(int fd)
{
	struct buffer first = {0};
	buffer_reserve(&first, 1 << 20);
	memset(first.data, 'f', 1 << 20);
	buffer_commit(&first, 1 << 20);
	const struct vsock_dial dial = {.port = 80, .first = &first};
	return vsock_dial(guest.vsock, fd, &dial, NULL, NULL);
}

static void test_first_bytes(void)
{
	int pair[2] = {-1, -1}, rc = 0;
	unsigned n = 0;
	guest_start(RX_SIZE);
	while (n < 100 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0 &&
		(rc = dial_large(pair[0])) == 0) {
		n++;
		close(pair[1]); /* the muxer's end is open still: nothing has run */
	}
	CHECK(rc == -ENOBUFS && n == VSOCK_FIRST_MAX >> 20, "a guest that takes nothing: first bytes are bounded");
	close(pair[1]);
	guest_rounds(100);
	CHECK(guest.vsock->first_bytes == 0, "nobody left, nothing kept");
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
	CHECK(dial_large(pair[0]) == 0, "and the next may dial");
	close(pair[1]);
	guest_stop();
}

/** Offer up to a queue full of REQUESTs to @port from ports of @from on, kick once. */
static unsigned flood(uint32_t port, uint32_t from, unsigned n)
{
	uint32_t id, size;
	while (fake_used(guest.tx, &id, &size))
		;
	unsigned room = guest.tx->size - (uint16_t)(guest.tx->avail_idx - guest.tx->used_idx);
	n = n < room ? n : room;
	for (unsigned i = 0; i < n; i++) {
		uint16_t slot = (uint16_t)(guest.tx->avail_idx % guest.tx->size);
		uint64_t at = guest.tx_gpa + slot * 64u;
		struct virtio_vsock_hdr h = guest_make(VIRTIO_VSOCK_OP_REQUEST, from + i, port, 0);
		memcpy(guest.driver.ram + at, &h, HEADER);
		fake_desc(guest.tx, slot, at, HEADER, 0, 0);
		fake_offer(guest.tx, slot);
	}
	fake_kick(&guest.driver, VSOCK_TX);
	return n;
}

static void test_flood(void)
{
	struct virtio_vsock_hdr h;
	struct open good;
	uint32_t from = 100000, resets = 0, next = 100000;
	uint32_t bytes = 0, written = 0;
	bool in_order = true;
	guest_start(RX_SIZE);
	open_one(&good);
	for (unsigned round = 0; resets < FLOOD && round < FLOOD; round++) {
		unsigned left = 100000 + FLOOD - from;
		from += left ? flood(9999, from, left) : 0;
		if (round % 64 == 0)
			written += write(good.end, "x", 1) == 1;
		guest_rounds(1);
		for (unsigned n = 0; n < RX_SIZE && guest_get(&h, NULL); n++) {
			bytes += h.src_port == good.h.src_port ? h.len : 0;
			if (h.op != VIRTIO_VSOCK_OP_RST)
				continue;
			in_order = in_order && h.src_port == 9999 && h.dst_port == next++;
			resets++;
		}
	}
	CHECK(resets == FLOOD && in_order, "100,000 connects to a port that nobody has: each gets its reset");
	CHECK(guest.vsock->n_conns == 1 && !guest.driver.needs_reset, "none costs anything");
	CHECK(written > 10 && bytes >= written - 1, "and another connection goes on meanwhile");
	close(good.end);
	guest_stop();
}

/* mallinfo() says nothing under AddressSanitizer, which has this. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static void test_greedy_guest(void)
{
	struct virtio_vsock_hdr h;
	struct open own;
	int ends[50];
	unsigned accepted = 0, refused = 0;
	guest_start(RX_SIZE);
	CHECK(guest.vsock->by_guest_max <= VSOCK_CONNECTIONS_MAX / 2, "a guest may make half of the connections");
	guest.vsock->by_guest_max = 50;
	for (uint32_t i = 0; i < 60; i++) {
		guest.host_end = -1;
		struct virtio_vsock_hdr request = guest_make(VIRTIO_VSOCK_OP_REQUEST, 7000 + i, HOST_PORT, 0);
		guest_put_raw(&request, NULL, 0);
		if (guest_get(&h, NULL) && h.op == VIRTIO_VSOCK_OP_RESPONSE)
			ends[accepted++] = guest.host_end;
		else
			refused += h.op == VIRTIO_VSOCK_OP_RST;
	}
	CHECK(accepted == 50 && refused == 10 && guest.host_end == -1, "beyond that it is refused");
	CHECK(open_one(&own) && alive(&own), "the host's go on");
	for (unsigned i = 0; i < accepted; i++) {
		close(ends[i]);
		struct virtio_vsock_hdr reset = guest_make(VIRTIO_VSOCK_OP_RST, 7000 + i, HOST_PORT, 0);
		guest_put_raw(&reset, NULL, 0);
	}
	CHECK(guest.vsock->n_by_guest == 0 && guest.vsock->n_conns == 1 && guest_open(),
		"when they end there may be others");
	close(own.end);
	guest_stop();
}

/** Bytes that are allocated now. */
static size_t allocated(void)
{
	return __sanitizer_get_current_allocated_bytes ? __sanitizer_get_current_allocated_bytes()
						       : mallinfo2().uordblks;
}

/** How many connections there can be: two descriptors for each. */
static unsigned affordable(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > 2 * CONNECTIONS + 64 ? CONNECTIONS : (unsigned)(limit.rlim_cur - 64) / 2;
}

static void raise_limit(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void test_idle(void)
{
	static struct open open[CONNECTIONS];
	unsigned n = affordable(), opened = 0, echoed = 0;
	unsigned descriptors = count_descriptors();
	guest_start(RX_SIZE);
	size_t before = allocated();
	for (unsigned i = 0; i < n; i++)
		opened += open_one(&open[i]);
	CHECK(opened == n, "connections up to the number that shall be");
	for (unsigned i = 0; i < n; i += 97)
		echoed += alive(&open[i]);
	CHECK(echoed == (n + 96) / 97, "every 97th of them carries bytes both ways");
	size_t each = (allocated() - before) / n;
	printf("# %u idle connections: %zu bytes each\n", n, each);
	CHECK(each < 600, "an idle connection is small");
	struct vsock_conn *last = vsock_conn_find(guest.vsock, open[n - 1].h.src_port, 80);
	CHECK(last && (n < 2048 || last->buf_alloc == 16384), "the more there are, the less each may have in flight");
	for (unsigned i = 0; i < n; i++)
		close(open[i].end);
	guest_rounds(200);
	for (unsigned i = 0; i < n; i++) {
		guest_answer(&open[i].h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
		guest_count(0);
	}
	guest_rounds(4);
	CHECK(guest.vsock->n_conns == 0, "all of them end");
	CHECK(allocated() <= before + 1024, "no memory is left of them");
	guest_stop();
	CHECK(count_descriptors() == descriptors, "and no descriptor");
}

int main(void)
{
	raise_limit();
	test_bad_peers();
	test_fairness();
	test_busy();
	test_first_bytes();
	test_flood();
	test_greedy_guest();
	test_idle();
	return tap_done();
}
