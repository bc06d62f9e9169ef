/* SPDX-License-Identifier: Apache-2.0 */
/* spawn-test.c - a child gets exactly the descriptors and dispositions it is meant to have */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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

static volatile int children;

static void on_child(int number)
{
	children++;
}

/** Start `cat`, detached, with @input as its stdin. */
static int start_cat(int input, pid_t *pid, int *pidfd)
{
	struct husk_error err;
	char *argv[] = {(char *)"cat", NULL};
	struct spawn how = {
		.path = "cat", .argv = argv, .stdio = {input, -1, -1}, .new_session = true, .detached = true};
	return spawn(&how, pid, pidfd, &err);
}

static pid_t parent_of(pid_t pid)
{
	char path[32], text[256] = "";
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *at = n > 0 ? strrchr(text, ')') : NULL;
	return at ? atoi(at + 4) : -1;
}

/** A detached child, whatever the caller does about SIGCHLD. */
static void test_detached(void (*handler)(int), const char *what)
{
	int ends[2];
	pid_t pid = 0;
	CLEANUP_FD int pidfd = -1;
	struct sigaction action = {.sa_handler = handler}, before;
	sigaction(SIGCHLD, &action, &before);
	children = 0;
	CHECK(pipe2(ends, O_CLOEXEC) == 0 && start_cat(ends[0], &pid, &pidfd) == 0 && pidfd >= 0, what);
	close(ends[0]);
	CHECK(kill(pid, 0) == 0 && parent_of(pid) != getpid(), "it lives, and is no child of ours");
	CHECK(waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD, "there is nobody to wait for, not even a clone");
	struct pollfd dead = {.fd = pidfd, .events = POLLIN};
	CHECK(poll(&dead, 1, 50) == 0, "its pidfd says that it lives");
	close(ends[1]);
	CHECK(poll(&dead, 1, 10000) == 1, "and that it has ended");
	CHECK(children == 0, "no SIGCHLD came");
	sigaction(SIGCHLD, &before, NULL);
}

static void *reap_all(void *data)
{
	volatile bool *stop = data;
	while (!*stop)
		if (waitpid(-1, NULL, WNOHANG) > 0)
			children++;
	return NULL;
}

/** A program with a thread that reaps whatever there is. */
static void test_reaper(void)
{
	volatile bool stop = false;
	pthread_t thread;
	int ends[2], failed = 0;
	children = 0;
	CHECK(pipe2(ends, O_CLOEXEC) == 0 && pthread_create(&thread, NULL, reap_all, (void *)&stop) == 0, "a thread that reaps");
	close(ends[1]);
	for (int i = 0; i < 50; i++) {
		pid_t pid = 0;
		CLEANUP_FD int pidfd = -1;
		failed += start_cat(ends[0], &pid, &pidfd) < 0;
	}
	stop = true;
	pthread_join(thread, NULL);
	close(ends[0]);
	CHECK(failed == 0, "does not keep 50 detached ones from starting");
	CHECK(children == 0, "and gets none of them");
}

static void test_detached_failure(void)
{
	struct husk_error err;
	char *argv[] = {(char *)"x", NULL};
	struct spawn how = {.path = "/nonexistent/x", .argv = argv, .stdio = {-1, -1, -1}, .detached = true};
	pid_t pid = 42;
	int pidfd = -1;
	CHECK(spawn(&how, &pid, &pidfd, &err) == -ENOENT && pid == 42 && pidfd == -1, "a failed exec is reported as well");
	CHECK(waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD, "and leaves nobody");
}

int main(void)
{
	test_descriptors();
	test_signals();
	test_failure();
	test_pidfd();
	test_detached(SIG_DFL, "a detached child");
	test_detached(SIG_IGN, "with SIGCHLD ignored");
	test_detached(on_child, "with a handler of SIGCHLD");
	test_reaper();
	test_detached_failure();
	return tap_done();
}
