/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm.h - thin wrappers over the KVM ioctls (Linux Documentation/virt/kvm/api.rst), and what a host's KVM can do
 *
 * Theory of operation: one struct per descriptor: the system (/dev/kvm), a VM, a vCPU. A wrapper makes one ioctl and says in
 * words what failed. Every capability is optional: kvm_open() asks for each once, and whoever needs one asks the struct. No
 * wrapper keeps state of its own, so the order of calls is the caller's choice; memslots before the irqchip is the cheap one
 * (a memslot that comes after it waits for a grace period of RCU each).
 *
 * A vCPU belongs to the thread that runs it. kvm_vcpu_kick() may be called from any other: it makes the KVM_RUN under way or
 * the next one return -EINTR.
 */
#ifndef KVM_KVM_H
#define KVM_KVM_H

#include "base/error.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define KVM_KICK_SIGNAL SIGUSR1 /* its handler does nothing; kvm_vcpu_allow_kicks() installs it */

/** What this host's KVM offers. */
struct kvm_caps {
	bool irqchip, pit2, irqfd, ioeventfd, immediate_exit, tsc_deadline, x2apic, readonly_memory, mp_state,
		set_tss_addr, set_identity_map, xsave, xcrs, debugregs, vcpu_events, msr_filter;
	unsigned vcpus_max, memslots_max;
};

/** /dev/kvm. */
struct kvm {
	int fd; /* owned; -1: none */
	struct kvm_caps caps;
	size_t run_size; /* bytes of a vCPU's shared page */
};

struct kvm_vm {
	int fd; /* owned; -1: none */
};

struct kvm_vcpu {
	int fd; /* owned; -1: none */
	struct kvm_run *run; /* mapped, run_size bytes */
	size_t run_size;
};

/** Take @fd (a descriptor of /dev/kvm; taken on success) and ask what it can do. -ENOTSUP: another API version. */
int kvm_open(int fd, struct kvm *kvm, struct husk_error *err);
void kvm_close(struct kvm *kvm);

int kvm_vm_create(const struct kvm *kvm, struct kvm_vm *vm, struct husk_error *err);
void kvm_vm_close(struct kvm_vm *vm);
/** Guest-physical [@gpa, @gpa + @size) is the memory at @host; @flags: KVM_MEM_*. API 4.35. */
int kvm_vm_memslot(const struct kvm_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, void *host, uint32_t flags,
	struct husk_error *err);
/** The in-kernel interrupt controllers, and where Intel's CPUs keep what they need for real mode. API 4.24, 4.40, 4.41. */
int kvm_vm_irqchip(
	const struct kvm *kvm, const struct kvm_vm *vm, uint64_t tss, uint64_t identity_map, struct husk_error *err);
/** The in-kernel 8254, for kernels that know no kvm-clock. API 4.71. Fine where KVM has none. */
int kvm_vm_pit(const struct kvm *kvm, const struct kvm_vm *vm, struct husk_error *err);
/** Each write to the eventfd @fd is an edge on input @gsi. API 4.75. */
int kvm_vm_irqfd(const struct kvm_vm *vm, int fd, uint32_t gsi, struct husk_error *err);
/** An edge on input @gsi, without an irqfd. API 4.25. */
int kvm_vm_pulse(const struct kvm_vm *vm, uint32_t gsi, struct husk_error *err);
/** A guest's write of @n bytes, whatever they are, to MMIO address @gpa is a write to the eventfd @fd. API 4.59. */
int kvm_vm_ioeventfd(const struct kvm_vm *vm, int fd, uint64_t gpa, uint32_t n, struct husk_error *err);

int kvm_vcpu_create(
	const struct kvm *kvm, const struct kvm_vm *vm, unsigned index, struct kvm_vcpu *vcpu, struct husk_error *err);
void kvm_vcpu_close(struct kvm_vcpu *vcpu);
/** Run the guest until it exits: 0 (vcpu->run tells why), -EINTR (a kick), another -errno. No husk_error: the hot path. */
int kvm_vcpu_run(struct kvm_vcpu *vcpu);
/** Make @vcpu, which @thread runs, return from KVM_RUN. */
void kvm_vcpu_kick(struct kvm_vcpu *vcpu, pthread_t thread);
/** Forget kicks: by the thread that runs it, once it has seen why it was kicked. */
void kvm_vcpu_kick_done(struct kvm_vcpu *vcpu);
/** Once per process, before the first vCPU runs. */
int kvm_allow_kicks(struct husk_error *err);

/** An ioctl on one of the three that has no wrapper of its own: its value, or -errno with "@what" in the message. */
long kvm_ioctl(int fd, unsigned long request, void *argument, const char *what, struct husk_error *err);

#endif
