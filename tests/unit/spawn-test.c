/* SPDX-License-Identifier: Apache-2.0 */
/* spawn-test.c - a child gets exactly the descriptors and dispositions it is meant to have */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

/** Run @script in sh with @fds, its output into @out. Exit status or -1. */
static int run(const char *script, const int *fds, size_t n, struct buffer *out)
{
	struct husk_error err;
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
	struct spawn how = {.path = "sh", .argv = argv, .stdio = {-1, ends[1], 2}, .fds = fds, .n_fds = n};
	pid_t pid;
	int rc = spawn(&how, &pid, NULL, &err), status = -1;
	close(ends[1]);
	if (rc == 0) {
		fd_read_to_end(ends[0], out, 65536);
		waitpid(pid, &status, 0);
		status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	}
	close(ends[0]);
	buffer_append(out, "", 1);
	return status;
}

static void test_descriptors(void)
{
	CLEANUP_BUFFER struct buffer out = {0};
	CLEANUP_FD int a = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	CLEANUP_FD int b = open("/proc/self/exe", O_RDONLY);
	CLEANUP_FD int leak = open("/proc/self/status", O_RDONLY); /* not CLOEXEC: must be closed all the same */
	int swapped[] = {b, a, a};
	CHECK(leak >= 0 && run("for f in 0 3 4 5 6 7 8; do readlink /proc/$$/fd/$f || echo none; done", swapped, 3,
				   &out) == 0,
		"a shell runs");
	CHECK(strncmp((char *)buffer_bytes(&out), "/dev/null\n", 10) == 0, "-1 is /dev/null");
	CHECK(strstr((char *)buffer_bytes(&out), "spawn-test\n/dev/zero\n/dev/zero\nnone\nnone\nnone\n") != NULL,
		"descriptors come in their order, one of them twice, and no other");
}

static void test_signals(void)
{
	CLEANUP_BUFFER struct buffer out = {0};
	signal(SIGPIPE, SIG_IGN);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	run("grep -E 'SigBlk|SigIgn' /proc/self/status | tr -d '\n\t '", NULL, 0, &out);
	CHECK_STRING((char *)buffer_bytes(&out), "SigBlk:0000000000000000SigIgn:0000000000000000",
		"blocked and ignored signals of the caller do not reach the child");
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void test_failure(void)
{
	struct husk_error err;
	char *argv[] = {(char *)"x", NULL};
	struct spawn how = {.path = "/nonexistent/x", .argv = argv, .stdio = {-1, -1, -1}};
	pid_t pid = 42;
	CHECK(spawn(&how, &pid, NULL, &err) == -ENOENT && pid == 42, "a failed exec is reported by spawn itself");
	CHECK(strstr(err.message, "/nonexistent/x") != NULL, "and names the program");
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "and leaves no child");
}

static void test_pidfd(void)
{
	struct husk_error err;
	char *argv[] = {(char *)"true", NULL};
	struct spawn how = {
		.path = "true", .argv = argv, .stdio = {-1, -1, -1}, .new_session = true, .die_with_parent = true};
	pid_t pid;
	CLEANUP_FD int pidfd = -1;
	CHECK(spawn(&how, &pid, &pidfd, &err) == 0 && pidfd >= 0, "a pidfd comes with the child");
	struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
	CHECK(poll(&poll_fd, 1, 10000) == 1, "and tells its end");
	CHECK(waitpid(pid, NULL, 0) == pid, "the caller reaps it");
}

int main(void)
{
	test_descriptors();
	test_signals();
	test_failure();
	test_pidfd();
	return tap_done();
}
