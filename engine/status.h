/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.h - what is true of a VM at this moment
 *
 * Theory of operation: the state record says what its writer knew. A writer that was killed says nothing any more, so whoever
 * reads the record compares it with the processes that live: a VM that should be running and whose supervisor is gone has
 * stopped, and why, is known as well. Everybody reads by way of here; so `ps`, `inspect`, the library and the cleanup agree.
 *
 * A record without a state, or CREATING, belongs to whoever makes it and holds its lock; when nobody does, the making was
 * interrupted. That lock is asked for only then, shared and for a moment.
 */
#ifndef ENGINE_STATUS_H
#define ENGINE_STATUS_H

#include "engine/vm.h"

/** A supervisor that has stopped its VM and is about to end, or becomes husk-remove, is `ending`: its record is in its hands. */
struct status {
	struct vm_state_record state; /* made true */
	bool alive; /* its supervisor lives */
	bool ending; /* it lives, and the VM has stopped */
	bool damaged; /* the record cannot be read: VM_ERROR, whatever may live */
	bool orphan; /* what the record said is not true any more: its supervisor, or who made it, died */
};

/** The state of the VM @id. -ENOENT: it was removed; -EPROTO: another version of husk wrote it. A state that is damaged is
 *  VM_ERROR with that reason. */
int status_read(const struct husk *husk, const char *id, struct status *out, struct husk_error *err);

/** The same for a record that is open as @state_fd; @directory is its path, where it lies now. */
int status_read_open(int state_fd, const char *directory, const char *id, struct status *out, struct husk_error *err);

/** The same for a record whose lock we hold: what is being made is then made by us, or by nobody any more. */
int status_read_locked(const struct vm_record *record, struct status *out, struct husk_error *err);

/** The reason of a VM that ran when the host was restarted; VM_END_SUPERVISOR. */
#define STATUS_HOST_RESTARTED "host restarted"

/** True for the states of a VM that has processes. */
bool status_runs(uint32_t state);

#endif
