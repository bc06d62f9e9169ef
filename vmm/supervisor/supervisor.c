/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.c - the worker's parent, one per VM: starts and reaps its processes, keeps its record true
 *
 * Theory of operation: the supervisor watches the pidfds of worker and QEMU, the worker's channel, the caller's socket and a
 * few timers. The first thing that ends the VM decides the outcome. It is told to the caller at once; then both children are
 * killed and waited for (the guest's scratch disk is discarded, so there is nothing to shut down in order), the final record
 * is written, and the supervisor exits. So whoever sees the supervisor gone finds no process of the VM and a true record.
 *
 * When a child dies, the worker's channel is drained before that is judged: an outcome that the worker has sent counts more
 * than its death. QEMU's exit with status 0 means that the guest powered off, and then the worker, which reads the console
 * and may still be writing the workload's output, is given GRACE_MS to say more.
 *
 * It parses nothing that a guest wrote: the worker's messages have a fixed size and checked ranges. Signals of a terminal
 * are ignored (the spawner has put it into a session of its own as well); SIGTERM ends the VM.
 */
#include "vmm/supervisor/supervisor.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "vmm/control.h"
#include "vmm/log.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define GRACE_MS 1500
#define TIMEOUT_MARGIN_MS 3000 /* over the workload's timeout, which the worker enforces */
#define START_TIMEOUT_MS 60000
#define DRAIN_MAX 64

void supervisor_log(struct supervisor *s, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vmm_log(s->config.log_fd, "supervisor", format, args);
	va_end(args);
}

static void write_state(struct supervisor *s, enum vm_state state)
{
	struct husk_error err;

	s->record.state = state;
	if (s->config.state_fd >= 0 && state_write(s->config.state_fd, &s->record, &err) < 0)
		supervisor_log(s, "%s", err.message);
}

static void tell_caller(struct supervisor *s, const struct vm_message *message)
{
	if (s->config.caller_fd >= 0)
		(void)vm_message_send(s->config.caller_fd, message); /* a caller that does not read misses it */
}

/* ---- the end ---- */

/** The first outcome counts. */
static void conclude(struct supervisor *s, const struct vm_message *outcome)
{
	if (s->outcome.kind)
		return;
	s->outcome = *outcome;
	tell_caller(s, outcome);
	loop_stop(&s->loop);
}

__attribute__((format(printf, 4, 5))) static void end(
	struct supervisor *s, enum vm_end why, uint32_t value, const char *format, ...)
{
	struct vm_message outcome = {.kind = VM_MESSAGE_OUTCOME, .end = why, .value = value};
	va_list args;

	va_start(args, format);
	vm_message_vtext(&outcome, format, args);
	va_end(args);
	conclude(s, &outcome);
}

/** What the record says of an outcome. */
static void record_reason(struct supervisor *s)
{
	const struct vm_message *o = &s->outcome;
	char *reason = s->record.reason;

	if (o->text[0])
		snprintf(reason, sizeof(s->record.reason), "%s", o->text);
	else if (o->end == VM_END_EXITED)
		snprintf(reason, sizeof(s->record.reason), "the workload exited with status %u", o->value);
	else if (o->end == VM_END_SIGNALED)
		snprintf(reason, sizeof(s->record.reason), "the workload was killed by signal %u", o->value);
}

static void finish(struct supervisor *s)
{
	static const char *const doors[] = {"exec.sock", "vsock.sock"};

	children_end(s);
	for (int i = 0; s->errors >= 0 && i < DRAIN_MAX && children_read_errors(s); i++)
		;
	for (size_t i = 0; i < ARRAY_SIZE(doors) && s->config.runtime_fd >= 0; i++)
		(void)unlinkat(s->config.runtime_fd, doors[i], 0);
	s->record.end = s->outcome.end;
	s->record.value = s->outcome.value;
	s->record.duration_ns = s->outcome.duration_ns;
	s->record.peak_rss = s->outcome.peak_rss;
	s->record.worker = s->record.machine = (struct process_id){0};
	record_reason(s);
	write_state(s, VM_STOPPED);
	supervisor_log(s, "stopped: %s", s->record.reason);
}

/* ---- the worker's word ---- */

static void take_message(struct supervisor *s, const struct vm_message *m)
{
	switch (m->kind) {
	case VM_MESSAGE_READY:
		if (s->record.state != VM_STARTING)
			return;
		/* A workload that is to start has as long again: a guest may hang between the two. */
		loop_timer_set(&s->deadline, s->config.exec_size ? s->config.start_timeout_ms : 0);
		write_state(s, VM_RUNNING);
		tell_caller(s, m);
		return;
	case VM_MESSAGE_STARTED:
		if (s->started || s->record.state != VM_RUNNING)
			return;
		s->started = true;
		loop_timer_set(&s->deadline, s->config.timeout_ms ? s->config.timeout_ms + TIMEOUT_MARGIN_MS : 0);
		tell_caller(s, m);
		return;
	case VM_MESSAGE_DRAINING:
		s->draining = true;
		loop_timer_set(&s->deadline, 0);
		return;
	case VM_MESSAGE_OUTCOME:
		conclude(s, m);
		return;
	default:
		return;
	}
}

/** Take what the worker has said so far. */
static void drain_channel(struct supervisor *s)
{
	struct vm_message m;

	for (int i = 0; i < DRAIN_MAX && !s->outcome.kind && vm_message_receive(s->channel, &m) == 1; i++)
		take_message(s, &m);
}

static void on_channel(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, channel_watch);

	drain_channel(s);
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
	drain_channel(s);
	child_fate(&s->worker, fate, sizeof(fate));
	end(s, VM_END_WORKER, 0, "%s", fate);
}

static void end_machine(struct supervisor *s)
{
	char fate[128];

	for (int i = 0; s->errors >= 0 && i < DRAIN_MAX && children_read_errors(s); i++)
		;
	child_fate(&s->machine, fate, sizeof(fate));
	bool said = s->last_line[0] && !WIFSIGNALED(s->machine.status);
	end(s, VM_END_MACHINE, 0, "%s%s%s", fate, said ? ": " : "", said ? s->last_line : "");
}

static void on_machine(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, machine.watch);

	(void)events;
	if (!child_reap(&s->machine))
		return;
	loop_remove(&s->loop, watch);
	drain_channel(s);
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
	drain_channel(s);
	if (!s->draining)
		end(s, VM_END_GUEST, 0, "the guest ended before its workload did");
}

/* ---- other ends ---- */

static void on_deadline(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, deadline);
	double seconds = (double)(s->started ? s->config.timeout_ms : s->config.start_timeout_ms) / 1000;

	(void)events;
	drain_channel(s);
	if (s->started)
		end(s, VM_END_TIMEOUT, 0, "timed out after %.3f s, and the worker did not end the workload", seconds);
	else
		end(s, VM_END_START_TIMEOUT, 0, "the guest's agent did not %s within %.3f s",
			s->record.state == VM_RUNNING ? "start the workload" : "answer", seconds);
}

static void on_caller(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, caller_watch);
	struct vm_message m;

	(void)events;
	int rc = vm_message_receive(s->config.caller_fd, &m);
	if (rc < 0)
		return;
	drain_channel(s);
	if (rc > 0 && m.kind == VM_CONTROL_KILL) {
		end(s, VM_END_KILLED, 0, "ended on request");
	} else if (rc == 0) {
		loop_remove(&s->loop, watch);
		if (!s->config.detached)
			end(s, VM_END_CALLER, 0, "the caller went away");
	}
}

static void on_signal(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, signal_watch);
	struct signalfd_siginfo info;

	(void)events;
	if (read(watch->fd, &info, sizeof(info)) == sizeof(info))
		end(s, VM_END_KILLED, 0, "the supervisor was told to end by signal %u", info.ssi_signo);
}

static void on_errors(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, errors_watch);

	(void)events;
	if (!children_read_errors(s))
		loop_remove(&s->loop, watch);
}

/* ---- the beginning ---- */

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

/** What concerns nobody but the supervisor is watched before the children are started. */
static int prepare(struct supervisor *s, struct husk_error *err)
{
	const struct vmm_config *c = &s->config;

	if (!c->qemu_path || c->kernel_fd < 0 || c->runtime_fd < 0 || c->n_layers == 0)
		return error_set(
			err, -EINVAL, "the configuration lacks QEMU, a kernel, a layer or the runtime directory");
	if (c->machine != VMM_MACHINE_QEMU)
		return error_set(err, -ENOTSUP, "this husk-vmm has no machine of that kind");
	int rc = loop_init(&s->loop, err);
	if (rc == 0)
		rc = watch_signals(s, err);
	if (rc == 0 && c->caller_fd >= 0)
		rc = loop_add(&s->loop, &s->caller_watch, c->caller_fd, EPOLLIN, on_caller, err);
	if (rc == 0)
		rc = loop_timer_open(&s->loop, &s->grace, on_grace, err);
	if (rc == 0)
		rc = loop_timer_open(&s->loop, &s->deadline, on_deadline, err);
	return rc;
}

static int watch_children(struct supervisor *s, struct husk_error *err)
{
	int rc = loop_add(&s->loop, &s->worker.watch, s->worker.pidfd, EPOLLIN, on_worker, err);
	if (rc == 0)
		rc = loop_add(&s->loop, &s->machine.watch, s->machine.pidfd, EPOLLIN, on_machine, err);
	if (rc == 0)
		rc = loop_add(&s->loop, &s->channel_watch, s->channel, EPOLLIN, on_channel, err);
	if (rc == 0)
		rc = loop_add(&s->loop, &s->errors_watch, s->errors, EPOLLIN, on_errors, err);
	return rc;
}

/** The children have their copies; what only they need is closed, so that streams end when the worker lets them go. */
static void let_go(struct vmm_config *c)
{
	int *fds[] = {&c->kernel_fd, &c->initrd_fd, &c->scratch_fd, &c->control_fd, &c->stdio_fd[0], &c->stdio_fd[1],
		&c->stdio_fd[2]};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		cleanup_fd(fds[i]), *fds[i] = -1;
	for (size_t i = 0; i < c->n_layers; i++)
		cleanup_fd(&c->layer_fd[i]);
	c->n_layers = 0;
	free(steal_pointer(&c->exec));
}

static int start(struct supervisor *s, struct husk_error *err)
{
	write_state(s, VM_CREATING);
	int rc = prepare(s, err);
	if (rc == 0)
		rc = children_start(s, err);
	if (rc < 0)
		return rc;
	let_go(&s->config);
	process_identify(s->worker.pid, &s->record.worker);
	process_identify(s->machine.pid, &s->record.machine);
	write_state(s, VM_STARTING);
	if (s->config.start_timeout_ms == 0)
		s->config.start_timeout_ms = START_TIMEOUT_MS;
	loop_timer_set(&s->deadline, s->config.start_timeout_ms);
	return watch_children(s, err);
}

int supervisor_run(int fd)
{
	static struct supervisor supervisor;
	struct supervisor *s = &supervisor;
	struct husk_error err;

	*s = (struct supervisor){.worker = {.name = "the worker", .pidfd = -1},
		.machine = {.name = "QEMU", .pidfd = -1},
		.channel = -1,
		.errors = -1};
	prctl(PR_SET_NAME, "husk-supervisor");
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* guest memory must not end up in a core file */
	if (vmm_config_read(fd, &s->config, &err) < 0) {
		fprintf(stderr, "husk-vmm supervisor: %s\n", err.message);
		return 125;
	}
	host_boot_id(s->record.boot_id);
	process_identify(getpid(), &s->record.supervisor);
	int rc = start(s, &err);
	if (rc == 0)
		rc = loop_run(&s->loop, &err);
	if (rc < 0)
		end(s, VM_END_FAILED, 0, "%s", err.message);
	finish(s);
	return 0;
}
