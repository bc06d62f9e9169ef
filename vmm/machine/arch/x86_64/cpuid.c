/* SPDX-License-Identifier: Apache-2.0 */
/* cpuid.c - what a vCPU says of itself (theory of operation: cpuid.h) */
#include "vmm/machine/arch/x86_64/cpuid.h"

#include <stddef.h>
#include <stdint.h>

#define BIT(n) (1u << (n))

enum word { EAX, EBX, ECX, EDX };

/** Bits that no guest of ours gets. */
static const struct removal {
	uint32_t function, index;
	enum word word;
	uint32_t bits;
} removals[] = {
	{1, 0, ECX, BIT(3) | BIT(5) | BIT(15)}, /* MONITOR, VMX, PDCM (performance capabilities) */
	{7, 0, EBX, BIT(2)}, /* SGX */
	{7, 0, ECX, BIT(5) | BIT(30)}, /* WAITPKG: a guest that waits is to halt; SGX_LC */
	{7, 0, EDX, BIT(19)}, /* ARCH_LBR */
	{0x80000001, 0, ECX, BIT(2) | BIT(23) | BIT(24) | BIT(28)}, /* SVM, performance counters */
	/* AMX: its state needs a permission per process that the worker never asks for. */
	{7, 0, EDX, BIT(22) | BIT(24) | BIT(25)},
	{0xd, 0, EAX, BIT(17) | BIT(18)},
};

/** Leaves that tell nothing: performance monitoring, thermal, SGX, processor trace, AMX tiles, SVM, SEV. */
static const uint32_t empty_leaves[] = {5, 6, 0xa, 0x12, 0x14, 0x1c, 0x1d, 0x1e, 0x8000000a, 0x8000001f, 0x80000022};

static uint32_t *word_of(struct kvm_cpuid_entry2 *e, enum word word)
{
	uint32_t *const words[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
	return words[word];
}

static void remove_features(struct kvm_cpuid_entry2 *e)
{
	for (size_t i = 0; i < sizeof(removals) / sizeof(removals[0]); i++)
		if (removals[i].function == e->function && removals[i].index == e->index)
			*word_of(e, removals[i].word) &= ~removals[i].bits;
	for (size_t i = 0; i < sizeof(empty_leaves) / sizeof(empty_leaves[0]); i++)
		if (empty_leaves[i] == e->function)
			e->eax = e->ebx = e->ecx = e->edx = 0;
}

/** Bits that hold the numbers 0 to @count - 1. */
static unsigned width_of(unsigned count)
{
	unsigned bits = 0;
	while (1u << bits < count)
		bits++;
	return bits;
}

static void set_basic(struct kvm_cpuid_entry2 *e, const struct x86_cpu *cpu)
{
	unsigned ids = 1u << width_of(cpu->count); /* EBX[23:16]: addressable ids in the package */

	e->ebx = (e->ebx & 0x0000ffff) | ids << 16 | cpu->index << 24;
	e->ecx |= BIT(31); /* a hypervisor is there */
	if (cpu->tsc_deadline)
		e->ecx |= BIT(24);
	e->edx = cpu->count > 1 ? e->edx | BIT(28) : e->edx & ~BIT(28); /* HTT: EBX[23:16] is valid */
}

/** Leaf 4 (Intel) and 0x8000001d (AMD): who shares a cache. The last level is the package's, the others are a core's own. */
static void set_cache(struct kvm_cpuid_entry2 *e, const struct x86_cpu *cpu)
{
	unsigned type = e->eax & 0x1f, level = e->eax >> 5 & 7;

	if (!type)
		return;
	uint32_t sharing = level >= 3 ? cpu->count - 1 : 0;
	e->eax = (e->eax & 0x3fff) | sharing << 14;
	if (e->function == 4)
		e->eax |= ((1u << width_of(cpu->count)) - 1) << 26; /* cores in the package, less one */
}

/** Leaves 0xb and 0x1f: level 0 is the thread (one per core), level 1 the core, then nothing. */
static void set_extended_topology(struct kvm_cpuid_entry2 *e, const struct x86_cpu *cpu)
{
	enum { INVALID, SMT, CORE };

	e->edx = cpu->index; /* the x2APIC id, in every sub-leaf */
	e->eax = e->index == 1 ? width_of(cpu->count) : 0;
	e->ebx = e->index == 0 ? 1 : e->index == 1 ? cpu->count : 0;
	e->ecx = e->index | (uint32_t)(e->index == 0 ? SMT : e->index == 1 ? CORE : INVALID) << 8;
}

/** AMD's core count, 0x80000008: ECX[7:0] cores less one, ECX[15:12] the width of their ids. */
static void set_amd_cores(struct kvm_cpuid_entry2 *e, const struct x86_cpu *cpu)
{
	e->ecx = (e->ecx & ~0xf0ffu) | (cpu->count - 1) | width_of(cpu->count) << 12;
}

/** AMD's 0x8000001e: extended APIC id, core id with one thread per core, node 0. */
static void set_amd_ids(struct kvm_cpuid_entry2 *e, const struct x86_cpu *cpu)
{
	e->eax = cpu->index;
	e->ebx = cpu->index;
	e->ecx = 0;
}

static const struct leaf {
	uint32_t function;
	void (*set)(struct kvm_cpuid_entry2 *e, const struct x86_cpu *cpu);
} leaves[] = {
	{1, set_basic},
	{4, set_cache},
	{0xb, set_extended_topology},
	{0x1f, set_extended_topology},
	{0x80000008, set_amd_cores},
	{0x8000001d, set_cache},
	{0x8000001e, set_amd_ids},
};

void x86_cpuid_filter(struct kvm_cpuid2 *cpuid, const struct x86_cpu *cpu)
{
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
		remove_features(e);
		for (size_t k = 0; k < sizeof(leaves) / sizeof(leaves[0]); k++)
			if (leaves[k].function == e->function)
				leaves[k].set(e, cpu);
	}
}
