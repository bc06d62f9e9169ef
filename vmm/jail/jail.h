/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.h - the shell around a VM's worker and its QEMU
 *
 * Theory of operation: four stages, each of which takes away what the next does not need.
 *
 *     born      in new namespaces: mount, PID, network, IPC, UTS; without root, in a user namespace that makes these possible
 *               (birth.c, in the child between clone and exec)
 *     housed    in a root of its own: the worker's is the VM's runtime directory, QEMU's is made of what its binary needs,
 *               read-only (root.c)
 *     stripped  of ids, capabilities, cores and limits; without files by Landlock, where the kernel has it (strip.c)
 *     sealed    by a filter of system calls, one per kind of thread (seal.c, filters/). QEMU seals itself: -sandbox
 *
 * The worker goes through them itself. For QEMU the supervisor starts `husk-vmm enclose`, which goes through the first three
 * and then executes it (enclose.c).
 *
 * As root there is no user namespace: root can make the others without, each child gets an id of its own that owns nothing on
 * the host, and a user namespace would only bring kernel code within reach that nothing in it needs. An ordinary user has no
 * second id to give, so its user namespace maps its own one and nothing else, and all rights in it are dropped.
 *
 * Some hosts forbid some of that (containers above all). What can be missing is a wall of enum jail_wall; what a VM is to have
 * is decided before it starts, and whatever of it cannot be built then ends the start.
 */
#ifndef VMM_JAIL_JAIL_H
#define VMM_JAIL_JAIL_H

#include "base/error.h"
#include "base/spawn.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** Walls that a host may forbid. */
enum jail_wall {
	JAIL_USER = 1 << 0, /* a user namespace, without root only: the other namespaces depend on it */
	JAIL_ROOT = 1 << 1, /* a mount namespace with a root of its own */
	JAIL_PID = 1 << 2, /* PID, network, IPC and UTS namespaces */
	JAIL_NET = 1 << 3,
	JAIL_IPC = 1 << 4,
	JAIL_UTS = 1 << 5,
	JAIL_ID = 1 << 6, /* an id of its own, as root only */
	JAIL_FILTER = 1 << 7, /* of system calls */
};
#define JAIL_WALLS 8

/* Ids of VMs: no distribution gives any from here on (systemd's for containers end below; its documentation of UIDs leaves
 * these alone), and no passwd entry is needed. A VM has two, by 26 bits of its own id. Should two VMs ever meet on one, they
 * are still apart by their namespaces, and cannot read each other's memory. */
#define JAIL_ID_FIRST 0x70000000u
#define JAIL_ID_LAST 0x77ffffffu

/** Every wall that goes with this process's rights: all but JAIL_USER as root, all but JAIL_ID otherwise. */
uint32_t jail_full(void);
/** "network", …, for people; of one bit. */
const char *jail_wall_name(uint32_t wall);
/** The id of the worker of the VM @id (hex digits), or of its QEMU. */
uid_t jail_id(const char *id, bool machine);

/** What is to be built around a process. */
struct jail {
	uint32_t walls;
	uid_t id; /* with JAIL_ID */
	int runtime_fd; /* the VM's runtime directory; closed on the way in */
	int parent_fd; /* a socket or pipe that hangs up when the supervisor dies */
};

/* ---- stage 1, in the supervisor ---- */

/** What jail_birth() needs until spawn() has returned. */
struct jail_birth {
	char uid_map[32], gid_map[32];
	bool mapped;
};
/** Have @how born into the namespaces of @walls. */
void jail_birth(struct jail_birth *birth, uint32_t walls, struct spawn *how);
/** spawn() has failed with @code and @err: say what that means for a jail of @walls. Returns the code. */
int jail_birth_failed(uint32_t walls, int code, struct husk_error *err);

/* ---- stages 2 and 3 ---- */

/** Close every descriptor from 3 on that is not in @fds, and refuse directories among those but for @runtime_fd. */
int jail_keep(const int *fds, size_t n, int runtime_fd, struct husk_error *err);
/** Move into the runtime directory as root, then give up every right. For the worker, before it meets a byte of the guest. */
int jail_enter(const struct jail *jail, struct husk_error *err);
/** Move into a root in which @program can be executed and finds its own proc, then give up every right that outlives an exec. */
int jail_enclose(const struct jail *jail, const char *program, struct husk_error *err);

/* ---- stage 4 ---- */

enum jail_thread {
	JAIL_LOOP, /* the worker's event loop: devices, doors, the agent's client */
	JAIL_VCPU, /* a thread that runs a vCPU of the `kvm` machine */
	JAIL_THREADS,
};
/** Filter the calling thread's system calls; whatever its kind does not need kills the process with SIGSYS. A thread that is
 *  started from here on has this filter as well, so other kinds are started before. A build with a sanitizer has no filter:
 *  its runtime needs what no filter should allow. */
int jail_seal(enum jail_thread kind, struct husk_error *err);

#define JAIL_EXIT 125 /* of `husk-vmm enclose`, with the reason on stderr; QEMU's own is 1 */

/* ---- husk-vmm enclose, husk-vmm shell ---- */

/** `husk-vmm enclose WALLS ID RUNTIME-FD PROGRAM ARGUMENTS…`: be PROGRAM in a jail. The exit status, when that fails. */
int jail_enclose_main(int argc, char **argv);
/** `husk-vmm shell DIRECTORY`: which walls can be built here, over a directory of one's own, one a line: "ok NAME" or
 *  "missing NAME: WHY"; last "walls NUMBER of NUMBER", the bits that stand together and those that ought to. */
int jail_shell_main(int argc, char **argv);

#endif
