/* SPDX-License-Identifier: Apache-2.0 */
/* vsock-dial-test.c - connects of the host: first bytes, the guest's answer, cancel, resets, counters */
#include "tests/unit/fake_vsock.h"

#include "base/fd.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

/** What one dial was told. */
struct told {
	int error; /* 1: nothing */
	unsigned calls, answers;
	char line[64]; /* of the guest's answer */
	size_t n;
};

static void connected(void *data, int error)
{
	struct told *told = data;
	told->error = error;
	told->calls++;
}

/** The answer is a line: "Y…" opens and sends "after " first, "N…" gives the host stream back. */
static enum vsock_verdict answer(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first)
{
	struct told *told = data;
	const char *end = memchr(bytes, '\n', n);
	size_t take = end ? (size_t)(end - (const char *)bytes) + 1 : n;
	told->answers++;
	if (told->n + take > sizeof(told->line))
		return VSOCK_GIVE_BACK;
	memcpy(told->line + told->n, bytes, take);
	told->n += take;
	*used = take;
	if (!end)
		return VSOCK_MORE;
	if (told->line[0] != 'Y')
		return VSOCK_GIVE_BACK;
	buffer_append(first, "after ", 6);
	return VSOCK_OPEN;
}

static bool fd_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static bool unix_pair(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0;
}

/** A TCP connection over loopback; pair[0] non-blocking. */
static bool tcp_pair(int pair[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	CLEANUP_FD int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pair[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1) < 0 ||
		getsockname(listener, (struct sockaddr *)&address, &size) < 0 ||
		connect(pair[1], (struct sockaddr *)&address, size) < 0)
		return false;
	pair[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	return pair[0] >= 0;
}

/** Dial over pair[0], and take the guest's REQUEST. */
static bool dial(int fd, struct vsock_dial *how, const char *first, struct told *told, struct vsock_conn **token,
	struct virtio_vsock_hdr *h)
{
	struct buffer bytes = {0};
	*told = (struct told){.error = 1};
	buffer_append(&bytes, first, strlen(first));
	how->port = 80;
	how->first = &bytes;
	how->connected = connected;
	how->data = told;
	return vsock_dial(guest.vsock, fd, how, token, NULL) == 0 && !bytes.data &&
	       guest_expect(VIRTIO_VSOCK_OP_REQUEST, h);
}

/** The next packet is payload @want. */
static bool guest_gets(const char *want)
{
	struct virtio_vsock_hdr h;
	char bytes[RX_BUFFER];
	return guest_get(&h, bytes) && h.op == VIRTIO_VSOCK_OP_RW && h.len == strlen(want) &&
	       !memcmp(bytes, want, h.len);
}

static bool host_gets(int fd, const char *want)
{
	char bytes[256];
	ssize_t n = read(fd, bytes, sizeof(bytes));
	return n == (ssize_t)strlen(want) && !memcmp(bytes, want, (size_t)n);
}

static void say(const struct virtio_vsock_hdr *h, const char *text)
{
	guest_answer(h, VIRTIO_VSOCK_OP_RW, 0, text, (uint32_t)strlen(text));
}

static void test_open(void)
{
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct told told;
	int pair[2];
	guest_start(RX_SIZE);
	unix_pair(pair);
	CHECK(write(pair[1], "stream", 6) == 6 && dial(pair[0], &how, "first ", &told, NULL, &h),
		"a dial asks the guest");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	CHECK(told.error == 0 && told.calls == 1 && guest_gets("first "),
		"its first bytes go once the guest has accepted");
	guest_rounds(2);
	CHECK(guest_quiet(), "the host stream waits for the answer");
	say(&h, "Ye");
	CHECK(told.answers == 1 && guest_quiet(), "which comes in pieces");
	say(&h, "s\nhello");
	CHECK(told.answers == 2 && told.n == 4 && host_gets(pair[1], "hello"),
		"what is behind it is the host stream's");
	CHECK(guest_gets("after ") && guest_gets("stream"), "then more first bytes and the host stream flow");
	guest_answer(&h, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, &h) && h.fwd_cnt == 9, "credit is given for the answer, too");
	say(&h, "bye");
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	CHECK(host_gets(pair[1], "bye") && read(pair[1], &h, 1) == 0, "a close of the guest is an end of file");
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && guest.vsock->n_conns == 0 && told.calls == 1,
		"and it is over");
	close(pair[1]);
	guest_stop();
}

static void test_credit_of_first(void)
{
	static char big[(1 << 20) + 100], got[RX_BUFFER];
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h, packet;
	struct told told;
	int pair[2];
	size_t total = 0;
	guest_start(RX_SIZE);
	guest.buf_alloc = 65536;
	for (size_t i = 0; i < sizeof(big) - 1; i++)
		big[i] = (char)('a' + i % 23);
	unix_pair(pair);
	CHECK(dial(pair[0], &how, big, &told, NULL, &h), "a dial with more than 1 MiB of first bytes");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	bool same = true;
	uint32_t largest = 0;
	for (int i = 0; i < 1000 && total < sizeof(big) - 1; i++) {
		while (guest_get(&packet, got)) {
			same = same && (packet.op != VIRTIO_VSOCK_OP_RW || !memcmp(got, big + total, packet.len));
			total += packet.op == VIRTIO_VSOCK_OP_RW ? packet.len : 0;
			guest_rounds(1);
		}
		uint32_t in_flight = (uint32_t)total - guest.fwd_cnt;
		largest = in_flight > largest ? in_flight : largest;
		guest.fwd_cnt = (uint32_t)total;
		guest_answer(&h, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	}
	CHECK(total == sizeof(big) - 1 && same, "they arrive as the guest makes room");
	CHECK(largest <= 65536, "never more than it has");
	struct vsock_conn *conn = vsock_conn_find(guest.vsock, h.src_port, 80);
	CHECK(conn && !conn->first.data, "and are freed when sent");
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(told.calls == 2 && told.error == -ECONNRESET && read(pair[1], got, 1) == 0,
		"a reset before the answer is told and closes the host stream");
	close(pair[1]);
	guest_stop();
}

static void test_give_back(void)
{
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct told told;
	struct door_meter meter = {0};
	int pair[2];
	how.meter = &meter;
	guest_start(RX_SIZE);
	unix_pair(pair);
	CHECK(write(pair[1], "stream", 6) == 6 && dial(pair[0], &how, "first", &told, NULL, &h), "a dial");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_count(0);
	say(&h, "No\nrest");
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && guest.vsock->n_conns == 0 && told.calls == 1,
		"given back: the guest gets a reset, nobody an error");
	CHECK(host_gets(pair[0], "stream") && read(pair[1], &h, 1) < 0 && errno == EAGAIN,
		"the host stream is untouched");
	CHECK(!meter.active && !meter.bytes_in && !meter.bytes_out, "and was never counted");
	CHECK(write(pair[1], "again", 5) == 5 && dial(pair[0], &how, "first", &told, NULL, &h),
		"it may be dialled again");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	say(&h, "Y\n");
	CHECK(guest_gets("first") && guest_gets("after ") && guest_gets("again"), "and opened");
	CHECK(meter.active == 1, "then it counts");
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(meter.active == 0, "until it ends");
	close(pair[1]);
	guest_stop();
}

static void test_end_before_answer(void)
{
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct vsock_conn *token;
	struct told told;
	int pair[2];
	guest_start(RX_SIZE);
	unix_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	close(pair[1]);
	guest_rounds(1);
	CHECK(told.error == -EPIPE && told.calls == 1 && guest_expect(VIRTIO_VSOCK_OP_RST, NULL) &&
			!guest.vsock->n_conns,
		"a client that goes away while the guest is asked ends the dial");
	unix_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	CHECK(write(pair[1], "last words", 10) == 10, "one that says something,");
	close(pair[1]);
	guest_rounds(2);
	CHECK(told.calls == 0 && guest_quiet() && guest.vsock->n_conns == 1, "and then closes, does not");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	say(&h, "Y\n");
	CHECK(guest_gets("after ") && guest_gets("last words"), "its words arrive");
	guest_rounds(1);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, &h) && h.flags == VIRTIO_VSOCK_SHUTDOWN_SEND, "and its end");
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && !guest.vsock->n_conns, "all of it");

	tcp_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	CHECK(write(pair[1], "request", 7) == 7 && shutdown(pair[1], SHUT_WR) == 0,
		"a TCP client asks and half-closes");
	guest_rounds(2);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_rounds(2);
	say(&h, "Y\nreply");
	CHECK(told.calls == 1 && guest_gets("after ") && guest_gets("request") && host_gets(pair[1], "reply"),
		"it is not dropped for that");
	close(pair[1]);
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	guest_count(0);

	tcp_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	struct linger linger = {.l_onoff = 1};
	setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	CHECK(write(pair[1], "request", 7) == 7 && close(pair[1]) == 0, "one that resets");
	guest_rounds(1);
	CHECK(told.calls == 2 && told.error == -EPIPE && guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "is");

	unix_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 2, NULL, 0);
	CHECK(told.calls == 2 && told.error == -ECONNRESET && read(pair[1], &h, 1) == 0,
		"a guest that closes unasked is an error");
	guest_count(0);
	close(pair[1]);

	unix_pair(pair);
	dial(pair[0], &how, "first", &told, &token, &h);
	vsock_cancel(token);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && read(pair[1], &h, 1) == 0 && !told.calls &&
			!guest.vsock->n_conns,
		"a dial is given up before the guest has accepted");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "whose answer comes too late");
	close(pair[1]);
	unix_pair(pair);
	dial(pair[0], &how, "first", &told, &token, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	vsock_cancel(token);
	CHECK(guest_gets("first") && guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && read(pair[1], &h, 1) == 0 &&
			told.calls == 1,
		"and after that");
	CHECK(!guest.vsock->n_conns, "nothing is left");
	close(pair[1]);
	guest_stop();
}

/** Whatever comes while an answer is awaited: the dial goes on, or ends with one error. */
static void test_every_packet_while_asking(void)
{
	static char big[65536];
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct told told;
	int pair[2];
	bool told_once = true;
	guest_start(RX_SIZE);
	for (uint16_t op = 0; op < 12; op++) {
		unix_pair(pair);
		dial(pair[0], &how, "first", &told, NULL, &h);
		guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
		guest_answer(&h, op, 3, NULL, 0);
		guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
		guest_count(0);
		told_once = told_once && told.calls == 2 && told.error == -ECONNRESET && read(pair[1], &h, 1) == 0;
		close(pair[1]);
	}
	CHECK(told_once && !guest.vsock->n_conns && !guest.driver.needs_reset,
		"every operation on a connection that is asked");
	unix_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	struct virtio_vsock_hdr lie = guest_make(VIRTIO_VSOCK_OP_RW, 80, h.src_port, 65536);
	guest_put_raw(&lie, "short", 5);
	CHECK(told.calls == 2 && told.error == -ECONNRESET && guest_count(VIRTIO_VSOCK_OP_RST) == 1,
		"a length that lies");
	close(pair[1]);
	unix_pair(pair);
	dial(pair[0], &how, "", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_answer(&h, VIRTIO_VSOCK_OP_RW, 0, big, sizeof(big));
	CHECK(told.calls == 1 && told.n <= sizeof(told.line) && guest_count(VIRTIO_VSOCK_OP_RST) == 1,
		"an answer that the callback has had enough of");
	CHECK(close(pair[0]) == 0 && read(pair[1], &h, 1) == 0, "is the caller's to end");
	close(pair[1]);
	guest_stop();
}

/** An open connection over @pair[0]; its packets are answers to @h. */
static void opened(int pair[2], struct vsock_dial *how, struct virtio_vsock_hdr *h)
{
	static struct told told;
	dial(pair[0], how, "", &told, NULL, h);
	guest_answer(h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_count(0);
}

/** The test's end of a TCP stream got a reset. */
static bool was_reset(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
	return n < 0 && errno == ECONNRESET;
}

static void test_resets(void)
{
	struct vsock_dial how = {0};
	struct virtio_vsock_hdr h, other;
	struct linger linger = {.l_onoff = 1};
	char bytes[16];
	int pair[2];
	guest_start(RX_SIZE);
	tcp_pair(pair);
	opened(pair, &how, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(was_reset(pair[1]) && guest_quiet(), "a reset of the guest resets the client");
	close(pair[1]);
	tcp_pair(pair);
	opened(pair, &how, &h);
	say(&h, "all of it");
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 2, NULL, 0);
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(host_gets(pair[1], "all of it") && read(pair[1], bytes, 1) == 0,
		"one after the end of its bytes loses none");
	close(pair[1]);
	tcp_pair(pair);
	opened(pair, &how, &h);
	say(&h, "bytes");
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	CHECK(host_gets(pair[1], "bytes") && read(pair[1], bytes, 1) == 0 && guest_expect(VIRTIO_VSOCK_OP_RST, NULL),
		"a close of the guest is an orderly end");
	close(pair[1]);
	how.close_is_reset = true;
	tcp_pair(pair);
	opened(pair, &how, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	CHECK(was_reset(pair[1]) && guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "or a reset, where that was agreed");
	close(pair[1]);
	tcp_pair(pair);
	opened(pair, &how, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 2, NULL, 0);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	CHECK(read(pair[1], bytes, 1) == 0 && guest_expect(VIRTIO_VSOCK_OP_RST, NULL),
		"but not after an end of its sending");
	close(pair[1]);

	tcp_pair(pair);
	opened(pair, &how, &h);
	CHECK(write(pair[1], "before", 6) == 6, "bytes,");
	setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(pair[1]);
	guest_rounds(2);
	bool rcv = false, rst = false, read_first = false;
	while (guest_get(&other, bytes)) {
		read_first |= other.op == VIRTIO_VSOCK_OP_RW && other.len == 6 && !rst;
		rcv |= other.op == VIRTIO_VSOCK_OP_SHUTDOWN && other.flags == VIRTIO_VSOCK_SHUTDOWN_RCV;
		rst |= other.op == VIRTIO_VSOCK_OP_RST;
	}
	CHECK(read_first && rst && !guest.vsock->n_conns,
		"then a reset of the client: both reach the guest, in this order");
	guest.buf_alloc = 0;
	tcp_pair(pair);
	opened(pair, &how, &h);
	CHECK(write(pair[1], "before", 6) == 6, "a guest without room");
	guest_rounds(1);
	setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(pair[1]);
	guest_rounds(2);
	rst = false;
	while (guest_get(&other, NULL)) {
		rcv |= other.op == VIRTIO_VSOCK_OP_SHUTDOWN && other.flags == VIRTIO_VSOCK_SHUTDOWN_RCV;
		rst |= other.op == VIRTIO_VSOCK_OP_RST;
	}
	CHECK(rcv && !rst, "hears at once that the client takes no more");
	guest.buf_alloc = 1 << 20;
	guest_answer(&h, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	CHECK(guest_gets("before"), "and gets what came before");
	guest_rounds(1);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && !guest.vsock->n_conns, "and then the reset");
	guest_stop();
}

static void count(void *data)
{
	++*(unsigned *)data;
}

/** Have the guest send until the kernel takes no more of it; how many bytes. */
static size_t flood(const struct virtio_vsock_hdr *h)
{
	static const char bytes[16384];
	size_t n = 0;
	for (; n < 8u << 20; n += sizeof(bytes)) {
		const struct vsock_conn *conn = vsock_conn_find(guest.vsock, h->src_port, h->dst_port);
		if (conn->out.size)
			break;
		guest_answer(h, VIRTIO_VSOCK_OP_RW, 0, bytes, sizeof(bytes));
		guest_count(0);
	}
	return n;
}

/** What comes until the end of the stream (*@reset: by a reset), the muxer being served meanwhile. */
static size_t take_all(int fd, bool *reset)
{
	static char bytes[65536];
	size_t total = 0;
	for (unsigned i = 0; i < 10000; i++) {
		ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			*reset = n < 0;
			return total;
		}
		total += n > 0 ? (size_t)n : 0;
		if (n < 0)
			guest_rounds(1);
	}
	return 0;
}

static void test_drained(void)
{
	struct vsock_dial how = {.close_is_reset = true}, other = {0};
	struct virtio_vsock_hdr h, second;
	uint64_t before, after;
	unsigned calls = 0;
	bool reset;
	int pair[2], more[2];
	guest_start(RX_SIZE);
	vsock_on_drained(guest.vsock, count, &calls);
	tcp_pair(more);
	opened(more, &other, &second);
	CHECK(!vsock_undrained(guest.vsock, NULL), "a stream whose close is an end owes nobody anything");
	tcp_pair(pair);
	dial(pair[0], &how, "", &(struct told){0}, NULL, &h);
	CHECK(!vsock_undrained(guest.vsock, NULL), "nor does one that is not open yet");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	CHECK(vsock_undrained(guest.vsock, &before) == 1, "an open one does");
	size_t sent = flood(&h);
	vsock_undrained(guest.vsock, &after);
	CHECK(sent && after > before, "bytes that are written are progress");
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 2, NULL, 0);
	guest_rounds(2);
	CHECK(vsock_undrained(guest.vsock, NULL) == 1 && !calls, "the guest's end alone is not enough");
	virtio_reset(vsock_device(guest.vsock));
	CHECK(vsock_undrained(guest.vsock, NULL) == 1, "nor is the guest's death behind it");
	CHECK(take_all(pair[1], &reset) == sent && !reset, "the client gets all of it, and an end");
	CHECK(!vsock_undrained(guest.vsock, NULL) && calls == 1, "which drains it");
	close(pair[1]);
	close(more[1]);
	guest_stop();
}

static void test_undrained(void)
{
	struct vsock_dial how = {.close_is_reset = true};
	struct virtio_vsock_hdr h;
	unsigned calls = 0;
	bool reset;
	int pair[2];
	for (int i = 0; i < 2; i++) { /* with bytes that wait, and without */
		guest_start(RX_SIZE);
		tcp_pair(pair);
		opened(pair, &how, &h);
		say(&h, "a part");
		if (i == 0)
			flood(&h);
		virtio_reset(vsock_device(guest.vsock));
		size_t got = take_all(pair[1], &reset);
		CHECK(got >= 6 && reset, "a guest that dies in mid-answer: what it said, and a reset");
		CHECK(!guest.vsock->n_conns && !vsock_undrained(guest.vsock, NULL), "and nothing is left");
		close(pair[1]);
		guest_stop();
	}
	guest_start(RX_SIZE);
	vsock_on_drained(guest.vsock, count, &calls);
	tcp_pair(pair);
	opened(pair, &how, &h);
	close(pair[1]);
	guest_rounds(1);
	CHECK(vsock_undrained(guest.vsock, NULL) == 1, "a client that has only ended its sending may still read");
	say(&h, "anybody?");
	say(&h, "anybody?");
	guest_rounds(2);
	CHECK(!vsock_undrained(guest.vsock, NULL) && calls == 1, "one that is gone drains its connection");
	guest_count(0);
	tcp_pair(pair);
	opened(pair, &how, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(was_reset(pair[1]) && calls == 2, "so does the guest's reset");
	close(pair[1]);
	tcp_pair(pair);
	opened(pair, &how, &h);
	vsock_on_drained(guest.vsock, NULL, NULL);
	guest_stop();
	CHECK(was_reset(pair[1]), "the muxer's own end is a reset");
	close(pair[1]);
}

/** As husk-tls does it: bytes, then an end, or a close without one. */
static void test_hang_up(void)
{
	struct vsock_dial how = {.hang_up_is_reset = true};
	struct virtio_vsock_hdr h, got;
	int pair[2];
	guest_start(RX_SIZE);
	unix_pair(pair);
	opened(pair, &how, &h);
	CHECK(write(pair[1], "a part", 6) == 6 && close(pair[1]) == 0, "bytes, then a close");
	guest_rounds(3);
	CHECK(guest_gets("a part"), "reach the guest as bytes");
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && guest_quiet() && !guest.vsock->n_conns, "and a reset");
	guest.buf_alloc = 0;
	unix_pair(pair);
	opened(pair, &how, &h);
	CHECK(write(pair[1], "a part", 6) == 6 && close(pair[1]) == 0, "to a guest without room");
	guest_rounds(3);
	CHECK(guest_quiet(), "they wait");
	guest.buf_alloc = 1 << 20;
	guest_answer(&h, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	guest_rounds(2);
	CHECK(guest_gets("a part") && guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "and are not overtaken");
	unix_pair(pair);
	opened(pair, &how, &h);
	CHECK(write(pair[1], "all", 3) == 3 && shutdown(pair[1], SHUT_WR) == 0, "with an end before the close");
	guest_rounds(3);
	CHECK(guest_gets("all") && guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, &got) && got.flags == 2, "it is an end");
	close(pair[1]);
	guest_rounds(1);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 2, NULL, 0);
	guest_rounds(2);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && !guest.vsock->n_conns, "until both have ended");
	unix_pair(pair);
	opened(pair, &how, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 2, NULL, 0);
	guest_rounds(1);
	close(pair[1]);
	guest_rounds(3);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, &got) && got.flags == 2, "behind the guest's end it is one, too");
	guest_stop();
}

static void test_meter(void)
{
	struct door_meter meter = {0};
	struct vsock_dial how = {.answer = answer, .hybrid = true, .meter = &meter, .begun_ns = clock_monotonic_ns()};
	struct virtio_vsock_hdr h;
	struct told told;
	char bytes[64];
	int pair[2];
	guest_start(RX_SIZE);
	unix_pair(pair);
	dial(pair[0], &how, "not counted", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	CHECK(meter.active == 0, "asked is not active");
	say(&h, "Y\n");
	CHECK(meter.active == 1 && meter.stage[DOOR_FIRST_BYTE].count == 0, "opened is");
	CHECK(write(pair[1], "12345", 5) == 5, "the host writes");
	guest_rounds(1);
	say(&h, "123");
	say(&h, "4567");
	CHECK(read(pair[1], bytes, sizeof(bytes)) > 7, "the guest, too");
	CHECK(meter.bytes_in == 6 + 5 && meter.bytes_out == 7, "bytes are counted without greeting and answer");
	CHECK(meter.stage[DOOR_FIRST_BYTE].count == 1 && meter.stage[DOOR_FIRST_BYTE].sum_ns > 0, "one first byte");
	CHECK(meter.stage[DOOR_READ].count == 1 && meter.stage[DOOR_WRITE].count == 3, "reads and writes");
	close(pair[1]);
	guest_rounds(1);
	say(&h, "nobody");
	guest_rounds(1);
	CHECK(meter.active == 0 && meter.bytes_out == 7, "what nobody takes is not counted, and it ends");
	guest_stop();
}

static void test_without_driver(void)
{
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct vsock_conn *token;
	struct told told, other;
	int pair[2], second[2];
	guest_start_without_driver();
	unix_pair(pair);
	unix_pair(second);
	dial(pair[0], &how, "first", &told, NULL, &h);
	dial(second[0], &how, "first", &other, &token, &h);
	vsock_cancel(token);
	CHECK(!told.calls && guest.vsock->n_conns == 1 && read(second[1], &h, 1) == 0,
		"a dial before the driver is up waits");
	guest_attach(RX_SIZE);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_REQUEST, &h) && guest_quiet(),
		"and is sent when it is, the cancelled one is not");
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	CHECK(told.calls == 1 && guest_gets("first"), "it goes on");
	virtio_reset(vsock_device(guest.vsock));
	CHECK(told.calls == 2 && told.error == -ECONNRESET && !guest.vsock->n_conns, "a reset of the device ends it");
	unix_pair(pair);
	close(second[1]);
	dial(pair[0], &how, "first", &told, NULL, &h);
	CONTAINER_OF(guest.vsock->connecting.next, struct vsock_conn, connecting)->deadline_ns = 0;
	guest.vsock->timer.fn(&guest.vsock->timer, EPOLLIN);
	CHECK(told.calls == 1 && told.error == -ETIMEDOUT && !guest.vsock->n_conns,
		"a guest that never comes up: timed out");
	close(pair[1]);
	guest_stop();
}

/** What is said on a standby is noted. */
static enum vsock_verdict note(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first)
{
	struct told *told = data;
	told->answers++;
	if (told->n + n <= sizeof(told->line))
		memcpy(told->line + told->n, bytes, n);
	told->n += n;
	return VSOCK_MORE;
}

/** A standby that the guest has accepted. */
static struct vsock_conn *stand_by(struct told *told, struct virtio_vsock_hdr *h)
{
	struct vsock_dial how = {.answer = note};
	struct vsock_conn *token = NULL;
	if (!dial(-1, &how, "HELLO", told, &token, h))
		return NULL;
	guest_answer(h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	return told->error == 0 && guest_gets("HELLO") ? token : NULL;
}

/** Attach pair[0] to it, which brings "ask ". */
static int attach(struct vsock_conn *token, int fd, struct told *told)
{
	struct buffer bytes = {0};
	*told = (struct told){.error = 1};
	buffer_append(&bytes, "ask ", 4);
	const struct vsock_dial how = {.first = &bytes, .answer = answer, .connected = connected, .data = told};
	int rc = vsock_attach(token, fd, &how, NULL);
	return bytes.data ? -EBADF : rc;
}

static void test_standby(void)
{
	const struct vsock_dial without = {.port = 80};
	struct virtio_vsock_hdr h;
	struct told told, other;
	int pair[2];
	guest_start(RX_SIZE);
	unix_pair(pair);
	CHECK(vsock_dial(guest.vsock, -1, &without, NULL, NULL) == -EINVAL, "without a stream an answer is needed");
	struct vsock_conn *token = stand_by(&told, &h);
	CHECK(token != NULL, "a dial without a host stream is made");
	say(&h, "HI");
	guest_rounds(2);
	CHECK(told.answers == 1 && !memcmp(told.line, "HI", 2) && guest_quiet(),
		"the guest may speak, and it stands by");
	CHECK(write(pair[1], "stream", 6) == 6 && attach(token, pair[0], &other) == 0 && guest_gets("ask "),
		"a host stream is attached: its first bytes go at once");
	guest_rounds(2);
	CHECK(guest_quiet() && other.calls == 0, "and it waits for the answer");
	say(&h, "Yes\nhello");
	CHECK(other.answers == 1 && told.answers == 1 && host_gets(pair[1], "hello"), "which is its own");
	CHECK(guest_gets("after ") && guest_gets("stream"), "then bytes flow");
	guest_answer(&h, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, NULL, 0);
	CHECK(guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, &h) && h.fwd_cnt == 11, "credit is given for all");
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(read(pair[1], &h, 1) == 0 && guest.vsock->n_conns == 0 && other.calls == 0 && told.calls == 1,
		"and end as ever");
	close(pair[1]);
	guest_stop();
}

static void test_standby_ends(void)
{
	struct vsock_dial how = {.answer = note}, opens = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct vsock_conn *token;
	struct told told, other;
	guest_start(RX_SIZE);
	dial(-1, &how, "HELLO", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(told.calls == 1 && told.error == -ECONNREFUSED && !guest.vsock->n_conns, "the guest may refuse it");
	stand_by(&told, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(told.calls == 2 && told.error == -ECONNRESET && !guest.vsock->n_conns, "or reset it");
	stand_by(&told, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	CHECK(told.calls == 2 && told.error == -ECONNRESET && guest_expect(VIRTIO_VSOCK_OP_RST, NULL) &&
			!guest.vsock->n_conns,
		"or close it");
	dial(-1, &opens, "HELLO", &told, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_gets("HELLO");
	say(&h, "Yes\n and more");
	CHECK(guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && !guest.vsock->n_conns && !guest.vsock->first_bytes,
		"there is nothing that it could open");
	token = stand_by(&told, &h);
	vsock_cancel(token);
	CHECK(told.calls == 1 && guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && !guest.vsock->n_conns, "it is cancelled");
	stand_by(&told, &h);
	dial(-1, &how, "HELLO", &other, NULL, &h);
	virtio_reset(vsock_device(guest.vsock));
	CHECK(told.error == -ECONNRESET && other.error == -ECONNRESET && !guest.vsock->n_conns,
		"a reset of the device ends all");
	guest_stop();
	guest_start(RX_SIZE);
	stand_by(&told, &h);
	dial(-1, &how, "HELLO", &other, NULL, &h);
	guest_stop();
	CHECK(told.calls == 1 && other.calls == 0, "so does its end, silently");
}

static void test_attached_ends(void)
{
	struct vsock_dial how = {.answer = answer};
	struct virtio_vsock_hdr h;
	struct vsock_conn *token;
	struct told told, other;
	char bytes[16];
	int pair[2];
	guest_start(RX_SIZE);
	unix_pair(pair);
	(void)!write(pair[1], "stream", 6);
	attach(stand_by(&told, &h), pair[0], &other);
	guest_gets("ask ");
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(other.calls == 1 && other.error == -ECONNRESET && told.calls == 1 && !guest.vsock->n_conns &&
			fd_is_open(pair[0]),
		"a standby that dies gives the host stream back");
	attach(stand_by(&told, &h), pair[0], &other);
	guest_gets("ask ");
	virtio_reset(vsock_device(guest.vsock));
	CHECK(other.calls == 1 && other.error == -ECONNRESET && fd_is_open(pair[0]), "also with the device");
	guest_stop();
	guest_start(RX_SIZE);
	attach(stand_by(&told, &h), pair[0], &other);
	guest_gets("ask ");
	say(&h, "No\n");
	CHECK(other.calls == 0 && guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && fd_is_open(pair[0]), "so does a no");
	dial(pair[0], &how, "", &other, NULL, &h);
	guest_answer(&h, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	say(&h, "Yes\n");
	CHECK(guest_gets("after ") && guest_gets("stream"), "it may be dialled again, nothing is lost");
	guest_answer(&h, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(read(pair[1], bytes, 1) == 0, "(over)");
	close(pair[1]);
	unix_pair(pair);
	attach(stand_by(&told, &h), pair[0], &other);
	guest_gets("ask ");
	close(pair[1]);
	guest_rounds(2);
	CHECK(other.calls == 1 && other.error == -EPIPE && !fd_is_open(pair[0]) &&
			guest_expect(VIRTIO_VSOCK_OP_RST, NULL),
		"a client that goes away ends it");
	unix_pair(pair);
	token = stand_by(&told, &h);
	attach(token, pair[0], &other);
	guest_gets("ask ");
	vsock_cancel(token);
	CHECK(other.calls == 0 && !fd_is_open(pair[0]) && guest_expect(VIRTIO_VSOCK_OP_RST, NULL), "as does a cancel");
	close(pair[1]);
	unix_pair(pair);
	token = stand_by(&told, &h);
	guest.vsock->first_bytes += VSOCK_FIRST_MAX;
	CHECK(attach(token, pair[0], &other) == -ENOBUFS && !fd_is_open(pair[0]) && told.calls == 1 &&
			guest_expect(VIRTIO_VSOCK_OP_RST, NULL) && !guest.vsock->n_conns,
		"an attach that fails ends both");
	guest.vsock->first_bytes -= VSOCK_FIRST_MAX;
	close(pair[1]);
	unix_pair(pair);
	attach(stand_by(&told, &h), pair[0], &other);
	guest_stop();
	CHECK(other.calls == 0 && read(pair[1], bytes, 1) == 0, "and so does the device's end");
	close(pair[1]);
}

int main(void)
{
	test_open();
	test_credit_of_first();
	test_give_back();
	test_end_before_answer();
	test_every_packet_while_asking();
	test_resets();
	test_drained();
	test_undrained();
	test_hang_up();
	test_meter();
	test_without_driver();
	test_standby();
	test_standby_ends();
	test_attached_ends();
	return tap_done();
}
