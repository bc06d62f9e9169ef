/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workload.c - from the guest's READY to the outcome
 *
 * Theory of operation: READY makes the worker connect to the agent's port and start the main workload (agent_client.h). The
 * workload's end is the VM's outcome, told to the supervisor in one message once all output has been handed on; then the
 * worker goes on serving its devices until the supervisor, which has what it wants, kills it.
 *
 * When something else ends first (the guest powers off, panics; QEMU goes away) the news arrives over several sockets in any
 * order. So the end of the machine is only noted at first and told after a moment, in which an EXIT that is already in our
 * buffers or the supervisor, which sees how QEMU died, can say something better.
 *
 * A service's last bytes may be on their way to the clients of the doors when its EXIT is here: in the agent, in the guest's
 * queue, in the muxer. So with EXIT the doors take nobody in any more, and the outcome is told once the muxer has passed on the
 * end of every connection to a port, which the guest sends behind the last byte, since the service's sockets are closed by now.
 * Clients that take nothing for DRAIN_STALL_MS, or have not got all within DRAIN_MS, get a reset from the worker's end.
 *
 * A workload that runs out of time gets SIGKILL through the agent, its output is written, and the outcome is TIMEOUT; what
 * the readers have not taken KILL_MS later is dropped, and the outcome says so. The doors' clients are not waited for then.
 */
#include "vmm/worker.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "vmm/dial.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#define KILL_MS 2000
#define KILL_KEPT_MS 10000 /* where nobody reads the output and the agent syncs the scratch disk, which is kept */
#define DRAIN_STALL_MS 1000 /* looked at in steps of as much */
#define DRAIN_MS 3000 /* since EXIT; the agent powers off 5 s after it */

void workload_tell(struct worker *w, const struct vm_message *message)
{
	if (vm_message_send(w->config.supervisor_fd, message) < 0)
		worker_log(w, "the supervisor does not listen");
}

static void report(struct worker *w, const struct vm_message *outcome);

static void on_sink_idle(void *data)
{
	struct worker *w = data;

	if (w->held)
		report(w, &w->outcome);
}

/** True while the caller has not taken all that the guest said on its console: the outcome has to wait, unless time is up. */
static bool sink_holds(struct worker *w, const struct vm_message *outcome)
{
	struct vm_message message = {.kind = VM_MESSAGE_DRAINING};

	if (w->timed_out || !w->sink.loop || sink_settle(&w->sink, on_sink_idle, w))
		return false;
	if (!w->outcome.kind)
		w->outcome = *outcome;
	if (!w->held)
		workload_tell(w, &message);
	w->held = true;
	return true;
}

static void report(struct worker *w, const struct vm_message *outcome)
{
	if (w->reported || sink_holds(w, outcome))
		return;
	w->reported = true;
	console_drain(&w->console);
	loop_timer_set(&w->timeout, 0);
	loop_timer_set(&w->settle, 0);
	loop_timer_set(&w->drain, 0);
	if (w->doors)
		doors_stop(w->doors);
	workload_tell(w, w->outcome.kind ? &w->outcome : outcome); /* once it is known nothing changes it */
}

void workload_report(struct worker *w, enum vm_end end, uint32_t value, const char *format, ...)
{
	struct vm_message outcome = {.kind = VM_MESSAGE_OUTCOME, .end = end, .value = value};
	va_list args;

	va_start(args, format);
	vm_message_vtext(&outcome, format, args);
	va_end(args);
	report(w, &outcome);
}

/** The guest ended: with the kernel's last words where there are some, else with what the machine said of it. */
static void report_guest(struct worker *w)
{
	const char *before = w->ready.done ? "before its workload did" : "before its agent answered";
	const char *cause = w->settle_text[0] ? w->settle_text : "the agent closed the connection";

	if (w->sink.loop)
		sink_settle(&w->sink, NULL, NULL);
	console_drain(&w->console);
	if (w->console.panic[0])
		cause = w->console.panic;
	workload_report(w, VM_END_GUEST, 0, "the guest ended %s: %s", before, cause);
}

void workload_settle(struct worker *w, enum vm_end end, const char *text, uint64_t ms)
{
	bool guest_told = w->settle_end == VM_END_GUEST || w->settle_end == VM_END_EXITED;

	if (w->reported || (guest_told && end == VM_END_MACHINE))
		return;
	w->settle_end = end;
	if (text)
		snprintf(w->settle_text, sizeof(w->settle_text), "%s", text);
	loop_timer_set(&w->settle, ms);
}

static void on_settle(struct loop_watch *watch, uint32_t events)
{
	struct worker *w = CONTAINER_OF(watch, struct worker, settle);

	(void)events;
	loop_timer_set(&w->settle, 0);
	if (w->draining)
		return; /* the workload's own end is known and will be told */
	if (w->settle_end == VM_END_GUEST)
		report_guest(w);
	else
		workload_report(w, w->settle_end, 0, "%s", w->settle_text);
}

static void on_timeout(struct loop_watch *watch, uint32_t events)
{
	struct worker *w = CONTAINER_OF(watch, struct worker, timeout);

	(void)events;
	if (w->timed_out) {
		workload_report(w, VM_END_TIMEOUT, 0, "timed out after %.3f s; output that nobody read was dropped",
			(double)w->config.timeout_ms / 1000);
		return;
	}
	w->timed_out = true;
	loop_timer_set(&w->timeout, w->config.workload_log_fd[0] >= 0 ? KILL_KEPT_MS : KILL_MS);
	if (w->client)
		agent_client_signal(w->client, SIGKILL);
}

static void on_started(void *data)
{
	struct worker *w = data;
	struct vm_message message = {.kind = VM_MESSAGE_STARTED};

	if (w->config.timeout_ms)
		loop_timer_set(&w->timeout, w->config.timeout_ms);
	doors_workload_started(w->doors);
	workload_tell(w, &message);
}

static void on_draining(void *data)
{
	struct worker *w = data;
	struct vm_message message = {.kind = VM_MESSAGE_DRAINING};

	w->draining = true;
	w->exit_ns = clock_monotonic_ns();
	doors_stop(w->doors);
	if (!w->timed_out)
		loop_timer_set(&w->timeout, 0);
	if (!w->timed_out)
		workload_tell(w, &message);
}

static void on_drained(void *data)
{
	struct worker *w = data;

	report(w, &w->outcome);
}

/** Tell the outcome if all clients have got what was said, or will not; otherwise look again. */
static void drain(struct worker *w)
{
	uint64_t progress, spent_ms = (clock_monotonic_ns() - w->exit_ns) / 1000000;
	unsigned left = vsock_undrained(w->vsock, &progress);

	if (left && spent_ms < DRAIN_MS && progress != w->drain_progress) {
		uint64_t rest_ms = DRAIN_MS - spent_ms;
		w->drain_progress = progress;
		loop_timer_set(&w->drain, rest_ms < DRAIN_STALL_MS ? rest_ms : DRAIN_STALL_MS);
		return;
	}
	if (left)
		worker_log(w, "%u connections are reset: their clients did not take the rest in time", left);
	report(w, &w->outcome);
}

static void on_drain(struct loop_watch *watch, uint32_t events)
{
	(void)events;
	loop_timer_set(watch, 0);
	drain(CONTAINER_OF(watch, struct worker, drain));
}

/** The outcome of the workload is known, and all its output written. */
static void conclude(struct worker *w, const struct vm_message *outcome)
{
	w->outcome = *outcome;
	w->drain_progress = UINT64_MAX;
	vsock_on_drained(w->vsock, on_drained, w);
	drain(w);
}

static void on_ended(void *data, const struct vm_message *outcome)
{
	struct worker *w = data;
	struct vm_message message = *outcome;

	if (w->timed_out && outcome->end == VM_END_SIGNALED && outcome->value == SIGKILL) {
		message.end = VM_END_TIMEOUT;
		message.value = 0;
		vm_message_text(&message, "timed out after %.3f s", (double)w->config.timeout_ms / 1000);
	}
	bool its_own = outcome->end == VM_END_EXITED || outcome->end == VM_END_SIGNALED;
	w->draining = its_own;
	if (outcome->end == VM_END_GUEST)
		workload_settle(w, VM_END_GUEST, NULL, 500); /* a kernel that panics says so first */
	else if (its_own && !w->timed_out)
		conclude(w, &message);
	else
		report(w, &message);
	agent_client_close(steal_pointer(&w->client));
}

static void on_output(void *data, int stream, const void *bytes, size_t n)
{
	struct worker *w = data;

	if (w->workload_log.limit)
		record_log_write(&w->workload_log, stream == 1 ? RECORD_STDOUT : RECORD_STDERR, bytes, n);
}

static const struct agent_client_handler client_handler = {
	.started = on_started,
	.output = on_output,
	.draining = on_draining,
	.ended = on_ended,
};

static void on_connected(void *data, int error)
{
	struct worker *w = data;

	if (error < 0)
		workload_report(w, VM_END_FAILED, 0,
			"the guest's agent did not take the connection for the workload: %s", strerror(-error));
}

static int start_workload(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return error_errno(err, "connect to the agent");
	CLEANUP_FD int ours = pair[0];
	int rc = vsock_connect(w->vsock, pair[1], AGENT_PORT, false, on_connected, w, err);
	if (rc < 0)
		return rc;
	rc = agent_client_open(
		&w->loop, steal_fd(&ours), c->exec, c->exec_size, c->stdio_fd, &client_handler, w, &w->client, err);
	if (rc < 0)
		return rc;
	c->stdio_fd[0] = c->stdio_fd[1] = c->stdio_fd[2] = -1;
	if (w->stdin_fd >= 0)
		rc = agent_client_feed(w->client, w->stdin_fd, w->stdin_to_end, err);
	w->stdin_fd = rc == 0 ? -1 : w->stdin_fd;
	return rc;
}

static void on_ready(void *data)
{
	struct worker *w = data;
	struct vm_message message = {.kind = VM_MESSAGE_READY, .boot_ns = clock_monotonic_ns() - w->begun_ns};
	struct husk_error err;

	workload_tell(w, &message);
	orders_guest_answers(w);
	doors_agent_ready(w->doors);
	if (w->config.exec && start_workload(w, &err) < 0)
		workload_report(w, VM_END_FAILED, 0, "%s", err.message);
}

int workload_accept(void *data, uint32_t port)
{
	struct worker *w = data;
	return port == AGENT_PORT ? ready_accept(&w->ready) : dial_ask(w->config.dial_fd, port);
}

void workload_control(void *data, const struct vm_message *message)
{
	struct worker *w = data;
	struct husk_error err;

	if (message->kind == VM_CONTROL_POWER_BUTTON && w->ops->power(w->machine, MACHINE_POWER_BUTTON, &err) < 0)
		worker_log(w, "the power button was not pressed: %s", err.message);
	if (!w->client)
		return;
	if (message->kind == VM_CONTROL_SIGNAL)
		agent_client_signal(w->client, message->value);
	else if (message->kind == VM_CONTROL_RESIZE)
		agent_client_resize(w->client, message->value >> 16, message->value & 0xffff);
}

/** What a timer has left, which is taken from it. */
static uint64_t stop_timer(struct loop_watch *timer)
{
	uint64_t left = loop_timer_left(timer);

	loop_timer_set(timer, 0);
	return left;
}

static void restart_timer(struct loop_watch *timer, uint64_t left_ns)
{
	if (left_ns)
		loop_timer_set(timer, left_ns / 1000000 + 1);
}

void workload_suspend(struct worker *w)
{
	w->timeout_left_ns = stop_timer(&w->timeout);
	w->drain_left_ns = stop_timer(&w->drain);
	w->paused_ns = clock_monotonic_ns();
}

void workload_go_on(struct worker *w)
{
	uint64_t since = w->exit_ns > w->paused_ns ? w->exit_ns : w->paused_ns;

	w->exit_ns += clock_monotonic_ns() - since;
	restart_timer(&w->timeout, w->timeout_left_ns);
	restart_timer(&w->drain, w->drain_left_ns);
}

int workload_init(struct worker *w, struct husk_error *err)
{
	w->stdin_fd = -1;
	ready_init(&w->ready, &w->loop, on_ready, w);
	int rc = loop_timer_open(&w->loop, &w->timeout, on_timeout, err);
	if (rc == 0)
		rc = loop_timer_open(&w->loop, &w->drain, on_drain, err);
	return rc < 0 ? rc : loop_timer_open(&w->loop, &w->settle, on_settle, err);
}
