/* SPDX-License-Identifier: Apache-2.0 */
/* handoff-test.c - routers that hand connections over: as they may, as they may not, and more than there is room for */
#include "tests/unit/doors_rig.h"

#include <sys/resource.h>

#define DOOR 3u
#define METER rig.stats.door[DOOR - 1]
#define MIB (1u << 20)

/** Where the descriptor rides, and how the message is cut. */
enum carrier { ON_ALL, ON_LENGTH, ON_PAYLOAD, ON_LENGTH_BYTES, ON_LAST_BYTE, CARRIERS };

static struct sockaddr_storage tcp_address;
static socklen_t tcp_size;
static int tcp_listener;

/** A TCP connection: the client's end, and in *@server the one that a router has accepted. */
static int tcp_pair(int *server)
{
	int client = rig_connect_to(&tcp_address, tcp_size);
	*server = accept4(tcp_listener, NULL, NULL, SOCK_CLOEXEC);
	return client;
}

/** Send @n bytes, turning the loop while the socket is full. */
static bool push(int router, const void *bytes, size_t n, const int *fds, size_t n_fds)
{
	size_t sent = 0;
	for (unsigned i = 0; sent < n && i < 1000; i++) {
		ssize_t done = fd_send(router, (const char *)bytes + sent, n - sent, fds, sent ? 0 : n_fds);
		if (done > 0)
			sent += (size_t)done;
		else if (done == -EAGAIN)
			fake_agent_turn(&rig.agent, 10);
		else
			break;
	}
	return sent == n;
}

/** One message with @fd. */
static bool hand_over(int router, int fd, const void *prefix, uint32_t n, enum carrier how)
{
	static uint8_t message[4 + MIB];
	uint32_t length = htobe32(n);
	bool ok = true;
	memcpy(message, &length, 4);
	memcpy(message + 4, prefix, n);
	switch (how) {
	case ON_ALL:
		return push(router, message, 4 + n, &fd, 1);
	case ON_LENGTH:
		return push(router, message, 4, &fd, 1) && push(router, message + 4, n, NULL, 0);
	case ON_PAYLOAD:
		return push(router, message, 4, NULL, 0) && push(router, message + 4, n, &fd, 1);
	case ON_LENGTH_BYTES:
		for (unsigned i = 0; i < 4 + n; i++) {
			ok = ok && push(router, message + i, 1, &fd, i == 2);
			rig_turn(1);
		}
		return ok;
	default:
		return push(router, message, 3 + n, NULL, 0) && push(router, message + 3 + n, 1, &fd, 1);
	}
}

static int router_connect(void)
{
	int fd = rig_connect(DOOR);
	fd_set_nonblocking(fd, true);
	return fd;
}

static void start(uint16_t port)
{
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_HANDOFF, 80);
	rig_ready(port);
}

static void test_carriers(void)
{
	static const char *const what[] = {"the descriptor rides on the whole message", "on the length",
		"on the payload", "on a byte of the length, byte by byte", "on the last byte"};
	start(80);
	int router = router_connect();
	for (enum carrier how = 0; how < CARRIERS; how++) {
		int server, client = tcp_pair(&server);
		CHECK(hand_over(router, server, "GET / ", 6, how), what[how]);
		close(server);
		send(client, "HTTP/1.1", 8, 0);
		CHECK(rig_reads(client, "GET / HTTP/1.1"), "and its prefix comes before its own bytes");
		close(client);
	}
	CHECK(rig_until(METER.active == 0) && METER.connections == CARRIERS && METER.refused == 0 && rig.n_lines == 0,
		"each is a connection");
	close(router);
	CHECK(rig_until(rig.doors->door[DOOR - 1]->n_visitors == 0) && rig.n_lines == 0,
		"an end between messages is silent");
	rig_stop();
}

static void test_options(void)
{
	int server, client, on = 0;
	socklen_t size = sizeof(on);
	start(80);
	int router = router_connect();
	client = tcp_pair(&server);
	struct linger linger = {.l_onoff = 1, .l_linger = 60};
	setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	hand_over(router, server, "x", 1, ON_ALL);
	CHECK(rig_reads(client, "x"), "a prefix may have one byte");
	socklen_t linger_size = sizeof(linger);
	getsockopt(server, SOL_SOCKET, SO_LINGER, &linger, &linger_size);
	CHECK(!linger.l_linger, "a router's wish to linger at the close, which would hold up all, is gone");
	getsockopt(server, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, &size);
	CHECK(on && (fcntl(server, F_GETFL) & O_NONBLOCK), "the connection is non-blocking, with TCP_NODELAY");
	getsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &on, &size);
	CHECK(on, "and with keepalive");
	close(server);
	close(client);
	close(router);
	rig_stop();
}

/** The flags of a descriptor are those of all its copies, and a router may have kept one. */
static void test_blocking(void)
{
	int server, client;
	start(80);
	rig.agent.answer = FAKE_NEVER;
	int router = router_connect();
	client = tcp_pair(&server);
	hand_over(router, server, "x", 1, ON_ALL);
	CHECK(rig_until(rig.agent.last), "the guest is asked");
	fd_set_nonblocking(server, false);
	alarm(20); /* kills a test that is stuck in a read */
	fake_agent_release(&rig.agent);
	CHECK(rig_reads(client, "x") && rig_echoes(client, "more"),
		"a router that makes its copy blocking stops nobody");
	alarm(0);
	close(server);
	close(client);
	close(router);
	rig_stop();
}

static void test_large_prefix(void)
{
	static uint8_t prefix[MIB];
	int server, client;
	for (unsigned i = 0; i < MIB; i++)
		prefix[i] = (uint8_t)(i * 7 + i / 251);
	start(80);
	rig.agent.echo = false;
	int router = router_connect();
	client = tcp_pair(&server);
	CHECK(hand_over(router, server, prefix, MIB, ON_PAYLOAD), "a prefix may have 1 MiB");
	close(server);
	send(client, "the rest", 8, 0);
	CHECK(rig_until(rig.agent.last && rig.agent.last->in.size == MIB + 8) &&
			!memcmp(buffer_bytes(&rig.agent.last->in), prefix, MIB) &&
			!memcmp(buffer_bytes(&rig.agent.last->in) + MIB, "the rest", 8),
		"it arrives whole, and before the client's bytes");
	CHECK(METER.bytes_in == MIB + 8 && rig.doors->prefix_bytes == 0, "and is counted");
	close(client);
	close(router);
	rig_stop();
}

static void test_many_on_one(void)
{
	unsigned good = 0;
	start(80);
	int router = router_connect();
	for (unsigned i = 0; i < 200; i++) {
		char prefix[32];
		int server, client = tcp_pair(&server);
		int n = snprintf(prefix, sizeof(prefix), "request %u", i);
		hand_over(router, server, prefix, (uint32_t)n, (enum carrier)(i % CARRIERS));
		close(server);
		good += rig_reads(client, prefix);
		close(client);
	}
	CHECK(good == 200, "200 hand-offs on one connection");
	int clients[40], server;
	for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
		clients[i] = tcp_pair(&server);
		hand_over(router, server, "burst", 5, (enum carrier)(i % 2));
		close(server);
	}
	good = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
		good += rig_reads(clients[i], "burst");
		close(clients[i]);
	}
	CHECK(good == ARRAY_SIZE(clients), "and 40 that stand in the socket at once");
	close(router);
	rig_stop();
}

static void test_waiting(void)
{
	int server, client;
	start(0);
	int router = router_connect();
	client = tcp_pair(&server);
	send(client, "body", 4, 0);
	hand_over(router, server, "head ", 5, ON_ALL);
	CHECK(rig_until(METER.waiting == 1) && rig.doors->prefix_bytes == 5, "a connection waits with its prefix");
	CHECK(rig_peek(server) == 4, "unread");
	close(server);
	close(router);
	rig_turn(3);
	rig_listening(80);
	CHECK(rig_reads(client, "head body"), "and passes when its port is listened on, its router gone or not");
	close(client);
	rig_stop();

	start(80);
	router = router_connect();
	rig.agent.answer = FAKE_ERROR;
	client = tcp_pair(&server);
	hand_over(router, server, "x", 1, ON_ALL);
	close(server);
	CHECK(rig_until(rig_closed(client)) && !rig_closed(router), "a guest that says no closes only the client");
	close(client);
	rig.agent.answer = FAKE_OK;
	client = tcp_pair(&server);
	hand_over(router, server, "again", 5, ON_ALL);
	close(server);
	CHECK(rig_reads(client, "again"), "the router goes on");
	close(client);
	struct linger reset = {.l_onoff = 1};
	client = tcp_pair(&server);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(client);
	hand_over(router, server, "gone", 4, ON_ALL);
	close(server);
	CHECK(rig_until(METER.refused == 2) && !rig_closed(router), "so it does when a client was reset before");
	close(router);
	rig_stop();
}

/** What breaks the rules. */
enum fault {
	LENGTH_ZERO,
	LENGTH_BEYOND,
	LENGTH_HUGE,
	NO_DESCRIPTOR,
	TWO_AT_ONCE,
	TWO_IN_TURN,
	A_FILE,
	A_UNIX_SOCKET,
	A_UDP_SOCKET,
	A_LISTENER,
	UNCONNECTED,
	CUT_IN_LENGTH,
	CUT_BEFORE_PAYLOAD,
	CUT_IN_PAYLOAD,
	NO_ROOM,
	FAULTS
};

static const struct {
	const char *what, *line;
} faults[FAULTS] = {
	[LENGTH_ZERO] = {"a length of zero", "a prefix of 0 bytes"},
	[LENGTH_BEYOND] = {"a length of 1 MiB and a byte", "a prefix of 1048577 bytes"},
	[LENGTH_HUGE] = {"a length of 4 GiB", "a prefix of 4294967295 bytes"},
	[NO_DESCRIPTOR] = {"a message without a descriptor", "without a descriptor"},
	[TWO_AT_ONCE] = {"two descriptors at once", "two descriptors"},
	[TWO_IN_TURN] = {"two descriptors in turn", "two descriptors"},
	[A_FILE] = {"a file", "no TCP connection"},
	[A_UNIX_SOCKET] = {"a unix socket", "no TCP connection"},
	[A_UDP_SOCKET] = {"a UDP socket", "no TCP connection"},
	[A_LISTENER] = {"a listening socket", "no TCP connection"},
	[UNCONNECTED] = {"a socket that was never connected", "no TCP connection"},
	[CUT_IN_LENGTH] = {"an end within the length", "ended within a message"},
	[CUT_BEFORE_PAYLOAD] = {"an end behind the length", "ended within a message"},
	[CUT_IN_PAYLOAD] = {"an end within the payload", "ended within a message"},
	[NO_ROOM] = {"a descriptor that there is no room for", "no room for"},
};

static void say_length(int router, uint32_t n, const int *fds, size_t n_fds)
{
	uint32_t length = htobe32(n);
	push(router, &length, sizeof(length), fds, n_fds);
}

/** Hand over something of another kind. */
static void hand_over_other(int router, enum fault fault)
{
	int fd = fault == A_FILE          ? open("/dev/null", O_RDWR | O_CLOEXEC)
		 : fault == A_UNIX_SOCKET ? rig_connect(DOOR)
		 : fault == A_UDP_SOCKET  ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
		 : fault == A_LISTENER    ? dup(tcp_listener)
					  : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	hand_over(router, fd, "x", 1, ON_ALL);
	close(fd);
}

static void commit(enum fault fault, int router, int server)
{
	int two[] = {server, server};
	struct rlimit limit, low;
	switch (fault) {
	case LENGTH_ZERO:
	case LENGTH_BEYOND:
	case LENGTH_HUGE:
		say_length(router,
			fault == LENGTH_ZERO     ? 0
			: fault == LENGTH_BEYOND ? MIB + 1
						 : UINT32_MAX,
			&server, 1);
		return;
	case NO_DESCRIPTOR:
		say_length(router, 1, NULL, 0);
		push(router, "x", 1, NULL, 0);
		return;
	case TWO_AT_ONCE:
		say_length(router, 1, two, 2);
		return;
	case TWO_IN_TURN:
		say_length(router, 1, two, 1);
		push(router, "x", 1, two, 1);
		return;
	case CUT_IN_LENGTH:
		push(router, "\0", 1, &server, 1);
		break;
	case CUT_BEFORE_PAYLOAD:
		say_length(router, 10, &server, 1);
		break;
	case CUT_IN_PAYLOAD:
		say_length(router, 10, NULL, 0);
		push(router, "x", 1, &server, 1);
		break;
	case NO_ROOM:
		say_length(router, 1, &server, 1);
		getrlimit(RLIMIT_NOFILE, &limit);
		low = limit;
		low.rlim_cur = (rlim_t)dup(0);
		close((int)low.rlim_cur);
		setrlimit(RLIMIT_NOFILE, &low);
		rig_until(rig.n_lines);
		setrlimit(RLIMIT_NOFILE, &limit);
		return;
	default:
		hand_over_other(router, fault);
		return;
	}
	shutdown(router, SHUT_WR);
}

static void test_faults(void)
{
	for (enum fault fault = 0; fault < FAULTS; fault++) {
		start(80);
		rig_turn(3);
		int server, client = tcp_pair(&server), router = router_connect(), other = router_connect();
		rig_until(rig.doors->door[DOOR - 1]->n_visitors == 2);
		unsigned before = count_descriptors();
		commit(fault, router, server);
		CHECK(rig_until(rig_closed(router)) && rig_said(faults[fault].line), faults[fault].what);
		rig_turn(3);
		CHECK(rig_until(count_descriptors() == before - 1), "closes the router's connection and what came");
		close(server);
		CHECK(rig_until(rig_closed(client)) && METER.connections == 0 && rig.agent.n_forwards == 0,
			"nothing reaches the guest");
		close(client);
		close(router);
		client = tcp_pair(&server);
		hand_over(other, server, "fine", 4, ON_ALL);
		close(server);
		CHECK(rig_reads(client, "fine"), "another router is not concerned");
		close(client);
		close(other);
		rig_stop();
	}
}

static void test_back_pressure(void)
{
	static uint8_t prefix[MIB];
	enum { N = (DOORS_PREFIX_MAX >> 20) + 6 };
	int clients[N], server;
	start(0);
	int router = router_connect();
	fcntl(router, F_SETFL, O_NONBLOCK);
	unsigned handed = 0;
	for (unsigned i = 0; i < N; i++) {
		clients[i] = tcp_pair(&server);
		if (i < DOORS_PREFIX_MAX >> 20)
			handed += hand_over(router, server, prefix, MIB, ON_ALL);
		else
			handed += hand_over(router, server, "late", 4, ON_ALL);
		close(server);
	}
	rig_turn(10);
	CHECK(handed == N && rig.doors->prefix_bytes == DOORS_PREFIX_MAX && METER.waiting == N - 6,
		"when the prefixes that wait fill the room, the router is not read");
	uint64_t begun = clock_monotonic_ns();
	fake_agent_turn(&rig.agent, 20);
	CHECK(clock_monotonic_ns() - begun > 15000000, "and does not make the loop spin");
	struct linger reset = {.l_onoff = 1};
	setsockopt(clients[0], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(clients[0]);
	CHECK(rig_until(METER.connections == N) && METER.refused == 1, "when one of them has gone, it is");
	clients[0] = tcp_pair(&server);
	hand_over(router, server, prefix, MIB, ON_ALL);
	close(server);
	rig_turn(3);
	clients[1] = (close(clients[1]), tcp_pair(&server));
	hand_over(router, server, "last", 4, ON_ALL);
	close(server);
	rig_turn(3);
	CHECK(METER.connections == N + 1, "until the room is full again");
	rig_listening(80);
	CHECK(rig_reads(clients[1], "last"), "when they have passed, it is");
	CHECK(rig_until(METER.waiting == 0 && rig.doors->prefix_bytes == 0) && METER.connections == N + 2,
		"and all have reached the guest");
	for (unsigned i = 0; i < N; i++)
		close(clients[i]);
	rig_until(METER.active == 0);
	close(router);
	rig_stop();
}

static void test_limits(void)
{
	int routers[65], server, client;
	start(80);
	for (unsigned i = 0; i < ARRAY_SIZE(routers); i++)
		routers[i] = router_connect();
	CHECK(rig_until(rig_closed(routers[64])) && rig_said("a router was refused"), "64 routers are the most");
	say_length(routers[0], 1, NULL, 0); /* a message under way */
	client = tcp_pair(&server);
	say_length(routers[1], 1, &server, 1);
	close(server);
	rig_turn(3);
	doors_remove(rig.doors, DOOR, NULL);
	CHECK(rig_closed(routers[0]) && rig_closed(routers[63]) && rig_closed(client),
		"a closed door closes its routers and what came over them");
	close(client);
	for (unsigned i = 0; i < ARRAY_SIZE(routers); i++)
		close(routers[i]);
	rig_stop();
}

int main(void)
{
	tcp_listener = rig_listen(AF_INET, &tcp_address, &tcp_size);
	unsigned before = count_descriptors();
	test_carriers();
	test_options();
	test_blocking();
	test_large_prefix();
	test_many_on_one();
	test_waiting();
	test_faults();
	test_back_pressure();
	test_limits();
	CHECK(count_descriptors() == before, "no descriptor is left");
	close(tcp_listener);
	return tap_done();
}
