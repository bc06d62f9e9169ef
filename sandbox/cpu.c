/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.c - the guest's CPU: the library's pages, entry, and saved state (theory of operation: cpu.h) */
#include "sandbox/cpu.h"

#include "base/bytes.h"
#include "sandbox/protocol.h"

#include <string.h>

/* The library's pages: tables in the first, stubs in the second. */
#define GDT_AT 0
#define IDT_AT 0x100
#define STUBS_AT SANDBOX_PAGE
#define STUB_SIZE 16
#define VECTORS 32 /* what the CPU itself raises; others are beyond the table's limit, a general protection fault */

#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10
#define TSS_SELECTOR 0x18 /* is in no table: the register is loaded from outside */

#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define CR4_OSFXSR (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_OSXSAVE (1u << 18)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

/** A gate of the IDT, Intel SDM vol. 3, 6.14.1: present, an interrupt gate, on the first stack of the interrupt stack table. */
static void write_gate(uint8_t *at, uint64_t handler)
{
	put_le16(at, (uint16_t)handler);
	put_le16(at + 2, CODE_SELECTOR);
	at[4] = 1;
	at[5] = 0x8e;
	put_le16(at + 6, (uint16_t)(handler >> 16));
	put_le32(at + 8, (uint32_t)(handler >> 32));
	put_le32(at + 12, 0);
}

void cpu_write_support(uint8_t *pages)
{
	static const uint8_t stub[] = {
		0xe6, SANDBOX_PORT_FAULT, /* out %al, $port */
		0xf4, 0xeb, 0xfd, /* 1: hlt; jmp 1b, where nobody ever comes */
	};

	memset(pages, 0, SANDBOX_SUPPORT_SIZE);
	/* Both have their accessed bit set, so that the CPU has nothing to write here. */
	put_le64(pages + GDT_AT + CODE_SELECTOR, 0x00af9b000000ffff);
	put_le64(pages + GDT_AT + DATA_SELECTOR, 0x00cf93000000ffff);
	for (unsigned i = 0; i < VECTORS; i++) {
		write_gate(pages + IDT_AT + i * 16, SANDBOX_SUPPORT + STUBS_AT + i * STUB_SIZE);
		memcpy(pages + STUBS_AT + i * STUB_SIZE, stub, sizeof(stub));
	}
}

int cpu_vector(uint64_t rip)
{
	uint64_t at = rip - (SANDBOX_SUPPORT + STUBS_AT);

	return at < VECTORS * STUB_SIZE && at % STUB_SIZE == 2 ? (int)(at / STUB_SIZE) : -1;
}

void cpu_write_tss(uint8_t *tss, uint64_t fault_stack)
{
	memset(tss, 0, CPU_TSS_SIZE);
	put_le64(tss + 36, fault_stack); /* IST1 */
	put_le16(tss + 102, CPU_TSS_SIZE); /* no I/O permission map */
}

static int enter_floating_point(const struct kvm *kvm, const struct kvm_vcpu *vcpu, const struct cpu_features *features,
	bool xsave, struct husk_error *err)
{
	struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80}; /* as after FNINIT: exceptions masked, full precision */
	long rc = kvm_ioctl(vcpu->fd, KVM_SET_FPU, &fpu, "set floating-point registers", err);

	if (rc < 0 || !xsave)
		return rc < 0 ? (int)rc : 0;
	const struct kvm_cpuid_entry2 *entry = cpu_features_find(features, 0xd, 0);
	uint64_t offered = entry ? entry->eax | (uint64_t)entry->edx << 32 : 3;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = (offered & 7) | 1}}; /* x87, SSE, AVX */
	if (!kvm->caps.xcrs)
		return 0;
	rc = kvm_ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs, "set XCR0", err);
	return rc < 0 ? (int)rc : 0;
}

int cpu_enter(const struct kvm *kvm, const struct kvm_vcpu *vcpu, const struct cpu_features *features,
	const struct cpu_entry *entry, struct husk_error *err)
{
	const struct kvm_cpuid_entry2 *basic = cpu_features_find(features, 1, 0);
	bool xsave = basic && (basic->ecx & 1u << 26);
	struct kvm_segment code = {
		.limit = ~0u, .selector = CODE_SELECTOR, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = DATA_SELECTOR, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	struct kvm_regs regs = {.rip = entry->rip, .rsp = entry->rsp, .rdi = entry->rdi, .rflags = 2};
	struct kvm_sregs sregs;

	long rc = kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs, "read special registers", err);
	if (rc < 0)
		return (int)rc;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){.base = entry->tss,
		.limit = CPU_TSS_SIZE - 1,
		.selector = TSS_SELECTOR,
		.type = 11, /* a 64-bit one, busy */
		.present = 1};
	sregs.ldt = (struct kvm_segment){.unusable = 1};
	sregs.gdt = (struct kvm_dtable){.base = SANDBOX_SUPPORT + GDT_AT, .limit = 0x17};
	sregs.idt = (struct kvm_dtable){.base = SANDBOX_SUPPORT + IDT_AT, .limit = VECTORS * 16 - 1};
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = entry->cr3;
	sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | (xsave ? CR4_OSXSAVE : 0);
	sregs.efer = EFER_LME | EFER_LMA | EFER_NXE;
	rc = kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs, "set special registers", err);
	if (rc >= 0)
		rc = kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs, "set registers", err);
	return rc < 0 ? (int)rc : enter_floating_point(kvm, vcpu, features, xsave, err);
}
