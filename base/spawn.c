/* SPDX-License-Identifier: Apache-2.0 */
/* spawn.c - start a child with exactly the descriptors it is meant to have */
#include "base/spawn.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/** Put @fds to @base, base + 1, … of this process. All sources are first moved above the target range, so that no target
 *  overwrites a source that is still needed. */
static int place_fds(const int *fds, size_t n, int base)
{
	for (size_t i = 0; i < n; i++)
		if (dup2(fds[i], base + (int)i) < 0)
			return -1;
	return 0;
}

static void child_report(int report)
{
	int code = errno;
	while (write(report, &code, sizeof(code)) < 0 && errno == EINTR)
		;
	_exit(127);
}

/** True when the parent has died: its end of the report pipe is gone. getppid(2) says nothing of a parent that lives in
 *  another PID namespace. */
static bool orphaned(int report)
{
	struct pollfd p = {.fd = report};

	return poll(&p, 1, 0) == 1 && p.revents & POLLERR;
}

/** Runs in the child and does not return. Between fork and exec of a process that may have threads: async-signal-safe
 *  calls only, no malloc. */
static void child_run(const struct spawn *how, int report, int parents_end)
{
	int keep = SPAWN_FDS + (int)how->n_fds; /* targets are 0 … keep - 1, the report pipe ends up at keep */
	int moved[SPAWN_FDS + how->n_fds];
	static const uint64_t standard[8] = {0}; /* the kernel's struct sigaction: SIG_DFL, no flags, no mask */
	sigset_t none;

	/* Not sigaction(3): it refuses the two signals that glibc keeps to itself, and posix_spawn leaves those ignored. */
	for (int s = 1; s < NSIG; s++)
		syscall(SYS_rt_sigaction, s, standard, NULL, (NSIG - 1) / 8);
	close(parents_end);
	if (how->die_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || orphaned(report)))
		_exit(127);
	int rc = how->inside ? how->inside(how->data) : 0;
	if (rc < 0) {
		errno = -rc;
		child_report(report);
	}
	if (how->new_session)
		setsid();
	report = fcntl(report, F_DUPFD_CLOEXEC, keep + 1);
	if (report < 0)
		_exit(127);
	for (int i = 0; i < keep; i++) {
		int fd = i < SPAWN_FDS ? how->stdio[i] : how->fds[i - SPAWN_FDS];
		moved[i] = fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fd;
		if (moved[i] < 0 || (moved[i] = fcntl(moved[i], F_DUPFD_CLOEXEC, keep + 1)) < 0)
			child_report(report);
	}
	if (how->working_directory > 0 && fchdir(how->working_directory) < 0)
		child_report(report);
	if (place_fds(moved, (size_t)keep, 0) < 0 || dup3(report, keep, O_CLOEXEC) < 0)
		child_report(report);
	syscall(SYS_close_range, keep + 1, ~0U, 0);
	report = keep;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (how->envp)
		execvpe(how->path, how->argv, how->envp);
	else
		execvp(how->path, how->argv);
	child_report(report);
}

/** fork(2), into new namespaces. */
static pid_t fork_into(uint64_t namespaces)
{
	struct clone_args args = {.flags = namespaces, .exit_signal = SIGCHLD};

	return namespaces ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : fork();
}

/** Runs in the process in the middle and does not return: start the child and tell @meeting its pid, with its pidfd. */
static void middle_run(const struct spawn *how, int report, int parents_end, int meeting)
{
	int pidfd = -1;
	struct clone_args args = {
		.flags = how->namespaces | CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0)
		child_run(how, report, parents_end);
	if (pid < 0)
		child_report(report);
	_exit(fd_send(meeting, &pid, sizeof(pid), &pidfd, 1) < 0);
}

/** Start the process in the middle, wait for its end, and take what it has told. *@pid is 0 when it told nothing. */
static int start_detached(const struct spawn *how, int report, int parents_end, pid_t *pid, int *pidfd)
{
	struct clone_args args = {0};
	size_t n_fds = 1;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	CLEANUP_FD int ours = ends[0];
	pid_t middle = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (middle == 0)
		middle_run(how, report, parents_end, ends[1]);
	int rc = middle < 0 ? -errno : 0;
	close(ends[1]);
	if (rc < 0)
		return rc;
	/* ECHILD: somebody else in this process waits for whatever there is. */
	while (waitpid(middle, NULL, __WALL) < 0 && errno == EINTR)
		;
	if (fd_receive_now(ours, pid, sizeof(*pid), pidfd, &n_fds) != sizeof(*pid))
		*pid = 0;
	return 0;
}

/** What spawn() has of a child under way. */
struct started {
	pid_t pid; /* 0: unknown */
	int pidfd; /* owned; -1: none */
	int failed; /* errno, 0 */
};

static struct started begin(const struct spawn *how, int report, int parents_end)
{
	struct started started = {.pidfd = -1};
	sigset_t all, old;

	/* No signal handler of the caller may run in the child before its dispositions are reset. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (how->detached) {
		started.failed = -start_detached(how, report, parents_end, &started.pid, &started.pidfd);
	} else {
		started.pid = fork_into(how->namespaces);
		if (started.pid == 0)
			child_run(how, report, parents_end);
		started.failed = started.pid < 0 ? errno : 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return started;
}

int spawn(const struct spawn *how, pid_t *pid_out, int *pidfd_out, struct husk_error *err)
{
	int pipe_fds[2];
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_errno(err, "start %s: make a pipe", how->path);
	CLEANUP_FD int reading = pipe_fds[0];
	CLEANUP_FD int writing = pipe_fds[1];
	struct started started = begin(how, writing, reading);
	CLEANUP_FD int pidfd = started.pidfd;
	if (started.failed) {
		errno = started.failed;
		return error_errno(err, "start %s: %s", how->path, how->namespaces ? "make namespaces" : "fork");
	}
	close(steal_fd(&writing));

	int code = 0;
	int rc = fd_read_all(reading, &code, sizeof(code));
	if (rc == 0 && how->detached && started.pid == 0) {
		code = ECHILD; /* the one in the middle was killed */
		rc = 1;
	}
	if (rc == 0 && !how->detached && pidfd_out)
		pidfd = (int)syscall(SYS_pidfd_open, started.pid, 0);
	if (rc != 0 || (pidfd_out && pidfd < 0)) {
		int failed = rc > 0 ? code : rc < 0 ? -rc : errno;
		if (rc == 0 && !how->detached)
			kill(started.pid, SIGKILL);
		while (!how->detached && waitpid(started.pid, NULL, 0) < 0 && errno == EINTR)
			;
		errno = failed;
		return error_errno(err, "start %s", how->path);
	}
	*pid_out = started.pid;
	if (pidfd_out)
		*pidfd_out = steal_fd(&pidfd);
	return 0;
}
