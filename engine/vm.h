/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.h - the record of a VM on disk
 *
 *     HOME/vms/ID/vm.json    configuration; written by the engine only, under `lock`
 *     HOME/vms/ID/state      base/state.h; written by the supervisor only, and by who finds it dead
 *     HOME/vms/ID/lock       flock: held while the engine creates or changes the record
 *     HOME/vms/ID/log        console and messages
 *     HOME/vms/ID/scratch.img
 *     HOME/vm-names/NAME     a file with the id of the VM that has the name
 *     HOME/vms.new/ID        a record that is being made; renamed into vms/ whole
 *     RUNTIME/ID/            sockets
 */
#ifndef ENGINE_VM_H
#define ENGINE_VM_H

#include "base/cleanup.h"
#include "base/state.h"
#include "engine/engine.h"

#include <jansson.h>

#define VM_ID_SIZE 13 /* 12 hex digits and NUL */
#define VM_SCHEMA 1
#define VM_LOCK_MS 10000 /* how long whoever changes a record waits for somebody who does so, too */

/** A record that this process has open. Descriptors are owned; lock_fd holds the lock while it is open. */
struct vm_record {
	char id[VM_ID_SIZE];
	char *directory, *runtime;
	char *name; /* NULL: none */
	int lock_fd, state_fd, log_fd, runtime_fd;
};

#define VM_RECORD_INIT                                                                                                 \
	{                                                                                                              \
		.lock_fd = -1, .state_fd = -1, .log_fd = -1, .runtime_fd = -1                                          \
	}

/** A name that a VM may have: Docker's rule, [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 128 characters. */
int vm_name_check(const char *name, struct husk_error *err);

/** -EEXIST when a VM of this home has the name. */
int vm_name_free(const struct husk *husk, const char *name, struct husk_error *err);

/** The id of the VM of this home that has the name, "" when none has. */
int vm_name_owner(const struct husk *husk, const char *name, char id[VM_ID_SIZE], struct husk_error *err);

/** Make a record; @configuration (borrowed) becomes vm.json, with schema, id, name and created added. The lock is held.
 *  -EEXIST: the name is taken. */
int vm_record_create(const struct husk *husk, const char *name, json_t *configuration, struct vm_record *out,
	struct husk_error *err);

/** Make the runtime directory anew: what an earlier life has left there is removed. */
int vm_record_make_runtime(struct vm_record *record, struct husk_error *err);

/** Give it another name, or none (NULL); the lock is held. -EEXIST. */
int vm_record_rename(const struct husk *husk, struct vm_record *record, const char *name, struct husk_error *err);

/** Write vm.json anew, the whole of it; the lock is held. */
int vm_record_write(const struct vm_record *record, json_t *configuration, struct husk_error *err);

/** Remove all of it; the lock is held. */
int vm_record_remove(const struct husk *husk, struct vm_record *record, struct husk_error *err);

/** Close and free; nothing on disk changes. */
void vm_record_close(struct vm_record *record);

/** Open the record @id and take its lock, if need be after @wait_ms: -EBUSY; -ENOENT when it was removed, also meanwhile. */
int vm_record_open_within(
	const struct husk *husk, const char *id, unsigned wait_ms, struct vm_record *out, struct husk_error *err);
/** The same without waiting. */
int vm_record_open(const struct husk *husk, const char *id, struct vm_record *out, struct husk_error *err);
/** Let go of the lock, and keep the rest open. */
void vm_record_unlock(struct vm_record *record);

/** vm.json, parsed; the caller decrefs. -EPROTO for a schema that is not ours. */
int vm_record_read(const struct vm_record *record, json_t **out, struct husk_error *err);

/** True for 12 lower-case hex digits. */
bool vm_id_check(const char *text);

/** Take the home's lock on the set of names and records (short operations only); the descriptor, or -errno. */
int vm_home_lock(const struct husk *husk, struct husk_error *err);

static inline void json_cleanup(json_t **json)
{
	json_decref(*json);
}
#define CLEANUP_JSON CLEANUP(json_cleanup)
#define CLEANUP_VM_RECORD CLEANUP(vm_record_close)

#endif
