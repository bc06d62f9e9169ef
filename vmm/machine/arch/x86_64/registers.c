/* SPDX-License-Identifier: Apache-2.0 */
/* registers.c - the first vCPU's registers (theory of operation: registers.h) */
#include "vmm/machine/arch/x86_64/registers.h"

#include <string.h>

#define CR0_PE 0x1ull
#define CR0_ET 0x10ull /* always set on a CPU of today */
#define CR0_NE 0x20ull
#define CR0_PG 0x80000000ull
#define CR4_PAE 0x20ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define RFLAGS_FIXED 0x2ull

#define FLAT 0xffffffff

/* The cached parts of the loader's GDT (boot.c); types are Intel SDM vol. 3 tables 3-1 and 3-2. */
static const struct kvm_segment code32 = {
	.limit = FLAT, .selector = 0x8, .type = 0xb, .present = 1, .s = 1, .db = 1, .g = 1};
static const struct kvm_segment code64 = {
	.limit = FLAT, .selector = 0x10, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1};
static const struct kvm_segment data = {
	.limit = FLAT, .selector = 0x18, .type = 0x3, .present = 1, .s = 1, .db = 1, .g = 1};
static const struct kvm_segment task = {.limit = 0x67, .selector = 0x20, .type = 0xb, .present = 1};
static const struct kvm_segment none = {.unusable = 1};

void x86_entry_registers(const struct x86_entry *entry, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
	uint64_t apic_base = sregs->apic_base;

	*sregs = (struct kvm_sregs){
		.cs = entry->pvh ? code32 : code64,
		.ds = data,
		.es = data,
		.fs = data,
		.gs = data,
		.ss = data,
		.tr = task,
		.ldt = none,
		.gdt = {.base = entry->gdt, .limit = entry->gdt_limit},
		.cr0 = CR0_PE | CR0_ET,
		.apic_base = apic_base,
	};
	*regs = (struct kvm_regs){.rip = entry->rip, .rflags = RFLAGS_FIXED};
	if (entry->pvh) {
		regs->rbx = entry->info;
		return;
	}
	sregs->cr0 |= CR0_NE | CR0_PG;
	sregs->cr3 = entry->page_tables;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
	regs->rsi = entry->info;
}
