/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.c - from a configuration to a VM whose agent has answered
 *
 * Theory of operation: choose, record, boot (start_internal.h). Once the record is there every failure of a start removes it
 * again, and so does the next command should we die. A VM that exists and is started again keeps its record: what went wrong is
 * written into its state, which is ours to write while nobody supervises it and we hold its lock.
 */
#include "engine/start.h"

#include "base/event.h"
#include "base/fd.h"
#include "base/path.h"
#include "engine/cleanup.h"
#include "engine/config_json.h"
#include "engine/end.h"
#include "engine/known.h"
#include "engine/logs.h"
#include "engine/outcome.h"
#include "engine/start_internal.h"
#include "engine/status.h"

#include <string.h>

#define START_GRACE_MS 15000 /* beyond what the supervisor itself keeps */
#define LOG_LINES 12
#define LISTEN_WAIT_SOFTWARE_MS 10000 /* an emulated guest is slow to come up */
#define LISTEN_WAIT_HARDWARE_MS 1000
#define SETTLE_MS 10000 /* for the supervisor of a VM that has ended to end itself */

void start_init(struct start *s, const struct husk *husk, const struct husk_vm_config *config)
{
	*s = (struct start){
		.husk = husk,
		.config = config,
		.boot = BOOT_INIT,
		.machine = MACHINE_CHOICE_INIT,
		.record = VM_RECORD_INIT,
		.scratch_fd = -1,
		.caller_fd = -1,
		.control_fd = -1,
		.our_caller_fd = -1,
		.our_control_fd = -1,
		.doors = START_DOORS_INIT,
		.logs = {-1, -1, -1, -1},
		.pty_out_fd = -1,
		.pty_in_fd = -1,
		.pty_fd = -1,
		.envelope = {.fds = {-1}},
		.pidfd = -1,
	};
}

void start_free(struct start *s)
{
	image_record_free(&s->image);
	boot_free(&s->boot);
	buffer_free(&s->exec);
	machine_choice_free(&s->machine);
	shell_choice_free(&s->shell);
	vm_record_close(&s->record);
	for (size_t i = 0; i < s->n_layers; i++)
		close(s->layers[i]);
	int *fds[] = {&s->scratch_fd, &s->caller_fd, &s->control_fd, &s->our_caller_fd, &s->our_control_fd,
		&s->pty_out_fd, &s->pty_in_fd, &s->pty_fd, &s->pidfd};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		cleanup_fd(fds[i]);
	for (size_t i = 0; i < START_LOGS; i++)
		cleanup_fd(&s->logs[i]);
	disks_close(&s->disks);
	start_doors_free(&s->doors);
	envelope_free(&s->envelope);
	free(s->remover);
	config_json_free(s->json);
}

bool start_is_detached(const struct start *s)
{
	return s->config->lifetime == HUSK_LIFETIME_DETACHED;
}

uint64_t start_memory(const struct husk_vm_config *c)
{
	return (c->memory + (1 << 20) - 1) & ~(uint64_t)((1 << 20) - 1);
}

uint64_t start_scratch(const struct husk_vm_config *c)
{
	return c->scratch & ~(uint64_t)4095;
}

uint64_t start_listen_wait(const struct start *s)
{
	uint64_t usual_ms = s->machine.hardware ? LISTEN_WAIT_HARDWARE_MS : LISTEN_WAIT_SOFTWARE_MS;
	return s->config->listen_wait_ms ? s->config->listen_wait_ms : usual_ms;
}

/** The wall, and what is missing of the shell. */
static int say(const struct start *s, struct husk_error *err)
{
	CLEANUP_FREE char *text = NULL;
	if (!s->machine.hardware)
		engine_notice(s->husk, HUSK_NOTICE_WALL,
			"software wall: %s, no CPU feature separates it (--require-hardware refuses this, --quiet "
			"hides "
			"this line)",
			s->machine.why);
	int rc = s->shell.missing.size ? shell_missing(&s->shell, &text, err) : 0;
	if (rc == 0 && text)
		engine_notice(s->husk, HUSK_NOTICE_WARNING, "degraded shell: the VM's processes go without: %s", text);
	return rc;
}

/* ---- lifetime CALLER ---- */

/** What came of the start: the error of one that failed. */
static int judge(struct husk_vm *vm, struct husk_error *err)
{
	char text[VM_MESSAGE_TEXT + 128];
	if (vm->ready || !vm->ended)
		return 0;
	/* A workload that could not be started, and whatever came after READY, is an outcome and no failed start. */
	if (vm->outcome.end == VM_END_NOT_STARTED || vm->outcome.end == VM_END_EXITED ||
		vm->outcome.end == VM_END_SIGNALED || vm->outcome.end == VM_END_TIMEOUT || vm->agentless)
		return 0;
	outcome_describe(&vm->outcome, text, sizeof(text));
	return error_set(err, vm->outcome.end == VM_END_START_TIMEOUT ? -ETIMEDOUT : -EIO, "start VM %s: %s",
		vm->record.id, text);
}

/** Record, descriptors and processes are the handle's from now on. */
static void hand_over(struct start *s, struct husk_vm *vm)
{
	vm->record = s->record;
	s->record = (struct vm_record)VM_RECORD_INIT;
	vm->caller_fd = steal_fd(&s->our_caller_fd);
	vm->control_fd = steal_fd(&s->our_control_fd);
	vm->pid = s->pid;
	vm->pidfd = steal_fd(&s->pidfd);
}

/** The guest has the start's time until its agent answers, and as long again until its workload runs. */
static uint64_t patience(const struct start *s)
{
	return 2 * s->config->start_timeout_ms + START_GRACE_MS;
}

static int run(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	int rc = start_record(s, err);
	rc = rc < 0 ? rc : start_boot(s, vm, err);
	hand_over(s, vm);
	if (rc < 0)
		return rc;
	rc = stdio_start(&vm->io, err);
	rc = rc < 0 ? rc : stdio_start(&vm->serial, err);
	rc = rc < 0 ? rc : live_watch(vm, err);
	if (rc == 0 && !vm->agentless)
		rc = live_wait_ready(vm, patience(s), s->config->cancel_fd, err);
	rc = rc < 0 ? rc : judge(vm, err);
	if (rc < 0 && rc != -ECANCELED)
		live_show_log(vm, LOG_LINES);
	return rc;
}

static int start_caller(struct start *s, struct husk_vm **out, struct husk_error *err)
{
	struct husk_vm *vm = live_new(s->husk, err);
	if (!vm)
		return -ENOMEM;
	int rc = start_choose(s, vm, err);
	rc = rc < 0 ? rc : say(s, err);
	rc = rc < 0 ? rc : run(s, vm, err);
	if (rc < 0) {
		start_doors_take_down(&s->doors);
		live_close(vm);
		return rc;
	}
	*out = vm;
	return 0;
}

/* ---- lifetime DETACHED ---- */

/** The record of s->record, locked again if it was let go. */
static int lock_again(struct start *s, struct husk_error *err)
{
	struct vm_record record = VM_RECORD_INIT;
	char id[VM_ID_SIZE];
	if (s->record.lock_fd >= 0)
		return 0;
	memcpy(id, s->record.id, sizeof(id));
	int rc = vm_record_open_within(s->husk, id, VM_LOCK_MS, &record, err);
	if (rc < 0)
		return rc;
	vm_record_close(&s->record);
	s->record = record;
	return 0;
}

/** A VM that is kept could not be started: its state says why. */
static void write_failure(struct start *s, int code, const struct husk_error *why)
{
	struct status now;
	if (lock_again(s, NULL) < 0 || status_read_locked(&s->record, &now, NULL) < 0 || now.alive)
		return;
	struct vm_state_record before = now.state;
	(void)state_read(s->record.state_fd, &before, NULL);
	cleanup_after(&s->record, &before);
	if (now.state.state == VM_ERROR && now.state.reason[0] && code != -ECANCELED && s->pid)
		return; /* its supervisor said it better */
	now.state.state = VM_ERROR;
	now.state.end = code == -ETIMEDOUT ? VM_END_START_TIMEOUT : VM_END_FAILED;
	now.state.value = 0;
	snprintf(now.state.reason, sizeof(now.state.reason), "%.500s", why->message);
	(void)state_write(s->record.state_fd, &now.state, NULL);
}

/** Boot the VM of s->record, whose lock is held; that of a VM that failed is held again afterwards, if it can be had. */
static int boot(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	int rc = start_boot(s, vm, err);
	bool booted = rc == 0;
	rc = rc < 0 ? rc
		    : start_detached_wait(
			      s, patience(s), s->config->cancel_fd, &vm->boot_ns, err);
	if (rc < 0)
		start_detached_end(s);
	if (rc < 0 && booted && rc != -ECANCELED)
		logs_show(s->husk, s->record.id, LOG_LINES);
	return rc;
}

/** Nothing is left of a VM whose start failed. */
static void undo(struct start *s)
{
	struct status now;
	/* A supervisor that not even SIGKILL ends keeps its record, so that it can be found. */
	if (!s->record.directory || lock_again(s, NULL) < 0 || status_read_locked(&s->record, &now, NULL) < 0 || now.alive)
		return;
	cleanup_doors(&s->record);
	vm_record_remove(s->husk, &s->record, NULL);
}

/** Make a VM, and start it or do not. */
static int make_detached(struct start *s, bool boots, struct husk_vm **out, struct husk_error *err)
{
	struct vm_state_record created = {.state = VM_CREATED};
	struct husk_vm *vm = live_new(s->husk, err);
	if (!vm)
		return -ENOMEM;
	int rc = start_choose(s, vm, err);
	rc = rc < 0 || !boots ? rc : say(s, err);
	rc = rc < 0 ? rc : start_record(s, err);
	host_boot_id(created.boot_id);
	if (rc == 0)
		rc = boots ? boot(s, vm, err) : state_write(s->record.state_fd, &created, err);
	if (rc == 0)
		rc = known_open(s->husk, s->record.id, out, err);
	if (rc == 0)
		(*out)->boot_ns = vm->boot_ns;
	if (rc < 0) {
		start_detached_end(s);
		start_doors_take_down(&s->doors);
		undo(s);
	}
	live_close(vm);
	return rc;
}

int start_vm(const struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err)
{
	CLEANUP(start_free) struct start s;
	start_init(&s, husk, config);
	cleanup_run(husk, NULL, NULL);
	return start_is_detached(&s) ? make_detached(&s, true, out, err) : start_caller(&s, out, err);
}

int create_vm(
	const struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err)
{
	CLEANUP(start_free) struct start s;
	if (config->lifetime != HUSK_LIFETIME_DETACHED)
		return error_set(
			err, -EINVAL, "lifetime: a VM that is created and not started belongs to nobody: 'detached'");
	start_init(&s, husk, config);
	cleanup_run(husk, NULL, NULL);
	return make_detached(&s, false, out, err);
}

/* ---- a VM that exists ---- */

/** Lock the record of a VM that does not run. */
static int take(struct start *s, const char *id, struct husk_error *err)
{
	struct status now;
	for (;;) {
		/* A supervisor that is about to end, or removes its VM, may need the lock for that. */
		int rc = end_settle(s->husk, id, SETTLE_MS, err);
		rc = rc < 0 ? rc : vm_record_open_within(s->husk, id, VM_LOCK_MS, &s->record, err);
		rc = rc < 0 ? rc : status_read_locked(&s->record, &now, err);
		if (rc < 0)
			return rc;
		if (now.alive && !now.ending)
			return error_set(err, -EALREADY, "VM %s is %s already", id, vm_state_name(now.state.state));
		if (!now.alive)
			break;
		vm_record_close(&s->record);
	}
	if (now.state.state == VM_CREATING)
		return error_set(err, -EINVAL, "VM %s: %s; remove it", id, now.state.reason);
	return 0;
}

static int boot_again(
	struct start *s, struct husk_vm *vm, const struct husk_boot_options *options, struct husk_error *err)
{
	struct vm_state_record before;
	int rc = start_read(s, err);
	if (rc < 0)
		return rc;
	s->own.progress_fd = options->progress_fd;
	s->own.cancel_fd = options->cancel_fd;
	if (options->start_timeout_ms)
		s->own.start_timeout_ms = options->start_timeout_ms;
	rc = start_choose(s, vm, err);
	rc = rc < 0 ? rc : say(s, err);
	if (rc < 0)
		return rc;
	if (state_read(s->record.state_fd, &before, NULL) == 0)
		cleanup_after(&s->record, &before);
	return boot(s, vm, err);
}

int boot_vm(struct husk_vm *vm, const struct husk_boot_options *options, struct husk_error *err)
{
	CLEANUP(start_free) struct start s;
	struct husk_error why = {0};
	if (!vm->detached)
		return error_set(err, -EINVAL, "VM %s belongs to the program that has started it", vm->record.id);
	start_init(&s, vm->husk, NULL);
	int rc = take(&s, vm->record.id, err);
	if (rc < 0)
		return rc;
	rc = boot_again(&s, vm, options, &why);
	if (rc < 0) {
		start_doors_take_down(&s.doors);
		write_failure(&s, rc, &why);
		return error_set(err, rc, "%s", why.message);
	}
	known_again(vm);
	return 0;
}
