/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu-state-test.c - what is saved of a CPU and put back, over a KVM that is not there: ioctl(2) is wrapped
 *
 * What a real KVM makes of it the running tests see; here are hosts that the lab is not.
 */
#include "sandbox/cpu.h"

#include "tests/tap.h"

#include <string.h>

static struct kvm_fpu fpu; /* of the vCPU */
static unsigned xsaves; /* asked for */

int __wrap_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	xsaves += request == KVM_GET_XSAVE || request == KVM_SET_XSAVE;
	if (request == KVM_GET_FPU)
		memcpy(argument, &fpu, sizeof(fpu));
	if (request == KVM_SET_FPU)
		memcpy(&fpu, argument, sizeof(fpu));
	return request == KVM_GET_MSRS || request == KVM_SET_MSRS ? (int)((struct kvm_msrs *)argument)->nmsrs : 0;
}

/** A KVM without KVM_CAP_XSAVE: the state looks as if it had it. */
static void test_no_xsave(void)
{
	const struct kvm kvm = {.fd = -1};
	static struct kvm_run run;
	const struct kvm_vcpu vcpu = {.fd = -1, .run = &run, .run_size = sizeof(run)};
	static struct cpu_state state;
	struct kvm_fpu was;
	struct husk_error err;

	for (size_t i = 0; i < sizeof(fpu); i++)
		((uint8_t *)&fpu)[i] = (uint8_t)(i * 7 + 1);
	fpu.pad1 = 0;
	fpu.pad2 = 0;
	was = fpu;
	CHECK(cpu_save(&kvm, &vcpu, &state, &err) == 0 && xsaves == 0, "a CPU is saved by a KVM without XSAVE");
	const uint8_t *area = (const uint8_t *)state.xsave.region;
	CHECK(memcmp(area, &was.fcw, 2) == 0 && memcmp(area + 24, &was.mxcsr, 4) == 0 &&
			memcmp(area + 32, was.fpr, 128) == 0 && memcmp(area + 160, was.xmm, 256) == 0,
		"its floating-point registers lie as FXSAVE would have them");
	CHECK(area[512] == 3 && area[513] == 0, "and it says that x87 and SSE are there");
	memset(&fpu, 0, sizeof(fpu));
	CHECK(cpu_load(&kvm, &vcpu, &state, &err) == 0 && memcmp(&fpu, &was, sizeof(fpu)) == 0, "they are put back");
	state.xsave.region[512 / 4] = 7;
	CHECK(cpu_load(&kvm, &vcpu, &state, &err) == -ENOTSUP, "a state with vector registers is refused there");
}

/** KVM_RUN takes CR8 from struct kvm_run. */
static void test_cr8(void)
{
	const struct kvm kvm = {.fd = -1, .caps.xsave = true};
	static struct kvm_run run = {.cr8 = 9};
	const struct kvm_vcpu vcpu = {.fd = -1, .run = &run, .run_size = sizeof(run)};
	static struct cpu_state state = {.sregs.cr8 = 0x35};
	struct husk_error err;

	CHECK(cpu_load(&kvm, &vcpu, &state, &err) == 0 && run.cr8 == 5,
		"CR8 is put where KVM takes it from, and is never one that it refuses");
}

int main(void)
{
	test_no_xsave();
	test_cr8();
	return tap_done();
}
