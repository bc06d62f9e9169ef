/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.h - which machine a VM runs on, and which wall that is
 *
 * Theory of operation: `auto` takes `kvm` where guest code really runs on the CPU, which a short probe tells (kvm/probe.h),
 * and otherwise `qemu`. The probe makes a VM and costs milliseconds, so its answer is kept in the runtime directory for as
 * long as the host's boot and its /dev/kvm are the same. A user may force `kvm` where guest code is interpreted; the wall is
 * then still `software`, and whoever requires hardware is refused.
 */
#ifndef ENGINE_MACHINE_H
#define ENGINE_MACHINE_H

#include "engine/engine.h"
#include "kvm/probe.h"
#include "vmm/config.h"

#include <stdbool.h>

#define MACHINE_WHY 200

/** What this host's KVM is. */
struct machine_host {
	enum kvm_host kvm;
	char why[MACHINE_WHY]; /* what was found, a part of a sentence */
};

struct machine_choice {
	enum vmm_machine kind;
	bool hardware; /* the wall */
	int kvm_fd; /* owned; -1 for `qemu` */
	char *qemu; /* owned path; NULL for `kvm` */
	char why[MACHINE_WHY + 80]; /* the reason of the wall, a sentence */
};

#define MACHINE_CHOICE_INIT                                                                                            \
	{                                                                                                              \
		.kvm_fd = -1                                                                                           \
	}

/** Look at this host, or at what a look in this boot has found; @fresh: look. */
void machine_look(const struct husk *husk, bool fresh, struct machine_host *host);
/** Choose for @machine ("auto", NULL, "kvm", "qemu"). -EINVAL: no such machine; -ENODEV: it cannot be had here, or the wall
 *  is `software` and @require_hardware; the message says why and what to do. */
int machine_choose(const struct husk *husk, const char *machine, bool require_hardware, struct machine_choice *out,
	struct husk_error *err);
void machine_choice_free(struct machine_choice *choice);

/** "qemu", "kvm". */
const char *machine_name(enum vmm_machine kind);

#endif
