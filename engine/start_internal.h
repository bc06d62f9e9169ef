/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_internal.h - the rooms of a start
 *
 * start.c is the way through them: start_choose.c refuses what can be refused and chooses image, kernel, machine and walls, before
 * anything of the VM exists; start_record.c writes down what was chosen, and reads it again; start_boot.c makes descriptors,
 * envelope and supervisor of it; start_detached.c adds what a VM has that belongs to nobody, and waits for its beginning.
 * Creating a VM is the first two, booting one that exists the last two, starting is all of them.
 */
#ifndef ENGINE_START_INTERNAL_H
#define ENGINE_START_INTERNAL_H

#include "base/buffer.h"
#include "engine/boot.h"
#include "engine/disks.h"
#include "engine/envelope.h"
#include "engine/images.h"
#include "engine/live.h"
#include "engine/machine.h"
#include "engine/shell.h"
#include "engine/start_doors.h"

#define START_LOGS 4

/** What a start holds until the supervisor has it. Owned, but for the configuration, which the caller has, or @json keeps. */
struct start {
	const struct husk *husk;
	const struct husk_vm_config *config;
	struct husk_vm_config own; /* what @config points to when it was read from a record */
	struct husk_vm_json *json;
	bool again; /* the VM has its record: name and port are its own already */
	struct image_record image;
	struct boot boot;
	struct buffer exec;
	struct machine_choice machine;
	struct shell_choice shell;
	uint32_t vsock_port; /* of the policies `auto` and `fixed` */
	uint64_t memory_allowed; /* what the balloon leaves the guest; 0: all */
	struct vm_record record; /* locked */
	int layers[VMM_LAYERS_MAX];
	size_t n_layers;
	int scratch_fd, caller_fd, control_fd; /* the supervisor's ends */
	int our_caller_fd, our_control_fd; /* and ours */
	struct open_disks disks;
	struct start_doors doors;
	int logs[START_LOGS]; /* detached: output.0, output.1, console.0, console.1 */
	int pty_out_fd, pty_in_fd, pty_fd;
	char pty_path[64];
	char *remover; /* with `remove` */
	struct envelope envelope;
	pid_t pid; /* the supervisor */
	int pidfd;
};

void start_init(struct start *s, const struct husk *husk, const struct husk_vm_config *config);
void start_free(struct start *s);
bool start_is_detached(const struct start *s);

/** Memory and scratch disk as they are rounded. */
uint64_t start_memory(const struct husk_vm_config *config);
uint64_t start_scratch(const struct husk_vm_config *config);
uint64_t start_listen_wait(const struct start *s);

/** Check, and choose and open all that comes before the VM's record. What a handle tells of the VM is put into @vm. */
int start_choose(struct start *s, struct husk_vm *vm, struct husk_error *err);
/** Make the record, locked: s->record. */
int start_record(struct start *s, struct husk_error *err);
/** Read the configuration of the VM whose record is s->record. -ENOENT: its image was removed. */
int start_read(struct start *s, struct husk_error *err);
/** Make what the supervisor gets, and start it. */
int start_boot(struct start *s, struct husk_vm *vm, struct husk_error *err);

/** Logs, console and remover of a VM that belongs to nobody. */
int start_detached_open(struct start *s, struct husk_error *err);
void start_detached_put(struct start *s);
/** Wait until it has begun, when the record's lock is let go, and until its agent has answered: s->… *@boot_ns. A start that
 *  failed is the error of how it ended. */
int start_detached_wait(struct start *s, uint64_t timeout_ms, int cancel_fd, uint64_t *boot_ns, struct husk_error *err);
/** End the supervisor of a start that failed, if there is one, by force at last. */
void start_detached_end(struct start *s);

#endif
