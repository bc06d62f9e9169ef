/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kick.h - deadlines and cancels: how a KVM_RUN under way is made to return
 *
 * Theory of operation: one real-time signal, blocked in the calling thread from kick_begin() to kick_end() and let through by KVM alone
 * (KVM_SET_SIGNAL_MASK): while KVM_RUN runs it makes that return EINTR and stays pending, and is taken from the queue with sigtimedwait(). So no handler is
 * needed. kick_cancel() sends it under a lock that also says whether a call is under way, so that it never reaches a thread that has it unblocked. A deadline
 * is a timer that sends it to the thread.
 *
 * A sandbox that is called from a host function of another one may take that one's signal from the queue: what was to be said lies in `reason` and in
 * the clock, both looked at before each KVM_RUN, and immediate_exit stays set until then.
 */
#ifndef SANDBOX_KICK_H
#define SANDBOX_KICK_H

#include "kvm/kvm.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

struct kick {
	int signal;
	pthread_mutex_t lock; /* of running, canceled, thread: held for moments */
	bool running;
	bool canceled;
	pid_t thread; /* that the call runs in */
	struct kvm_vcpu *vcpu;
	sigset_t before; /* the thread's mask, for kick_end() */
	sigset_t told; /* what KVM was told last */
	bool tells; /* told is valid */
	uint64_t deadline; /* CLOCK_MONOTONIC, ns; 0: none */
	timer_t timer; /* of timer_thread */
	pid_t timer_thread; /* 0: no timer yet */
};

void kick_init(struct kick *kick, int signal, struct kvm_vcpu *vcpu);
void kick_destroy(struct kick *kick);
/** A call begins in this thread: block the signal, tell KVM, start the timer. @deadline_ns from now; 0: none. On failure all is as before. */
int kick_begin(struct kick *kick, uint64_t deadline_ns, struct husk_error *err);
/** It ends: nothing of it is pending any more, and the thread's mask is as it was. */
void kick_end(struct kick *kick);
/** Why the call has to stop: 0 (it need not), -ECANCELED, -ETIMEDOUT. Before each KVM_RUN, and after one that was interrupted: takes pending kicks. */
int kick_check(struct kick *kick);
/** From any thread. -ESRCH: nothing runs. */
int kick_cancel(struct kick *kick);

#endif
