/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - the VM's state record: what its supervisor knows, in a fixed layout that needs no parser
 *
 * One writer, the supervisor, which holds the file open; any number of readers. The file is two slots of STATE_SLOT bytes;
 * generation g is written to slot g % 2 with a CRC, so that a reader always finds the newer whole one. Numbers little-endian.
 */
#ifndef BASE_STATE_H
#define BASE_STATE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define STATE_MAGIC 0x54534b48u /* "HKST" */
#define STATE_VERSION 1
#define STATE_SLOT 4096

enum vm_state { VM_CREATING = 1, VM_STARTING = 2, VM_RUNNING = 3, VM_PAUSED = 4, VM_STOPPED = 5, VM_ERROR = 6 };

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
	char reason[512];
};

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
