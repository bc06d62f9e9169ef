/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.h - the worker's parent, one per VM
 *
 * Rooms: supervisor.c begins and ends, life.c decides what ends the VM and keeps the caller informed, children.c starts worker
 * and QEMU and tells how they died, errors.c is what QEMU says, sockets.c what the worker cannot do itself, doors.c keeps the
 * doors and their paths, tls.c the husk-tls of each TLS door, service.c takes requests on supervisor.sock, requests.c knows
 * which there are, stop.c ends a VM step by step, tell.c tells events.
 */
#ifndef VMM_SUPERVISOR_SUPERVISOR_H
#define VMM_SUPERVISOR_SUPERVISOR_H

#include "base/loop.h"
#include "base/state.h"
#include "vmm/config.h"

#include <sys/types.h>

#define ERROR_LINE 400
#define SERVICE_CLIENTS 64
#define ASKING_KINDS (VM_CONTROL_ATTACH - VM_CONTROL_PAUSE + 1)

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
	/* requests.c */
	struct vm_message asked; /* a question to the worker */
	int fd; /* that goes with it, owned; -1 */
	bool in_line; /* it has not been sent yet */
	uint64_t until_ns; /* CLOCK_MONOTONIC: it is answered by then; 0: there is none */
};

/** Questions of one kind to the worker. */
struct asking {
	bool at_worker; /* one is there; the next is sent when that is answered */
	bool own; /* we want to ask one ourselves */
	struct service_client
		*client; /* whose the one at the worker is; NULL: nobody waits for it any more, or it is ours */
};

/** STOP under way. */
struct stopping {
	bool asked, pressed, killed; /* killed: the workload got SIGKILL, and the VM a last moment */
	uint64_t press_ns, end_ns; /* CLOCK_MONOTONIC */
	uint64_t given_ms;
	struct loop_watch timer;
};

/** Attempts to reach what the policy denies. */
struct denied {
	unsigned told, suppressed; /* in this minute */
	struct loop_watch minute;
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
	uint64_t deadline_ns, deadline_left_ms; /* when it is over, CLOCK_MONOTONIC; what was left at the last pause */
	bool answered; /* READY has come */
	bool started, draining;
	uint64_t started_ns; /* CLOCK_MONOTONIC of STARTED */
	struct vm_message ready; /* READY that waits for the doors; kind 0: none */
	struct vm_message outcome; /* kind 0: none yet */
	struct supervised_door door[VM_DOORS_MAX]; /* index: id - 1; those of exec.sock and vsock.sock are not used */
	struct service service;
	struct asking asking[ASKING_KINDS];
	struct loop_watch ask_timer;
	struct stopping stopping;
	struct denied denied;
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
/** Take what the worker has said so far. */
void life_drain(struct supervisor *s);
/** Send the worker what it has not been told yet, now or when its channel has room. */
void channel_flush(struct supervisor *s);
/** The VM's time is over in @ms of its own; 0: never. */
void life_set_deadline(struct supervisor *s, uint64_t ms);
/** The worker says that the guest stands still, or goes on. */
void life_paused(struct supervisor *s);
void life_resumed(struct supervisor *s);
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
/** Tell the worker of doors that it has not been told of yet; true when its channel is full. */
bool doors_flush(struct supervisor *s);
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
/** Answer what @client has asked for, with @door by EXPOSED, else by ANSWER: @code is 0 or -errno, @text says why, or NULL. */
void service_answer(struct service_client *client, int code, const struct vm_door *door, const char *text);
/** Read nothing of @client until it is answered. */
void service_wait(struct service_client *client);

int requests_open(struct supervisor *s, struct husk_error *err);
/** Take a request with its descriptors, of which those that are used are set to -1; false when it is none. */
bool request_take(struct service_client *client, const struct vm_message *message, int fds[VMM_DOOR_FDS], size_t n_fds);
/** The worker's DONE. */
void requests_done(struct supervisor *s, const struct vm_message *message);
/** Send questions that wait; true when the worker's channel is full. */
bool requests_flush(struct supervisor *s);
/** @client is gone. */
void requests_forget(struct supervisor *s, struct service_client *client);
/** Let the guest go on if it stands still, and let nobody who waits in line pause it. */
void requests_resume(struct supervisor *s);

int stop_open(struct supervisor *s, struct husk_error *err);
/** End the VM in @ms at the latest. */
void stop_begin(struct supervisor *s, uint32_t ms);
/** The agent has answered. */
void stop_ready(struct supervisor *s);
/** An outcome that STOP has brought about is told as what it is. */
void stop_judge(const struct supervisor *s, struct vm_message *outcome);

int tell_open(struct supervisor *s, struct husk_error *err);
/** Events (base/event.h). */
void tell_started(struct supervisor *s);
void tell_ready(struct supervisor *s, uint64_t boot_ns);
void tell_paused(struct supervisor *s, bool paused);
void tell_denied(struct supervisor *s, uint32_t port);
/** The final record is written. */
void tell_stopped(struct supervisor *s);

#endif
