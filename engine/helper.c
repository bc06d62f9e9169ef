/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper.c - run a helper program to its end
 *
 * Theory of operation: the child's stdout, its error descriptor and, unless the caller shows it, its stderr are pipes that
 * one poll loop drains, so that no order of writing can block the child. The loop ends when all pipes are at their end:
 * a child that left one open in a process of its own would hold us, so the child's own death ends it as well.
 */
#include "engine/helper.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

enum { OUT, ERROR, TEXT, N_PIPES };

/** A child under way: pipes' reading ends (-1: at their end) and what came out of each. */
struct run {
	pid_t pid;
	int pidfd;
	int reading[N_PIPES];
	struct buffer *into[N_PIPES];
	bool canceled;
};

/** Read what is there; closes at the end. -EFBIG when a child writes without end. */
static int drain(struct run *run, int i)
{
	ssize_t n = buffer_read(run->into[i], run->reading[i], 64 << 10);
	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (run->into[i]->size > HELPER_OUTPUT_MAX)
		return -EFBIG;
	if (n <= 0)
		close(steal_fd(&run->reading[i]));
	return n < 0 ? (int)n : 0;
}

static int run_loop(struct run *run, const struct helper *how)
{
	bool ended = false;
	while (!ended) {
		struct pollfd fds[N_PIPES + 2];
		for (int i = 0; i < N_PIPES; i++)
			fds[i] = (struct pollfd){.fd = run->reading[i], .events = POLLIN};
		fds[N_PIPES] = (struct pollfd){.fd = run->pidfd, .events = POLLIN};
		fds[N_PIPES + 1] = (struct pollfd){.fd = run->canceled ? -1 : how->cancel_fd, .events = POLLIN};
		int ready = poll(fds, N_PIPES + 2, how->tick ? how->tick_ms : -1);
		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready == 0)
			how->tick(how->tick_data);
		if (ready <= 0)
			continue;
		ended = fds[N_PIPES].revents != 0;
		for (int i = 0; i < N_PIPES; i++) {
			int rc = 0;
			do
				rc = fds[i].revents ? drain(run, i) : 0;
			while (rc == 0 && ended && fds[i].revents && run->reading[i] >= 0 &&
				poll(&(struct pollfd){.fd = run->reading[i], .events = POLLIN}, 1, 0) > 0);
			if (rc < 0)
				return rc;
		}
		if (fds[N_PIPES + 1].revents) {
			run->canceled = true;
			kill(run->pid, SIGTERM);
		}
	}
	return 0;
}

/** The last line of @text in @room bytes, printable. */
static void last_line(const struct buffer *text, char *line, size_t room)
{
	const char *bytes = (const char *)buffer_bytes(text);
	size_t end = text->size;
	while (end && (bytes[end - 1] == '\n' || bytes[end - 1] == '\r'))
		end--;
	size_t start = end;
	while (start && bytes[start - 1] != '\n' && bytes[start - 1] != '\r' && end - start < room - 1)
		start--;
	for (size_t i = start; i < end; i++)
		*line++ = (unsigned char)bytes[i] < ' ' || bytes[i] == 0x7f ? '?' : bytes[i];
	*line = 0;
}

/** "CODE MESSAGE" of the child into @err: the code is a positive or negative errno value. */
static int report_error(
	const char *path, struct buffer *error, const struct buffer *text, int status, struct husk_error *err)
{
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	char line[HUSK_ERROR_MESSAGE_MAX] = "";
	if (error->size) {
		last_line(error, line, sizeof(line));
		char *rest;
		long code = strtol(line, &rest, 10);
		if (rest != line && *rest == ' ' && code && labs(code) < 4096)
			return error_set(err, code < 0 ? (int)code : -(int)code, "%s", rest + 1);
	}
	if (text->size)
		last_line(text, line, sizeof(line));
	if (WIFSIGNALED(status))
		return error_set(
			err, -EIO, "%s was ended by signal %d%s%s", name, WTERMSIG(status), *line ? ": " : "", line);
	return error_set(err, -EIO, "%s failed with status %d%s%s", name, WEXITSTATUS(status), *line ? ": " : "", line);
}

/** The caller's environment with HUSK_ERROR_FD set: malloc'ed array, strings borrowed. */
static char **environment(bool error_fd)
{
	static char entry[] = "HUSK_ERROR_FD=3";
	size_t n = 0, kept = 0;
	while (environ && environ[n])
		n++;
	char **env = calloc(n + 2, sizeof(*env));
	for (size_t i = 0; env && i < n; i++)
		if (strncmp(environ[i], entry, 14) != 0)
			env[kept++] = environ[i];
	if (env && error_fd)
		env[kept] = entry;
	return env;
}

static int run_spawned(const struct helper *how, struct run *run, struct husk_error *err)
{
	struct buffer *error = run->into[ERROR], *text = run->into[TEXT];
	int status = 0;
	int rc = run_loop(run, how);
	if (rc < 0)
		kill(run->pid, SIGKILL);
	pid_t waited;
	while ((waited = waitpid(run->pid, &status, 0)) < 0 && errno == EINTR)
		;
	if (rc < 0)
		return error_set(err, rc, "read the output of %s: %s", how->path, strerror(-rc));
	if (waited < 0) /* the process has SIGCHLD ignored: success is when nothing was complained about */
		status = error->size ? 1 << 8 : 0;
	if (run->canceled)
		return error_set(err, -ECANCELED, "canceled");
	return status == 0 ? 0 : report_error(how->path, error, text, status, err);
}

int helper_run(const struct helper *how, struct buffer *out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer error = {0};
	CLEANUP_BUFFER struct buffer text = {0};
	CLEANUP_FREE char **env = environment(how->error_fd);
	struct run run = {.pidfd = -1, .reading = {-1, -1, -1}, .into = {out, &error, &text}};
	int writing[N_PIPES] = {-1, -1, -1};
	const bool wanted[N_PIPES] = {out && how->stdout_fd < 0, how->error_fd, how->stderr_fd < 0};
	CLEANUP_FD int directory = how->directory ? open(how->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int rc = env ? 0 : error_set(err, -ENOMEM, "start %s: out of memory", how->path);
	if (rc == 0 && how->directory && directory < 0)
		rc = error_errno(err, "run %s in %s", how->path, how->directory);
	for (int i = 0; i < N_PIPES && rc == 0; i++) {
		int ends[2];
		if (!wanted[i])
			continue;
		if (pipe2(ends, O_CLOEXEC) < 0) {
			rc = error_errno(err, "start %s: make a pipe", how->path);
			break;
		}
		run.reading[i] = ends[0];
		writing[i] = ends[1];
		fd_set_nonblocking(ends[0], true);
	}
	struct spawn spawning = {
		.path = how->path,
		.argv = (char *const *)how->argv,
		.envp = env,
		.stdio = {how->stdin_fd, how->stdout_fd >= 0 ? how->stdout_fd : writing[OUT],
			how->stderr_fd >= 0 ? how->stderr_fd : writing[TEXT]},
		.working_directory = directory < 0 ? 0 : directory,
		.fds = how->error_fd ? &writing[ERROR] : how->fds,
		.n_fds = how->error_fd ? 1 : how->n_fds,
		.die_with_parent =
			true, /* a caller that is gone has no use for a pull that hangs; what came of it is kept */
	};
	rc = rc < 0 ? rc : spawn(&spawning, &run.pid, &run.pidfd, err);
	for (int i = 0; i < N_PIPES; i++)
		if (writing[i] >= 0)
			close(writing[i]);
	if (rc == 0)
		rc = run_spawned(how, &run, err);
	for (int i = 0; i < N_PIPES; i++)
		if (run.reading[i] >= 0)
			close(run.reading[i]);
	if (run.pidfd >= 0)
		close(run.pidfd);
	return rc;
}
