/* SPDX-License-Identifier: Apache-2.0 */
/*
 * life.c - from the children's start to the first thing that ends the VM
 *
 * Theory of operation: the pidfds of worker and QEMU, the worker's channel, the caller's socket and a few timers are watched;
 * the first that ends the VM decides the outcome, which is told to the caller at once.
 *
 * When a child dies, the worker's channel is drained before that is judged: an outcome that the worker has sent counts more
 * than its death. QEMU's exit with status 0 means that the guest powered off, and then the worker, which reads the console
 * and may still be writing the workload's output, is given GRACE_MS to say more.
 *
 * READY is passed on once every door that the VM was started with is open. Time in which the guest is paused counts on no
 * deadline here: the worker, which knows more, has its own.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "vmm/control.h"
#include "vmm/jail/jail.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define GRACE_MS 1500
#define TIMEOUT_MARGIN_MS 3000 /* over the workload's timeout, which the worker enforces */
#define DRAIN_MAX 64

void life_tell_caller(struct supervisor *s, const struct vm_message *message)
{
	if (s->config.caller_fd >= 0)
		(void)vm_message_send(s->config.caller_fd, message); /* a caller that does not read misses it */
}

/** The first outcome counts. */
static void conclude(struct supervisor *s, const struct vm_message *outcome)
{
	if (s->outcome.kind)
		return;
	s->outcome = *outcome;
	stop_judge(s, &s->outcome);
	life_tell_caller(s, &s->outcome);
	loop_stop(&s->loop);
}

void life_end(struct supervisor *s, enum vm_end why, uint32_t value, const char *format, ...)
{
	struct vm_message outcome = {.kind = VM_MESSAGE_OUTCOME, .end = why, .value = value};
	va_list args;

	if (s->started)
		outcome.duration_ns = clock_monotonic_ns() - s->started_ns;

	va_start(args, format);
	vm_message_vtext(&outcome, format, args);
	va_end(args);
	conclude(s, &outcome);
}

/* ---- time ---- */

void life_set_deadline(struct supervisor *s, uint64_t ms)
{
	bool paused = s->record.state == VM_PAUSED;

	s->deadline_ns = ms ? clock_monotonic_ns() + ms * 1000000 : 0;
	s->deadline_left_ms = ms;
	loop_timer_set(&s->deadline, paused ? 0 : ms);
}

void life_paused(struct supervisor *s)
{
	uint64_t now = clock_monotonic_ns();

	if (s->record.state != VM_RUNNING)
		return;
	/* What is left of it begins anew when the guest goes on. */
	s->deadline_left_ms = !s->deadline_ns ? 0 : s->deadline_ns > now ? (s->deadline_ns - now) / 1000000 + 1 : 1;
	loop_timer_set(&s->deadline, 0);
	supervisor_save(s, VM_PAUSED);
	tell_paused(s, true);
}

void life_resumed(struct supervisor *s)
{
	if (s->record.state != VM_PAUSED)
		return;
	supervisor_save(s, VM_RUNNING);
	life_set_deadline(s, s->deadline_left_ms);
	tell_paused(s, false);
}

/* ---- the worker's word ---- */

/** READY goes to the caller when the agent has answered and the doors are open. */
static void pass_ready(struct supervisor *s)
{
	if (!s->ready.kind || doors_opening(s))
		return;
	life_tell_caller(s, &s->ready);
	tell_ready(s, s->ready.boot_ns);
	s->ready.kind = 0;
}

static void take_message(struct supervisor *s, const struct vm_message *m)
{
	switch (m->kind) {
	case VM_MESSAGE_READY:
		if (s->record.state != VM_STARTING)
			return;
		s->answered = true;
		/* A workload that is to start has as long again: a guest may hang between the two. */
		life_set_deadline(s, s->config.exec_size ? s->config.start_timeout_ms : 0);
		supervisor_save(s, VM_RUNNING);
		s->ready = *m;
		pass_ready(s);
		stop_ready(s);
		return;
	case VM_MESSAGE_STARTED:
		if (s->started || !s->answered)
			return;
		s->started = true;
		s->started_ns = clock_monotonic_ns();
		life_set_deadline(s, s->config.timeout_ms ? s->config.timeout_ms + TIMEOUT_MARGIN_MS : 0);
		life_tell_caller(s, m);
		return;
	case VM_MESSAGE_DRAINING:
		s->draining = true;
		life_set_deadline(s, 0);
		return;
	case VM_MESSAGE_OUTCOME:
		conclude(s, m);
		return;
	case VM_MESSAGE_EXPOSED:
		doors_answered(s, m);
		pass_ready(s);
		return;
	case VM_MESSAGE_DONE:
		requests_done(s, m);
		return;
	default:
		return;
	}
}

/** Take what the worker has said so far. */
void life_drain(struct supervisor *s)
{
	struct vm_message m;

	for (int i = 0; i < DRAIN_MAX && !s->outcome.kind && vm_message_receive(s->channel, &m) == 1; i++)
		take_message(s, &m);
}

void channel_flush(struct supervisor *s)
{
	bool full = doors_flush(s);

	full = requests_flush(s) || full;
	if (s->channel_watch.added)
		loop_modify(&s->loop, &s->channel_watch, full ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void on_channel(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, channel_watch);

	if (events & EPOLLOUT)
		channel_flush(s);
	life_drain(s);
	if (events & (EPOLLHUP | EPOLLERR))
		loop_remove(&s->loop, watch); /* its pidfd tells the rest */
}

/* ---- deaths ---- */

static void on_worker(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, worker.watch);
	char fate[128];

	(void)events;
	if (!child_reap(&s->worker))
		return;
	loop_remove(&s->loop, watch);
	life_drain(s);
	child_fate(&s->worker, fate, sizeof(fate));
	life_end(s, VM_END_WORKER, 0, "%s", fate);
}

static void end_machine(struct supervisor *s)
{
	char fate[128];

	errors_drain(s);
	const char *last = errors_last(s);
	if (WIFEXITED(s->machine.status) && WEXITSTATUS(s->machine.status) == JAIL_EXIT && last[0]) {
		life_end(s, VM_END_FAILED, 0, "%s", last); /* it never became QEMU */
		return;
	}
	child_fate(&s->machine, fate, sizeof(fate));
	bool said = last[0] && !WIFSIGNALED(s->machine.status);
	life_end(s, VM_END_MACHINE, 0, "%s%s%s", fate, said ? ": " : "", said ? last : "");
}

static void on_machine(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, machine.watch);

	(void)events;
	if (!child_reap(&s->machine))
		return;
	loop_remove(&s->loop, watch);
	life_drain(s);
	if (WIFEXITED(s->machine.status) && WEXITSTATUS(s->machine.status) == 0)
		loop_timer_set(&s->grace, GRACE_MS);
	else
		end_machine(s);
}

static void on_grace(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, grace);

	(void)events;
	loop_timer_set(&s->grace, 0);
	life_drain(s);
	if (!s->draining)
		life_end(s, VM_END_GUEST, 0, "the guest ended before its workload did");
}

/* ---- other ends ---- */

static void on_deadline(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, deadline);
	double seconds = (double)(s->started ? s->config.timeout_ms : s->config.start_timeout_ms) / 1000;

	(void)events;
	life_drain(s);
	if (s->started)
		life_end(s, VM_END_TIMEOUT, 0, "timed out after %.3f s, and the worker did not end the workload",
			seconds);
	else
		life_end(s, VM_END_START_TIMEOUT, 0, "the guest's agent did not %s within %.3f s",
			s->answered ? "start the workload" : "answer", seconds);
}

static void on_caller(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, caller_watch);
	struct vm_message m;

	(void)events;
	int rc = vm_message_receive(s->config.caller_fd, &m);
	if (rc < 0)
		return;
	life_drain(s);
	if (rc > 0 && m.kind == VM_CONTROL_KILL) {
		life_end(s, VM_END_KILLED, 0, "ended on request");
	} else if (rc == 0) {
		loop_remove(&s->loop, watch);
		if (!s->config.detached)
			life_end(s, VM_END_CALLER, 0, "the caller went away");
	}
}

static void on_signal(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, signal_watch);
	struct signalfd_siginfo info;

	(void)events;
	if (read(watch->fd, &info, sizeof(info)) == sizeof(info))
		life_end(s, VM_END_KILLED, 0, "the supervisor was told to end by signal %u", info.ssi_signo);
}

static void on_errors(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, errors_watch);

	(void)events;
	if (!errors_read(s))
		loop_remove(&s->loop, watch);
}

/* ---- what is watched ---- */

static int watch_signals(struct supervisor *s, struct husk_error *err)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGTTOU, SIGTTIN, SIGTSTP};
	sigset_t set;

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CLEANUP_FD int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_errno(err, "watch signals");
	int rc = loop_add(&s->loop, &s->signal_watch, fd, EPOLLIN, on_signal, err);
	if (rc == 0)
		steal_fd(&fd);
	return rc;
}

int life_prepare(struct supervisor *s, struct husk_error *err)
{
	int rc = watch_signals(s, err);
	if (rc == 0 && s->config.caller_fd >= 0)
		rc = loop_add(&s->loop, &s->caller_watch, s->config.caller_fd, EPOLLIN, on_caller, err);
	if (rc == 0)
		rc = loop_timer_open(&s->loop, &s->grace, on_grace, err);
	if (rc == 0)
		rc = loop_timer_open(&s->loop, &s->deadline, on_deadline, err);
	rc = rc < 0 ? rc : requests_open(s, err);
	rc = rc < 0 ? rc : stop_open(s, err);
	return rc < 0 ? rc : tell_open(s, err);
}

int life_watch(struct supervisor *s, struct husk_error *err)
{
	int rc = loop_add(&s->loop, &s->worker.watch, s->worker.pidfd, EPOLLIN, on_worker, err);
	if (rc == 0 && s->machine.pid)
		rc = loop_add(&s->loop, &s->machine.watch, s->machine.pidfd, EPOLLIN, on_machine, err);
	if (rc == 0)
		rc = loop_add(&s->loop, &s->channel_watch, s->channel, EPOLLIN, on_channel, err);
	if (rc == 0 && s->errors.fd >= 0)
		rc = loop_add(&s->loop, &s->errors_watch, s->errors.fd, EPOLLIN, on_errors, err);
	return rc;
}
