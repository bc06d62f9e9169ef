/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid.h - what a vCPU says of itself
 *
 * Theory of operation: KVM lists what it can give a guest (KVM_GET_SUPPORTED_CPUID, API 4.46), with the host CPU's own place
 * in its package in it. The list is taken over less what a guest of ours must not have (nested virtualisation, performance
 * counters, enclaves, instructions that wait), and its topology is made the VM's own: one package, one thread per core, APIC
 * ids from 0 on. Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E.
 */
#ifndef VMM_MACHINE_ARCH_X86_64_CPUID_H
#define VMM_MACHINE_ARCH_X86_64_CPUID_H

#include <linux/kvm.h>
#include <stdbool.h>

/** Which vCPU of how many, and what KVM emulates beyond its list. */
struct x86_cpu {
	unsigned index, count;
	bool tsc_deadline; /* KVM_CAP_TSC_DEADLINE_TIMER: not in the list, because it needs the in-kernel APIC */
};

/** Make the list of the host's KVM that of @cpu, in place. */
void x86_cpuid_filter(struct kvm_cpuid2 *cpuid, const struct x86_cpu *cpu);

#endif
