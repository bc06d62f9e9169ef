/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.h - the worker's parent, one per VM
 *
 * Rooms: supervisor.c begins and ends, life.c decides what ends the VM and keeps the caller informed, children.c starts worker
 * and QEMU and tells how they died, sockets.c is what the worker cannot do itself, doors.c keeps the doors and their paths, tls.c the husk-tls of each TLS door, service.c
 * takes requests on supervisor.sock, errors.c what QEMU says on its stderr.
 */
#ifndef VMM_SUPERVISOR_SUPERVISOR_H
#define VMM_SUPERVISOR_SUPERVISOR_H

#include "base/loop.h"
#include "base/state.h"
#include "vmm/config.h"

#include <sys/types.h>

#define ERROR_LINE 400
#define SERVICE_CLIENTS 16

/** A child process. pid 0: not started, or reaped. */
struct child {
	const char *name; /* "the worker", "QEMU" */
	pid_t pid;
	int pidfd; /* owned */
	struct loop_watch watch;
	bool dead;
	int status; /* of waitpid(), once dead */
};

/** QEMU's stderr. */
struct child_errors {
	int fd; /* read end of the pipe, owned */
	char line[ERROR_LINE + 1]; /* under way */
	size_t n;
	char last[ERROR_LINE + 1]; /* the last whole one that was not empty */
	unsigned logged; /* bytes */
};

struct supervisor;

/** Somebody on supervisor.sock. */
struct service_client {
	struct supervisor *supervisor; /* NULL: free */
	struct loop_watch watch;
	bool waiting; /* for an answer; nothing is read meanwhile */
};

struct service {
	struct loop_watch watch; /* the listening socket */
	struct loop_watch rest; /* after a shortage of descriptors: accept again */
	struct service_client client[SERVICE_CLIENTS];
};

/** CLOSING: its path is gone, the worker's answer and the death of its husk-tls are awaited; then the id is free again. */
enum door_phase { DOOR_FREE = 0, DOOR_OPENING, DOOR_OPEN, DOOR_CLOSING };

/** A door as the supervisor knows it. */
struct supervised_door {
	struct supervisor *supervisor;
	enum door_phase phase;
	struct vm_door door;
	int fd[VMM_DOOR_FDS]; /* those that the worker and husk-tls do not have yet; -1: none */
	bool unsent; /* EXPOSE or UNEXPOSE has to go to the worker still */
	bool at_worker; /* the worker was told of it, and has not said that it is closed */
	bool from_start; /* refused, it fails the VM's start */
	bool unwanted; /* who asked for it went away: close it when it opens */
	struct service_client *asker; /* who waits for it to open or to close; NULL: nobody */
	struct child tls; /* TLS: its husk-tls */
};

struct supervisor {
	struct loop loop;
	struct vmm_config config;
	struct vm_state_record record;
	struct child worker, machine;
	int channel; /* SOCK_SEQPACKET to the worker, non-blocking, owned */
	struct child_errors errors;
	struct loop_watch dial_watch; /* where the worker asks for connections */
	struct loop_watch channel_watch, caller_watch, signal_watch, errors_watch;
	struct loop_watch deadline; /* start timeout; then the workload's with a margin */
	struct loop_watch grace; /* QEMU has ended in order: wait for the worker's word */
	bool started, draining;
	struct vm_message ready; /* READY that waits for the doors; kind 0: none */
	struct vm_message outcome; /* kind 0: none yet */
	struct supervised_door door[VM_DOORS_MAX]; /* index: id - 1; those of exec.sock and vsock.sock are not used */
	struct service service;
};

/** Run the supervisor whose envelope is descriptor @fd; the process's exit status. */
int supervisor_run(int fd);
__attribute__((format(printf, 2, 3))) void supervisor_log(struct supervisor *s, const char *format, ...);
/** A line of @who's. */
__attribute__((format(printf, 3, 4))) void supervisor_log_as(
	struct supervisor *s, const char *who, const char *format, ...);
/** Write the record with @state. */
void supervisor_save(struct supervisor *s, enum vm_state state);

/** Watch what concerns nobody but the supervisor. */
int life_prepare(struct supervisor *s, struct husk_error *err);
/** Watch the children, which have been started. */
int life_watch(struct supervisor *s, struct husk_error *err);
/** Tell the caller, if there is one; one that does not read misses it. */
void life_tell_caller(struct supervisor *s, const struct vm_message *message);
/** The VM ends, for this reason; the first one counts. */
__attribute__((format(printf, 4, 5))) void life_end(
	struct supervisor *s, enum vm_end why, uint32_t value, const char *format, ...);

/** Start worker and QEMU with all that connects them. */
int children_start(struct supervisor *s, struct husk_error *err);
/** Kill both and wait until they are gone. */
void children_end(struct supervisor *s);
/** Take the status of a child whose pidfd is ready, without waiting; false when it still lives. */
bool child_reap(struct child *child);
/** "the worker was killed by signal 9", "QEMU exited with status 1". */
void child_fate(const struct child *child, char *out, size_t room);

/** Read some of QEMU's stderr into the log. False once it has ended. */
bool errors_read(struct supervisor *s);
/** Read what there is. */
void errors_drain(struct supervisor *s);
/** The last line of it that was not empty, or "". */
const char *errors_last(struct supervisor *s);

/** Make the sockets of the runtime directory, which becomes the working directory, and serve the worker there. */
int sockets_open(struct supervisor *s, struct husk_error *err);

/** Take over the doors of the configuration and put all doors into the record. */
int doors_take(struct supervisor *s, struct husk_error *err);
/** Send the worker what it has not been told yet. */
void doors_flush(struct supervisor *s);
/** True while a door that the VM was started with has not been opened yet. */
bool doors_opening(const struct supervisor *s);
/** Open @door with @fds (as many as its kind has; taken, also on failure) for @client, who is answered later. 0, or an error
 *  for an answer at once. */
int doors_expose(struct supervisor *s, const struct vm_door *door, const int *fds, struct service_client *client,
	struct husk_error *err);
/** Close the door with @id or, where that is 0, @endpoint. As doors_expose(). */
int doors_unexpose(
	struct supervisor *s, uint32_t id, const char *endpoint, struct service_client *client, struct husk_error *err);
/** The worker's EXPOSED. */
void doors_answered(struct supervisor *s, const struct vm_message *message);
/** @client is gone: what it asked for is not wanted. */
void doors_forget(struct supervisor *s, const struct service_client *client);
/** The VM ends: remove the paths of all doors and end every husk-tls. */
void doors_end(struct supervisor *s);
/** Begin to close @door; fine when that has begun. */
void door_shut(struct supervised_door *door);
/** A closing door may have become free. */
void door_settle(struct supervised_door *door);

/** Start the husk-tls of @door, which is open at the worker. */
int tls_start(struct supervised_door *door, struct husk_error *err);
/** Kill it, if there is one; door_settle() follows when it is gone. */
void tls_end(struct supervised_door *door);
/** Wait for its end. */
void tls_reap(struct supervised_door *door);

/** Take requests from now on. */
int service_open(struct supervisor *s, struct husk_error *err);
/** Take no more, and remove the socket. */
void service_close(struct supervisor *s);
/** Answer what @client has asked for: @code is 0 or -errno, @text (may be NULL) says why. */
void service_answer(struct service_client *client, int code, const struct vm_door *door, const char *text);

#endif
