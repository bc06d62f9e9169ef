/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - the VM's state record: what its supervisor knows, in a fixed layout that needs no parser
 *
 * One writer, the supervisor, which holds the file open; any number of readers. The file is two slots, STATE_SLOT bytes apart;
 * generation g is written to slot g % 2 with a CRC, so that a reader always finds the newer whole one. Numbers little-endian.
 */
#ifndef BASE_STATE_H
#define BASE_STATE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define STATE_MAGIC 0x54534b48u /* "HKST" */
#define STATE_VERSION 3
#define STATE_SLOT 16384

#define VM_DOORS_MAX 64
#define VM_ENDPOINT_MAX 112 /* with its NUL; a unix path has at most 107 bytes */
#define VM_DOOR_EXEC_ID 1u /* exec.sock and vsock.sock, which every VM has */
#define VM_DOOR_VSOCK_ID 2u

#define VM_DOOR_INNER_SOCKET "door.sock"

/** How a host socket leads into the VM. */
enum vm_door_kind {
	VM_DOOR_UNIX = 1, /* unix stream socket, bridged to a TCP port of the guest */
	VM_DOOR_TCP = 2, /* TCP socket, likewise */
	VM_DOOR_EXEC = 3, /* unix stream socket to the agent */
	VM_DOOR_VSOCK = 4, /* unix stream socket in the hybrid form, to any AF_VSOCK port */
	VM_DOOR_HANDOFF = 5, /* unix stream socket on which a router hands over TCP connections */
	VM_DOOR_TLS = 6, /* TCP socket of husk-tls, which enters by the unix socket in the directory `inner` */
};

/** An open door. Strings are NUL-terminated and printable. */
struct vm_door {
	uint32_t id; /* 1 to VM_DOORS_MAX, given by the supervisor; 0: none yet. Index + 1 in the VM's counters */
	uint32_t kind; /* enum vm_door_kind */
	uint32_t guest_port; /* 0: the guest's first listener. Of EXEC and VSOCK: 0 */
	uint32_t reserved;
	uint64_t device,
		inode; /* of a unix socket's path: only that very socket is removed at the end; 0: not a path */
	char endpoint[VM_ENDPOINT_MAX]; /* absolute path; "127.0.0.1:8080", "[::1]:8080" with the real port */
	char inner[32]; /* TLS: name of a directory in the runtime directory that holds VM_DOOR_INNER_SOCKET alone */
	char alpn[32]; /* TLS: protocols, comma-separated */
};

/** CREATING: the record is being made or was never finished. CREATED: it has never run. STARTING: until the agent answers.
 *  STOPPED: it has run, and can be started again. ERROR: its last start failed before its workload ran, or husk did. */
enum vm_state {
	VM_CREATING = 1,
	VM_STARTING = 2,
	VM_RUNNING = 3,
	VM_PAUSED = 4,
	VM_STOPPED = 5,
	VM_ERROR = 6,
	VM_CREATED = 7
};

/** A process that cannot be mistaken for a later one with the same pid. pid 0: none. */
struct process_id {
	int32_t pid;
	uint64_t start_time; /* field 22 of /proc/PID/stat */
};

struct vm_state_record {
	uint64_t generation; /* set by state_write() */
	uint32_t state; /* enum vm_state */
	uint32_t end; /* enum vm_end of vmm/config.h, once stopped */
	uint32_t value;
	uint64_t changed_ns; /* CLOCK_REALTIME of this generation */
	char boot_id[40]; /* of the host, text */
	struct process_id supervisor, worker, machine;
	uint64_t duration_ns, peak_rss;
	uint64_t started_ns, ended_ns; /* CLOCK_REALTIME of the last start (STARTING) and of its end; 0: never */
	uint32_t starts; /* how often it was started */
	uint32_t flags; /* VM_STATE_* */
	char console[64]; /* path of the pseudo-terminal that is the guest's console, while it runs; "" none */
	char reason[512];
	struct vm_door doors[VM_DOORS_MAX]; /* those with an id */
};

#define VM_STATE_OOM (1u << 0) /* the guest's kernel killed a process of the workload for want of memory */

/** True when kind, port and strings of a door that came from another process are in range (its id is not looked at). */
bool vm_door_check(const struct vm_door *door);
/** "unix", "tcp", "exec", "vsock", "handoff", "tls"; "unknown". */
const char *vm_door_kind_name(uint32_t kind);

/** Write the next generation to @fd. */
int state_write(int fd, struct vm_state_record *record, struct husk_error *err);
/** Read the newest whole generation; -EBADMSG when there is none, -EPROTO for another version. */
int state_read(int fd, struct vm_state_record *record, struct husk_error *err);

/** Identity of a live process: start time from /proc. 0 or -ESRCH. */
int process_identify(pid_t pid, struct process_id *id);
/** True while that very process lives in this boot of the host (@boot_id as in the record). */
bool process_alive(const struct process_id *id, const char *boot_id);
/** The host's boot id; "" when /proc does not tell. */
void host_boot_id(char out[40]);

/** "stopped", …; "unknown". */
const char *vm_state_name(uint32_t state);

#endif
