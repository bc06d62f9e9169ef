/* SPDX-License-Identifier: Apache-2.0 */
/* machine_kvm.c - the `kvm` machine: its beginning, its pauses and its end (theory of operation: machine_kvm.h) */
#include "vmm/machine/kvm/machine_kvm.h"

#include "base/cleanup.h"
#include "vmm/machine/arch/x86_64/acpi.h"
#include "vmm/machine/arch/x86_64/boot.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#define GENERATION_SIZE 16
#define SPARE_SLOTS 4 /* windows with no device yet; fewer when the devices leave less room */

/* ---- the loop's thread is told ---- */

static void wake_loop(struct machine *m)
{
	uint64_t one = 1;
	(void)!write(m->news.fd, &one, sizeof(one)); /* an eventfd that is full wakes as well */
}

void machine_call(struct machine *machine, struct machine_call *call)
{
	struct machine_call **at = &machine->calls;

	while (*at)
		at = &(*at)->next;
	*at = call;
	wake_loop(machine);
	while (!call->done && __atomic_load_n(&machine->phase, __ATOMIC_SEQ_CST) != PHASE_ENDED)
		pthread_cond_wait(&machine->called, machine->loop->lock);
	for (at = &machine->calls; !call->done && *at; at = &(*at)->next)
		if (*at == call) { /* the machine ended first: nobody will run it */
			*at = call->next;
			break;
		}
}

static void run_calls(struct machine *m)
{
	struct machine_call *call;

	while ((call = m->calls)) {
		m->calls = call->next;
		call->run(call);
		call->done = true; /* from here on the memory is its owner's again, who waits for the lock */
	}
	pthread_cond_broadcast(&m->called);
}

/** Tell the worker what has become of the machine since the last time. */
static void tell(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	enum phase phase = m->phase;
	bool rests = m->resting == m->n_vcpus;
	pthread_mutex_unlock(&m->lock);
	if (phase == m->told || (phase == PHASE_PAUSED && !rests))
		return;
	m->told = phase;
	char loaded[64];
	snprintf(loaded, sizeof(loaded), "%.2f ms of it for kernel and initramfs", (double)m->load_ns / 1e6);
	if (phase == PHASE_ENDED)
		m->setup.event(m->setup.data, m->end, m->end_text);
	else if (phase == PHASE_PAUSED)
		m->setup.event(m->setup.data, MACHINE_PAUSED, "");
	else
		m->setup.event(m->setup.data, MACHINE_RUNNING, loaded);
}

static void on_news(struct loop_watch *watch, uint32_t events)
{
	struct machine *m = CONTAINER_OF(watch, struct machine, news);
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	run_calls(m);
	tell(m);
}

/* ---- phases ---- */

/** With m->lock. */
static void kick_all(struct machine *m)
{
	for (unsigned i = 0; i < m->n_vcpus; i++)
		if (m->vcpus[i].running)
			kvm_vcpu_kick(&m->vcpus[i].kvm, m->vcpus[i].thread);
	pthread_cond_broadcast(&m->changed);
}

/** With m->lock: the phase that machine_may_run() also reads without it. */
static void set_phase(struct machine *m, enum phase phase)
{
	__atomic_store_n(&m->phase, phase, __ATOMIC_SEQ_CST);
}

void machine_end(struct machine *machine, enum machine_event event, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&machine->lock);
	if (machine->phase != PHASE_ENDED) {
		va_start(args, format);
		vsnprintf(machine->end_text, sizeof(machine->end_text), format, args);
		va_end(args);
		machine->end = event;
		set_phase(machine, PHASE_ENDED);
		kick_all(machine);
		wake_loop(machine);
	}
	pthread_mutex_unlock(&machine->lock);
}

bool machine_may_run(struct machine *machine, bool *paused)
{
	*paused = false;
	if (__atomic_load_n(&machine->phase, __ATOMIC_SEQ_CST) == PHASE_RUNNING)
		return true;
	pthread_mutex_lock(&machine->lock);
	machine->resting++;
	if (machine->resting == machine->n_vcpus)
		wake_loop(machine);
	while (machine->phase == PHASE_STOPPED || machine->phase == PHASE_PAUSED) {
		*paused |= machine->phase == PHASE_PAUSED;
		pthread_cond_wait(&machine->changed, &machine->lock);
	}
	machine->resting--;
	bool on = machine->phase == PHASE_RUNNING;
	pthread_mutex_unlock(&machine->lock);
	return on;
}

/** From @from to @to; -EINVAL when the machine is in another phase. */
static int change_phase(struct machine *m, enum phase from, enum phase to, const char *what, struct husk_error *err)
{
	pthread_mutex_lock(&m->lock);
	bool ok = m->phase == from;
	if (ok) {
		set_phase(m, to);
		kick_all(m);
		wake_loop(m);
	}
	pthread_mutex_unlock(&m->lock);
	return ok ? 0 : error_set(err, -EINVAL, "%s the machine: it is in another state", what);
}

/* ---- interrupts ---- */

int machine_irqfd(struct machine *machine, unsigned gsi, int *fd, struct husk_error *err)
{
	*fd = -1;
	if (!machine->kvm.caps.irqfd)
		return 0;
	CLEANUP_FD int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (event < 0)
		return error_errno(err, "make an eventfd");
	int rc = kvm_vm_irqfd(&machine->vm, event, gsi, err);
	if (rc == 0)
		*fd = steal_fd(&event);
	return rc;
}

void machine_interrupt(struct machine *machine, int fd, unsigned gsi)
{
	uint64_t one = 1;

	if (fd < 0)
		(void)kvm_vm_pulse(&machine->vm, gsi, NULL);
	else
		(void)!write(fd, &one, sizeof(one));
}

static void on_serial_interrupt(void *data)
{
	struct machine *m = data;
	machine_interrupt(m, m->serial_irq, X86_GSI_SERIAL);
}

static void on_power_interrupt(void *data)
{
	struct machine *m = data;
	machine_interrupt(m, m->power_irq, X86_GSI_GED);
}

static void on_output(void *data, const void *bytes, size_t n)
{
	struct machine *m = data;
	if (m->setup.console)
		m->setup.console(m->setup.data, bytes, n);
}

static void on_off(void *data)
{
	machine_end(data, MACHINE_OFF, "the guest powered off");
}

static void on_reset(void *data)
{
	machine_end(data, MACHINE_ENDED, "the guest reset itself");
}

/* ---- beginning ---- */

static int check_host(const struct machine *m, struct husk_error *err)
{
	const struct kvm_caps *caps = &m->kvm.caps;

	if (!caps->irqchip || !caps->immediate_exit)
		return error_set(err, -ENOTSUP, "this host's KVM lacks %s, which the machine 'kvm' needs",
			caps->irqchip ? "immediate exits" : "in-kernel interrupt controllers");
	if (m->setup.cpus < 1 || m->setup.cpus > X86_CPUS_MAX || m->setup.cpus > caps->vcpus_max)
		return error_set(err, -ERANGE, "%u vCPUs; this host's KVM takes 1 to %u", m->setup.cpus,
			caps->vcpus_max < X86_CPUS_MAX ? caps->vcpus_max : X86_CPUS_MAX);
	return 0;
}

/** Memory before interrupt controllers before vCPUs: each memslot that comes after the controllers would wait for RCU. */
static int make_vm(struct machine *m, struct husk_error *err)
{
	const struct memory *memory = m->setup.memory;

	int rc = kvm_vm_create(&m->kvm, &m->vm, err);
	for (unsigned i = 0; rc == 0 && i < memory->n_regions; i++) {
		const struct memory_region *r = &memory->regions[i];
		rc = kvm_vm_memslot(&m->vm, i, r->gpa, r->size, r->host, 0, err);
	}
	rc = rc < 0 ? rc : kvm_vm_irqchip(&m->kvm, &m->vm, X86_TSS, X86_IDENTITY_MAP, err);
	rc = rc < 0 ? rc : kvm_vm_pit(&m->kvm, &m->vm, err);
	for (unsigned i = 0; rc == 0 && i < m->setup.cpus; i++) {
		rc = vcpu_create(m, i, &m->vcpus[i], err);
		m->n_vcpus += rc == 0;
	}
	return rc;
}

static int make_ports(struct machine *m, struct husk_error *err)
{
	serial_init(&m->serial, on_output, on_serial_interrupt, m);
	m->power = (struct power){.off = on_off, .reset = on_reset, .interrupt = on_power_interrupt, .data = m};
	int rc = machine_irqfd(m, X86_GSI_SERIAL, &m->serial_irq, err);
	rc = rc < 0 ? rc : machine_irqfd(m, X86_GSI_GED, &m->power_irq, err);
	rc = rc < 0 ? rc : bus_add(&m->ports, X86_PORT_SERIAL, SERIAL_PORTS, &serial_ops, &m->serial, err);
	return rc < 0 ? rc : power_connect(&m->power, &m->ports, err);
}

static void kvm_machine_destroy(struct machine *m)
{
	if (!m)
		return;
	machine_end(m, MACHINE_ENDED, "destroyed");
	pthread_mutex_lock(m->loop->lock); /* so that a vCPU is either before its look at the phase, or waits */
	pthread_cond_broadcast(&m->called);
	pthread_mutex_unlock(m->loop->lock);
	for (unsigned i = 0; i < m->n_vcpus; i++)
		if (m->vcpus[i].running)
			pthread_join(m->vcpus[i].thread, NULL);
	for (unsigned i = 0; i < m->n_slots; i++)
		slot_destroy(&m->slots[i]);
	for (unsigned i = 0; i < m->n_vcpus; i++)
		kvm_vcpu_close(&m->vcpus[i].kvm);
	loop_remove(m->loop, &m->news);
	cleanup_fd(&m->news.fd);
	cleanup_fd(&m->serial_irq);
	cleanup_fd(&m->power_irq);
	kvm_vm_close(&m->vm);
	kvm_close(&m->kvm);
	pthread_cond_destroy(&m->called);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static void destroy_pointer(struct machine **m)
{
	kvm_machine_destroy(*m);
}

static struct machine *allocate(const struct machine_setup *setup)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->loop = setup->loop;
	m->setup = *setup;
	m->mmio.lock = m->ports.lock = setup->loop->lock;
	m->kvm.fd = m->vm.fd = m->serial_irq = m->power_irq = m->news.fd = -1;
	pthread_cond_init(&m->called, NULL);
	pthread_cond_init(&m->changed, NULL);
	pthread_mutex_init(&m->lock, NULL);
	return m;
}

static int watch_news(struct machine *m, struct husk_error *err)
{
	CLEANUP_FD int news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (news < 0)
		return error_errno(err, "make an eventfd");
	int rc = loop_add(m->loop, &m->news, news, EPOLLIN, on_news, err);
	if (rc == 0)
		steal_fd(&news);
	else
		m->news.fd = -1;
	return rc;
}

static int kvm_machine_create(const struct machine_setup *setup, struct machine **out, struct husk_error *err)
{
	CLEANUP(destroy_pointer) struct machine *m = allocate(setup);
	CLEANUP_FD int fd = fcntl(setup->kvm_fd, F_DUPFD_CLOEXEC, 0); /* what fails must leave the caller's alone */

	if (!m)
		return error_set(err, -ENOMEM, "make the machine: out of memory");
	if (fd < 0)
		return error_errno(err, "use /dev/kvm");
	int rc = kvm_open(fd, &m->kvm, err);
	if (rc < 0)
		return rc;
	steal_fd(&fd);
	rc = check_host(m, err);
	rc = rc < 0 ? rc : kvm_allow_kicks(err);
	rc = rc < 0 ? rc : make_vm(m, err);
	rc = rc < 0 ? rc : make_ports(m, err);
	rc = rc < 0 ? rc : watch_news(m, err);
	if (rc < 0)
		return rc;
	close(setup->kvm_fd);
	*out = steal_pointer(&m);
	return 0;
}

/** A new generation for every start: a guest that knows the VM generation id mixes it into its random generator. */
static int write_generation(struct machine *m, struct husk_error *err)
{
	void *at = memory_at(m->setup.memory, X86_VMGENID, GENERATION_SIZE);

	if (!at)
		return error_set(err, -ENOSPC, "the VM's memory has no place for its generation id");
	return getrandom(at, GENERATION_SIZE, 0) == GENERATION_SIZE ? 0 : error_errno(err, "make a generation id");
}

/** Kernel, tables and registers; then what they came from is not needed any more. */
static int load(struct machine *m, struct husk_error *err)
{
	const struct acpi_setup acpi = {.cpus = m->setup.cpus, .n_slots = m->n_slots};
	struct x86_boot boot = {.memory = m->setup.memory,
		.kernel_fd = m->setup.kernel_fd,
		.initrd_fd = m->setup.initrd_fd,
		.cmdline = m->setup.cmdline};

	int rc = acpi_build(m->setup.memory, &acpi, &boot.rsdp, err);
	rc = rc < 0 ? rc : write_generation(m, err);
	uint64_t begun = clock_monotonic_ns();
	rc = rc < 0 ? rc : x86_boot_load(&boot, &m->entry, err);
	if (rc < 0)
		return rc;
	m->load_ns = clock_monotonic_ns() - begun;
	cleanup_fd(&m->setup.kernel_fd);
	cleanup_fd(&m->setup.initrd_fd);
	m->setup.kernel_fd = m->setup.initrd_fd = -1;
	return vcpu_enter(&m->vcpus[0], &m->entry, err);
}

static int kvm_machine_start(struct machine *m, struct husk_error *err)
{
	const struct machine_device spare = {.name = "spare slot", .socket_fd = -1};
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < SPARE_SLOTS && m->n_slots < X86_SLOTS; i++)
		rc = slot_add(m, &spare, err);
	rc = rc < 0 ? rc : load(m, err);
	for (unsigned i = 0; rc == 0 && i < m->n_vcpus; i++)
		rc = vcpu_start(&m->vcpus[i], err);
	return rc < 0 ? rc : change_phase(m, PHASE_STOPPED, PHASE_RUNNING, "start", err);
}

static int kvm_machine_pause(struct machine *m, struct husk_error *err)
{
	return change_phase(m, PHASE_RUNNING, PHASE_PAUSED, "pause", err);
}

static int kvm_machine_resume(struct machine *m, struct husk_error *err)
{
	return change_phase(m, PHASE_PAUSED, PHASE_RUNNING, "resume", err);
}

static int kvm_machine_power(struct machine *m, enum machine_power how, struct husk_error *err)
{
	(void)err;
	if (how == MACHINE_POWER_BUTTON)
		power_raise(&m->power, X86_GED_POWER_BUTTON);
	else if (how == MACHINE_POWER_RESET)
		machine_end(m, MACHINE_ENDED, "the machine was reset");
	else
		machine_end(m, MACHINE_ENDED, "the machine was told to end");
	return 0;
}

static uint64_t kvm_machine_exits(const struct machine *m)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < m->n_vcpus; i++)
		n += __atomic_load_n(&m->vcpus[i].exits, __ATOMIC_RELAXED);
	return n;
}

const struct machine_ops machine_kvm_ops = {
	.capabilities =
		{
			.name = "kvm",
			.own_devices = true,
			.pause = true,
			.power_button = true,
			.cpus_max = X86_CPUS_MAX,
			.memory_max = 1ull << 40,
		},
	.map_memory = x86_map_memory,
	.create = kvm_machine_create,
	.attach = slot_add,
	.start = kvm_machine_start,
	.pause = kvm_machine_pause,
	.resume = kvm_machine_resume,
	.power = kvm_machine_power,
	.exits = kvm_machine_exits,
	.destroy = kvm_machine_destroy,
};
