/* SPDX-License-Identifier: Apache-2.0 */
/* streams-test.c - the caller's streams: what is passed, what is opened anew, what is relayed, and how each ends */
#include "engine/streams.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct husk_error err;

static bool nonblocking(int fd)
{
	return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

static bool delivered_in_time(struct stdio *io)
{
	for (int i = 0; i < 200; i++) {
		if (stdio_delivered(io))
			return true;
		struct pollfd fd = {.fd = stdio_done_fd(io), .events = POLLIN};
		poll(&fd, 1, 50);
	}
	return false;
}

static void test_pipes(void)
{
	struct stdio io;
	int in[2], out[2];
	char c;
	CHECK(pipe(in) == 0 && pipe(out) == 0, "two pipes");
	CHECK(stdio_prepare(&io, (int[]){in[0], out[1], -1}, &err) == 0, "pipes and nothing are taken");
	CHECK(io.way[0] == STDIO_REOPEN && io.way[1] == STDIO_REOPEN && io.way[2] == STDIO_NONE,
		"pipes are opened anew");
	CHECK(nonblocking(io.fd[0]) && nonblocking(io.fd[1]), "without blocking");
	CHECK(!nonblocking(in[0]) && !nonblocking(out[1]), "which does not show in the caller's own");
	CHECK(write(in[1], "x", 1) == 1 && read(io.fd[0], &c, 1) == 1 && c == 'x', "it is the same pipe");
	stdio_destroy(&io);
	close(in[0]), close(in[1]), close(out[0]), close(out[1]);
}

static void test_files(void)
{
	struct stdio io;
	char path[] = "/tmp/husk-streams-XXXXXX";
	int fd = mkstemp(path), null = open("/dev/null", O_RDONLY);
	CHECK(stdio_prepare(&io, (int[]){null, fd, fd}, &err) == 0, "files are taken");
	CHECK(io.way[0] == STDIO_PASS && io.way[1] == STDIO_PASS, "and passed as they are");
	CHECK(write(io.fd[1], "a", 1) == 1 && write(io.fd[2], "b", 1) == 1 && lseek(fd, 0, SEEK_CUR) == 2,
		"with the offset that the caller has");
	stdio_destroy(&io);
	CHECK(stdio_prepare(&io, (int[]){-1, null, -1}, &err) == -EBADF,
		"a descriptor for the wrong direction is refused");
	stdio_destroy(&io);
	CHECK(stdio_prepare(&io, (int[]){-1, 999, -1}, &err) == -EBADF, "one that is not open is refused");
	stdio_destroy(&io);
	close(fd), close(null), unlink(path);
}

static void test_relay(void)
{
	struct stdio io;
	int in[2], out[2];
	static char text[300000], got[300000];
	memset(text, 'z', sizeof(text));
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, in) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, out) == 0,
		"two sockets");
	CHECK(stdio_prepare(&io, (int[]){in[0], out[0], -1}, &err) == 0, "sockets are taken");
	CHECK(io.way[0] == STDIO_RELAY && io.way[1] == STDIO_RELAY, "and relayed");
	int reading = dup(io.fd[0]), writing = dup(io.fd[1]);
	fcntl(writing, F_SETFL, 0);
	fcntl(reading, F_SETFL, 0);
	CHECK(stdio_start(&io, &err) == 0, "the threads start");
	CHECK(write(in[1], "hello", 5) == 5 && shutdown(in[1], SHUT_WR) == 0, "write into one end");
	CHECK(read(reading, got, sizeof(got)) == 5 && memcmp(got, "hello", 5) == 0, "it arrives");
	CHECK(read(reading, got, 1) == 0, "and so does its end");
	pid_t pid = fork();
	if (pid == 0)
		_exit(write(writing, text, sizeof(text)) == sizeof(text) ? 0 : 1);
	close(writing);
	size_t n = 0;
	for (ssize_t r; n < sizeof(got) && (r = read(out[1], got + n, sizeof(got) - n)) > 0;)
		n += (size_t)r;
	CHECK(n == sizeof(text) && memcmp(text, got, n) == 0, "output arrives whole");
	CHECK(delivered_in_time(&io), "and is told to have been delivered");
	stdio_destroy(&io);
	close(in[0]), close(in[1]), close(out[0]), close(out[1]), close(reading);
}

static void test_reader_gone(void)
{
	struct stdio io;
	int out[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, out) == 0 && stdio_prepare(&io, (int[]){-1, out[0], -1}, &err) == 0,
		"a socket");
	int writing = dup(io.fd[1]);
	signal(SIGPIPE, SIG_DFL);
	CHECK(stdio_start(&io, &err) == 0, "relayed");
	close(out[1]);
	CHECK(write(writing, "x", 1) == 1, "write when the reader has gone");
	CHECK(delivered_in_time(&io), "the relay ends, and no SIGPIPE ends us");
	signal(SIGPIPE, SIG_IGN);
	CHECK(write(writing, "x", 1) < 0 && errno == EPIPE, "the writer is told");
	stdio_destroy(&io);
	close(out[0]), close(writing);
}

static void test_stop(void)
{
	struct stdio io;
	int in[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, in) == 0 && stdio_prepare(&io, (int[]){in[0], -1, -1}, &err) == 0,
		"input");
	CHECK(stdio_start(&io, &err) == 0, "that never comes");
	CHECK(stdio_done_fd(&io) < 0 && stdio_delivered(&io), "holds up no end");
	stdio_destroy(&io);
	CHECK(true, "and its thread can be stopped");
	close(in[0]), close(in[1]);
}

int main(void)
{
	test_pipes();
	test_files();
	test_relay();
	test_reader_gone();
	test_stop();
	return tap_done();
}
