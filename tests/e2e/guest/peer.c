/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer.c - the other end of a connection, for tests and benches; static, the same program in the guest and on the host
 *
 *   peer serve SPEC...    tcp:PORT and local:PORT (127.0.0.1 only), six:PORT (::1 only) speak commands, echo:PORT and vsock:PORT
 *                         send back all that comes.
 *                         Prints "serving" and runs for ever.
 *   peer get WHERE BYTES  connect, ask for BYTES, read them; prints the seconds from the first byte to the last
 *   peer put WHERE BYTES  connect, send BYTES, wait until they were counted; prints the seconds this took
 *   peer ping WHERE N MS  N times connect, one byte there and back, close, MS milliseconds of rest, in which the other end
 *                         can end it as well; prints N lines of microseconds
 *   peer relisten PORT MS listen on PORT, print "up", close after MS milliseconds, print "down", again and again
 *
 * WHERE is PORT (of 127.0.0.1), a path of a unix socket, vsock:CID:PORT, hybrid:PATH:PORT (CONNECT PORT, OK), or
 * agent:PATH:PORT (an exec door, and FORWARD to the port).
 *
 * A command is a line that the client sends first:
 *   echo        send back what comes, half-close when it does
 *   source N    send N bytes, byte i being i mod 251; half-close; then read until the client ends
 *   last N      send N bytes; as soon as the kernel has them the whole program exits with status 7
 *   sink        read until the client half-closes, answer with a line "N", close
 *   reset N     send N bytes, then reset the connection once a further byte of the client has come
 *   hold        neither read nor write, until a "drop" on another connection
 *   drop        reset all on hold, answer with a line "dropped"
 *   watch       answer with a line "watching", then read until the client ends; how it ended is counted
 *   late        read until the client half-closes, then send 1 MiB, close
 *   ends        answer with a line "eof N reset N open N", close
 *
 * Theory of operation: serve is one thread with epoll; a connection is a small struct, so ten thousand fit into a small
 * guest. Nothing is done while a connection's pending bytes do not go out.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif

#define PIECE 65536
#define CYCLE 251

/* linux/vm_sockets.h, which musl does not bring along */
struct vsock_address {
	uint16_t family, reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};

enum mode { LISTENER, LISTENER_ECHO, COMMAND, ECHO, SOURCE, LAST, SINK, RESET, HOLD, WATCH, LATE, DRAIN, ANSWER };

struct conn {
	int fd;
	enum mode mode, after; /* after: once the pending bytes are out */
	uint64_t left; /* SOURCE, RESET: bytes to send */
	uint64_t sent; /* and sent */
	uint64_t count; /* SINK: bytes read */
	char *pending; /* to send before anything else; malloc'ed */
	size_t n_pending;
	struct conn *next; /* HOLD: the others on hold */
	unsigned line_size;
	char line[32];
};

static char piece[PIECE], cycle[PIECE + CYCLE];
static uint64_t eofs, resets, open_now;
static struct conn *held;
static int loop;

static void fail(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(2);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void watch(struct conn *c, uint32_t events, int op)
{
	struct epoll_event e = {.events = events, .data.ptr = c};
	if (epoll_ctl(loop, op, c->fd, &e) < 0)
		fail("epoll_ctl");
}

static void end(struct conn *c)
{
	open_now--;
	close(c->fd);
	free(c->pending);
	free(c);
}

static void reset(struct conn *c)
{
	struct linger linger = {.l_onoff = 1};
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	end(c);
}

static void listen_on(const char *spec)
{
	struct conn *c = calloc(1, sizeof(*c));
	const char *colon = strchr(spec, ':');
	uint16_t port = colon ? (uint16_t)atoi(colon + 1) : 0;
	int one = 1, rc;

	c->mode = strncmp(spec, "echo:", 5) == 0 || strncmp(spec, "vsock:", 6) == 0 ? LISTENER_ECHO : LISTENER;
	if (strncmp(spec, "vsock:", 6) == 0) {
		struct vsock_address at = {.family = AF_VSOCK, .cid = UINT32_MAX, .port = port};
		c->fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK, 0);
		rc = bind(c->fd, (struct sockaddr *)&at, sizeof(at));
	} else if (strncmp(spec, "six:", 4) == 0) {
		struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
		c->fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
		setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		rc = bind(c->fd, (struct sockaddr *)&at, sizeof(at));
	} else {
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
		at.sin_addr.s_addr = strncmp(spec, "local:", 6) == 0 ? htonl(INADDR_LOOPBACK) : 0;
		c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		rc = bind(c->fd, (struct sockaddr *)&at, sizeof(at));
	}
	if (rc < 0 || listen(c->fd, 4096) < 0)
		fail(spec);
	watch(c, EPOLLIN, EPOLL_CTL_ADD);
}

/** One per event: on an empty queue AF_VSOCK's accept sleeps until the next tick, even when it must not block. */
static void accept_one(struct conn *listener)
{
	int one = 1, fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK);
	if (fd < 0)
		return;
	struct conn *c = calloc(1, sizeof(*c));
	c->fd = fd;
	c->mode = listener->mode == LISTENER_ECHO ? ECHO : COMMAND;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	open_now++;
	watch(c, EPOLLIN, EPOLL_CTL_ADD);
}

/** Keep @n bytes for later; they go out before anything else is done. */
static void keep(struct conn *c, const char *bytes, size_t n)
{
	c->pending = realloc(c->pending, c->n_pending + n + !n);
	memcpy(c->pending + c->n_pending, bytes, n);
	c->n_pending += n;
	watch(c, EPOLLOUT, EPOLL_CTL_MOD);
}

/** 1: all is out; 0: not yet; -1: the connection is gone. */
static int flush(struct conn *c)
{
	while (c->n_pending) {
		ssize_t n = send(c->fd, c->pending, c->n_pending, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		memmove(c->pending, c->pending + n, c->n_pending - (size_t)n);
		c->n_pending -= (size_t)n;
	}
	return 1;
}

static void answer(struct conn *c, const char *text)
{
	c->mode = ANSWER;
	keep(c, text, strlen(text));
}

/** Neither read nor write; not even the client's end is heard. */
static void hold(struct conn *c)
{
	c->mode = HOLD;
	c->next = held;
	held = c;
	epoll_ctl(loop, EPOLL_CTL_DEL, c->fd, NULL);
}

static void drop_held(void)
{
	while (held) {
		struct conn *c = held;
		held = c->next;
		reset(c);
	}
}

static void obey(struct conn *c)
{
	const char *space = strchr(c->line, ' ');
	char text[100];

	c->left = space ? strtoull(space, NULL, 10) : 0;
	uint32_t events = EPOLLIN;
	if (strcmp(c->line, "echo") == 0)
		c->mode = ECHO;
	else if (strcmp(c->line, "sink") == 0)
		c->mode = SINK;
	else if (strcmp(c->line, "watch") == 0) {
		c->mode = WATCH;
		keep(c, "watching\n", 9);
		return;
	} else if (strcmp(c->line, "drop") == 0) {
		drop_held();
		answer(c, "dropped\n");
		return;
	}
	else if (strcmp(c->line, "late") == 0)
		c->mode = LATE;
	else if (strncmp(c->line, "source ", 7) == 0)
		c->mode = SOURCE, events = EPOLLOUT;
	else if (strncmp(c->line, "last ", 5) == 0)
		c->mode = LAST, events = EPOLLOUT;
	else if (strncmp(c->line, "reset ", 6) == 0)
		c->mode = RESET, events = EPOLLOUT;
	else if (strcmp(c->line, "hold") == 0) {
		hold(c);
		return;
	} else if (strcmp(c->line, "ends") == 0) {
		snprintf(text, sizeof(text), "eof %llu reset %llu open %llu\n", (unsigned long long)eofs,
			(unsigned long long)resets, (unsigned long long)open_now);
		answer(c, text);
		return;
	} else {
		answer(c, "what?\n");
		return;
	}
	watch(c, events, EPOLL_CTL_MOD);
}

/** One byte at a time: what comes behind the line belongs to the command. */
static void read_command(struct conn *c)
{
	char byte;
	ssize_t n;
	while ((n = read(c->fd, &byte, 1)) == 1) {
		if (byte == '\n') {
			obey(c);
			return;
		}
		if (c->line_size < sizeof(c->line) - 1)
			c->line[c->line_size++] = byte;
	}
	if (n == 0 || errno != EAGAIN)
		end(c);
}

static void feed(struct conn *c)
{
	while (c->sent < c->left) {
		size_t size = c->left - c->sent < PIECE ? (size_t)(c->left - c->sent) : PIECE;
		ssize_t n = send(c->fd, cycle + c->sent % CYCLE, size, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			end(c);
			return;
		}
		c->sent += (uint64_t)n;
	}
	if (c->mode == LAST)
		_exit(7);
	if (c->mode == RESET) {
		watch(c, EPOLLIN, EPOLL_CTL_MOD);
		return;
	}
	shutdown(c->fd, SHUT_WR);
	c->mode = DRAIN;
	watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void late(struct conn *c)
{
	c->mode = SOURCE;
	c->left = 1 << 20;
	watch(c, EPOLLOUT, EPOLL_CTL_MOD);
}

/** The client has half-closed. */
static void at_end(struct conn *c)
{
	char text[32];
	eofs += c->mode == WATCH;
	if (c->mode == SINK) {
		snprintf(text, sizeof(text), "%llu\n", (unsigned long long)c->count);
		answer(c, text);
	} else if (c->mode == LATE) {
		late(c);
	} else {
		end(c);
	}
}

static void take(struct conn *c)
{
	/* A few pieces per turn, so that one connection does not keep the others waiting */
	for (int turn = 0; turn < 4; turn++) {
		ssize_t n = read(c->fd, piece, PIECE);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			resets += c->mode == WATCH;
			end(c);
			return;
		}
		if (n == 0) {
			at_end(c);
			return;
		}
		if (c->mode == RESET) {
			reset(c);
			return;
		}
		c->count += (uint64_t)n;
		if (c->mode != ECHO)
			continue;
		ssize_t sent = send(c->fd, piece, (size_t)n, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN) {
			end(c);
			return;
		}
		if (sent < n) {
			sent = sent < 0 ? 0 : sent;
			keep(c, piece + sent, (size_t)(n - sent));
			return;
		}
	}
}

static void serve_one(struct conn *c, uint32_t events)
{
	if (c->mode == LISTENER || c->mode == LISTENER_ECHO) {
		accept_one(c);
		return;
	}
	if (c->n_pending) {
		int rc = flush(c);
		if (rc < 0 || (rc && c->mode == ANSWER))
			end(c);
		else if (rc)
			watch(c, EPOLLIN, EPOLL_CTL_MOD);
		return;
	}
	if (c->mode == COMMAND) {
		read_command(c);
	} else if ((c->mode == SOURCE || c->mode == LAST || c->mode == RESET) && !(events & EPOLLIN)) {
		feed(c);
	} else {
		take(c);
	}
}

static _Noreturn void serve(char **specs)
{
	struct epoll_event events[256];

	loop = epoll_create1(0);
	for (; *specs; specs++)
		listen_on(*specs);
	printf("serving\n");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(loop, events, 256, -1);
		for (int i = 0; i < n; i++)
			serve_one(events[i].data.ptr, events[i].events);
	}
}

/* ---- clients ---- */

static int connect_unix(const char *path, size_t size)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	if (size >= sizeof(to.sun_path)) {
		errno = ENAMETOOLONG;
		fail(path);
	}
	memcpy(to.sun_path, path, size);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail(path);
	return fd;
}

static int connect_hybrid(const char *where)
{
	const char *colon = strrchr(where, ':');
	char text[64];
	int fd = connect_unix(where, (size_t)(colon - where));
	int n = snprintf(text, sizeof(text), "CONNECT %s\n", colon + 1);
	if (write(fd, text, (size_t)n) != n)
		fail(where);
	for (size_t i = 0; i < sizeof(text); i++) {
		if (read(fd, text + i, 1) != 1)
			fail("no OK");
		if (text[i] == '\n')
			return fd;
	}
	fail(where);
	return -1;
}

/** docs/agent-protocol.md: HELLO FORWARD, answered with HELLO OK. */
static int connect_agent(const char *where)
{
	const char *colon = strrchr(where, ':');
	unsigned port = (unsigned)atoi(colon + 1);
	const unsigned char ask[] = {4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0x16, 0, 0, 0, port & 255, port >> 8, 0, 0};
	unsigned char answer[20];
	int fd = connect_unix(where, (size_t)(colon - where));
	if (write(fd, ask, sizeof(ask)) != sizeof(ask) || recv(fd, answer, sizeof(answer), MSG_WAITALL) != sizeof(answer) ||
		answer[16] != 0x39)
		fail("no OK to FORWARD");
	return fd;
}

static int connect_to(const char *where)
{
	int one = 1, fd;
	if (where[0] == '/')
		return connect_unix(where, strlen(where));
	if (strncmp(where, "hybrid:", 7) == 0)
		return connect_hybrid(where + 7);
	if (strncmp(where, "agent:", 6) == 0)
		return connect_agent(where + 6);
	if (strncmp(where, "vsock:", 6) == 0) {
		struct vsock_address to = {.family = AF_VSOCK, .cid = (uint32_t)atoi(where + 6),
			.port = (uint32_t)atoi(strrchr(where, ':') + 1)};
		fd = socket(AF_VSOCK, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
			fail(where);
		return fd;
	}
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(where))};
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail(where);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void write_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t done = write(fd, bytes, n);
		if (done < 0)
			fail("write");
		bytes += done;
		n -= (size_t)done;
	}
}

static int get(const char *where, uint64_t bytes)
{
	char line[64];
	int fd = connect_to(where), size = snprintf(line, sizeof(line), "source %llu\n", (unsigned long long)bytes);
	uint64_t total = 0;
	double begun = 0;
	ssize_t n;

	write_all(fd, line, (size_t)size);
	while ((n = read(fd, piece, PIECE)) > 0) {
		if (!total)
			begun = now();
		total += (uint64_t)n;
	}
	if (total != bytes)
		fail("too few bytes");
	printf("%.6f\n", now() - begun);
	return 0;
}

static int put(const char *where, uint64_t bytes)
{
	int fd = connect_to(where);
	double begun = now();

	write_all(fd, "sink\n", 5);
	for (uint64_t left = bytes; left;) {
		size_t size = left < PIECE ? (size_t)left : PIECE;
		write_all(fd, cycle, size);
		left -= size;
	}
	shutdown(fd, SHUT_WR);
	ssize_t n = read(fd, piece, PIECE - 1);
	piece[n > 0 ? n : 0] = 0;
	if (strtoull(piece, NULL, 10) != bytes)
		fail("not all bytes were counted");
	printf("%.6f\n", now() - begun);
	return 0;
}

static void rest(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&t, NULL);
}

static int ping(const char *where, unsigned times, unsigned ms)
{
	for (unsigned i = 0; i < times; i++) {
		char byte = 'x';
		double begun = now();
		int fd = connect_to(where);
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			fail("no echo");
		printf("%.1f\n", (now() - begun) * 1e6);
		close(fd);
		rest(ms);
	}
	return 0;
}

static _Noreturn void relisten(uint16_t port, unsigned ms)
{
	for (;;) {
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
		int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 16) < 0)
			fail("listen");
		printf("up\n");
		fflush(stdout);
		rest(ms);
		close(fd);
		printf("down\n");
		fflush(stdout);
		rest(ms);
	}
}

int main(int argc, char **argv)
{
	struct rlimit files = {.rlim_cur = 30000, .rlim_max = 30000};
	for (size_t i = 0; i < sizeof(cycle); i++)
		cycle[i] = (char)(i % CYCLE);
	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 3 && !strcmp(argv[1], "serve"))
		serve(argv + 2);
	if (argc == 4 && !strcmp(argv[1], "get"))
		return get(argv[2], strtoull(argv[3], NULL, 10));
	if (argc == 4 && !strcmp(argv[1], "put"))
		return put(argv[2], strtoull(argv[3], NULL, 10));
	if (argc == 5 && !strcmp(argv[1], "ping"))
		return ping(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "relisten"))
		relisten((uint16_t)atoi(argv[2]), (unsigned)atoi(argv[3]));
	fprintf(stderr, "usage: peer serve SPEC... | get|put WHERE BYTES | ping WHERE N MS | relisten PORT MS\n");
	return 2;
}
