/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vs.c - AF_VSOCK from a shell script inside a guest of the tests; static
 *
 *   vs connect CID PORT   connect, then stdin to the socket, half-close, the socket to stdout; 111 when it is refused
 *   vs echo PORT          print "listening", accept one connection, send back all that comes, half-close when it does
 *   vs sink PORT          the same, and print only how many bytes came
 *   vs knock CID PORT     connect, send an agent's EXEC, print in hex what comes back ("" or "refused")
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif

/* linux/vm_sockets.h, which musl does not bring along */
struct address {
	uint16_t family, reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};

static int open_socket(void)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		perror("vs: socket");
		exit(2);
	}
	return fd;
}

static int connect_to(const char *cid, const char *port)
{
	struct address to = {.family = AF_VSOCK, .cid = strtoul(cid, NULL, 10), .port = strtoul(port, NULL, 10)};
	int fd = open_socket();
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		printf("refused: %s\n", strerror(errno));
		exit(111);
	}
	return fd;
}

static int accept_one(const char *port)
{
	struct address at = {.family = AF_VSOCK, .cid = UINT32_MAX, .port = strtoul(port, NULL, 10)};
	int fd = open_socket();
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 4) < 0) {
		perror("vs: listen");
		exit(2);
	}
	printf("listening\n");
	fflush(stdout);
	int peer = accept(fd, NULL, NULL);
	if (peer < 0)
		exit(2);
	return peer;
}

static void write_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t done = write(fd, bytes, n);
		if (done < 0) {
			perror("vs: write");
			exit(3);
		}
		bytes += done;
		n -= done;
	}
}

static unsigned long long copy(int from, int to)
{
	static char bytes[65536];
	unsigned long long total = 0;
	ssize_t n;
	while ((n = read(from, bytes, sizeof(bytes))) > 0) {
		if (to >= 0)
			write_all(to, bytes, n);
		total += n;
	}
	if (n < 0)
		perror("vs: read");
	return total;
}

/** Both directions at once, in two processes: a flood one way must not wait for the other. */
static void relay(int fd)
{
	pid_t child = fork();
	if (child == 0) {
		copy(0, fd);
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	copy(fd, 1);
}

static int knock(int fd)
{
	static const unsigned char hello[] = {4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0};
	static const unsigned char exec[] = {10, 0, 0, 0, 0x10, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 'i', 'd'};
	unsigned char answer[256];
	signal(SIGPIPE, SIG_IGN);
	if (write(fd, hello, sizeof(hello)) < 0 || write(fd, exec, sizeof(exec)) < 0)
		printf("refused");
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;
	while (poll(&p, 1, 5000) == 1 && (n = read(fd, answer, sizeof(answer))) > 0)
		for (ssize_t i = 0; i < n; i++)
			printf("%02x", answer[i]);
	printf("\n");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "connect")) {
		relay(connect_to(argv[2], argv[3]));
	} else if (argc == 4 && !strcmp(argv[1], "knock")) {
		return knock(connect_to(argv[2], argv[3]));
	} else if (argc == 3 && !strcmp(argv[1], "echo")) {
		int fd = accept_one(argv[2]);
		copy(fd, fd);
		shutdown(fd, SHUT_WR);
	} else if (argc == 3 && !strcmp(argv[1], "sink")) {
		printf("%llu\n", copy(accept_one(argv[2]), -1));
	} else {
		fprintf(stderr, "usage: vs connect|knock CID PORT | echo|sink PORT\n");
		return 2;
	}
	return 0;
}
