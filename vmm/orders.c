/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orders.c - what the supervisor asks of a VM that runs
 *
 * Theory of operation: one message is one request, and all but SIGNAL, RESIZE and POWER_BUTTON, which are as from the control
 * socket, get one answer: EXPOSED for doors, DONE for the others. The supervisor is trusted more than we are, so what comes is
 * checked for form only; who may ask for what is its business. A request is carried out at once, or begun: then the machine's event
 * answers it. One change between running and resting is under way at a time, another one meanwhile is refused; QEMU answers in
 * the order of its commands, so it needs no names to tell whose balloon an answer is about.
 *
 * A VM that rests costs its workload no time: its timers stand still as well.
 */
#include "base/cleanup.h"
#include "vmm/worker.h"

#include <string.h>

/** As of a request's begin(): it is answered later. */
#define LATER 1

void orders_done(struct worker *w, uint32_t kind, int rc, const char *text)
{
	struct vm_message m = {.kind = VM_MESSAGE_DONE, .number = kind, .value = (uint32_t)-rc};

	vm_message_text(&m, "%s", rc < 0 ? text : "");
	workload_tell(w, &m);
}

/* ---- doors ---- */

/** Open or close a door, and answer; what is left of @fds is the caller's to close. */
static void take_door(struct worker *w, const struct vm_message *m, int *fds, size_t n_fds)
{
	struct vm_message answer = {.kind = VM_MESSAGE_EXPOSED, .door = m->door};
	struct husk_error err = {0};
	int rc;

	if (m->kind == VM_CONTROL_UNEXPOSE)
		rc = doors_remove(w->doors, m->door.id, &err);
	else if (n_fds != 1)
		rc = error_set(&err, -EINVAL, "open the %s door %s: it came with %zu descriptors, not one",
			vm_door_kind_name(m->door.kind), m->door.endpoint, n_fds);
	else
		rc = doors_add(w->doors, &m->door, steal_fd(&fds[0]), &err);
	answer.value = (uint32_t)-rc;
	vm_message_text(&answer, "%s", err.message);
	workload_tell(w, &answer);
}

/* ---- running and resting ---- */

static int change(struct worker *w, uint32_t kind, struct husk_error *err)
{
	bool pause = kind == VM_CONTROL_PAUSE;

	if (!w->ops->capabilities.pause)
		return error_set(err, -ENOTSUP, "the machine '%s' cannot be paused", w->ops->capabilities.name);
	if (w->changing)
		return error_set(
			err, -EBUSY, "it is being %s just now", w->changing == VM_CONTROL_PAUSE ? "paused" : "resumed");
	if (pause == w->paused)
		return error_set(err, -EALREADY, pause ? "it is paused" : "it is not paused");
	if (!w->runs)
		return error_set(err, -ESRCH, "its vCPUs do not run");
	int rc = (pause ? w->ops->pause : w->ops->resume)(w->machine, err);
	if (rc < 0)
		return rc;
	w->changing = kind;
	return LATER;
}

static int do_change(struct worker *w, const struct vm_message *m, int *fd, struct husk_error *err)
{
	(void)fd;
	return change(w, m->kind, err);
}

/** The machine rests or runs: on its own account, or because it was told to. */
static void changed(struct worker *w, bool rests)
{
	uint32_t kind = rests ? VM_CONTROL_PAUSE : VM_CONTROL_RESUME;

	if (rests && !w->paused)
		workload_suspend(w);
	else if (!rests && w->paused)
		workload_go_on(w);
	w->paused = rests;
	if (w->changing == kind) {
		w->changing = 0;
		orders_done(w, kind, 0, "");
	} else if (rests) {
		worker_log(w, "the machine stands still, and was not told to");
	}
}

/* ---- the balloon ---- */

/** 0 or -errno; LATER where the machine has to answer. */
static int set_balloon(struct worker *w, uint64_t bytes, struct husk_error *err)
{
	int rc = 0;

	if (w->balloon)
		balloon_set_target(w->balloon, bytes);
	else if (w->ops->balloon)
		rc = w->ops->balloon(w->machine, bytes, err);
	else
		return error_set(err, -ENOTSUP, "the machine '%s' has no balloon", w->ops->capabilities.name);
	if (rc < 0)
		return rc;
	stats_set(&w->stats->memory.balloon_target, bytes);
	return w->balloon ? 0 : LATER;
}

static int do_balloon(struct worker *w, const struct vm_message *m, int *fd, struct husk_error *err)
{
	(void)fd;
	if (!w->guest_answers)
		return error_set(err, -EAGAIN, "the guest is not there yet");
	if (m->number >= w->config.memory)
		return error_set(err, -ERANGE, "the guest has %llu bytes of memory, and cannot give back %llu",
			(unsigned long long)w->config.memory, (unsigned long long)m->number);
	return set_balloon(w, m->number, err);
}

void orders_guest_answers(struct worker *w)
{
	struct husk_error err;

	if (w->guest_answers)
		return;
	w->guest_answers = true;
	int rc = w->config.balloon ? set_balloon(w, w->config.balloon, &err) : 0;
	w->ballooning = rc == LATER;
	if (rc < 0)
		worker_log(w, "the balloon was not set: %s", err.message);
}

/** QEMU has taken a target, or not. */
static void ballooned(struct worker *w, const char *text)
{
	if (!w->ballooning)
		orders_done(w, VM_CONTROL_BALLOON, text[0] ? -EIO : 0, text);
	else if (text[0])
		worker_log(w, "the balloon was not set: %s", text);
	w->ballooning = false;
}

/* ---- counters, stdin ---- */

static int do_stats(struct worker *w, const struct vm_message *m, int *fd, struct husk_error *err)
{
	(void)m, (void)fd, (void)err;
	sample_ask(w);
	return LATER;
}

static int do_attach(struct worker *w, const struct vm_message *m, int *fd, struct husk_error *err)
{
	if (!w->config.open_stdin)
		return error_set(err, -ENOTSUP, "the workload's stdin was not made to be attached to");
	if (*fd < 0)
		return error_set(err, -EINVAL, "nothing came that stdin could be read from");
	if (w->client) {
		int rc = agent_client_feed(w->client, *fd, m->value == 1, err);
		*fd = rc < 0 ? *fd : -1;
		return rc;
	}
	if (w->ready.done)
		return error_set(err, -EPIPE, "the workload has ended");
	if (w->stdin_fd >= 0)
		return error_set(err, -EBUSY, "the workload's stdin comes from somewhere already");
	w->stdin_fd = steal_fd(fd);
	w->stdin_to_end = m->value == 1;
	return 0;
}

/* ---- the whole ---- */

static const struct order {
	uint32_t kind;
	/** 0, -errno or LATER. @fd: what came with it, or -1; set to -1 when it is taken. */
	int (*begin)(struct worker *w, const struct vm_message *m, int *fd, struct husk_error *err);
} orders[] = {
	{VM_CONTROL_PAUSE, do_change},
	{VM_CONTROL_RESUME, do_change},
	{VM_CONTROL_BALLOON, do_balloon},
	{VM_CONTROL_STATS, do_stats},
	{VM_CONTROL_ATTACH, do_attach},
};

static void take(struct worker *w, const struct vm_message *m, int *fds, size_t n_fds)
{
	struct husk_error err = {0};

	if (m->kind == VM_CONTROL_EXPOSE || m->kind == VM_CONTROL_UNEXPOSE) {
		take_door(w, m, fds, n_fds);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		if (orders[i].kind != m->kind)
			continue;
		int rc = orders[i].begin(w, m, &fds[0], &err);
		if (rc != LATER)
			orders_done(w, m->kind, rc, err.message);
		return;
	}
	workload_control(w, m);
}

static void on_supervisor(struct loop_watch *watch, uint32_t events)
{
	struct worker *w = CONTAINER_OF(watch, struct worker, supervisor);
	struct vm_message message;
	int fds[VMM_DOOR_FDS] = {-1, -1, -1, -1};
	size_t n_fds = ARRAY_SIZE(fds);

	(void)events;
	int rc = vm_message_receive_fds(w->config.supervisor_fd, &message, fds, &n_fds);
	if (rc == 0)
		loop_stop(&w->loop); /* it has died, and we are to follow */
	if (rc == 1)
		take(w, &message, fds, n_fds);
	for (size_t i = 0; i < n_fds; i++)
		cleanup_fd(&fds[i]);
}

void orders_machine(struct worker *w, enum machine_event event, const char *text)
{
	if (event == MACHINE_RUNNING || event == MACHINE_PAUSED) {
		w->runs = true;
		changed(w, event == MACHINE_PAUSED);
		if (w->config.no_agent && event == MACHINE_RUNNING && !w->guest_answers) {
			/* Nobody in there will say more: such a VM runs when its vCPUs do. */
			workload_tell(w, &(struct vm_message){.kind = VM_MESSAGE_READY,
						 .boot_ns = clock_monotonic_ns() - w->begun_ns});
			orders_guest_answers(w);
		}
	} else if (event == MACHINE_BALLOON) {
		ballooned(w, text);
	} else {
		w->runs = false;
		if (w->changing)
			orders_done(w, w->changing, -ESRCH, text);
		w->changing = 0;
	}
}

int orders_open(struct worker *w, struct husk_error *err)
{
	return loop_add(&w->loop, &w->supervisor, w->config.supervisor_fd, EPOLLIN, on_supervisor, err);
}
