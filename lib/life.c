/* SPDX-License-Identifier: Apache-2.0 */
/* life.c - the life of VMs in the public API: open, boot, look, stop, change, remove; the work is the engine's */
#include "base/adopt.h"
#include "base/cleanup.h"
#include "engine/change.h"
#include "engine/control.h"
#include "engine/end.h"
#include "engine/find.h"
#include "engine/known.h"
#include "engine/start.h"

#include <string.h>

_Static_assert((int)HUSK_STATE_CREATING == VM_CREATING && (int)HUSK_STATE_STARTING == VM_STARTING &&
		       (int)HUSK_STATE_RUNNING == VM_RUNNING && (int)HUSK_STATE_PAUSED == VM_PAUSED &&
		       (int)HUSK_STATE_STOPPED == VM_STOPPED && (int)HUSK_STATE_ERROR == VM_ERROR &&
		       (int)HUSK_STATE_CREATED == VM_CREATED,
	"the public names of states are those of base/state.h");

static const struct husk_boot_options boot_defaults = {
	.size = sizeof(struct husk_boot_options), .progress_fd = -1, .cancel_fd = -1};

void husk_boot_options_init(struct husk_boot_options *options)
{
	*options = boot_defaults;
}

int husk_vm_open(struct husk *husk, const char *vm, struct husk_vm **out, struct husk_error *err)
{
	char id[VM_ID_SIZE];
	int rc = find_vm(husk, vm, id, err);
	return rc < 0 ? rc : known_open(husk, id, out, err);
}

int husk_vm_boot(struct husk_vm *vm, const struct husk_boot_options *given, struct husk_error *err)
{
	struct husk_boot_options options = boot_defaults;
	int rc = given ? adopt_struct(&options, sizeof(options), given, "struct husk_boot_options", err) : 0;
	return rc < 0 ? rc : boot_vm(vm, &options, err);
}

int husk_vm_status(struct husk_vm *vm, struct husk_status *status, struct husk_error *err)
{
	struct status now;
	size_t size = status->size;
	if (size < sizeof(size_t))
		return error_set(err, -EINVAL, "struct husk_status has no size");
	int rc = status_read(vm->husk, vm->record.id, &now, err);
	if (rc < 0)
		return rc;
	const struct vm_state_record *s = &now.state;
	bool over = s->state == VM_STOPPED || s->state == VM_ERROR;
	struct husk_status full = {
		.size = size,
		.state = (enum husk_state)s->state,
		.generation = s->generation,
		.changed_ns = s->changed_ns,
		.started_ns = s->started_ns,
		.ended_ns = s->ended_ns,
		.starts = s->starts,
		.supervisor_pid = s->supervisor.pid,
		.worker_pid = s->worker.pid,
		.machine_pid = s->machine.pid,
		.end = over ? (enum husk_end)s->end : 0,
		.exit_code = over ? vm_end_exit_code(s->end, s->value) : 0,
		.oom = s->flags & VM_STATE_OOM,
	};
	snprintf(full.reason, sizeof(full.reason), "%s", s->reason);
	snprintf(full.console, sizeof(full.console), "%s", s->console);
	memset(status, 0, size);
	memcpy(status, &full, size < sizeof(full) ? size : sizeof(full));
	return 0;
}

/* ---- requests ---- */

static int request(struct husk_vm *vm, const struct vm_message *message, int fd, struct husk_error *err)
{
	int rc = control_request(vm->husk, vm->record.id, message, fd, CONTROL_ANSWER_MS, err);
	/* Whether it was removed or only does not run is worth a look. */
	if (rc == -ESRCH && access(vm->record.directory, F_OK) < 0)
		return error_set(err, -ENOENT, "VM %s was removed", vm->record.id);
	return rc;
}

int husk_vm_pause(struct husk_vm *vm, struct husk_error *err)
{
	return request(vm, &(struct vm_message){.kind = VM_CONTROL_PAUSE}, -1, err);
}

int husk_vm_resume(struct husk_vm *vm, struct husk_error *err)
{
	return request(vm, &(struct vm_message){.kind = VM_CONTROL_RESUME}, -1, err);
}

int husk_vm_attach_stdin(struct husk_vm *vm, int fd, bool to_end, struct husk_error *err)
{
	if (fd < 0)
		return error_set(err, -EBADF, "attach to the stdin of VM %s: no descriptor", vm->record.id);
	return request(vm, &(struct vm_message){.kind = VM_CONTROL_ATTACH, .value = to_end}, fd, err);
}

int husk_vm_stop(struct husk_vm *vm, uint64_t grace_ms, struct husk_error *err)
{
	return end_stop(vm->husk, vm->record.id, grace_ms, err);
}

int husk_vm_kill(struct husk_vm *vm, struct husk_error *err)
{
	if (!vm->known)
		return live_send(vm, vm->caller_fd, VM_CONTROL_KILL, 0, err);
	return end_kill(vm->husk, vm->record.id, err);
}

/* ---- changes ---- */

int husk_vm_rename(struct husk_vm *vm, const char *name, struct husk_error *err)
{
	return vm->detached ? change_name(vm->husk, vm->record.id, name, err)
			    : error_set(err, -EBUSY, "VM %s belongs to the program that has started it", vm->record.id);
}

int husk_vm_set_memory(struct husk_vm *vm, uint64_t memory, struct husk_error *err)
{
	return change_memory(vm->husk, vm->record.id, memory, vm->detached, err);
}

/** Of a VM that this process has started the lock is held already. */
static int remove_own(struct husk_vm *vm, bool force, struct husk_error *err)
{
	live_take(vm);
	if (!vm->ended && !force)
		return error_set(err, -EBUSY, "VM %s runs: stop it first, or remove it by force", vm->record.id);
	int rc = end_kill(vm->husk, vm->record.id, err);
	rc = rc < 0 ? rc : end_settle(vm->husk, vm->record.id, CONTROL_ANSWER_MS, err);
	return rc < 0 ? rc : vm_record_remove(vm->husk, &vm->record, err);
}

int husk_vm_remove(struct husk_vm *vm, bool force, struct husk_error *err)
{
	return vm->known ? end_remove(vm->husk, vm->record.id, force, err) : remove_own(vm, force, err);
}
