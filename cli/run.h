/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - what happens while a foreground VM runs: signals, the terminal's size, its end */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <husk.h>

/** Two signalfds: signals that ask to end, and others that are passed on (with SIGWINCH). */
struct run_signals {
	int ending, other;
};

/** Block and watch the signals, but for those that husk was started with ignored (nohup). */
int run_signals_open(struct run_signals *signals, struct husk_error *err);
void run_signals_close(struct run_signals *signals);
/** The next signal's number, 0 when there is none. */
int run_signals_take(int fd);

/** Somebody who is with a VM. */
struct attendance {
	struct husk_vm *vm;
	bool tty; /* the guest has a terminal, whose size is ours */
	bool guest; /* the VM is not ours: the third Ctrl-C leaves it and does not end it */
	int interrupts;
	bool leave; /* the third one has come */
};

/** A signal has come: pass it on. */
void attend_signal(struct attendance *a, int signal_number);
/** The VM has ended, or is about to: tell why if it was not by itself; the exit status, @failed when it cannot be told. */
int attend_end(struct attendance *a, int failed);

/** Stay until @vm has ended, tell why if it was not by itself; the exit status. */
int run_attend(struct husk_vm *vm, struct run_signals *signals, bool tty);

#endif
