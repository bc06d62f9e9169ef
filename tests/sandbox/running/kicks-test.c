/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kicks-test.c - deadlines and cancels: they stop a guest that does not, hit nobody else, and leave the thread's signals as
 * they were
 */
#include "tests/sandbox/running/rig.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define MS 1000000ull
#define CANCELS 20

static struct husk_sandbox *sandbox;
static struct husk_sandbox_snapshot *snapshot;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int call_within(const char *name, uint64_t deadline_ns)
{
	struct husk_sandbox_call_options options;

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = deadline_ns;
	return husk_sandbox_call(sandbox, name, NULL, 0, NULL, &options, &rig_error);
}

/** Is any real-time signal pending for this thread, or any blocked that was not before? */
static bool signals_are_as(const sigset_t *before)
{
	sigset_t mask, pending;
	bool same = true;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	sigpending(&pending);
	for (int i = 1; i <= SIGRTMAX; i++)
		same &= sigismember(&mask, i) == sigismember(before, i) && !sigismember(&pending, i);
	return same;
}

static void test_deadline(void)
{
	sigset_t before;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	uint64_t begun = now();
	CHECK(call_within("spin", 50 * MS) == -ETIMEDOUT, "a guest that never returns meets its deadline");
	uint64_t took = now() - begun;
	CHECK(took >= 50 * MS, "not before it is due");
	CHECK(rig_report(sandbox).reason == HUSK_SANDBOX_DEADLINE &&
			husk_sandbox_state(sandbox) == HUSK_SANDBOX_POISONED,
		"which poisons");
	CHECK(signals_are_as(&before), "no signal is left, and the mask is as it was");
	CHECK(husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0 && call_within("nothing", 10000 * MS) == 0,
		"restored, it meets a later one");
	CHECK(signals_are_as(&before), "whose timer is gone");
	CHECK(call_within("spin", 1) == -ETIMEDOUT && husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0,
		"a deadline may be over before it begins");
	bool fine = true;
	for (int i = 0; i < 50; i++) {
		int rc = call_within("nothing", (uint64_t)i * MS / 10 + 1);
		fine &= rc == 0 || rc == -ETIMEDOUT;
		if (rc == -ETIMEDOUT)
			fine &= husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0;
		fine &= signals_are_as(&before);
	}
	CHECK(fine, "deadlines about as long as the call: either way, and nothing is left");
}

/** A signal of the caller's own that it does not block comes through while the guest runs. */
static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
	(void)number;
	alarms++;
}

static void test_other_signals(void)
{
	const struct sigaction action = {.sa_handler = on_alarm};
	struct itimerspec soon = {.it_value = {.tv_nsec = 20 * MS}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
	timer_t timer;

	sigaction(SIGUSR2, &action, NULL);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &soon, NULL);
	CHECK(call_within("spin", 200 * MS) == -ETIMEDOUT && alarms == 1,
		"a signal of the program's own is handled meanwhile, and ends nothing");
	timer_delete(timer);
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
}

/* ---- cancels ---- */

struct caller {
	pthread_t thread;
	int rc;
	bool fine;
};

static void *spin(void *data)
{
	struct caller *caller = data;
	sigset_t before;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	caller->rc = husk_sandbox_call(sandbox, "spin", NULL, 0, NULL, NULL, NULL);
	caller->fine = signals_are_as(&before);
	return NULL;
}

/** Cancel until there is a call to cancel. */
static int cancel(void)
{
	int rc;

	while ((rc = husk_sandbox_cancel(sandbox, NULL)) == -ESRCH)
		sched_yield();
	return rc;
}

static void test_cancel(void)
{
	struct caller caller = {0};
	bool fine = true;

	for (int i = 0; i < CANCELS; i++) {
		pthread_create(&caller.thread, NULL, spin, &caller);
		fine &= cancel() == 0;
		pthread_join(caller.thread, NULL);
		fine &= caller.rc == -ECANCELED && caller.fine && husk_sandbox_state(sandbox) == HUSK_SANDBOX_POISONED;
		fine &= husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0;
	}
	CHECK(fine, "a call can be canceled from another thread, at any moment of it, over and over");
}

static bool stop;

static void *keep_canceling(void *data)
{
	(void)data;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		husk_sandbox_cancel(sandbox, NULL);
	return NULL;
}

/** Cancels that race with the beginnings and ends of short calls: none kills the program, none is left over. */
static void test_cancel_races(void)
{
	pthread_t thread;
	bool fine = true;
	int canceled = 0, ran = 0;

	pthread_create(&thread, NULL, keep_canceling, NULL);
	/* On a host with one idle CPU the two threads may take long turns: until both ends of the race were seen. */
	for (int i = 0; fine && i < 100000 && (canceled < 10 || ran < 10); i++) {
		int rc = call_within("nothing", 0);
		fine &= rc == 0 || rc == -ECANCELED;
		canceled += rc == -ECANCELED;
		ran += rc == 0;
		if (rc < 0)
			fine &= husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(fine && canceled && ran, "cancels at every moment of short calls end those calls, and nothing else");
	CHECK(call_within("nothing", 0) == 0, "the next call is not canceled");
}

/** While a call runs, other threads are told so. */
static void test_busy(void)
{
	struct caller caller = {0};
	struct husk_sandbox_snapshot *other;

	pthread_create(&caller.thread, NULL, spin, &caller);
	while (husk_sandbox_state(sandbox) != HUSK_SANDBOX_RUNNING)
		sched_yield();
	CHECK(RIG_CALL(sandbox, NULL, "nothing") == -EBUSY, "a second call is refused while one runs");
	CHECK(husk_sandbox_snapshot(sandbox, &other, &rig_error) == -EBUSY &&
			husk_sandbox_restore(sandbox, snapshot, &rig_error) == -EBUSY &&
			husk_sandbox_destroy(sandbox, &rig_error) == -EBUSY,
		"so are a snapshot, a restore and an end");
	CHECK(husk_sandbox_cancel(sandbox, &rig_error) == 0, "a cancel is not");
	pthread_join(caller.thread, NULL);
	CHECK(caller.rc == -ECANCELED, "it ends");
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
}

/** The kick can be another signal, and one that the caller blocks anyway. */
static void test_signal_of_choice(struct husk_sandbox_image *image)
{
	struct husk_sandbox_config config;
	sigset_t set, before;

	husk_sandbox_config_init(&config);
	config.kick_signal = SIGRTMAX;
	sandbox = rig_begin(image, &config);
	husk_sandbox_snapshot(sandbox, &snapshot, &rig_error);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMAX);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	CHECK(call_within("spin", 20 * MS) == -ETIMEDOUT && signals_are_as(&before),
		"the kick may be a signal that is blocked already");
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
	CHECK(call_within("spin", 20 * MS) == -ETIMEDOUT && signals_are_as(&before), "and then one that is not");
	husk_sandbox_snapshot_free(snapshot);
	husk_sandbox_free(sandbox);
}

int main(int argc, char **argv)
{
	rig_need(argc);
	struct husk_sandbox_image *image = rig_load(argv[1], "basic");
	sandbox = rig_begin(image, NULL);
	if (!CHECK(sandbox && husk_sandbox_snapshot(sandbox, &snapshot, &rig_error) == 0, "a sandbox starts"))
		return tap_done();
	test_deadline();
	test_other_signals();
	test_cancel();
	test_cancel_races();
	test_busy();
	husk_sandbox_snapshot_free(snapshot);
	husk_sandbox_free(sandbox);
	test_signal_of_choice(image);
	husk_sandbox_image_free(image);
	return tap_done();
}
