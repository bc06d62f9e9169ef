/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kick.h - deadlines and cancels: how a KVM_RUN under way is made to return
 *
 * Theory of operation: one real-time signal, blocked in the calling thread from kick_begin() to kick_end() and let through by
 * KVM alone (KVM_SET_SIGNAL_MASK, API 4.13): it makes KVM_RUN return EINTR, stays pending, and is taken from the queue with
 * sigtimedwait(). So no handler is needed. kick_cancel() sends it under a lock that also says whether a call is under way, so
 * that it never reaches a thread that does not block it. A deadline is a timer that sends it to the thread.
 *
 * What is to be said does not lie in the signal but in `canceled` and in the clock, which are looked at after pending signals
 * were taken and before KVM_RUN begins: whatever comes later is a signal that KVM_RUN sees. So it does no harm that a sandbox
 * which a host function of another one calls takes signals that were that one's.
 */
#ifndef SANDBOX_KICK_H
#define SANDBOX_KICK_H

#include "kvm/kvm.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

struct kick {
	int signal;
	pthread_mutex_t lock; /* while a kick is sent, and while running becomes false: held for moments */
	bool running; /* atomic */
	bool canceled; /* atomic */
	pthread_t thread; /* that the call runs in */
	uint64_t before; /* its mask as the kernel has it, for kick_end() */
	uint64_t told; /* the mask that KVM was told last */
	bool tells; /* told is valid */
	uint64_t deadline; /* CLOCK_MONOTONIC, ns; 0: none */
	timer_t timer; /* that sends the kick to thread */
	bool timed; /* there is one */
};

void kick_init(struct kick *kick, int signal);
void kick_destroy(struct kick *kick);
/** A call of @vcpu begins in this thread. @timeout_ns from now; 0: none. On failure all is as before. */
int kick_begin(struct kick *kick, const struct kvm_vcpu *vcpu, uint64_t timeout_ns, struct husk_error *err);
/** It ends: nothing of it is pending any more, and the thread's mask is as it was. */
void kick_end(struct kick *kick);
/** Has the call to stop? 0, -ECANCELED or -ETIMEDOUT. Before each KVM_RUN; @interrupted: the last one was. */
int kick_check(struct kick *kick, bool interrupted);
/** Make the call under way stop, from any thread. -ESRCH: there is none; -EAGAIN: no signal can be queued. */
int kick_cancel(struct kick *kick);

uint64_t kick_now(void);

#endif
