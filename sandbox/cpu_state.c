/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_state.c - all of the guest's CPU, saved and put back; which model-specific registers there are */
#include "sandbox/cpu.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <string.h>

/* ---- model-specific registers ---- */

/** Those that a program may have a use for. FS and GS are saved with the special registers, but written here. */
static const uint32_t msr_table[] = {
	0x174, 0x175, 0x176, /* IA32_SYSENTER_CS, _ESP, _EIP */
	0x277, /* IA32_PAT */
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, /* IA32_STAR, _LSTAR, _CSTAR, _FMASK */
	0xc0000102, /* IA32_KERNEL_GS_BASE */
	0xc0000103, /* IA32_TSC_AUX */
};
_Static_assert(ARRAY_SIZE(msr_table) <= CPU_MSRS_MAX, "a state has room for the table");

bool cpu_msr_known(uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(msr_table); i++)
		if (msr_table[i] == index)
			return true;
	return false;
}

/** API 4.97: what is in no range is denied, which the guest sees as a general protection fault. */
int cpu_filter_msrs(const struct kvm *kvm, const struct kvm_vm *vm, struct husk_error *err)
{
	static uint8_t all[8] = {0xff}; /* KVM reads whole longs, and only reads */
	static const struct {
		uint32_t base, n;
	} ranges[] = {{0x174, 3}, {0x277, 1}, {0xc0000081, 4}, {0xc0000100, 4}};
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};

	if (!kvm->caps.msr_filter)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.base = ranges[i].base,
			.nmsrs = ranges[i].n,
			.bitmap = all,
		};
	long rc =
		kvm_ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter, "filter the guest's model-specific registers", err);
	return rc < 0 ? (int)rc : 0;
}

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[CPU_MSRS_MAX];
};

/** Those of the table that this CPU has: KVM stops at the first that it has not (API 4.18). */
static int save_msrs(const struct kvm_vcpu *vcpu, struct cpu_state *state, struct husk_error *err)
{
	state->n_msrs = 0;
	for (size_t next = 0; next < ARRAY_SIZE(msr_table);) {
		struct msrs msrs = {.head.nmsrs = (uint32_t)(ARRAY_SIZE(msr_table) - next)};
		for (size_t i = 0; i < msrs.head.nmsrs; i++)
			msrs.entries[i].index = msr_table[next + i];
		long got = kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &msrs, "read model-specific registers", err);
		if (got < 0)
			return (int)got;
		for (long i = 0; i < got; i++)
			state->msrs[state->n_msrs++] = msrs.entries[i];
		next += (size_t)got + 1;
	}
	return 0;
}

static int load_msrs(const struct kvm_vcpu *vcpu, const struct cpu_state *state, struct husk_error *err)
{
	struct msrs msrs = {.head.nmsrs = state->n_msrs};

	memcpy(msrs.entries, state->msrs, state->n_msrs * sizeof(msrs.entries[0]));
	long done = kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &msrs, "set model-specific registers", err);
	if (done >= 0 && done < (long)state->n_msrs)
		return error_set(err, -ENOTSUP,
			"this host's CPU does not take the snapshot's model-specific register 0x%x",
			state->msrs[done].index);
	return done < 0 ? (int)done : 0;
}

/** One part of the state: how it is read and written, and whether this KVM has it. */
struct part {
	unsigned long get, set;
	size_t at; /* of struct cpu_state */
	bool there;
	const char *what;
};

#define PARTS 6

/* In the order in which they are set: extended state needs XCR0 first. */
static void list_parts(const struct kvm *kvm, struct part *parts)
{
	const struct kvm_caps *caps = &kvm->caps;
	const struct part all[PARTS] = {
		{KVM_GET_SREGS, KVM_SET_SREGS, offsetof(struct cpu_state, sregs), true, "special registers"},
		{KVM_GET_REGS, KVM_SET_REGS, offsetof(struct cpu_state, regs), true, "registers"},
		{KVM_GET_XCRS, KVM_SET_XCRS, offsetof(struct cpu_state, xcrs), caps->xcrs, "XCR0"},
		{KVM_GET_XSAVE, KVM_SET_XSAVE, offsetof(struct cpu_state, xsave), caps->xsave,
			"floating-point registers"},
		{KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, offsetof(struct cpu_state, debug), caps->debugregs,
			"debug registers"},
		{KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, offsetof(struct cpu_state, events), caps->vcpu_events,
			"pending events"},
	};
	memcpy(parts, all, sizeof(all));
}

/* ---- floating point where KVM has no XSAVE area ----
 * The same registers come in struct kvm_fpu. A state has them as FXSAVE lays them out, the beginning of an XSAVE area (Intel
 * SDM vol. 1, 10.5.1 and 13.4), so that a state says the same wherever it was saved. */

#define FX_FCW 0
#define FX_FSW 2
#define FX_FTW 4 /* abridged: a bit per register, as in struct kvm_fpu */
#define FX_FOP 6
#define FX_FIP 8
#define FX_FDP 16
#define FX_MXCSR 24
#define FX_ST 32
#define FX_XMM 160
#define XSAVE_XSTATE_BV 512 /* which components follow */
#define X87_AND_SSE 3

static int save_fpu(const struct kvm_vcpu *vcpu, struct cpu_state *state, struct husk_error *err)
{
	uint8_t *area = (uint8_t *)state->xsave.region;
	struct kvm_fpu fpu = {0};
	long rc = kvm_ioctl(vcpu->fd, KVM_GET_FPU, &fpu, "floating-point registers", err);

	if (rc < 0)
		return (int)rc;
	put_le16(area + FX_FCW, fpu.fcw);
	put_le16(area + FX_FSW, fpu.fsw);
	area[FX_FTW] = fpu.ftwx;
	put_le16(area + FX_FOP, fpu.last_opcode);
	put_le64(area + FX_FIP, fpu.last_ip);
	put_le64(area + FX_FDP, fpu.last_dp);
	put_le32(area + FX_MXCSR, fpu.mxcsr);
	memcpy(area + FX_ST, fpu.fpr, sizeof(fpu.fpr));
	memcpy(area + FX_XMM, fpu.xmm, sizeof(fpu.xmm));
	put_le64(area + XSAVE_XSTATE_BV, X87_AND_SSE);
	return 0;
}

static int load_fpu(const struct kvm_vcpu *vcpu, const struct cpu_state *state, struct husk_error *err)
{
	const uint8_t *area = (const uint8_t *)state->xsave.region;
	struct kvm_fpu fpu = {
		.fcw = get_le16(area + FX_FCW),
		.fsw = get_le16(area + FX_FSW),
		.ftwx = area[FX_FTW],
		.last_opcode = get_le16(area + FX_FOP),
		.last_ip = get_le64(area + FX_FIP),
		.last_dp = get_le64(area + FX_FDP),
		.mxcsr = get_le32(area + FX_MXCSR),
	};

	if (get_le64(area + XSAVE_XSTATE_BV) & ~(uint64_t)X87_AND_SSE)
		return error_set(err, -ENOTSUP, "this host's KVM cannot take the snapshot's vector registers (XSAVE)");
	memcpy(fpu.fpr, area + FX_ST, sizeof(fpu.fpr));
	memcpy(fpu.xmm, area + FX_XMM, sizeof(fpu.xmm));
	long rc = kvm_ioctl(vcpu->fd, KVM_SET_FPU, &fpu, "floating-point registers", err);
	return rc < 0 ? (int)rc : 0;
}

int cpu_save(const struct kvm *kvm, const struct kvm_vcpu *vcpu, struct cpu_state *state, struct husk_error *err)
{
	struct part parts[PARTS];

	memset(state, 0, sizeof(*state));
	list_parts(kvm, parts);
	for (size_t i = 0; i < PARTS; i++) {
		void *to = (char *)state + parts[i].at;
		long rc = parts[i].there ? kvm_ioctl(vcpu->fd, parts[i].get, to, parts[i].what, err) : 0;
		if (rc < 0)
			return error_prefix(err, (int)rc, "save the guest's CPU");
	}
	int rc = kvm->caps.xsave ? 0 : save_fpu(vcpu, state, err);
	return rc < 0 ? rc : save_msrs(vcpu, state, err);
}

int cpu_load(const struct kvm *kvm, const struct kvm_vcpu *vcpu, const struct cpu_state *state, struct husk_error *err)
{
	struct part parts[PARTS];

	list_parts(kvm, parts);
	for (size_t i = 0; i < PARTS; i++) {
		void *from = (char *)state + parts[i].at;
		bool empty = parts[i].set == KVM_SET_XCRS && !state->xcrs.nr_xcrs;
		long rc = parts[i].there && !empty ? kvm_ioctl(vcpu->fd, parts[i].set, from, parts[i].what, err) : 0;
		if (rc < 0)
			return error_prefix(err, (int)rc, "put back the guest's CPU");
	}
	/* Without an interrupt controller in the kernel every KVM_RUN sets CR8 from here (API 5, cr8). */
	vcpu->run->cr8 = state->sregs.cr8 & 0xf;
	int rc = kvm->caps.xsave ? 0 : load_fpu(vcpu, state, err);
	return rc < 0 ? rc : load_msrs(vcpu, state, err);
}
