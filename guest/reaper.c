/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reaper.c - PID 1 of a workload that was asked for with --init
 *
 * Theory of operation: every signal is blocked and taken with sigwaitinfo(2), so there are no handlers and no races. All
 * but SIGCHLD go to the child. PID 1 cannot die of a signal, so a child's death by one is passed on as status 128 + n.
 */
#include "guest/reaper.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/** Reap what has died; the child's status ends the workload. */
static void reap(pid_t child)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == child)
			_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

_Noreturn void reaper_run(pid_t child)
{
	sigset_t all;

	/* The child's streams end with the child. */
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	syscall(SYS_close_range, 3, ~0U, 0);
	prctl(PR_SET_NAME, "husk-reaper");
	sigfillset(&all);
	for (;;) {
		siginfo_t info;
		int number = sigwaitinfo(&all, &info);
		if (number == SIGCHLD)
			reap(child);
		else if (number > 0)
			kill(child, number);
	}
}
