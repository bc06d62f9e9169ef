/* SPDX-License-Identifier: Apache-2.0 */
/*
 * end.h - end a VM that any process has started, and remove it
 *
 * Theory of operation: all of it goes to the VM's supervisor, which ends its children; worker and guest may hang. A supervisor that
 * does not answer in time, or does not end in time, hangs itself and is killed: by a pidfd, after its identity (pid, start
 * time, boot) was compared once that pidfd was open, so that no other process is ever hit. What it has started dies with it.
 * Who killed it writes nothing: whoever reads the state finds out (status.h).
 *
 * A supervisor that has stopped its VM still lives for a moment, or for as long as it takes to remove the VM: others wait for it.
 */
#ifndef ENGINE_END_H
#define ENGINE_END_H

#include "engine/status.h"

/** A pidfd of the supervisor that @state names; -ESRCH when it is gone. */
int end_watch(const struct vm_state_record *state);
/** Wait until a supervisor that has stopped its VM has ended. 0 also when there is none, or the VM runs; -EBUSY; -ENOENT when the
 *  VM was removed. */
int end_settle(const struct husk *husk, const char *id, unsigned timeout_ms, struct husk_error *err);
/** End the VM now, and wait until its supervisor has ended. 0 as well when it does not run. -EBUSY: not even by force. */
int end_kill(const struct husk *husk, const char *id, struct husk_error *err);
/** See husk_vm_stop(). */
int end_stop(const struct husk *husk, const char *id, uint64_t grace_ms, struct husk_error *err);
/** See husk_vm_remove(). */
int end_remove(const struct husk *husk, const char *id, bool force, struct husk_error *err);

#endif
