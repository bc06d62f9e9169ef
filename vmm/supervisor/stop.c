/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.c - STOP: ask the guest to end, ask it more plainly, end it
 *
 * Theory of operation: a VM that is paused is resumed and its workload gets its stop signal at once, halfway through the time
 * that was given the power button is pressed, and at its end the VM is killed. All of it happens here and not in the command
 * that asked, which may go away, nor in the worker, which may hang: what it does not hear is made up for by the end. Where
 * there is no workload of the agent's to signal the button is pressed at once. A guest that is starting gets the signal when
 * its agent has answered.
 *
 * A VM whose scratch disk is kept is not cut off in the middle of a write: at the end its workload gets SIGKILL, behind which the
 * agent syncs, and the VM has FLUSH_MS for that.
 */
#include "vmm/supervisor/supervisor.h"

#include "vmm/control.h"

#include <signal.h>

#define FLUSH_MS 2000

static void tell(struct supervisor *s, uint32_t kind, uint32_t value)
{
	const struct vm_message m = {.kind = kind, .value = value};

	if (vm_message_send(s->channel, &m) < 0)
		supervisor_log(s, "the worker does not hear that the VM is to stop");
}

static void press(struct supervisor *s)
{
	if (!s->stopping.pressed)
		tell(s, VM_CONTROL_POWER_BUTTON, 0);
	s->stopping.pressed = true;
}

void stop_ready(struct supervisor *s)
{
	if (s->stopping.asked && s->config.exec_size)
		tell(s, VM_CONTROL_SIGNAL, s->config.stop_signal ? s->config.stop_signal : SIGTERM);
}

/** Wait for what comes next. */
static void set_timer(struct supervisor *s)
{
	uint64_t now = clock_monotonic_ns();
	uint64_t next = s->stopping.pressed ? s->stopping.end_ns : s->stopping.press_ns;

	if (s->stopping.killed)
		next = s->stopping.end_ns + FLUSH_MS * 1000000ull;

	loop_timer_set(&s->stopping.timer, next > now ? (next - now) / 1000000 + 1 : 1);
}

/** Nothing that was asked has helped in time: true when the VM is over. */
static bool insist(struct supervisor *s)
{
	bool flushes = s->config.detached && s->started && !s->stopping.killed;

	life_drain(s);
	if (!flushes || s->outcome.kind) {
		life_end(s, VM_END_KILLED, 0, "killed: it did not stop within %g s",
			(double)s->stopping.given_ms / 1000);
		return true;
	}
	s->stopping.killed = true;
	s->stopping.end_ns = clock_monotonic_ns();
	tell(s, VM_CONTROL_SIGNAL, SIGKILL);
	return false;
}

static void on_timer(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, stopping.timer);
	bool over = clock_monotonic_ns() >= s->stopping.end_ns;

	(void)events;
	loop_timer_set(watch, 0);
	if (over && insist(s))
		return;
	if (!over)
		press(s);
	set_timer(s);
}

void stop_judge(const struct supervisor *s, struct vm_message *outcome)
{
	if (!s->stopping.killed || outcome->end != VM_END_SIGNALED || outcome->value != SIGKILL)
		return;
	outcome->end = VM_END_KILLED;
	outcome->value = 0;
	vm_message_text(outcome, "killed: it did not stop within %g s", (double)s->stopping.given_ms / 1000);
}

void stop_begin(struct supervisor *s, uint32_t ms)
{
	struct stopping *stopping = &s->stopping;
	uint64_t now = clock_monotonic_ns(), end_ns = now + ms * 1000000ull;
	bool first = !stopping->asked;

	if (ms == 0) {
		life_end(s, VM_END_KILLED, 0, "killed on request");
		return;
	}
	if (stopping->killed || (!first && end_ns >= stopping->end_ns))
		return;
	stopping->asked = true;
	stopping->given_ms = ms;
	stopping->end_ns = end_ns;
	stopping->press_ns = now + ms / 2 * 1000000ull;
	if (first) {
		requests_resume(s);
		if (s->record.state != VM_STARTING)
			stop_ready(s);
		if (s->config.exec_size == 0)
			press(s);
	}
	set_timer(s);
}

int stop_open(struct supervisor *s, struct husk_error *err)
{
	return loop_timer_open(&s->loop, &s->stopping.timer, on_timer, err);
}
