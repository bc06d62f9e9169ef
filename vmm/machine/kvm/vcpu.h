/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu.h - one vCPU: its thread, and what its exits mean
 *
 * Theory of operation: a thread per vCPU runs the guest until it exits. Accesses to ports and to addresses without memory go
 * to the machine's buses, which take the device lock, the one that the worker's loop holds while it delivers events; so a
 * device never sees two threads at once. Everything else that KVM may say ends the machine with a reason: a guest that shut
 * its CPU down, an instruction that KVM could not emulate, a state that the CPU refused.
 *
 * Rest and end: the machine's phase is looked at whenever KVM_RUN comes back with -EINTR, which a kick makes it do. That
 * second KVM_RUN also completes an access that was under way, so a vCPU at rest is a state that could be saved.
 */
#ifndef VMM_MACHINE_KVM_VCPU_H
#define VMM_MACHINE_KVM_VCPU_H

#include "kvm/kvm.h"
#include "vmm/machine/arch/x86_64/registers.h"

struct machine;

struct vcpu {
	struct machine *machine;
	unsigned index;
	struct kvm_vcpu kvm;
	pthread_t thread;
	uint64_t exits; /* to this process, by its thread; read by any */
	bool running; /* the thread exists */
};

/** Make vCPU @index of @machine, with its CPUID; the first one begins where @entry says, the others wait for it. */
int vcpu_create(struct machine *machine, unsigned index, struct vcpu *vcpu, struct husk_error *err);
/** The first vCPU's registers. */
int vcpu_enter(struct vcpu *vcpu, const struct x86_entry *entry, struct husk_error *err);
/** Start its thread. */
int vcpu_start(struct vcpu *vcpu, struct husk_error *err);

#endif
