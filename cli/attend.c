/* SPDX-License-Identifier: Apache-2.0 */
/* attend.c - while somebody is with a VM: signals go in, the terminal's size goes in, its outcome comes out */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "cli/terminal.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#define INTERRUPTS_TO_KILL 3

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static const int other[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH};

static int open_set(const int *signals, size_t n)
{
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < n; i++) {
		struct sigaction now;
		if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int run_signals_open(struct run_signals *signals, struct husk_error *err)
{
	signals->ending = open_set(ending, ARRAY_SIZE(ending));
	signals->other = open_set(other, ARRAY_SIZE(other));
	return signals->ending < 0 || signals->other < 0 ? error_errno(err, "watch signals") : 0;
}

void run_signals_close(struct run_signals *signals)
{
	close(signals->ending);
	close(signals->other);
}

int run_signals_take(int fd)
{
	struct signalfd_siginfo info;
	return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

static bool is_ending(int signal_number)
{
	for (size_t i = 0; i < ARRAY_SIZE(ending); i++)
		if (ending[i] == signal_number)
			return true;
	return false;
}

/** Docker's commands end at the third one too. */
static void interrupted(struct attendance *a)
{
	if (a->interrupts == INTERRUPTS_TO_KILL)
		cli_say("interrupted three times: %s", a->guest ? "leaving the VM, which lives on" : "ending the VM");
	if (a->guest)
		a->leave = true;
	else
		husk_vm_kill(a->vm, NULL);
}

void attend_signal(struct attendance *a, int signal_number)
{
	uint16_t rows, columns;
	if (signal_number == SIGWINCH) {
		if (a->tty && terminal_size(&rows, &columns))
			husk_vm_resize(a->vm, rows, columns, NULL);
		return;
	}
	if (signal_number == SIGINT && ++a->interrupts >= INTERRUPTS_TO_KILL) {
		interrupted(a);
		return;
	}
	int rc = husk_vm_signal(a->vm, signal_number == SIGTERM ? husk_vm_stop_signal(a->vm) : signal_number, NULL);
	if (rc == -ENOTSUP && is_ending(signal_number) && !a->guest)
		husk_vm_kill(a->vm, NULL); /* a foreign initramfs: the VM is all that there is to end */
}

int attend_end(struct attendance *a, int failed)
{
	struct husk_outcome outcome = {.size = sizeof(outcome)};
	struct husk_error err;
	terminal_restore();
	if (husk_vm_wait(a->vm, -1, &outcome, &err) < 0)
		return cli_fail(&err, failed);
	if (outcome.reason[0])
		cli_say("%s", outcome.reason);
	return outcome.exit_code;
}

int run_attend(struct husk_vm *vm, struct run_signals *signals, bool tty)
{
	struct attendance a = {.vm = vm, .tty = tty};
	attend_signal(&a, SIGWINCH); /* the size may have changed while the guest booted */
	while (husk_vm_wait(vm, 0, NULL, NULL) == -ETIMEDOUT) {
		struct pollfd fds[] = {
			{.fd = husk_vm_fd(vm), .events = POLLIN},
			{.fd = signals->ending, .events = POLLIN},
			{.fd = signals->other, .events = POLLIN},
		};
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			break;
		for (size_t i = 1; i < 3; i++) {
			int signal_number = fds[i].revents ? run_signals_take(fds[i].fd) : 0;
			if (signal_number)
				attend_signal(&a, signal_number);
		}
	}
	return attend_end(&a, CLI_FAILED);
}
