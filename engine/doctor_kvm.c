/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_kvm.c - is there a KVM that runs guest code on the CPU?
 *
 * Theory of operation: CPUID flags and module names do not tell. Some KVMs interpret guest code instead of running it, at
 * half a million instructions a second; no operating system ever boots there. So a guest that counts down 65535 times is
 * run and timed: a CPU needs well under a millisecond, an interpreter more than fifty.
 */
#include "engine/doctor_kvm.h"

#include "base/cleanup.h"
#include "base/loop.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#if defined(__x86_64__)
#include <linux/kvm.h>

#define GUEST_PAGE 0x1000
#define INTERPRETED_MS 20 /* 131,070 instructions: an emulated host's nested KVM needs a few milliseconds */

/** Run @vcpu from GUEST_PAGE in real mode until it halts; nanoseconds, or -1. */
static int64_t run_guest(int kvm, int vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = GUEST_PAGE, .rflags = 2};
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size <= 0 || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -1;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		return -1;
	struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return -1;
	uint64_t start = clock_monotonic_ns();
	int rc;
	while ((rc = ioctl(vcpu, KVM_RUN, 0)) < 0 && errno == EINTR)
		;
	int64_t took = (int64_t)(clock_monotonic_ns() - start);
	if (rc < 0 || run->exit_reason != KVM_EXIT_HLT)
		took = -1;
	munmap(run, (size_t)size);
	return took;
}

/** A VM with one page of code; nanoseconds that it ran, or -1. */
static int64_t time_guest(int kvm, uint8_t *page)
{
	/* mov cx, 65535; again: dec cx; jnz again; hlt */
	static const uint8_t code[] = {0xb9, 0xff, 0xff, 0x49, 0x75, 0xfd, 0xf4};
	CLEANUP_FD int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return -1;
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = GUEST_PAGE,
		.memory_size = GUEST_PAGE,
		.userspace_addr = (uintptr_t)page,
	};
	memcpy(page, code, sizeof(code));
	CLEANUP_FD int vcpu = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
	return vcpu < 0 ? -1 : run_guest(kvm, vcpu);
}

enum doctor_kvm doctor_kvm_probe(char *text, size_t room)
{
	CLEANUP_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0) {
		bool absent = errno == ENOENT || errno == ENODEV || errno == ENXIO;
		snprintf(text, room, "%s", absent ? "there is no /dev/kvm" : strerror(errno));
		return absent ? DOCTOR_KVM_ABSENT : DOCTOR_KVM_DENIED;
	}
	int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		snprintf(text, room, "/dev/kvm speaks version %d of its interface instead of %d", version,
			KVM_API_VERSION);
		return DOCTOR_KVM_BROKEN;
	}
	uint8_t *page = mmap(NULL, GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t took = page == MAP_FAILED ? -1 : time_guest(kvm, page);
	if (page != MAP_FAILED)
		munmap(page, GUEST_PAGE);
	if (took < 0) {
		snprintf(text, room, "/dev/kvm opens, but a small guest does not run on it");
		return DOCTOR_KVM_BROKEN;
	}
	snprintf(text, room, "131,070 guest instructions took %.1f ms", (double)took / 1e6);
	return took > INTERPRETED_MS * 1000000ll ? DOCTOR_KVM_INTERPRETED : DOCTOR_KVM_HARDWARE;
}
#else
enum doctor_kvm doctor_kvm_probe(char *text, size_t room)
{
	snprintf(text, room, "not tried on this architecture");
	return DOCTOR_KVM_BROKEN;
}
#endif
