/* SPDX-License-Identifier: Apache-2.0 */
/* kvm.c - thin wrappers over the KVM ioctls (theory of operation: kvm.h) */
#include "kvm/kvm.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

long kvm_ioctl(int fd, unsigned long request, void *argument, const char *what, struct husk_error *err)
{
	long rc;

	while ((rc = ioctl(fd, request, argument)) < 0 && errno == EINTR)
		;
	return rc < 0 ? error_errno(err, "%s (KVM)", what) : rc;
}

/** A capability's value; one that KVM does not know is 0. */
static int extension(int fd, long which)
{
	int value = ioctl(fd, KVM_CHECK_EXTENSION, which);
	return value > 0 ? value : 0;
}

static void ask(int fd, struct kvm_caps *caps)
{
	int recommended = extension(fd, KVM_CAP_NR_VCPUS);
	int maximum = extension(fd, KVM_CAP_MAX_VCPUS);

	*caps = (struct kvm_caps){
		.irqchip = extension(fd, KVM_CAP_IRQCHIP),
		.irqfd = extension(fd, KVM_CAP_IRQFD),
		.ioeventfd = extension(fd, KVM_CAP_IOEVENTFD),
		.immediate_exit = extension(fd, KVM_CAP_IMMEDIATE_EXIT),
		.readonly_memory = extension(fd, KVM_CAP_READONLY_MEM),
		.mp_state = extension(fd, KVM_CAP_MP_STATE),
		.vcpus_max = (unsigned)(maximum       ? maximum
					: recommended ? recommended
						      : 4), /* API 4.4 */
		.memslots_max = (unsigned)extension(fd, KVM_CAP_NR_MEMSLOTS),
	};
#if defined(__x86_64__)
	caps->pit2 = extension(fd, KVM_CAP_PIT2);
	caps->tsc_deadline = extension(fd, KVM_CAP_TSC_DEADLINE_TIMER);
	caps->x2apic = extension(fd, KVM_CAP_X2APIC_API);
	caps->set_tss_addr = extension(fd, KVM_CAP_SET_TSS_ADDR);
	caps->set_identity_map = extension(fd, KVM_CAP_SET_IDENTITY_MAP_ADDR);
	caps->xsave = extension(fd, KVM_CAP_XSAVE);
	caps->xcrs = extension(fd, KVM_CAP_XCRS);
	caps->debugregs = extension(fd, KVM_CAP_DEBUGREGS);
	caps->vcpu_events = extension(fd, KVM_CAP_VCPU_EVENTS);
	caps->msr_filter = extension(fd, KVM_CAP_X86_MSR_FILTER);
#endif
	if (!caps->memslots_max)
		caps->memslots_max = 32; /* API 4.4: what every KVM has had */
}

int kvm_open(int fd, struct kvm *kvm, struct husk_error *err)
{
	long version = kvm_ioctl(fd, KVM_GET_API_VERSION, NULL, "ask for the API's version", err);
	if (version < 0)
		return (int)version;
	if (version != KVM_API_VERSION)
		return error_set(
			err, -ENOTSUP, "/dev/kvm speaks version %ld of its API, not %d", version, KVM_API_VERSION);
	long size = kvm_ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, NULL, "ask for the size of a vCPU's page", err);
	if (size < 0)
		return (int)size;
	if ((size_t)size < sizeof(struct kvm_run))
		return error_set(err, -ENOTSUP, "a vCPU's shared page has %ld bytes, too few", size);
	*kvm = (struct kvm){.fd = fd, .run_size = (size_t)size};
	ask(fd, &kvm->caps);
	return 0;
}

void kvm_close(struct kvm *kvm)
{
	cleanup_fd(&kvm->fd);
	kvm->fd = -1;
}

int kvm_vm_create(const struct kvm *kvm, struct kvm_vm *vm, struct husk_error *err)
{
	long fd = kvm_ioctl(kvm->fd, KVM_CREATE_VM, NULL, "make a VM", err);
	vm->fd = (int)fd;
	return fd < 0 ? (int)fd : 0;
}

void kvm_vm_close(struct kvm_vm *vm)
{
	cleanup_fd(&vm->fd);
	vm->fd = -1;
}

int kvm_vm_memslot(const struct kvm_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, void *host, uint32_t flags,
	struct husk_error *err)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};
	long rc = kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region, "map guest memory", err);
	if (rc < 0)
		error_prefix(err, (int)rc, "%" PRIu64 " bytes at 0x%" PRIx64, size, gpa);
	return rc < 0 ? (int)rc : 0;
}

int kvm_vm_irqchip(
	const struct kvm *kvm, const struct kvm_vm *vm, uint64_t tss, uint64_t identity_map, struct husk_error *err)
{
	long rc = 0;

	if (!kvm->caps.irqchip)
		return error_set(err, -ENOTSUP, "this host's KVM has no in-kernel interrupt controllers");
#if defined(__x86_64__)
	if (kvm->caps.set_identity_map)
		rc = kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "place the identity map", err);
	if (rc >= 0 && kvm->caps.set_tss_addr)
		rc = kvm_ioctl(vm->fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)tss, "place the task state segment", err);
#else
	(void)tss;
	(void)identity_map;
#endif
	if (rc >= 0)
		rc = kvm_ioctl(vm->fd, KVM_CREATE_IRQCHIP, NULL, "make the interrupt controllers", err);
	return rc < 0 ? (int)rc : 0;
}

int kvm_vm_pit(const struct kvm *kvm, const struct kvm_vm *vm, struct husk_error *err)
{
#if defined(__x86_64__)
	struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
	if (!kvm->caps.pit2)
		return 0;
	long rc = kvm_ioctl(vm->fd, KVM_CREATE_PIT2, &config, "make the interval timer", err);
	return rc < 0 ? (int)rc : 0;
#else
	(void)kvm;
	(void)vm;
	(void)err;
	return 0;
#endif
}

int kvm_vm_irqfd(const struct kvm_vm *vm, int fd, uint32_t gsi, struct husk_error *err)
{
	struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};
	long rc = kvm_ioctl(vm->fd, KVM_IRQFD, &irqfd, "connect an interrupt", err);
	return rc < 0 ? (int)rc : 0;
}

int kvm_vm_pulse(const struct kvm_vm *vm, uint32_t gsi, struct husk_error *err)
{
	struct kvm_irq_level up = {.irq = gsi, .level = 1}, down = {.irq = gsi, .level = 0};
	long rc = kvm_ioctl(vm->fd, KVM_IRQ_LINE, &up, "raise an interrupt", err);
	if (rc >= 0)
		rc = kvm_ioctl(vm->fd, KVM_IRQ_LINE, &down, "lower an interrupt", err);
	return rc < 0 ? (int)rc : 0;
}

int kvm_vm_ioeventfd(const struct kvm_vm *vm, int fd, uint64_t gpa, uint32_t n, struct husk_error *err)
{
	struct kvm_ioeventfd kick = {.addr = gpa, .len = n, .fd = fd};
	long rc = kvm_ioctl(vm->fd, KVM_IOEVENTFD, &kick, "connect a doorbell", err);
	return rc < 0 ? (int)rc : 0;
}

int kvm_vcpu_create(
	const struct kvm *kvm, const struct kvm_vm *vm, unsigned index, struct kvm_vcpu *vcpu, struct husk_error *err)
{
	CLEANUP_FD int fd = (int)kvm_ioctl(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index, "make a vCPU", err);
	if (fd < 0)
		return fd;
	void *run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED)
		return error_errno(err, "map vCPU %u", index);
	*vcpu = (struct kvm_vcpu){.fd = steal_fd(&fd), .run = run, .run_size = kvm->run_size};
	return 0;
}

void kvm_vcpu_close(struct kvm_vcpu *vcpu)
{
	if (vcpu->run)
		munmap(vcpu->run, vcpu->run_size);
	vcpu->run = NULL;
	cleanup_fd(&vcpu->fd);
	vcpu->fd = -1;
}

int kvm_vcpu_run(struct kvm_vcpu *vcpu)
{
	return ioctl(vcpu->fd, KVM_RUN, NULL) < 0 ? -errno : 0;
}

void kvm_vcpu_kick(struct kvm_vcpu *vcpu, pthread_t thread)
{
	/* The flag is for a KVM_RUN that has not begun yet, the signal for one that has (API 5, immediate_exit). */
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(thread, KVM_KICK_SIGNAL);
}

void kvm_vcpu_kick_done(struct kvm_vcpu *vcpu)
{
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

static void on_kick(int number)
{
	(void)number;
}

int kvm_allow_kicks(struct husk_error *err)
{
	struct sigaction action = {.sa_handler = on_kick};
	return sigaction(KVM_KICK_SIGNAL, &action, NULL) < 0 ? error_errno(err, "catch the kick signal") : 0;
}
