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
	int stdio[3];
	int status;
};

static void ends_close(struct ends *ends)
{
	for (int i = 0; i < 3; i++)
		cleanup_fd(&ends->stdio[i]);
	cleanup_fd(&ends->status);
}

void program_close(struct program *program)
{
	for (int i = 0; i < 3; i++)
		cleanup_fd(&program->stdio[i]);
	cleanup_fd(&program->status);
	cleanup_fd(&program->pidfd);
	*program = (struct program){.pid = 0, .pidfd = -1, .status = -1, .stdio = {-1, -1, -1}};
}

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

static int make_ends(
	const struct exec_request *request, struct program *program, struct ends *ends, struct husk_error *err)
{
	int pair[2], rc = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, "make a socket pair");
	program->status = pair[0];
	ends->status = pair[1];
	if (request->flags & AGENT_EXEC_FLAG_TTY)
		return 0;
	if (request->flags & AGENT_EXEC_FLAG_STDIN)
		rc = make_pipe(1, &program->stdio[0], &ends->stdio[0], err);
	for (int i = 1; rc == 0 && i < 3; i++)
		rc = make_pipe(0, &program->stdio[i], &ends->stdio[i], err);
	return rc;
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
	if (enter_root(&own, request->cwd, &err) < 0)
		launch_fail(ends->status, AGENT_ERROR_SYSTEM, "%s", err.message);
	if (!(request->flags & AGENT_EXEC_FLAG_INIT))
		launch(setup, request, ends->status);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	pid_t child = fork();
	if (child < 0)
		launch_fail(ends->status, AGENT_ERROR_SYSTEM, "fork: %s", strerror(errno));
	if (child == 0)
		launch(setup, request, ends->status);
	reaper_run(child);
}

_Noreturn static void join_child(
	const struct workload_setup *setup, const struct exec_request *request, struct ends *ends, int main_pidfd)
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
		launch(setup, request, ends->status);
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

int program_start(const struct workload_setup *setup, const struct exec_request *request, int main_pidfd,
	struct program *out, struct husk_error *err)
{
	struct ends ends CLEANUP(ends_close) = {.stdio = {-1, -1, -1}, .status = -1};
	struct program program CLEANUP(program_close) = {.pidfd = -1, .status = -1, .stdio = {-1, -1, -1}};
	bool is_main = request->flags & AGENT_EXEC_FLAG_MAIN;

	int rc = make_ends(request, &program, &ends, err);
	if (rc < 0)
		return rc;
	pid_t pid = is_main ? clone_child(CLONE_NEWPID | CLONE_NEWNS, setup->cgroup, &program.pidfd, SIGCHLD)
			    : clone_into_workload(setup->cgroup);
	if (pid < 0)
		return error_errno(err, "start a process");
	if (pid == 0) {
		if (is_main)
			main_child(setup, request, &ends);
		join_child(setup, request, &ends, main_pidfd);
	}
	ends_close(&ends);
	program.pid = pid;
	if (!is_main) {
		rc = wait_for_helper(pid, &program, err);
		if (rc < 0)
			return rc;
	}
	rc = fd_set_nonblocking(program.status, true);
	if (rc < 0)
		return error_set(err, rc, "make the status socket non-blocking");
	*out = program;
	program = (struct program){.pidfd = -1, .status = -1, .stdio = {-1, -1, -1}};
	return 0;
}
