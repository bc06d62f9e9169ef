/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.c - the worker's parent, one per VM: its beginning, its end, its record
 *
 * Theory of operation: the supervisor starts the VM's processes and follows their life (life.c). Once an outcome is there the
 * doors' paths are removed, the children are killed and waited for (the guest's scratch disk is discarded, so there is nothing
 * to shut down in order), the final record is written, and the supervisor exits. So whoever sees the supervisor gone finds no
 * process of the VM, no path of its doors and a true record.
 *
 * It parses nothing that a guest wrote: the worker's messages have a fixed size and checked ranges. Signals of a terminal
 * are ignored (the spawner has put it into a session of its own as well); SIGTERM ends the VM.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "vmm/jail/jail.h"
#include "vmm/log.h"

#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

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

/** The first generation of this supervisor. Without it nobody could find the VM, so here a failure is one of the start. */
static int begin_record(struct supervisor *s, struct husk_error *err)
{
	s->record.state = VM_STARTING;
	int rc = s->config.state_fd >= 0 ? state_write(s->config.state_fd, &s->record, err) : 0;
	if (rc == 0)
		life_tell_caller(s, &(struct vm_message){.kind = VM_MESSAGE_BEGUN});
	return rc;
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

	service_close(s);
	doors_end(s);
	children_end(s);
	errors_drain(s);
	for (size_t i = 0; i < ARRAY_SIZE(doors) && s->config.runtime_fd >= 0; i++)
		(void)unlinkat(s->config.runtime_fd, doors[i], 0);
	s->record.end = s->outcome.end;
	s->record.value = s->outcome.value;
	s->record.duration_ns = s->outcome.duration_ns;
	s->record.peak_rss = s->outcome.peak_rss;
	s->record.worker = s->record.machine = (struct process_id){0};
	record_reason(s);
	supervisor_save(s, VM_STOPPED);
	supervisor_log(s, "stopped: %s", s->record.reason);
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
	if (s->config.start_timeout_ms == 0)
		s->config.start_timeout_ms = START_TIMEOUT_MS;
	loop_timer_set(&s->deadline, s->config.start_timeout_ms);
	rc = life_watch(s, err);
	rc = rc < 0 ? rc : service_open(s, err);
	if (rc == 0)
		doors_flush(s);
	return rc;
}

/** The engine may have written a first generation: it named the doors. */
static void continue_record(struct supervisor *s)
{
	struct vm_state_record before;

	if (s->config.state_fd >= 0 && state_read(s->config.state_fd, &before, NULL) == 0)
		s->record.generation = before.generation;
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
	host_boot_id(s->record.boot_id);
	process_identify(getpid(), &s->record.supervisor);
	continue_record(s);
	s->config.walls &= jail_full();
	int rc = start(s, &err);
	if (rc == 0)
		rc = loop_run(&s->loop, &err);
	if (rc < 0)
		life_end(s, VM_END_FAILED, 0, "%s", err.message);
	finish(s);
	return 0;
}
