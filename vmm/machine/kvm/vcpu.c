/* SPDX-License-Identifier: Apache-2.0 */
/* vcpu.c - one vCPU (theory of operation: vcpu.h) */
#include "vmm/machine/kvm/vcpu.h"

#include "base/cleanup.h"
#include "vmm/machine/arch/x86_64/cpuid.h"
#include "vmm/machine/kvm/machine_kvm.h"

#include <asm/kvm.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define CPUID_ENTRIES 256
#define STACK_SIZE (512u << 10) /* of a vCPU's thread: the usual 8 MiB get huge pages, where all memory does */

static int set_cpuid(struct vcpu *v, struct husk_error *err)
{
	const struct machine *m = v->machine;
	const struct x86_cpu cpu = {
		.index = v->index, .count = m->setup.cpus, .tsc_deadline = m->kvm.caps.tsc_deadline};
	CLEANUP_FREE struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));

	if (!cpuid)
		return error_set(err, -ENOMEM, "describe a vCPU: out of memory");
	cpuid->nent = CPUID_ENTRIES;
	long rc = kvm_ioctl(m->kvm.fd, KVM_GET_SUPPORTED_CPUID, cpuid, "ask what vCPUs can do", err);
	if (rc < 0)
		return (int)rc;
	x86_cpuid_filter(cpuid, &cpu);
	rc = kvm_ioctl(v->kvm.fd, KVM_SET_CPUID2, cpuid, "tell a vCPU what it can do", err);
	return rc < 0 ? (int)rc : 0;
}

/** What firmware would have set; a CPU that lacks one does without. */
static void set_msrs(struct vcpu *v)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} msrs[] = {
		{0x1a0, 1}, /* IA32_MISC_ENABLE: fast strings */
		{0x2ff, 0x806}, /* IA32_MTRR_DEF_TYPE: on, write-back */
	};

	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} one = {.head.nmsrs = 1, .entry = {.index = msrs[i].index, .data = msrs[i].value}};
		(void)kvm_ioctl(v->kvm.fd, KVM_SET_MSRS, &one, "set an MSR", NULL);
	}
}

int vcpu_create(struct machine *machine, unsigned index, struct vcpu *vcpu, struct husk_error *err)
{
	*vcpu = (struct vcpu){.machine = machine, .index = index, .kvm.fd = -1};
	int rc = kvm_vcpu_create(&machine->kvm, &machine->vm, index, &vcpu->kvm, err);
	if (rc == 0)
		rc = set_cpuid(vcpu, err);
	if (rc < 0)
		return error_prefix(err, rc, "vCPU %u", index);
	set_msrs(vcpu);
	return 0;
}

int vcpu_enter(struct vcpu *vcpu, const struct x86_entry *entry, struct husk_error *err)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = {0};
	long rc = kvm_ioctl(vcpu->kvm.fd, KVM_GET_SREGS, &sregs, "read a vCPU's registers", err);

	if (rc < 0)
		return (int)rc;
	x86_entry_registers(entry, &sregs, &regs);
	rc = kvm_ioctl(vcpu->kvm.fd, KVM_SET_SREGS, &sregs, "set a vCPU's registers", err);
	if (rc >= 0)
		rc = kvm_ioctl(vcpu->kvm.fd, KVM_SET_REGS, &regs, "set a vCPU's registers", err);
	return rc < 0 ? (int)rc : 0;
}

/* ---- exits ---- */

/** Ports: run->io.count accesses of run->io.size bytes each, whose data lie in the shared page (API 5). */
static void on_io(struct vcpu *v)
{
	struct kvm_run *run = v->kvm.run;
	struct machine *m = v->machine;
	uint64_t size = run->io.size, offset = run->io.data_offset;
	uint8_t *at = (uint8_t *)run + offset;

	if (offset > v->kvm.run_size || run->io.count * size > v->kvm.run_size - offset) {
		machine_end(m, MACHINE_LOST, "KVM described a port access outside of its page");
		return;
	}
	for (uint32_t i = 0; i < run->io.count; i++, at += size) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			bus_read(&m->ports, run->io.port, at, (unsigned)size);
		else
			bus_write(&m->ports, run->io.port, at, (unsigned)size);
	}
}

static void on_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->kvm.run;
	struct machine *m = v->machine;
	unsigned n = run->mmio.len < sizeof(run->mmio.data) ? run->mmio.len : sizeof(run->mmio.data);

	if (run->mmio.is_write)
		bus_write(&m->mmio, run->mmio.phys_addr, run->mmio.data, n);
	else
		bus_read(&m->mmio, run->mmio.phys_addr, run->mmio.data, n);
}

static void on_shutdown(struct vcpu *v)
{
	machine_end(v->machine, MACHINE_ENDED, "the guest's CPU shut down (triple fault)");
}

static uint64_t where(struct vcpu *v)
{
	struct kvm_regs regs = {0};
	(void)kvm_ioctl(v->kvm.fd, KVM_GET_REGS, &regs, "read a vCPU's registers", NULL);
	return regs.rip;
}

static void on_internal_error(struct vcpu *v)
{
	uint32_t which = v->kvm.run->internal.suberror;

	if (which == KVM_INTERNAL_ERROR_EMULATION)
		machine_end(v->machine, MACHINE_LOST,
			"this host's KVM could not emulate the guest's instruction at 0x%" PRIx64, where(v));
	else
		machine_end(v->machine, MACHINE_LOST, "KVM failed inside (error %u) with the guest at 0x%" PRIx64,
			which, where(v));
}

static void on_fail_entry(struct vcpu *v)
{
	machine_end(v->machine, MACHINE_LOST, "the CPU refused the guest's state (reason 0x%" PRIx64 ")",
		(uint64_t)v->kvm.run->fail_entry.hardware_entry_failure_reason);
}

static void on_system_event(struct vcpu *v)
{
	static const char *const events[] = {
		[KVM_SYSTEM_EVENT_SHUTDOWN] = "the guest powered off",
		[KVM_SYSTEM_EVENT_RESET] = "the guest reset itself",
		[KVM_SYSTEM_EVENT_CRASH] = "the guest crashed",
	};
	uint32_t type = v->kvm.run->system_event.type;
	const char *what = type < ARRAY_SIZE(events) && events[type] ? events[type] : "the guest ended";

	machine_end(v->machine, type == KVM_SYSTEM_EVENT_SHUTDOWN ? MACHINE_OFF : MACHINE_ENDED, "%s", what);
}

static void on_nothing(struct vcpu *v)
{
	(void)v;
}

static void (*const exits[])(struct vcpu *v) = {
	[KVM_EXIT_IO] = on_io,
	[KVM_EXIT_MMIO] = on_mmio,
	[KVM_EXIT_INTR] = on_nothing,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = on_nothing,
	[KVM_EXIT_SHUTDOWN] = on_shutdown,
	[KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
	[KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
	[KVM_EXIT_SYSTEM_EVENT] = on_system_event,
};

static void handle_exit(struct vcpu *v)
{
	uint32_t reason = v->kvm.run->exit_reason;

	if (reason < ARRAY_SIZE(exits) && exits[reason])
		exits[reason](v);
	else
		machine_end(v->machine, MACHINE_LOST,
			"KVM returned for an unknown reason %u with the guest at 0x%" PRIx64, reason, where(v));
}

static void *run(void *data)
{
	struct vcpu *v = data;
	struct husk_error err;
	char name[16];
	bool paused;

	snprintf(name, sizeof(name), "vcpu%u", v->index);
	prctl(PR_SET_NAME, name);
	if (v->machine->setup.vcpu_begins && v->machine->setup.vcpu_begins(v->machine->setup.data, &err) < 0)
		machine_end(v->machine, MACHINE_LOST, "%s: %.100s", name, err.message);
	while (machine_may_run(v->machine, &paused)) {
		int rc;
		/* So that the guest's watchdogs take the time for what it was (API 4.70); without kvm-clock there are none. */
		if (paused)
			(void)kvm_ioctl(v->kvm.fd, KVM_KVMCLOCK_CTRL, NULL, "tell of the pause", NULL);
		while ((rc = kvm_vcpu_run(&v->kvm)) == 0) {
			__atomic_store_n(&v->exits, v->exits + 1, __ATOMIC_RELAXED);
			handle_exit(v);
		}
		if (rc == -EINTR || rc == -EAGAIN) /* a kick; or a vCPU that has not been started yet */
			kvm_vcpu_kick_done(&v->kvm);
		else
			machine_end(v->machine, MACHINE_LOST, "vCPU %u does not run: %s", v->index, strerror(-rc));
	}
	return NULL;
}

int vcpu_start(struct vcpu *vcpu, struct husk_error *err)
{
	sigset_t all, before;
	pthread_attr_t attributes;

	if (pthread_attr_init(&attributes))
		return error_set(err, -ENOMEM, "start the thread of vCPU %u: out of memory", vcpu->index);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	/* The process's signals are the loop's thread's; a vCPU takes kicks alone. */
	sigfillset(&all);
	sigdelset(&all, KVM_KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int rc = pthread_create(&vcpu->thread, &attributes, run, vcpu);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (rc)
		return error_set(err, -rc, "start the thread of vCPU %u: %s", vcpu->index, strerror(rc));
	vcpu->running = true;
	return 0;
}
