/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - the guest's CPU: how it enters, what it may do, and all of its state
 *
 * Theory of operation: the guest runs in 64-bit mode at privilege level 0 with interrupts off and nothing that could interrupt
 * it. The library's two pages hold what the CPU needs there, and nothing else: descriptor tables, and a stub per exception
 * vector. Every vector runs on the fault stack; its stub is one `out %al, SANDBOX_PORT_FAULT`, whose address tells the vector
 * and which changes no register, so that the state seen from outside is that of the fault.
 *
 * The CPU's features are those of the host's KVM less what needs an operating system (timers, performance counters, paravirtual
 * clocks). Model-specific registers that the guest can write are a table; where KVM can filter, it cannot read or write others.
 */
#ifndef SANDBOX_CPU_H
#define SANDBOX_CPU_H

#include "kvm/kvm.h"
#include "sandbox/layout.h"

#define CPU_MSRS_MAX 32
#define CPU_CPUID_MAX 256

/** All that a guest can change of its CPU, but the time stamp counter. */
struct cpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_xcrs xcrs; /* nr_xcrs 0: this KVM has none */
	struct kvm_xsave xsave; /* where KVM has no such ioctl: x87 and SSE, in the same layout */
	struct kvm_msr_entry msrs[CPU_MSRS_MAX];
	unsigned n_msrs;
};

/** What the guest is told of its CPU. */
struct cpu_features {
	unsigned n;
	struct kvm_cpuid_entry2 entries[CPU_CPUID_MAX];
};

/** Fill the library's pages, SANDBOX_SUPPORT_SIZE bytes that will lie at SANDBOX_SUPPORT. */
void cpu_write_support(uint8_t *pages);
/** The vector whose stub ends at @rip (the address behind its `out`), or -1. */
int cpu_vector(uint64_t rip);

/** Features of this host's KVM, filtered. */
int cpu_features_get(const struct kvm *kvm, struct cpu_features *features, struct husk_error *err);
/** Does a CPU with @have do all that one with @want does? -ENOTSUP names the first thing missing. */
int cpu_features_fit(const struct cpu_features *want, const struct cpu_features *have, struct husk_error *err);
/** A leaf, or NULL. */
const struct kvm_cpuid_entry2 *cpu_features_find(
	const struct cpu_features *features, uint32_t function, uint32_t index);
int cpu_features_set(const struct kvm_vcpu *vcpu, const struct cpu_features *features, struct husk_error *err);
/** Bits of a guest-physical address, by @features. */
unsigned cpu_address_bits(const struct cpu_features *features);

/** Only the MSRs of the table can be read and written from now on; nothing where KVM has no filter. */
int cpu_filter_msrs(const struct kvm *kvm, const struct kvm_vm *vm, struct husk_error *err);

/** Where a fresh CPU stands. */
struct cpu_entry {
	uint64_t rip, rsp;
	uint64_t rdi; /* the first argument */
	uint64_t cr3; /* the top page table */
	uint64_t tss; /* guest address of the task state segment, CPU_TSS_SIZE bytes */
};

#define CPU_TSS_SIZE 104

/** Fill the task state segment, which makes every exception begin at @fault_stack. */
void cpu_write_tss(uint8_t *tss, uint64_t fault_stack);
/** Make a fresh vCPU, whose features have been set, stand at @entry. */
int cpu_enter(const struct kvm *kvm, const struct kvm_vcpu *vcpu, const struct cpu_features *features,
	const struct cpu_entry *entry, struct husk_error *err);
/** Is it a model-specific register that a state may have? */
bool cpu_msr_known(uint32_t index);
int cpu_save(const struct kvm *kvm, const struct kvm_vcpu *vcpu, struct cpu_state *state, struct husk_error *err);
int cpu_load(const struct kvm *kvm, const struct kvm_vcpu *vcpu, const struct cpu_state *state, struct husk_error *err);

#endif
