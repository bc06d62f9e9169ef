/* SPDX-License-Identifier: Apache-2.0 */
/*
 * credential_helper.c - run Docker's credential helpers
 *
 * Theory of operation: a helper is a program docker-credential-NAME that takes a verb (get, store, erase), reads its
 * input to the end of stdin and answers on stdout, with its errors on stdout too (docker/docker-credential-helpers).
 * stdin is a memfd, so that a helper that does not read cannot block or signal husk; stdout is a pipe that is read until
 * it ends or the deadline passes. Then the helper is killed if it still runs, and reaped.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "image/docker_config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define HELPER_SECONDS 30
#define HELPER_OUTPUT_MAX 65536
#define ENDING_MS 5000
#define POLL_MS 100 /* how late a cancellation may be seen */

static bool name_valid(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	return n > 0 && n < 128 && !name[n];
}

/** Read @fd to its end into @output. */
static int read_answer(
	int fd, const char *program, const volatile int *cancelled, struct buffer *output, struct husk_error *err)
{
	uint64_t deadline = clock_monotonic_ns() + HELPER_SECONDS * 1000000000ULL;
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int ready = poll(&p, 1, POLL_MS);
		if (cancelled && *cancelled)
			return error_set(err, -EINTR, "run %s: cancelled", program);
		if (clock_monotonic_ns() > deadline)
			return error_set(
				err, -ETIMEDOUT, "run %s: no answer within %d seconds", program, HELPER_SECONDS);
		if (ready <= 0)
			continue;
		ssize_t n = buffer_read(output, fd, 4096);
		if (n == 0)
			return 0;
		if (n < 0 && n != -EINTR && n != -EAGAIN)
			return error_set(err, (int)n, "run %s: %s", program, strerror((int)-n));
		if (output->size > HELPER_OUTPUT_MAX)
			return error_set(err, -EFBIG, "run %s: its answer is too long", program);
	}
}

int credential_helper_run(const char *name, const char *verb, const char *input, const volatile int *cancelled,
	struct buffer *output, int *status, struct husk_error *err)
{
	char program[160];
	if (!name_valid(name))
		return error_set(
			err, -EINVAL, "config.json names a credential helper '%.40s', which is not a file name", name);
	snprintf(program, sizeof(program), "docker-credential-%s", name);

	CLEANUP_FD int in = memfd_create("credential", MFD_CLOEXEC);
	int pipe_fds[2];
	if (in < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_errno(err, "run %s", program);
	CLEANUP_FD int reading = pipe_fds[0];
	CLEANUP_FD int writing = pipe_fds[1];
	int rc = fd_write_all(in, input, strlen(input));
	if (rc < 0 || lseek(in, 0, SEEK_SET) < 0)
		return error_set(err, rc < 0 ? rc : -EIO, "run %s: its input cannot be written", program);

	char *const argv[] = {program, (char *)verb, NULL};
	struct spawn how = {.path = program, .argv = argv, .stdio = {in, writing, -1}, .die_with_parent = true};
	CLEANUP_FD int pidfd = -1;
	pid_t pid;
	rc = spawn(&how, &pid, &pidfd, err);
	if (rc < 0)
		return rc;
	close(steal_fd(&writing));
	rc = read_answer(reading, program, cancelled, output, err);
	/* Its answer is complete, so it has nothing left to do but to end. */
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	if (rc < 0 || poll(&ended, 1, ENDING_MS) <= 0)
		kill(pid, SIGKILL);
	int how_it_ended = 0;
	while (waitpid(pid, &how_it_ended, 0) < 0)
		if (errno != EINTR)
			return error_errno(err, "run %s: wait for it", program);
	*status = WIFEXITED(how_it_ended) ? WEXITSTATUS(how_it_ended) : 128 + WTERMSIG(how_it_ended);
	return rc;
}
