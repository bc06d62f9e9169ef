/* SPDX-License-Identifier: Apache-2.0 */
/* live.h - a VM of lifetime CALLER that this process has started: its supervisor, its messages, its end */
#ifndef ENGINE_LIVE_H
#define ENGINE_LIVE_H

#include "engine/streams.h"
#include "engine/vm.h"
#include "vmm/config.h"

#include <pthread.h>

/** Behind the public handle. Fields below `lock` are read and changed with it held. There are two kinds: a VM of lifetime CALLER
 *  that this process has started (live.c), and one that is known by its record only (known.c), of which @known is true. */
struct husk_vm {
	const struct husk *husk;
	bool known;
	bool detached; /* the lifetime */
	struct vm_record record; /* its lock is ours for as long as this process has the VM; of a known one: paths and state_fd */
	struct stdio io;
	struct stdio serial; /* [0] what the guest's console hears, [1] what it says */
	pid_t pid; /* the supervisor */
	int pidfd, caller_fd, control_fd;
	int epoll; /* caller_fd, pidfd and the streams: what husk_vm_fd() gives; known: watch_fd */
	int watch_fd; /* known: what tells when to look again */
	int stop_signal;
	bool hardware; /* the wall */
	bool agentless; /* a foreign initramfs: nobody will say READY of an agent */
	pthread_mutex_t lock;
	bool ready, started, ended, reaped, told; /* told: the log was shown, where it matters; known: the outcome is for good */
	uint64_t boot_ns;
	struct vm_message outcome; /* once ended */
};

/** Make an empty one for @husk. */
struct husk_vm *live_new(const struct husk *husk, struct husk_error *err);
/** The supervisor runs: watch its descriptors. */
int live_watch(struct husk_vm *vm, struct husk_error *err);
/** Take in whatever has arrived. Lock not held. */
void live_take(struct husk_vm *vm);
/** Wait until the workload has started, so that more can be run beside it, or the end: 0, -ETIMEDOUT, -ECANCELED. */
int live_wait_ready(struct husk_vm *vm, uint64_t timeout_ms, int cancel_fd, struct husk_error *err);
/** As husk_vm_wait(). */
int live_wait(struct husk_vm *vm, int64_t timeout_ms, struct husk_error *err);
/** One message to the worker's control socket or the supervisor. */
int live_send(struct husk_vm *vm, int fd, enum vm_message_kind kind, uint32_t value, struct husk_error *err);
/** Say the last @lines lines of the VM's log in notices. */
void live_show_log(const struct husk_vm *vm, int lines);
/** End it, reap it, remove its record, free it. */
void live_close(struct husk_vm *vm);

#endif
