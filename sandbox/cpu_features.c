/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_features.c - what the guest is told of its CPU */
#include "sandbox/cpu.h"

#include "base/cleanup.h"

#include <string.h>

enum { EAX, EBX, ECX, EDX };

/** Bits of CPUID that a guest without an operating system has no use for, or that would let time or the host show. */
static const struct {
	uint32_t function, index;
	unsigned which;
	uint32_t clear;
} unwanted[] = {
	/* MONITOR, VMX, PCID, x2APIC, TSC deadline */
	{1, 0, ECX, 1u << 3 | 1u << 5 | 1u << 17 | 1u << 21 | 1u << 24},
	{1, 0, EBX, 0xff000000}, /* the host CPU's APIC id */
	{1, 0, EDX, 1u << 9}, /* APIC */
	{6, 0, EAX, ~0u}, /* thermal and power management */
	{6, 0, ECX, ~0u},
	{7, 0, EDX, 1u << 22 | 1u << 24 | 1u << 25}, /* AMX: its state does not fit struct kvm_xsave */
	{7, 0, EBX, 1u << 25}, /* processor trace */
	{0xa, 0, EAX, ~0u}, /* performance counters */
	{0xa, 0, EBX, ~0u}, {0xa, 0, EDX, ~0u}, {0xb, 0, EDX, ~0u}, {0xb, 1, EDX, ~0u},
	{0xd, 0, EAX, 1u << 17 | 1u << 18}, {0xd, 1, EAX, 1u << 3}, /* XSAVES */
	{0xd, 1, ECX, ~0u}, {0xd, 1, EDX, ~0u}, {0x14, 0, EAX, ~0u},
	{0x40000001, 0, EAX, ~0u}, /* KVM's paravirtual features */
	{0x80000001, 0, ECX, 1u << 2}, /* SVM */
};

static uint32_t *cpuid_register(struct kvm_cpuid_entry2 *entry, unsigned which)
{
	uint32_t *const registers[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};
	return registers[which];
}

const struct kvm_cpuid_entry2 *cpu_features_find(const struct cpu_features *features, uint32_t function, uint32_t index)
{
	for (unsigned i = 0; i < features->n; i++)
		if (features->entries[i].function == function && features->entries[i].index == index)
			return &features->entries[i];
	return NULL;
}

int cpu_features_get(const struct kvm *kvm, struct cpu_features *features, struct husk_error *err)
{
	CLEANUP_FREE struct kvm_cpuid2 *all = calloc(1, sizeof(*all) + CPU_CPUID_MAX * sizeof(struct kvm_cpuid_entry2));

	if (!all)
		return error_set(err, -ENOMEM, "describe the guest's CPU: out of memory");
	all->nent = CPU_CPUID_MAX;
	long rc = kvm_ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, all, "ask what vCPUs can do", err);
	if (rc < 0)
		return (int)rc;
	features->n = all->nent < CPU_CPUID_MAX ? all->nent : CPU_CPUID_MAX;
	memcpy(features->entries, all->entries, features->n * sizeof(features->entries[0]));
	for (unsigned i = 0; i < features->n; i++)
		for (size_t j = 0; j < ARRAY_SIZE(unwanted); j++)
			if (features->entries[i].function == unwanted[j].function &&
				features->entries[i].index == unwanted[j].index)
				*cpuid_register(&features->entries[i], unwanted[j].which) &= ~unwanted[j].clear;
	return 0;
}

int cpu_features_fit(const struct cpu_features *want, const struct cpu_features *have, struct husk_error *err)
{
	static const struct {
		uint32_t function, index;
		unsigned which;
		const char *name;
	} flags[] = {
		{1, 0, ECX, "1.ECX"},
		{1, 0, EDX, "1.EDX"},
		{7, 0, EBX, "7.EBX"},
		{7, 0, ECX, "7.ECX"},
		{7, 0, EDX, "7.EDX"},
		{7, 1, EAX, "7/1.EAX"},
		{0xd, 0, EAX, "D.EAX"},
		{0xd, 1, EAX, "D/1.EAX"},
		{0x80000001, 0, ECX, "80000001.ECX"},
		{0x80000001, 0, EDX, "80000001.EDX"},
		{0x80000008, 0, EBX, "80000008.EBX"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		const struct kvm_cpuid_entry2 *w = cpu_features_find(want, flags[i].function, flags[i].index);
		const struct kvm_cpuid_entry2 *h = cpu_features_find(have, flags[i].function, flags[i].index);
		uint32_t wanted = w ? *cpuid_register((struct kvm_cpuid_entry2 *)w, flags[i].which) : 0;
		uint32_t missing = wanted & ~(h ? *cpuid_register((struct kvm_cpuid_entry2 *)h, flags[i].which) : 0);
		if (missing)
			return error_set(err, -ENOTSUP,
				"this host's CPU lacks a feature that the snapshot was made with: CPUID %s bit %d",
				flags[i].name, __builtin_ctz(missing));
	}
	return 0;
}

int cpu_features_set(const struct kvm_vcpu *vcpu, const struct cpu_features *features, struct husk_error *err)
{
	CLEANUP_FREE struct kvm_cpuid2 *all = calloc(1, sizeof(*all) + features->n * sizeof(features->entries[0]));

	if (!all)
		return error_set(err, -ENOMEM, "describe the guest's CPU: out of memory");
	all->nent = features->n;
	memcpy(all->entries, features->entries, features->n * sizeof(features->entries[0]));
	long rc = kvm_ioctl(vcpu->fd, KVM_SET_CPUID2, all, "tell a vCPU what it can do", err);
	return rc < 0 ? (int)rc : 0;
}

unsigned cpu_address_bits(const struct cpu_features *features)
{
	const struct kvm_cpuid_entry2 *entry = cpu_features_find(features, 0x80000008, 0);
	return entry && (entry->eax & 0xff) ? entry->eax & 0xff : 36; /* Intel SDM vol. 3, 4.1.4: without the leaf 36 */
}
