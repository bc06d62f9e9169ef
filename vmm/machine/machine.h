/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.h - the seam between a VM's wiring and what runs its guest's CPUs
 *
 * Theory of operation: a machine runs guest CPUs over the worker's guest memory. Each kind is one constant table of
 * operations; the worker picks the table by the kind in its configuration and knows no more. Operations begin something;
 * how it went comes as an event from the loop, since a machine that is another process (`qemu`) must never be waited for:
 * it may itself be waiting for one of the worker's devices. The capabilities are constants that can be read before anything
 * is started, so that what a machine cannot do is refused and not dropped.
 */
#ifndef VMM_MACHINE_MACHINE_H
#define VMM_MACHINE_MACHINE_H

#include "base/loop.h"
#include "memory/memory.h"
#include "vmm/config.h"

#include <stdbool.h>

/** What a kind of machine can promise. */
struct machine_capabilities {
	const char *name;
	bool hardware_wall; /* the guest's code is kept in by the CPU, not by an emulator */
	bool pause;
	bool power_button;
	uint32_t cpus_max;
	uint64_t memory_max;
};

enum machine_event {
	MACHINE_RUNNING = 1, /* vCPUs run */
	MACHINE_PAUSED,
	MACHINE_OFF, /* the guest powered itself off */
	MACHINE_ENDED, /* the guest reset or panicked; text says which */
	MACHINE_LOST, /* the machine is gone or talks nonsense; text says what */
};

enum machine_power { MACHINE_POWER_BUTTON = 1, MACHINE_POWER_RESET, MACHINE_POWER_KILL };

/** @text: printable, husk's or QEMU's words. Called from the loop; the machine must not be destroyed in it. */
typedef void machine_event_fn(void *data, enum machine_event event, const char *text);

struct machine;

/** What a machine is made of. Everything must outlive it. */
struct machine_setup {
	struct loop *loop;
	int control_fd; /* `qemu`: QMP; taken on success */
	machine_event_fn *event;
	void *data;
};

struct machine_ops {
	struct machine_capabilities capabilities;
	/** Lay the guest's RAM out in @memory, as this kind of machine does for @size bytes. */
	int (*map_memory)(struct memory *memory, uint64_t size, struct husk_error *err);
	int (*create)(const struct machine_setup *setup, struct machine **out, struct husk_error *err);
	/* Each begins and returns; -errno when it cannot begin in this state. */
	int (*start)(struct machine *machine, struct husk_error *err);
	int (*pause)(struct machine *machine, struct husk_error *err);
	int (*resume)(struct machine *machine, struct husk_error *err);
	int (*power)(struct machine *machine, enum machine_power how, struct husk_error *err);
	void (*destroy)(struct machine *machine); /* NULL is fine */
};

extern const struct machine_ops machine_qemu_ops;

/** The table of a kind; NULL for one that this build does not have. */
static inline const struct machine_ops *machine_find(enum vmm_machine kind)
{
	return kind == VMM_MACHINE_QEMU ? &machine_qemu_ops : NULL;
}

#endif
