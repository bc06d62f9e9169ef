/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.h - the worker's parent, one per VM
 *
 * Split in two rooms: children.c starts worker and QEMU and tells how they died, supervisor.c decides what that means, keeps
 * the record true and the caller informed.
 */
#ifndef VMM_SUPERVISOR_SUPERVISOR_H
#define VMM_SUPERVISOR_SUPERVISOR_H

#include "base/loop.h"
#include "base/state.h"
#include "vmm/config.h"

#include <sys/types.h>

#define CHILD_LAST_LINE 200

/** A child process. pid 0: not started, or reaped. */
struct child {
	const char *name; /* "the worker", "QEMU" */
	pid_t pid;
	int pidfd; /* owned */
	struct loop_watch watch;
	bool dead;
	int status; /* of waitpid(), once dead */
};

struct supervisor {
	struct loop loop;
	struct vmm_config config;
	struct vm_state_record record;
	struct child worker, machine;
	int channel; /* SOCK_SEQPACKET to the worker, owned */
	int errors; /* read end of QEMU's stderr, owned */
	char last_line[CHILD_LAST_LINE]; /* of QEMU's stderr */
	bool line_over; /* its newline has come */
	struct loop_watch channel_watch, caller_watch, signal_watch, errors_watch;
	struct loop_watch deadline; /* start timeout; then the workload's with a margin */
	struct loop_watch grace; /* QEMU has ended in order: wait for the worker's word */
	bool started, draining;
	struct vm_message outcome; /* kind 0: none yet */
};

/** Run the supervisor whose envelope is descriptor @fd; the process's exit status. */
int supervisor_run(int fd);

/** Start worker and QEMU with all that connects them. */
int children_start(struct supervisor *s, struct husk_error *err);
/** Kill both and wait until they are gone. */
void children_end(struct supervisor *s);
/** Take the status of a child whose pidfd is ready, without waiting; false when it still lives. */
bool child_reap(struct child *child);
/** "the worker was killed by signal 9", "QEMU exited with status 1". */
void child_fate(const struct child *child, char *out, size_t room);
/** Read QEMU's stderr into the log and keep its last line. False once it has ended. */
bool children_read_errors(struct supervisor *s);

__attribute__((format(printf, 2, 3))) void supervisor_log(struct supervisor *s, const char *format, ...);

#endif
