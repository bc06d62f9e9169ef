/* SPDX-License-Identifier: Apache-2.0 */
/* kick.c - deadlines and cancels (theory of operation: kick.h) */
#include "sandbox/kick.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

uint64_t kick_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void kick_init(struct kick *kick, int signal)
{
	*kick = (struct kick){.signal = signal, .lock = PTHREAD_MUTEX_INITIALIZER};
}

static void drop_timer(struct kick *kick)
{
	if (kick->timed)
		timer_delete(kick->timer);
	kick->timed = false;
}

void kick_destroy(struct kick *kick)
{
	drop_timer(kick);
	pthread_mutex_destroy(&kick->lock);
}

/* Signal sets are the kernel's, one bit each, and so are the calls: libc's are 128 bytes, and copied several times in each. */

static uint64_t only(int signal)
{
	return 1ull << (signal - 1);
}

static void set_mask(int how, uint64_t set, uint64_t *before)
{
	syscall(SYS_rt_sigprocmask, how, &set, before, sizeof(set));
}

/** While it runs the guest, KVM lets through what the caller's thread does, and the kick. */
static int tell_kvm(struct kick *kick, const struct kvm_vcpu *vcpu, struct husk_error *err)
{
	const uint64_t set = kick->before & ~only(kick->signal);
	struct {
		struct kvm_signal_mask head;
		uint8_t set[sizeof(set)];
	} mask = {.head.len = sizeof(set)};

	if (kick->tells && set == kick->told)
		return 0;
	memcpy(mask.head.sigset, &set, sizeof(set));
	long rc = kvm_ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask, "tell which signals interrupt the guest", err);
	if (rc < 0)
		return (int)rc;
	kick->told = set;
	kick->tells = true;
	return 0;
}

/** A timer for the thread that calls. It is not kept for the next call: one that was made for a thread which has ended stays
 *  silent when another thread gets the same number, and making one costs little more than starting it. */
static int start_timer(struct kick *kick, struct husk_error *err)
{
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(kick->deadline / 1000000000),
					  .tv_nsec = (long)(kick->deadline % 1000000000)}};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = kick->signal};

	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, &kick->timer) < 0)
		return error_errno(err, "make the timer of a deadline");
	kick->timed = true;
	if (timer_settime(kick->timer, TIMER_ABSTIME, &when, NULL) < 0) {
		int rc = error_errno(err, "start the timer of a deadline");
		drop_timer(kick);
		return rc;
	}
	return 0;
}

static void take_pending(const struct kick *kick)
{
	static const struct timespec no_time;
	const uint64_t set = only(kick->signal);
	long rc;

	do
		rc = syscall(SYS_rt_sigtimedwait, &set, NULL, &no_time, sizeof(set));
	while (rc > 0 || errno == EINTR);
}

int kick_begin(struct kick *kick, const struct kvm_vcpu *vcpu, uint64_t timeout_ns, struct husk_error *err)
{
	uint64_t now = timeout_ns ? kick_now() : 0;

	set_mask(SIG_BLOCK, only(kick->signal), &kick->before);
	int rc = tell_kvm(kick, vcpu, err);
	kick->deadline = !timeout_ns ? 0 : timeout_ns < UINT64_MAX / 2 - now ? now + timeout_ns : UINT64_MAX / 2;
	if (rc == 0 && timeout_ns)
		rc = start_timer(kick, err);
	if (rc < 0) {
		set_mask(SIG_SETMASK, kick->before, NULL);
		return rc;
	}
	__atomic_store_n(&kick->canceled, false, __ATOMIC_SEQ_CST);
	kick->thread = pthread_self();
	/* Nobody sends a signal before this, so no lock is needed; at the end it is. */
	__atomic_store_n(&kick->running, true, __ATOMIC_RELEASE);
	return 0;
}

void kick_end(struct kick *kick)
{
	pthread_mutex_lock(&kick->lock);
	__atomic_store_n(&kick->running, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&kick->lock);
	drop_timer(kick);
	if (kick->deadline || __atomic_load_n(&kick->canceled, __ATOMIC_SEQ_CST))
		take_pending(kick);
	if (!(kick->before & only(kick->signal)))
		set_mask(SIG_SETMASK, kick->before, NULL);
}

int kick_check(struct kick *kick, bool interrupted)
{
	if (interrupted)
		take_pending(kick);
	if (__atomic_load_n(&kick->canceled, __ATOMIC_SEQ_CST))
		return -ECANCELED;
	return kick->deadline && kick_now() >= kick->deadline ? -ETIMEDOUT : 0;
}

int kick_cancel(struct kick *kick)
{
	int rc = -ESRCH;

	pthread_mutex_lock(&kick->lock);
	if (__atomic_load_n(&kick->running, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&kick->canceled, true, __ATOMIC_SEQ_CST);
		rc = -pthread_kill(kick->thread, kick->signal);
	}
	pthread_mutex_unlock(&kick->lock);
	return rc;
}
