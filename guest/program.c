/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c - how a program gets into the workload's namespaces
 *
 * Theory of operation: the main workload is one clone3(2) into new PID and mount namespaces and straight into the
 * workload's cgroup; its first process then makes its view (enter.c), and is the program, or the reaper that has the
 * program as its child.
 *
 * A joined program takes two steps, because setns(2) into a PID namespace counts for children only: a helper drops every
 * descriptor but the program's own (the workload may look into a process of its PID namespace), joins through the main
 * workload's pidfd, and forks with CLONE_PARENT, so that the program is the agent's own child. The agent waits for the
 * helper, which does nothing that can block.
 *
 * Everything the image decides (users, directories, interpreters) is looked at in the program's own process, behind its
 * own root (launch.c).
 */
#include "guest/program.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/launch.h"
#include "guest/reaper.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPE_SIZE (256 << 10)
#define SAFE_FD 64 /* above every number that is closed or replaced while a child sorts its descriptors */

/** The child's ends. */
struct ends {
	int stdio[3]; /* the caller's */
	int status;
};

static void ends_close(struct ends *ends)
{
	cleanup_fd(&ends->status);
}

/** What joined processes do. */
struct task {
	program_fn *run;
	const void *data;
};

/** A command of a request. */
struct command {
	const struct exec_request *request;
	size_t step;
};

void program_close(struct program *program)
{
	cleanup_fd(&program->status);
	cleanup_fd(&program->pidfd);
	*program = (struct program){.pid = 0, .pidfd = -1, .status = -1};
}

/* ---- streams ---- */

/** A pipe whose end @ours is the agent's and non-blocking. */
static int make_pipe(int ours, int *agent_end, int *child_end, struct husk_error *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(err, "make a pipe");
	*agent_end = fds[ours];
	*child_end = fds[!ours];
	fcntl(fds[0], F_SETPIPE_SZ, PIPE_SIZE); /* as large as the kernel lets it be */
	int rc = fd_set_nonblocking(*agent_end, true);
	return rc < 0 ? error_set(err, rc, "make a pipe non-blocking") : 0;
}

void program_streams_release(struct program_streams *streams)
{
	for (int i = 0; i < 3; i++) {
		cleanup_fd(&streams->theirs[i]);
		streams->theirs[i] = -1;
	}
}

void program_streams_close(struct program_streams *streams)
{
	program_streams_release(streams);
	for (int i = 0; i < 3; i++) {
		cleanup_fd(&streams->ours[i]);
		streams->ours[i] = -1;
	}
}

int program_streams_open(const struct exec_request *request, struct program_streams *out, struct husk_error *err)
{
	struct program_streams streams CLEANUP(program_streams_close) = PROGRAM_NO_STREAMS;
	int rc = 0;

	*out = streams;
	if (request->flags & (AGENT_EXEC_FLAG_TTY | AGENT_EXEC_FLAG_DETACH))
		return 0;
	if (request->flags & AGENT_EXEC_FLAG_STDIN)
		rc = make_pipe(1, &streams.ours[0], &streams.theirs[0], err);
	for (int i = 1; rc == 0 && i < 3; i++)
		rc = make_pipe(0, &streams.ours[i], &streams.theirs[i], err);
	if (rc < 0)
		return rc;
	*out = streams;
	streams = PROGRAM_NO_STREAMS;
	return 0;
}

/* ---- processes ---- */

/** The status socket and the child's ends. */
static int make_ends(const int stdio[3], struct program *program, struct ends *ends, struct husk_error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, "make a socket pair");
	program->status = pair[0];
	ends->status = pair[1];
	memcpy(ends->stdio, stdio, sizeof(ends->stdio));
	return 0;
}

/** Make 0 to 2 the program's streams and keep of the rest only the status socket and @other. */
static int sort_descriptors(struct ends *ends, int *other)
{
	for (int i = 0; i < 3; i++) {
		int fd = ends->stdio[i] >= 0 ? ends->stdio[i] : open("/dev/null", O_RDWR | O_CLOEXEC);
		ends->stdio[i] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SAFE_FD);
		if (ends->stdio[i] < 0)
			return -1;
	}
	int status = fcntl(ends->status, F_DUPFD_CLOEXEC, SAFE_FD);
	int kept = *other >= 0 ? fcntl(*other, F_DUPFD_CLOEXEC, SAFE_FD) : -1;
	if (status < 0 || (*other >= 0 && kept < 0))
		return -1;
	for (int i = 0; i < 3; i++)
		if (dup2(ends->stdio[i], i) < 0)
			return -1;
	if (dup3(status, 3, O_CLOEXEC) < 0 || (kept >= 0 && dup3(kept, 4, O_CLOEXEC) < 0))
		return -1;
	syscall(SYS_close_range, kept >= 0 ? 5 : 4, ~0U, 0);
	ends->status = 3;
	*other = kept >= 0 ? 4 : -1;
	return 0;
}

static pid_t clone_child(uint64_t flags, int cgroup, int *pidfd, int exit_signal)
{
	int fd = -1;
	struct clone_args args = {
		.flags = flags | (pidfd ? CLONE_PIDFD : 0),
		.exit_signal = (uint64_t)exit_signal,
		.pidfd = (uint64_t)(uintptr_t)(pidfd ? &fd : NULL),
	};
	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid > 0 && pidfd)
		*pidfd = fd;
	return pid;
}

/** Into the workload's cgroup or, where its own manager has made that one an inner node, into a leaf beside. */
static pid_t clone_into_workload(int cgroup)
{
	pid_t pid = clone_child(0, cgroup, NULL, SIGCHLD);
	if (pid >= 0 || errno != EBUSY || cgroup < 0)
		return pid;
	mkdirat(cgroup, "husk-exec", 0755);
	CLEANUP_FD int leaf = openat(cgroup, "husk-exec", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return leaf < 0 ? -1 : clone_child(0, leaf, NULL, SIGCHLD);
}

_Noreturn static void main_child(
	const struct workload_setup *setup, const struct exec_request *request, struct ends *ends)
{
	struct husk_error err = {0};
	struct workload_setup own = *setup;
	int none = -1;
	sigset_t all;

	if (sort_descriptors(ends, &none) < 0)
		_exit(125);
	if (own.cgroup >= 0 && unshare(CLONE_NEWCGROUP) < 0)
		launch_fail(ends->status, AGENT_ERROR_SYSTEM, "make a cgroup namespace: %s", strerror(errno));
	if (enter_root(&own, exec_request_cwd(request), &err) < 0)
		launch_fail(ends->status, AGENT_ERROR_SYSTEM, "%s", err.message);
	if (!(request->flags & AGENT_EXEC_FLAG_INIT))
		launch(setup, request, 0, ends->status);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	pid_t child = fork();
	if (child < 0)
		launch_fail(ends->status, AGENT_ERROR_SYSTEM, "fork: %s", strerror(errno));
	if (child == 0)
		launch(setup, request, 0, ends->status);
	reaper_run(child);
}

_Noreturn static void join_child(
	const struct workload_setup *setup, const struct task *task, struct ends *ends, int main_pidfd)
{
	if (sort_descriptors(ends, &main_pidfd) < 0)
		_exit(125);
	int namespaces = CLONE_NEWNS | CLONE_NEWPID | (setup->cgroup >= 0 ? CLONE_NEWCGROUP : 0);
	if (setns(main_pidfd, namespaces) < 0)
		launch_fail(ends->status, errno == ESRCH ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM,
			"join the workload: %s", strerror(errno));
	close(main_pidfd);
	/* The program waits until its pid has been told: that must be the first message. */
	int told[2];
	if (pipe2(told, O_CLOEXEC) < 0)
		launch_fail(ends->status, AGENT_ERROR_SYSTEM, "make a pipe: %s", strerror(errno));
	/* With CLONE_PARENT the exit signal is inherited and must not be given. */
	pid_t pid = clone_child(CLONE_PARENT, -1, NULL, 0);
	if (pid == 0) {
		char byte;
		close(told[1]);
		if (read(told[0], &byte, 1) != 0)
			_exit(125);
		close(told[0]);
		task->run(setup, task->data, ends->status);
		_exit(125);
	}
	if (pid < 0)
		launch_fail(ends->status, errno == ENOMEM ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM,
			"fork in the workload: %s", strerror(errno));
	struct program_report report = {.kind = PROGRAM_PID, .pid = pid};
	_exit(fd_send(ends->status, &report, sizeof(report), NULL, 0) == sizeof(report) ? 0 : 1);
}

/** The helper's message is the first one: the program's pid, or what went wrong. */
static int wait_for_helper(pid_t helper, struct program *program, struct husk_error *err)
{
	struct program_report report = {0};
	ssize_t n;

	while (waitpid(helper, NULL, 0) < 0 && errno == EINTR)
		;
	do
		n = recv(program->status, &report, sizeof(report), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	report.text[PROGRAM_TEXT_MAX] = 0;
	if (n != sizeof(report))
		return error_set(err, -EIO, "a helper process failed to join the workload");
	if (report.kind != PROGRAM_PID)
		return error_set(err, report.code == AGENT_ERROR_BUSY ? -ESRCH : -EIO, "%s", report.text);
	program->pid = report.pid;
	return 0;
}

/** Start the main workload (@request) or a process that joins it (@task). */
static int start(const struct workload_setup *setup, const struct exec_request *request, const struct task *task,
	int main_pidfd, const int stdio[3], struct program *out, struct husk_error *err)
{
	struct ends ends CLEANUP(ends_close) = {.stdio = {-1, -1, -1}, .status = -1};
	struct program program CLEANUP(program_close) = {.pidfd = -1, .status = -1};

	int rc = make_ends(stdio, &program, &ends, err);
	if (rc < 0)
		return rc;
	pid_t pid = request ? clone_child(CLONE_NEWPID | CLONE_NEWNS, setup->cgroup, &program.pidfd, SIGCHLD)
			    : clone_into_workload(setup->cgroup);
	if (pid < 0)
		return error_errno(err, "start a process");
	if (pid == 0) {
		if (request)
			main_child(setup, request, &ends);
		join_child(setup, task, &ends, main_pidfd);
	}
	cleanup_fd(&ends.status);
	ends.status = -1;
	program.pid = pid;
	if (!request) {
		rc = wait_for_helper(pid, &program, err);
		if (rc < 0)
			return rc;
	}
	rc = fd_set_nonblocking(program.status, true);
	if (rc < 0)
		return error_set(err, rc, "make the status socket non-blocking");
	*out = program;
	program = (struct program){.pidfd = -1, .status = -1};
	return 0;
}

static void run_command(const struct workload_setup *setup, const void *data, int status)
{
	const struct command *command = data;
	launch(setup, command->request, command->step, status);
}

int program_start(const struct workload_setup *setup, const struct exec_request *request, size_t step, int main_pidfd,
	const struct program_streams *streams, struct program *out, struct husk_error *err)
{
	const struct command command = {.request = request, .step = step};
	const struct task task = {.run = run_command, .data = &command};
	bool is_main = request->flags & AGENT_EXEC_FLAG_MAIN;

	return start(setup, is_main ? request : NULL, &task, main_pidfd, streams->theirs, out, err);
}

int program_join(const struct workload_setup *setup, int main_pidfd, const int stdio[3], program_fn *run,
	const void *data, struct program *out, struct husk_error *err)
{
	const struct task task = {.run = run, .data = data};
	return start(setup, NULL, &task, main_pidfd, stdio, out, err);
}
