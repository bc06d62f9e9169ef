/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock-fuzz.c - libFuzzer target: bytes as a program that drives the vsock muxer from both sides
 *
 * Theory of operation: the first byte chooses what holds for the whole program (HONEST, TCP). Each further step is a byte that
 * selects an action from a table, and the bytes that this action reads. The guest's actions write packets with every field
 * chosen or lied about, chains that are no packets, take packets and answer them; the host's dial, with or without a host
 * stream, attach, accept, write, read, half-close, close, reset and cancel. What callbacks decide comes from the program, too.
 * After each step the invariants are checked; at the end everything is let go of, and connections, meters and descriptors
 * must be back where they began.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o vsock-fuzz fuzz/vsock-fuzz.c \
 *     tests/unit/fake_driver.c vmm/virtio/vsock*.c vmm/virtio/queue.c vmm/virtio/device.c memory/memory.c \
 *     base/{buffer,error,fd,loop,stats}.c && ./vsock-fuzz -max_len=2048 fuzz/corpus/vsock
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "fuzz/fuzz.h"
#include "tests/descriptors.h"
#include "tests/unit/fake_driver.h"
#include "vmm/virtio/vsock_internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define HONEST 1 /* the guest never lies about its credit: then in flight never exceeds it */
#define TCP 2 /* half of the host streams are TCP */
#define NO_DRIVER 4 /* until an action brings it up */

#define HEADER sizeof(struct virtio_vsock_hdr)
#define BUFFERS 32
#define RX_ROOM 4096
#define TX_ROOM (70u << 10)
#define STREAMS 12
#define STANDBYS 4
#define PEERS 64
#define HONEST_CREDIT 65536u

/** A host stream, seen from the test. */
struct stream {
	int end; /* the test's end; -1: free */
	int given_back; /* the muxer's end after a GIVE_BACK, -1: none */
	int fd; /* the muxer's end while a dial is under way */
	struct vsock_conn *token; /* while it may be cancelled */
	bool tcp;
	int written; /* bytes, to `end` */
	struct door_meter meter;
};

/** A dial without a host stream. */
struct standby {
	struct vsock_conn *token; /* NULL: free */
	bool ready; /* the guest has accepted it */
};

/** A connection as the guest sees it. */
struct peer {
	uint32_t host_port, guest_port, received;
};

static struct {
	const uint8_t *at, *left_off;
	uint8_t mode;
	struct fake_driver driver;
	struct fake_queue *rx, *tx;
	uint64_t rx_gpa[BUFFERS], tx_gpa[BUFFERS], rings_end;
	struct loop loop;
	struct vsock *vsock;
	struct stream streams[STREAMS];
	struct standby standbys[STANDBYS];
	struct peer peers[PEERS];
	unsigned n_peers;
	uint32_t next_port;
	bool nonsense;
	unsigned depth; /* of callbacks that dial */
	int listener;
	struct sockaddr_in address;
} f;

static uint8_t next(void)
{
	return f.at < f.left_off ? *f.at++ : 0;
}

static uint32_t next_size(void)
{
	static const uint32_t sizes[] = {0, 1, 2, 10, 43, 44, 45, 100, 4052, 4096, 16384, 65535, 65536, 69000};
	return sizes[next() % ARRAY_SIZE(sizes)];
}

/* ---- host ---- */

static bool tcp_pair(int pair[2])
{
	struct linger linger = {.l_onoff = 1}; /* no TIME_WAIT: thousands of these are made */
	CLEANUP_FD int end = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(end, (struct sockaddr *)&f.address, sizeof(f.address)) < 0)
		return false;
	pair[0] = accept4(f.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	must(pair[0] >= 0, "no TCP pair");
	setsockopt(end, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	fd_set_nonblocking(end, true);
	pair[1] = steal_fd(&end);
	return true;
}

/** A stream whose other end, returned, is for the muxer; -1 when all are taken. */
static int make_stream(struct stream **out)
{
	int pair[2], kind = next(), small = 4096;
	unsigned i = 0;
	while (i < STREAMS && (f.streams[i].end >= 0 || f.streams[i].given_back >= 0 || f.streams[i].token))
		i++;
	if (i == STREAMS)
		return -1;
	bool tcp = (f.mode & TCP) && (kind & 1) && tcp_pair(pair);
	if (!tcp && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	struct door_meter meter = f.streams[i].meter; /* an earlier stream's connection may still count in it */
	f.streams[i] = (struct stream){.end = pair[1], .given_back = -1, .fd = pair[0], .tcp = tcp, .meter = meter};
	*out = &f.streams[i];
	if (kind & 2) {
		setsockopt(pair[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	}
	return pair[0];
}

static int accept_guest(void *data, uint32_t port)
{
	struct stream *stream;
	if (port != 5000)
		return -ECONNREFUSED;
	return make_stream(&stream);
}

static enum vsock_verdict answer(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first)
{
	struct stream *stream = data;
	uint8_t choice = next();
	volatile uint8_t sum = 0;
	for (size_t i = 0; i < n; i++) /* all of it must be there */
		sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
	must(stream->token && n > 0, "an answer to nothing, or of nothing");
	if (choice % 4 == 0)
		return VSOCK_MORE;
	stream->token = NULL;
	if (choice % 4 == 1) {
		stream->given_back = stream->fd;
		return VSOCK_GIVE_BACK;
	}
	*used = next() % (n + 1);
	uint32_t more = next_size();
	uint8_t *to = more ? buffer_reserve(first, more) : NULL;
	if (to) {
		memset(to, 'f', more);
		buffer_commit(first, more);
	}
	return VSOCK_OPEN;
}

static void dial(void);

static void cancel(void)
{
	struct stream *stream = &f.streams[next() % STREAMS];
	if (stream->token)
		vsock_cancel(steal_pointer(&stream->token));
}

static void told(struct stream *stream, bool last)
{
	must(stream->token, "an answer after the last");
	if (last)
		stream->token = NULL;
	uint8_t choice = next();
	if (choice & 1 && f.depth++ < 4)
		dial();
	if (choice & 2)
		cancel();
}

static void connected(void *data, int error)
{
	told(data, error);
}

/** Of a dial without an answer: whatever it says, that was it. */
static void connected_once(void *data, int error)
{
	told(data, true);
}

static struct buffer make_first(void)
{
	struct buffer first = {0};
	uint32_t n = next_size();
	uint8_t *to = n ? buffer_reserve(&first, n) : NULL;
	if (to) {
		memset(to, 'F', n);
		buffer_commit(&first, n);
	}
	return first;
}

static void dial_over(int fd, struct stream *stream)
{
	struct husk_error err;
	uint8_t how = next();
	struct buffer first = make_first();
	const struct vsock_dial dial = {
		.port = 80 + (how & 1),
		.hybrid = how & 2,
		.close_is_reset = how & 4,
		.first = &first,
		.connected = how & 8 ? connected : connected_once,
		.answer = how & 8 ? answer : NULL,
		.data = stream,
		.meter = how & 16 ? &stream->meter : NULL,
		.begun_ns = 1,
	};
	must(vsock_dial(f.vsock, fd, &dial, &stream->token, &err) == 0, "a dial failed");
	must(!first.data, "a dial left the first bytes");
}

static enum vsock_verdict standby_answer(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first)
{
	struct standby *standby = data;
	uint8_t choice = next();
	must(standby->token && bytes && n > 0, "an answer to nothing, or of nothing");
	if (choice % 4 < 2)
		return VSOCK_MORE;
	standby->token = NULL;
	if (choice % 8 == 2)
		buffer_append(first, "more", 4);
	return choice % 4 == 2 ? VSOCK_OPEN : VSOCK_GIVE_BACK;
}

static void standby_connected(void *data, int error)
{
	struct standby *standby = data;
	must(standby->token, "a standby is answered that is none");
	standby->ready = error == 0;
	if (error)
		standby->token = NULL;
}

static void stand_by(void)
{
	struct standby *standby = &f.standbys[next() % STANDBYS];
	struct buffer first = make_first();
	const struct vsock_dial dial = {
		.port = 80, .first = &first, .connected = standby_connected, .answer = standby_answer, .data = standby};
	if (standby->token)
		vsock_cancel(standby->token);
	*standby = (struct standby){0};
	must(vsock_dial(f.vsock, -1, &dial, &standby->token, NULL) == 0 && !first.data, "a standby failed");
}

/** An attached dial ends before its answer. */
static void attached_connected(void *data, int error)
{
	struct stream *stream = data;
	must(error < 0, "an attached dial is not accepted twice");
	if (error == -ECONNRESET)
		stream->given_back = stream->fd;
	told(stream, true);
}

static void attach(void)
{
	struct standby *standby = &f.standbys[next() % STANDBYS];
	struct stream *stream;
	if (!standby->token || !standby->ready)
		return;
	int fd = make_stream(&stream);
	if (fd < 0)
		return;
	uint8_t how = next();
	struct buffer first = make_first();
	const struct vsock_dial dial = {
		.hybrid = how & 2,
		.close_is_reset = how & 4,
		.first = &first,
		.connected = attached_connected,
		.answer = answer,
		.data = stream,
		.meter = how & 16 ? &stream->meter : NULL,
		.begun_ns = 1,
	};
	stream->token = steal_pointer(&standby->token);
	must(vsock_attach(stream->token, fd, &dial, NULL) == 0 && !first.data, "an attach failed");
}

static void dial(void)
{
	struct stream *stream;
	int fd = make_stream(&stream);
	if (fd >= 0)
		dial_over(fd, stream);
}

static void dial_again(void)
{
	for (unsigned i = 0; i < STREAMS; i++)
		if (f.streams[i].given_back >= 0) {
			dial_over(steal_fd(&f.streams[i].given_back), &f.streams[i]);
			return;
		}
}

static void host_writes(void)
{
	static const uint8_t bytes[70 << 10];
	struct stream *stream = &f.streams[next() % STREAMS];
	ssize_t n = stream->end < 0 ? 0 : send(stream->end, bytes, next_size(), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		stream->written += (int)n;
}

static void host_reads(void)
{
	static uint8_t bytes[70 << 10];
	struct stream *stream = &f.streams[next() % STREAMS];
	if (stream->end >= 0)
		(void)!recv(stream->end, bytes, next_size(), MSG_DONTWAIT);
}

static void host_shuts_down(void)
{
	struct stream *stream = &f.streams[next() % STREAMS];
	if (stream->end >= 0)
		shutdown(stream->end, next() % 3);
}

static void host_closes(void)
{
	struct stream *stream = &f.streams[next() % STREAMS];
	struct linger linger = {.l_onoff = next() & 1};
	if (stream->end < 0)
		return;
	setsockopt(stream->end, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(steal_fd(&stream->end));
}

static void rounds(void)
{
	for (unsigned n = 1 + next() % 4; n > 0; n--)
		loop_round(&f.loop, 0, NULL);
}

static void times_out(void)
{
	if (list_empty(&f.vsock->connecting))
		return;
	CONTAINER_OF(f.vsock->connecting.next, struct vsock_conn, connecting)->deadline_ns = 0;
	f.vsock->timer.fn(&f.vsock->timer, EPOLLIN);
}

/* ---- guest ---- */

static void kick(unsigned queue)
{
	if (f.driver.device->queues[queue].ready)
		fake_kick(&f.driver, queue);
}

/** Too many, and the oldest is forgotten, with how much it got. */
static struct peer *peer_of(uint32_t host_port, uint32_t guest_port)
{
	for (unsigned i = 0; i < PEERS; i++)
		if (f.peers[i].host_port == host_port && f.peers[i].guest_port == guest_port)
			return &f.peers[i];
	if (f.n_peers >= PEERS)
		f.mode &= (uint8_t)~HONEST;
	struct peer *peer = &f.peers[f.n_peers++ % PEERS];
	*peer = (struct peer){.host_port = host_port, .guest_port = guest_port};
	return peer;
}

static void send_chain(const void *bytes, size_t n, bool split)
{
	uint16_t i = (uint16_t)(f.tx->avail_idx % (BUFFERS / 2));
	uint64_t at = f.tx_gpa[i];
	uint32_t id, size;
	memcpy(f.driver.ram + at, bytes, n);
	if (split && n > 20) {
		fake_desc(f.tx, i, at, 20, VRING_DESC_F_NEXT, (uint16_t)(i + BUFFERS / 2));
		fake_desc(f.tx, (uint16_t)(i + BUFFERS / 2), at + 20, (uint32_t)n - 20, 0, 0);
	} else {
		fake_desc(f.tx, i, at, (uint32_t)n, 0, 0);
	}
	fake_offer(f.tx, i);
	while (fake_used(f.tx, &id, &size))
		;
}

/** A packet for @peer, as the program wants it; @op 0xff: that, too. */
static void send_packet(struct peer *peer, uint16_t op)
{
	static const uint32_t credits[] = {0, 100, 4096, 65536, 262144, 0x7fffffff, 0xffffffff};
	static struct {
		struct virtio_vsock_hdr header;
		uint8_t payload[TX_ROOM - HEADER];
	} p;
	uint8_t lie = next();
	uint32_t n = op == VIRTIO_VSOCK_OP_RW || op == 0xff ? next_size() : 0;
	if (n > TX_ROOM - HEADER)
		n = TX_ROOM - HEADER;
	if (op == 0xff)
		op = next() % 10; /* 0, 8 and 9 mean nothing */
	if (op == VIRTIO_VSOCK_OP_REQUEST &&
		(f.mode & HONEST)) /* its count is its own: packets of an older one may be under way */
		peer = peer_of(5000, f.next_port++);
	p.header = (struct virtio_vsock_hdr){
		.src_cid = lie == 1 ? 9 : 3,
		.dst_cid = lie == 2 ? 7 : 2,
		.src_port = peer->guest_port,
		.dst_port = peer->host_port,
		.len = lie == 3   ? n + 1
		       : lie == 4 ? 0xffffffff
		       : lie == 5 ? n / 2
				  : n,
		.type = lie == 6 ? 2 : 1,
		.op = op,
		.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? next() : 0,
		.buf_alloc = HONEST_CREDIT,
		.fwd_cnt = peer->received,
	};
	if (!(f.mode & HONEST) && (lie & 0x40))
		p.header.buf_alloc = credits[next() % ARRAY_SIZE(credits)];
	if (!(f.mode & HONEST) && (lie & 0x20))
		p.header.fwd_cnt += credits[next() % ARRAY_SIZE(credits)];
	send_chain(&p, HEADER + n, lie & 0x80);
	if (!(lie & 0x10)) /* else together with the next */
		kick(VSOCK_TX);
}

static struct peer *choose_peer(void)
{
	uint8_t which = next();
	if (which < 64)
		return peer_of(which & 1 ? 5000 : 5001, 7000 + which / 2 % 4);
	return &f.peers[which % PEERS];
}

static void guest_sends(void)
{
	send_packet(choose_peer(), 0xff);
}

static void guest_sends_bytes(void)
{
	send_packet(choose_peer(), VIRTIO_VSOCK_OP_RW);
}

/** Connects to a port that nobody has, more than there may be resets for, now and then. */
static void guest_floods(void)
{
	struct virtio_vsock_hdr h = {
		.src_cid = 3, .dst_cid = 2, .dst_port = 1, .type = 1, .op = VIRTIO_VSOCK_OP_REQUEST};
	for (unsigned n = next() & 1 ? 64 : 1500; n > 0; n--) {
		h.src_port = n;
		send_chain(&h, HEADER, false);
		if ((uint16_t)(f.tx->avail_idx - f.tx->used->idx) < BUFFERS / 2)
			continue;
		kick(VSOCK_TX);
		if ((uint16_t)(f.tx->avail_idx - f.tx->used->idx) >= BUFFERS / 2)
			break; /* it waits for receive buffers; or is broken, or not there */
	}
	kick(VSOCK_TX);
}

static void guest_connects(void)
{
	send_packet(peer_of(5000, 7000 + next() % 8), VIRTIO_VSOCK_OP_REQUEST);
}

/** Take packets; with @answers connects are accepted and credit is given. */
static void take_packets(bool answers)
{
	uint32_t id, size;
	for (unsigned n = 0; n < 64 && fake_used(f.rx, &id, &size); n++) {
		struct virtio_vsock_hdr h;
		bool whole = id < BUFFERS && size >= HEADER && size <= RX_ROOM;
		must(whole || f.nonsense, "a used buffer that was not given so");
		memcpy(&h, f.driver.ram + f.rx_gpa[id % BUFFERS], HEADER);
		must((h.dst_cid == 3 && size == HEADER + h.len) || f.nonsense,
			"a packet of a wrong length, or a stranger's");
		struct peer *peer = peer_of(h.src_port, h.dst_port);
		if (h.op == VIRTIO_VSOCK_OP_REQUEST)
			peer->received = 0;
		peer->received += h.len;
		id %= BUFFERS;
		fake_desc(f.rx, (uint16_t)id, f.rx_gpa[id], RX_ROOM, VRING_DESC_F_WRITE, 0);
		fake_offer(f.rx, (uint16_t)id);
		if (answers && h.op == VIRTIO_VSOCK_OP_REQUEST)
			send_packet(peer, VIRTIO_VSOCK_OP_RESPONSE);
		else if (answers && (h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST || h.op == VIRTIO_VSOCK_OP_RW))
			send_packet(peer, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	}
	kick(VSOCK_RX);
}

static void guest_takes(void)
{
	take_packets(false);
}

static void guest_answers(void)
{
	take_packets(true);
}

/** A descriptor that says anything, in either queue. From then on buffers may overlap, and nothing in them can be relied on. */
static void guest_sends_nonsense(void)
{
	if (!f.nonsense) /* what an earlier program left there must not matter */
		memset(f.driver.ram + f.rings_end, 0, f.driver.allocated - f.rings_end);
	f.nonsense = true;
	f.mode &= (uint8_t)~HONEST;
	uint8_t how = next();
	struct fake_queue *q = how & 1 ? f.tx : f.rx;
	uint16_t i = next() % BUFFERS;
	uint64_t gpa = (how & 2 ? f.tx_gpa[i] : (uint64_t)next() << 20) + next();
	fake_desc(q, i, gpa, next_size(), next() & 7, next());
	fake_offer(q, how & 4 ? next() : i);
	kick(how & 1);
}

static void offer_buffers(void)
{
	for (uint16_t i = 0; i < BUFFERS; i++) {
		fake_desc(f.rx, i, f.rx_gpa[i], RX_ROOM, VRING_DESC_F_WRITE, 0);
		fake_offer(f.rx, i);
	}
}

/** (Re)start the driver: the device has forgotten everything. */
static void guest_restarts(void)
{
	uint8_t how = next();
	virtio_reset(f.driver.device);
	memset(f.driver.ram + f.rx->desc_gpa, 0, f.rings_end - f.rx->desc_gpa);
	f.nonsense = false;
	f.rx->avail_idx = f.rx->used_idx = f.tx->avail_idx = f.tx->used_idx = 0;
	memset(f.peers, 0, sizeof(f.peers));
	f.n_peers = 0;
	if (how & 1)
		return; /* it does not come back yet */
	fake_attach(&f.driver, vsock_device(f.vsock), 2,
		how & 2 ? VIRTIO_QUEUE_FEATURES & ~(1ULL << 29) : VIRTIO_QUEUE_FEATURES);
	if (!(how & 4))
		offer_buffers();
	kick(VSOCK_RX);
}

/* ---- the program ---- */

static void (*const actions[])(void) = {
	guest_sends,
	guest_sends_bytes,
	guest_connects,
	guest_takes,
	guest_answers,
	guest_sends_nonsense,
	dial,
	dial_again,
	cancel,
	host_writes,
	host_reads,
	host_shuts_down,
	host_closes,
	rounds,
	times_out,
	guest_restarts,
	/* what carries bytes, again: a program that does little else gets far */
	guest_sends_bytes,
	guest_answers,
	host_writes,
	guest_floods,
	stand_by,
	attach,
};

/** A host stream that is not open yet has not been read. */
static void check_untouched(const struct stream *stream)
{
	int fd = stream->token ? stream->fd : stream->given_back, unread = 0;
	if (fd < 0 || stream->tcp) /* TCP's bytes are on their way for a moment */
		return;
	must(ioctl(fd, FIONREAD, &unread) == 0 && unread == stream->written,
		"a host stream was read before the answer");
}

static void check(void)
{
	unsigned n = 0, active = 0;
	uint64_t metered = 0;
	size_t first = 0;
	for (struct list *l = f.vsock->all.next; l != &f.vsock->all; l = l->next, n++) {
		struct vsock_conn *conn = CONTAINER_OF(l, struct vsock_conn, all);
		must(conn->greeting <= 16 && conn->out.size <= conn->buf_alloc + conn->greeting,
			"more is kept than was announced");
		must(!conn->out.data || conn->out.size, "an idle connection holds a buffer");
		must(!(f.mode & HONEST) || conn->tx_cnt - conn->peer_fwd_cnt <= HONEST_CREDIT,
			"more in flight than credit");
		must(!(conn->pending || conn->readable) || !list_empty(&conn->ready) || conn->state == VSOCK_ORPHAN,
			"a connection with something to say is forgotten");
		must(conn->state != VSOCK_ASKING || conn->answer, "nobody hears the answer");
		active += conn->counted;
		first += conn->first.size;
	}
	must(n == f.vsock->n_conns, "connections are miscounted");
	must(first == f.vsock->first_bytes, "first bytes are miscounted");
	for (unsigned i = 0; i < STREAMS; i++) {
		check_untouched(&f.streams[i]);
		metered += f.streams[i].meter.active;
	}
	must(metered == active, "active connections are miscounted");
	must(f.vsock->n_resets <= VSOCK_RESETS, "too many resets");
	must(!f.vsock->tx.conn && !f.vsock->tx.n, "bytes of the guest are left in a batch");
}

/** What all programs share. */
static void set_up_once(void)
{
	socklen_t size = sizeof(f.address);
	if (f.driver.ram)
		return;
	fake_init(&f.driver);
	fake_queue(&f.driver, VSOCK_RX, BUFFERS);
	fake_queue(&f.driver, VSOCK_TX, BUFFERS);
	f.rx = &f.driver.queues[VSOCK_RX];
	f.tx = &f.driver.queues[VSOCK_TX];
	f.rings_end = f.driver.allocated;
	for (unsigned i = 0; i < BUFFERS; i++) {
		f.rx_gpa[i] = fake_alloc(&f.driver, RX_ROOM);
		f.tx_gpa[i] = fake_alloc(&f.driver, TX_ROOM);
	}
	/* An address of its own, so that no other program's ports run out. */
	f.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 0x70707)};
	f.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(bind(f.listener, (struct sockaddr *)&f.address, size) == 0 && listen(f.listener, 16) == 0 &&
			getsockname(f.listener, (struct sockaddr *)&f.address, &size) == 0,
		"no listener");
}

static void set_up(void)
{
	struct husk_error err;
	for (unsigned i = 0; i < STREAMS; i++)
		f.streams[i] = (struct stream){.end = -1, .given_back = -1};
	memset(f.standbys, 0, sizeof(f.standbys));
	memset(f.peers, 0, sizeof(f.peers));
	f.n_peers = f.depth = 0;
	f.next_port = 8000;
	must(loop_init(&f.loop, &err) == 0 &&
			vsock_create(&f.loop, VSOCK_CID_GUEST, accept_guest, NULL, &f.vsock, &err) == 0,
		"no muxer");
	f.vsock->hash_seed = 0;
	f.driver.device = vsock_device(f.vsock);
}

/** Let go of everything; what is left then has leaked. */
static void tear_down(void)
{
	f.left_off = f.at; /* callbacks choose zeroes from here on */
	for (unsigned i = 0; i < STREAMS; i++)
		if (f.streams[i].end >= 0)
			close(steal_fd(&f.streams[i].end));
	virtio_reset(f.driver.device); /* gives more back */
	for (unsigned i = 0; i < STREAMS; i++)
		if (f.streams[i].given_back >= 0)
			close(steal_fd(&f.streams[i].given_back));
	/* A TCP client that closed with its window full is found out by a probe of the kernel's, which takes a moment. */
	for (unsigned i = 0; i < 500 && f.vsock->n_conns; i++)
		loop_round(&f.loop, i < 20 ? 0 : 10, NULL);
	must(f.vsock->n_conns == 0, "connections that nobody has any more");
	check();
	vsock_destroy(f.vsock);
	loop_destroy(&f.loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	f.at = data;
	f.left_off = data + size;
	set_up_once();
	unsigned descriptors = count_descriptors();
	set_up();
	f.mode = next();
	if (!(f.mode & NO_DRIVER))
		guest_restarts();
	for (unsigned steps = 0; f.at < f.left_off && steps < 2000; steps++) {
		f.depth = 0;
		actions[next() % ARRAY_SIZE(actions)]();
		check();
	}
	tear_down();
	must(count_descriptors() == descriptors, "descriptors have leaked");
	return 0;
}
