/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp.c - TCP services inside a guest of the tests; static
 *
 *   tcp MODE ADDRESS PORT [N]     prints "listening PORT" and serves every connection in a process of its own:
 *     echo     send back what comes, half-close when it ends
 *     later    take all, and only then send it back
 *     first    send N patterned bytes, half-close, take all, print "took BYTES SUM end|reset"
 *     report   send N bytes, take all, print "took BYTES SUM end|reset"
 *     flood    send until it fails, print "flood ended"
 *     reset    wait for a byte, send "bye", wait for another, close with a reset
 *     full     fill the backlog from inside and accept nothing
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536

static char bytes[CHUNK];

static int write_all(int fd, const char *from, size_t n)
{
	while (n) {
		ssize_t done = write(fd, from, n);
		if (done < 0)
			return -1;
		from += done;
		n -= done;
	}
	return 0;
}

/** Take all, print how much, its sum (FNV-1a) and how it ended. */
static void report(int fd)
{
	uint32_t sum = 2166136261u;
	unsigned long long total = 0;
	ssize_t n;
	while ((n = read(fd, bytes, CHUNK)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			sum = (sum ^ (unsigned char)bytes[i]) * 16777619u;
		total += n;
	}
	printf("took %llu %08x %s\n", total, sum, n == 0 ? "end" : "reset");
	fflush(stdout);
}

static void send_bytes(int fd, unsigned long long n)
{
	while (n) {
		size_t part = n < CHUNK ? n : CHUNK;
		if (write_all(fd, bytes, part) < 0)
			return;
		n -= part;
	}
}

static void later(int fd)
{
	size_t size = 0, room = 4 << 20;
	char *all = malloc(room);
	ssize_t n;
	while (size < room && (n = read(fd, all + size, room - size)) > 0)
		size += n;
	write_all(fd, all, size);
}

static void echo(int fd)
{
	ssize_t n;
	while ((n = read(fd, bytes, CHUNK)) > 0)
		if (write_all(fd, bytes, n) < 0)
			return;
}

static void reset(int fd)
{
	struct linger at_once = {.l_onoff = 1};
	if (read(fd, bytes, 1) == 1 && write_all(fd, "bye", 3) == 0 && read(fd, bytes, 1) == 1)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void serve(const char *mode, int fd, unsigned long long n)
{
	for (int i = 0; i < CHUNK; i++)
		bytes[i] = i % 251;
	if (!strcmp(mode, "echo")) {
		echo(fd);
	} else if (!strcmp(mode, "later")) {
		later(fd);
	} else if (!strcmp(mode, "first")) {
		send_bytes(fd, n);
		shutdown(fd, SHUT_WR);
		report(fd);
	} else if (!strcmp(mode, "report")) {
		send_bytes(fd, n);
		report(fd);
	} else if (!strcmp(mode, "reset")) {
		reset(fd);
	} else if (!strcmp(mode, "flood")) {
		send_bytes(fd, ~0ull);
		printf("flood ended\n");
	}
}

static int listen_at(const char *address, int port, int backlog)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int six = strchr(address, ':') != NULL, one = 1;
	int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	inet_pton(six ? AF_INET6 : AF_INET, address, six ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, six ? (void *)&v6 : (void *)&v4, six ? sizeof(v6) : sizeof(v4)) < 0 || listen(fd, backlog) < 0) {
		perror("tcp: listen");
		exit(2);
	}
	return fd;
}

static int connect_to(int port)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		perror("tcp: connect");
	return fd;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: tcp MODE ADDRESS PORT [N]\n");
		return 2;
	}
	int port = atoi(argv[3]), full = !strcmp(argv[1], "full");
	int server = listen_at(argv[2], port, full ? 0 : 1024);
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (full)
		connect_to(port);
	printf("listening %d\n", port);
	fflush(stdout);
	for (;;) {
		int fd = full ? (pause(), -1) : accept(server, NULL, NULL);
		if (fd >= 0 && fork() == 0) {
			close(server);
			serve(argv[1], fd, argc > 4 ? strtoull(argv[4], NULL, 10) : 0);
			return 0;
		}
		close(fd);
	}
}
