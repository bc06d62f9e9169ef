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
#include "vmm/virtio/device.h"

#include <stdbool.h>

/** What a kind of machine can promise. */
struct machine_capabilities {
	const char *name;
	bool own_devices; /* the worker brings console, rng and balloon as well; else the machine has its own */
	bool pause;
	bool power_button;
	uint32_t cpus_max;
	uint64_t memory_max;
};

enum machine_event {
	MACHINE_RUNNING = 1, /* vCPUs run; text may say what their start took */
	MACHINE_PAUSED,
	MACHINE_OFF, /* the guest powered itself off */
	MACHINE_ENDED, /* the guest reset or panicked; text says which */
	MACHINE_BALLOON, /* answer to balloon(); text says why not, else it is empty */
	MACHINE_LOST, /* the machine is gone or talks nonsense; text says what */
};

enum machine_power { MACHINE_POWER_BUTTON = 1, MACHINE_POWER_RESET, MACHINE_POWER_KILL };

/** @text: printable, husk's or QEMU's words. Called from the loop; the machine must not be destroyed in it. */
typedef void machine_event_fn(void *data, enum machine_event event, const char *text);

/** The guest broke a device, which stands still until its driver resets it; said each time. Called from the loop. */
typedef void device_broken_fn(void *data, const char *why);

/** A device on its way into a machine. */
struct machine_device {
	const char *name; /* in messages: "root disk" */
	struct virtio_device *device; /* must outlive the machine */
	int socket_fd; /* `qemu`: its vhost-user socket, taken on success; otherwise -1 */
	device_broken_fn *broken;
	void *data;
};

struct machine;

/** What a machine is made of. Everything must outlive it, but descriptors, which are taken by a create() that succeeds. */
struct machine_setup {
	struct loop *loop; /* `kvm`: with a lock */
	const struct memory *memory;
	machine_event_fn *event;
	void *data;
	/* `qemu` */
	int control_fd; /* QMP */
	/** The guest has given back @bytes of its memory by now, QEMU says; from the loop. May be NULL. */
	void (*ballooned)(void *data, uint64_t bytes);
	/* `kvm` */
	int kvm_fd; /* /dev/kvm */
	int kernel_fd, initrd_fd; /* initrd_fd may be -1 */
	const char *cmdline;
	uint32_t cpus;
	/** What the guest writes to the early console; with the loop's lock, from any thread. */
	void (*console)(void *data, const void *bytes, size_t n);
	/** Called first in each vCPU's thread; may be NULL. */
	int (*vcpu_begins)(void *data, struct husk_error *err);
};

struct machine_ops {
	struct machine_capabilities capabilities;
	/** Lay the guest's RAM out in @memory, as this kind of machine does for @size bytes. */
	int (*map_memory)(struct memory *memory, uint64_t size, struct husk_error *err);
	int (*create)(const struct machine_setup *setup, struct machine **out, struct husk_error *err);
	/** Give the machine a device, before it starts. The guest sees them in this order. */
	int (*attach)(struct machine *machine, const struct machine_device *device, struct husk_error *err);
	/* Each begins and returns; -errno when it cannot begin in this state. */
	int (*start)(struct machine *machine, struct husk_error *err);
	int (*pause)(struct machine *machine, struct husk_error *err);
	int (*resume)(struct machine *machine, struct husk_error *err);
	int (*power)(struct machine *machine, enum machine_power how, struct husk_error *err);
	/** Have the guest give back @bytes in all; MACHINE_BALLOON answers. NULL with own_devices: the balloon is the worker's. */
	int (*balloon)(struct machine *machine, uint64_t bytes, struct husk_error *err);
	/** How often its vCPUs came out of the guest, to this process. NULL: nobody counts. */
	uint64_t (*exits)(const struct machine *machine);
	/** Without the loop's lock, from its thread; NULL is fine. */
	void (*destroy)(struct machine *machine);
};

extern const struct machine_ops machine_qemu_ops;
extern const struct machine_ops machine_kvm_ops; /* x86_64 only */

/** The table of a kind; NULL for one that this build does not have. */
static inline const struct machine_ops *machine_find(enum vmm_machine kind)
{
#if defined(__x86_64__)
	if (kind == VMM_MACHINE_KVM)
		return &machine_kvm_ops;
#endif
	return kind == VMM_MACHINE_QEMU ? &machine_qemu_ops : NULL;
}

#endif
