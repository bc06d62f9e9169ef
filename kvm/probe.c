/* SPDX-License-Identifier: Apache-2.0 */
/* probe.c - does this host's KVM run guest code on the CPU? (theory of operation: probe.h) */
#include "kvm/probe.h"

#include "base/cleanup.h"
#include "base/loop.h"
#include "kvm/kvm.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__x86_64__)
#define GUEST_PAGE 0x1000
#define INTERPRETED_MS 45 /* 131,070 instructions: an emulated host's nested KVM needs up to 20, an interpreter 98 */

/** Run @vcpu from GUEST_PAGE in real mode until it halts; nanoseconds, or -1. */
static int64_t run_guest(struct kvm_vcpu *vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = GUEST_PAGE, .rflags = 2};
	int rc;

	if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs, "read registers", NULL) < 0)
		return -1;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs, "set registers", NULL) < 0 ||
		kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs, "set registers", NULL) < 0)
		return -1;
	uint64_t start = clock_monotonic_ns();
	while ((rc = kvm_vcpu_run(vcpu)) == -EINTR)
		;
	int64_t took = (int64_t)(clock_monotonic_ns() - start);
	return rc < 0 || vcpu->run->exit_reason != KVM_EXIT_HLT ? -1 : took;
}

/** A VM with one page of code; nanoseconds that it ran, or -1. */
static int64_t time_guest(const struct kvm *kvm, uint8_t *page)
{
	/* mov cx, 65535; again: dec cx; jnz again; hlt */
	static const uint8_t code[] = {0xb9, 0xff, 0xff, 0x49, 0x75, 0xfd, 0xf4};
	struct kvm_vm CLEANUP(kvm_vm_close) vm = {.fd = -1};
	struct kvm_vcpu CLEANUP(kvm_vcpu_close) vcpu = {.fd = -1};

	memcpy(page, code, sizeof(code));
	if (kvm_vm_create(kvm, &vm, NULL) < 0 || kvm_vm_memslot(&vm, 0, GUEST_PAGE, GUEST_PAGE, page, 0, NULL) < 0 ||
		kvm_vcpu_create(kvm, &vm, 0, &vcpu, NULL) < 0)
		return -1;
	return run_guest(&vcpu);
}

enum kvm_host kvm_probe(char *text, size_t room)
{
	struct kvm CLEANUP(kvm_close) kvm = {.fd = -1};
	struct husk_error err;
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		bool absent = errno == ENOENT || errno == ENODEV || errno == ENXIO;
		snprintf(text, room, "%s", absent ? "there is no /dev/kvm" : strerror(errno));
		return absent ? KVM_HOST_ABSENT : KVM_HOST_DENIED;
	}
	if (kvm_open(fd, &kvm, &err) < 0) {
		snprintf(text, room, "%.150s", err.message);
		return KVM_HOST_BROKEN;
	}
	steal_fd(&fd);
	uint8_t *page = mmap(NULL, GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t took = page == MAP_FAILED ? -1 : time_guest(&kvm, page);
	/* A busy host may take the CPU away in mid-guest: the best of three is what the CPU can do. */
	for (int i = 0; i < 2 && took > INTERPRETED_MS * 1000000ll; i++) {
		int64_t again = time_guest(&kvm, page);
		took = again >= 0 && again < took ? again : took;
	}
	if (page != MAP_FAILED)
		munmap(page, GUEST_PAGE);
	if (took < 0) {
		snprintf(text, room, "/dev/kvm opens, but a small guest does not run on it");
		return KVM_HOST_BROKEN;
	}
	snprintf(text, room, "131,070 guest instructions took %.1f ms", (double)took / 1e6);
	return took > INTERPRETED_MS * 1000000ll ? KVM_HOST_INTERPRETED : KVM_HOST_HARDWARE;
}
#else
enum kvm_host kvm_probe(char *text, size_t room)
{
	snprintf(text, room, "not tried on this architecture");
	return KVM_HOST_BROKEN;
}
#endif
