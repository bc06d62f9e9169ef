/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.c - the worker's parent, one per VM: its beginning, its end, its record
 *
 * Theory of operation: the supervisor starts the VM's processes and follows their life (life.c). Once an outcome is there the
 * doors' paths are removed, the children are killed and waited for (the guest's scratch disk is discarded, so there is nothing
 * to shut down in order), the final record is written, and the supervisor exits. So whoever sees the supervisor gone finds no
 * process of the VM, no path of its doors and a true record. A VM whose record is not to stay is removed by husk-remove, which
 * the supervisor becomes: a detached VM has nobody else who would, and the record of processes stays true meanwhile.
 *
 * It parses nothing that a guest wrote: the worker's messages have a fixed size and checked ranges. Signals of a terminal
 * are ignored (the spawner has put it into a session of its own as well); SIGTERM ends the VM.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/rfc3339.h"
#include "vmm/jail/jail.h"
#include "vmm/log.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000

void supervisor_log(struct supervisor *s, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vmm_log(s->config.log_fd, "husk-vmm supervisor", format, args);
	va_end(args);
}

void supervisor_log_as(struct supervisor *s, const char *who, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vmm_log(s->config.log_fd, who, format, args);
	va_end(args);
}

void supervisor_save(struct supervisor *s, enum vm_state state)
{
	struct husk_error err;

	s->record.state = state;
	if (s->config.state_fd >= 0 && state_write(s->config.state_fd, &s->record, &err) < 0)
		supervisor_log(s, "%s", err.message);
}

/** The first generation of this supervisor, which goes on from the one before: of the engine, or of the last start. Without it
 *  nobody could find the VM, so here a failure is one of the start. */
static int begin_record(struct supervisor *s, struct husk_error *err)
{
	struct vm_state_record before, *r = &s->record;

	if (s->config.state_fd >= 0 && state_read(s->config.state_fd, &before, NULL) == 0) {
		r->generation = before.generation;
		r->starts = before.starts;
	}
	r->state = VM_STARTING;
	r->starts++;
	r->started_ns = clock_realtime_ns();
	if (s->config.pty_path)
		snprintf(r->console, sizeof(r->console), "%s", s->config.pty_path);
	host_boot_id(r->boot_id);
	process_identify(getpid(), &r->supervisor);
	int rc = s->config.state_fd >= 0 ? state_write(s->config.state_fd, &s->record, err) : 0;
	/* Our starter may be dead by now: until here nobody took the VM for an orphan. */
	if (s->config.lock_fd >= 0)
		close(steal_fd(&s->config.lock_fd));
	if (rc == 0)
		life_tell_caller(s, &(struct vm_message){.kind = VM_MESSAGE_BEGUN});
	return rc;
}

/** What the record says of an outcome. */
static void record_reason(struct supervisor *s)
{
	const struct vm_message *o = &s->outcome;
	char *reason = s->record.reason;
	size_t room = sizeof(s->record.reason);

	if (o->end == VM_END_WORKER)
		snprintf(reason, room, "worker lost: %.480s", o->text);
	else if (o->text[0])
		snprintf(reason, room, "%s", o->text);
	else if (o->end == VM_END_EXITED)
		snprintf(reason, room, "the workload exited with status %u", o->value);
	else if (o->end == VM_END_SIGNALED)
		snprintf(reason, room, "the workload was killed by signal %u", o->value);
}

/** ERROR: its workload never ran, or husk failed. What was ended on request before that is no error. */
static enum vm_state final_state(const struct supervisor *s)
{
	uint32_t end = s->outcome.end;

	if (end == VM_END_FAILED || end == VM_END_START_TIMEOUT || end == VM_END_NOT_STARTED)
		return VM_ERROR;
	bool asked = end == VM_END_KILLED || end == VM_END_CALLER;
	return s->answered || s->config.no_agent || asked ? VM_STOPPED : VM_ERROR;
}

static void finish(struct supervisor *s)
{
	static const char *const doors[] = {"exec.sock", "vsock.sock"};
	struct vm_state_record *r = &s->record;

	service_close(s);
	doors_end(s);
	children_end(s);
	errors_drain(s);
	for (size_t i = 0; i < ARRAY_SIZE(doors) && s->config.runtime_fd >= 0; i++)
		(void)unlinkat(s->config.runtime_fd, doors[i], 0);
	r->end = s->outcome.end;
	r->value = s->outcome.value;
	r->duration_ns = s->outcome.duration_ns;
	r->peak_rss = s->outcome.peak_rss;
	r->flags = (uint32_t)s->outcome.number;
	r->ended_ns = clock_realtime_ns();
	r->worker = r->machine = (struct process_id){0};
	memset(r->console, 0, sizeof(r->console));
	record_reason(s);
	supervisor_save(s, final_state(s));
	supervisor_log(s, "stopped: %s", r->reason);
	tell_stopped(s);
}

/** Become the program that removes the VM: it needs our rights and nobody who waits for it. As we go, our descriptors do. */
static void become_remover(const struct vmm_config *c)
{
	static const int taken[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGTTOU, SIGTTIN, SIGTSTP};
	char name[] = "husk-remove";
	char *argv[] = {name, c->home, c->runtime_path, c->id, NULL};
	sigset_t none;

	if (!c->remover_path || !c->home || !c->runtime_path)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		signal(taken[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir("/") < 0 || close_range(3, ~0u, 0) < 0)
		return;
	execv(c->remover_path, argv);
	/* The record says how the VM ended, and whoever finds it can remove it. stderr is the log, unless that is full. */
	fprintf(stderr, "husk-vmm supervisor: become %s: %s\n", c->remover_path, strerror(errno));
}

/** What concerns nobody but the supervisor is watched before the children are started. */
static int prepare(struct supervisor *s, struct husk_error *err)
{
	const struct vmm_config *c = &s->config;

	bool machine = c->machine == VMM_MACHINE_QEMU ? c->qemu_path != NULL : c->kvm_fd >= 0;

	if (!machine || c->kernel_fd < 0 || c->runtime_fd < 0 || c->n_layers == 0)
		return error_set(
			err, -EINVAL, "the configuration lacks a machine, a kernel, a layer or the runtime directory");
	int rc = loop_init(&s->loop, err);
	return rc < 0 ? rc : life_prepare(s, err);
}

/** The children have their copies; what only they need is closed, so that streams end when the worker lets them go. */
static void let_go(struct vmm_config *c)
{
	int *fds[] = {&c->kernel_fd, &c->initrd_fd, &c->scratch_fd, &c->control_fd, &c->stdio_fd[0], &c->stdio_fd[1],
		&c->stdio_fd[2], &c->serial_out_fd, &c->serial_in_fd,
		&c->stats_fd, &c->kvm_fd, &c->exec_socket_fd, &c->vsock_socket_fd, &c->dial_fd,
		&c->console_log_fd[0], &c->console_log_fd[1], &c->workload_log_fd[0], &c->workload_log_fd[1]};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		cleanup_fd(fds[i]), *fds[i] = -1;
	for (size_t i = 0; i < c->n_layers; i++)
		cleanup_fd(&c->layer_fd[i]);
	c->n_layers = 0;
	free(steal_pointer(&c->exec));
}

static int start(struct supervisor *s, struct husk_error *err)
{
	int rc = doors_take(s, err);
	rc = rc < 0 ? rc : begin_record(s, err);
	rc = rc < 0 ? rc : prepare(s, err);
	rc = rc < 0 ? rc : sockets_open(s, err);
	if (rc == 0)
		rc = children_start(s, err);
	if (rc < 0)
		return rc;
	let_go(&s->config);
	process_identify(s->worker.pid, &s->record.worker);
	if (s->machine.pid)
		process_identify(s->machine.pid, &s->record.machine);
	supervisor_save(s, VM_STARTING);
	tell_started(s);
	if (s->config.start_timeout_ms == 0)
		s->config.start_timeout_ms = START_TIMEOUT_MS;
	life_set_deadline(s, s->config.start_timeout_ms);
	rc = life_watch(s, err);
	rc = rc < 0 ? rc : service_open(s, err);
	if (rc == 0)
		channel_flush(s);
	return rc;
}

int supervisor_run(int fd)
{
	static struct supervisor supervisor;
	struct supervisor *s = &supervisor;
	struct husk_error err;

	*s = (struct supervisor){.worker = {.name = "the worker", .pidfd = -1},
		.machine = {.name = "QEMU", .pidfd = -1},
		.channel = -1,
		.errors = {.fd = -1}};
	prctl(PR_SET_NAME, "husk-supervisor");
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* guest memory must not end up in a core file */
	if (vmm_config_read(fd, &s->config, &err) < 0) {
		fprintf(stderr, "husk-vmm supervisor: %s\n", err.message);
		return 125;
	}
	s->config.walls &= jail_full();
	int rc = start(s, &err);
	if (rc == 0)
		rc = loop_run(&s->loop, &err);
	if (rc < 0)
		life_end(s, VM_END_FAILED, 0, "%s", err.message);
	finish(s);
	become_remover(&s->config);
	return 0;
}
