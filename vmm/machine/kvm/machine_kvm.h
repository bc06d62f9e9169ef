/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_kvm.h - the rooms of the `kvm` machine
 *
 * Theory of operation: the worker is the machine. machine_kvm.c makes the VM (memslots first, then the interrupt
 * controllers, which makes the memslots cheap), puts devices into slots, and begins, pauses and ends; vcpu.c runs guest code;
 * slot.c joins a virtio-mmio window to KVM's eventfds; bus.c, serial.c and power.c are what answers on the buses.
 *
 * Threads: the loop's thread runs every device. A vCPU's thread takes the device lock (the loop's) for each access to a bus.
 * Reads, and writes that only remember something, are then done at once; what starts, stops or resets a device is handed to
 * the loop's thread, and the vCPU waits for it (machine_call()). So a device's code runs in one thread, and the system
 * calls that a vCPU's thread needs are few.
 *
 * The first end counts: machine_end() notes it, stops all vCPUs and wakes the loop, which tells the worker.
 */
#ifndef VMM_MACHINE_KVM_MACHINE_KVM_H
#define VMM_MACHINE_KVM_MACHINE_KVM_H

#include "kvm/kvm.h"
#include "vmm/machine/arch/x86_64/layout.h"
#include "vmm/machine/kvm/bus.h"
#include "vmm/machine/kvm/power.h"
#include "vmm/machine/kvm/serial.h"
#include "vmm/machine/kvm/vcpu.h"
#include "vmm/machine/machine.h"

enum phase { PHASE_STOPPED, PHASE_RUNNING, PHASE_PAUSED, PHASE_ENDED };

/** Something a vCPU's thread wants done in the loop's thread. */
struct machine_call {
	void (*run)(struct machine_call *call);
	bool done;
	struct machine_call *next;
};

/** One virtio-mmio window (slot.c). */
struct slot {
	struct machine *machine;
	unsigned index;
	struct virtio_mmio *mmio;
	int irq_fd; /* -1: KVM has no irqfd */
	device_broken_fn *broken;
	void *data;
};

struct machine {
	struct loop *loop;
	struct machine_setup setup;
	struct kvm kvm;
	struct kvm_vm vm;
	struct bus mmio, ports;
	struct serial serial;
	struct power power;
	int serial_irq, power_irq; /* eventfds; -1: none */
	struct slot slots[X86_SLOTS];
	unsigned n_slots;
	struct x86_entry entry;
	uint64_t load_ns; /* what loading kernel and initramfs took */
	struct vcpu vcpus[X86_CPUS_MAX];
	unsigned n_vcpus;
	struct loop_watch news; /* an eventfd: calls to run, a rest or an end to tell */
	struct machine_call *calls; /* under the device lock */
	pthread_cond_t called;
	pthread_mutex_t lock; /* phase and what follows */
	pthread_cond_t changed;
	enum phase phase; /* also read without the lock, as a hint */
	unsigned resting; /* vCPUs that wait for the phase to change */
	enum phase told; /* the last phase that the worker was told of */
	enum machine_event end;
	char end_text[160];
};

/** Run @call in the loop's thread and wait for it. By a vCPU's thread, with the device lock. */
void machine_call(struct machine *machine, struct machine_call *call);
/** The machine is over; the first word counts. From any thread. */
__attribute__((format(printf, 3, 4))) void machine_end(
	struct machine *machine, enum machine_event event, const char *format, ...);
/** What a vCPU's thread does between two runs: true to go on, false to end. Waits while the machine is paused, and says so. */
bool machine_may_run(struct machine *machine, bool *paused);
/** An eventfd whose writes are edges on @gsi, or -1 without irqfds. */
int machine_irqfd(struct machine *machine, unsigned gsi, int *fd, struct husk_error *err);
/** Raise the line behind @fd (or, where that is -1, @gsi itself). */
void machine_interrupt(struct machine *machine, int fd, unsigned gsi);

/** Put @device (NULL: none yet) into the next free slot. */
int slot_add(struct machine *machine, const struct machine_device *device, struct husk_error *err);
void slot_destroy(struct slot *slot);

#endif
