/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec-guest.c - the guest's side of bench-exec; static
 *
 *   exec-guest echo PORT        AF_VSOCK: send back, on each connection, what comes
 *   exec-guest spawn N PROGRAM  fork, exec and wait for PROGRAM N times; the nanoseconds of each, a line each
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
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

static int echo(const char *port)
{
	struct address at = {.family = AF_VSOCK, .cid = UINT32_MAX, .port = (uint32_t)strtoul(port, NULL, 10)};
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0), fd;
	char bytes[4096];
	ssize_t n;

	signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 16) < 0)
		return 2;
	for (; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
		if (fork() != 0)
			continue;
		while ((n = read(fd, bytes, sizeof(bytes))) > 0)
			if (write(fd, bytes, (size_t)n) != n)
				break;
		_exit(0);
	}
	return 3;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int spawn(int n, char *program)
{
	while (n-- > 0) {
		uint64_t begun = now();
		pid_t pid = fork();
		if (pid == 0) {
			execl(program, program, NULL);
			_exit(127);
		}
		int status;
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
			return 4;
		printf("%llu\n", (unsigned long long)(now() - begun));
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		return echo(argv[2]);
	if (argc == 4 && strcmp(argv[1], "spawn") == 0)
		return spawn(atoi(argv[2]), argv[3]);
	return 1;
}
