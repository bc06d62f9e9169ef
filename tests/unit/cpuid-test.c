/* SPDX-License-Identifier: Apache-2.0 */
/* cpuid-test.c - what a vCPU says of itself: features taken away, a topology of the VM's own */
#include "tests/tap.h"
#include "vmm/machine/arch/x86_64/cpuid.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { N = 12 };

/** A list as a host might give: every bit set, the host's own topology. */
static struct kvm_cpuid2 *make_list(void)
{
	static const struct {
		uint32_t function, index;
	} leaves[N] = {{0, 0}, {1, 0}, {4, 3}, {4, 1}, {7, 0}, {0xb, 0}, {0xb, 1}, {0xb, 2}, {0x80000001, 0},
		{0x80000008, 0}, {0x8000001e, 0}, {0x8000000a, 0}};
	struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + N * sizeof(list->entries[0]));

	list->nent = N;
	for (unsigned i = 0; i < N; i++)
		list->entries[i] = (struct kvm_cpuid_entry2){.function = leaves[i].function,
			.index = leaves[i].index,
			.eax = 0xffffffff,
			.ebx = 0xffffffff,
			.ecx = 0xffffffff,
			.edx = 0xffffffff};
	list->entries[2].eax = 3 | 3 << 5 | 0xfffu << 14 | 0x3fu << 26; /* unified, level 3 */
	list->entries[3].eax = 1 | 1 << 5 | 0xfffu << 14 | 0x3fu << 26; /* data, level 1 */
	return list;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *list, uint32_t function, uint32_t index)
{
	for (unsigned i = 0; i < list->nent; i++)
		if (list->entries[i].function == function && list->entries[i].index == index)
			return &list->entries[i];
	return NULL;
}

static void test_features(void)
{
	struct kvm_cpuid2 *list = make_list();
	const struct x86_cpu cpu = {.index = 0, .count = 1, .tsc_deadline = true};

	x86_cpuid_filter(list, &cpu);
	const struct kvm_cpuid_entry2 *basic = find(list, 1, 0), *amd = find(list, 0x80000001, 0);
	CHECK(!(basic->ecx & 1u << 5) && !(amd->ecx & 1u << 2), "no nested virtualisation, on either maker's CPU");
	CHECK(!(basic->ecx & 1u << 3), "no MONITOR: it would keep the host's CPU busy");
	CHECK((basic->ecx & 1u << 31) && (basic->ecx & 1u << 24), "a hypervisor is there, and a TSC deadline timer");
	CHECK(basic->ecx & 1u << 21, "x2APIC stays when the host has it");
	CHECK(!(find(list, 7, 0)->ebx & 1u << 2), "no SGX");
	CHECK(find(list, 0x8000000a, 0)->eax == 0, "SVM's leaf tells nothing");
	CHECK(find(list, 0, 0)->ebx == 0xffffffff, "other leaves are the host's");
	free(list);

	list = make_list();
	list->entries[1].ecx = 0;
	const struct x86_cpu plain = {.index = 0, .count = 1};
	x86_cpuid_filter(list, &plain);
	CHECK(find(list, 1, 0)->ecx == 1u << 31, "nothing is promised that KVM does not list");
	free(list);
}

/** Every vCPU of every count from 1 to 32 says where it is. */
static void test_topology(void)
{
	bool ids = true, packages = true, widths = true, caches = true, amd = true;

	for (unsigned count = 1; count <= 32; count++)
		for (unsigned index = 0; index < count; index++) {
			struct kvm_cpuid2 *list = make_list();
			const struct x86_cpu cpu = {.index = index, .count = count};
			x86_cpuid_filter(list, &cpu);
			const struct kvm_cpuid_entry2 *basic = find(list, 1, 0), *smt = find(list, 0xb, 0),
						      *core = find(list, 0xb, 1), *none = find(list, 0xb, 2);
			unsigned width = core->eax;
			ids &= basic->ebx >> 24 == index && smt->edx == index && core->edx == index &&
			       none->edx == index;
			packages &= (basic->ebx >> 16 & 0xff) >= count && core->ebx == count && smt->ebx == 1;
			packages &= !!(basic->edx & 1u << 28) == (count > 1);
			widths &= 1u << width >= count && (width == 0 || 1u << (width - 1) < count) && smt->eax == 0;
			widths &=
				(smt->ecx >> 8 & 0xff) == 1 && (core->ecx >> 8 & 0xff) == 2 && !(none->ecx >> 8 & 0xff);
			caches &= (find(list, 4, 3)->eax >> 14 & 0xfff) == count - 1;
			caches &= (find(list, 4, 1)->eax >> 14 & 0xfff) == 0;
			caches &= (find(list, 4, 3)->eax >> 26) + 1 >= count;
			amd &= (find(list, 0x80000008, 0)->ecx & 0xff) == count - 1 &&
			       find(list, 0x8000001e, 0)->eax == index;
			free(list);
		}
	CHECK(ids, "APIC ids count from 0, in every leaf");
	CHECK(packages, "all vCPUs are cores of one package");
	CHECK(widths, "the width of an id fits the number of vCPUs, one thread per core");
	CHECK(caches, "the last cache is shared by all, the first by nobody");
	CHECK(amd, "AMD's leaves say the same");
}

int main(void)
{
	test_features();
	test_topology();
	return tap_done();
}
