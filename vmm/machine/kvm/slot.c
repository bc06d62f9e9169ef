/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slot.c - a virtio-mmio window on the bus
 *
 * Theory of operation: the doorbell is an ioeventfd and the interrupt an irqfd, so that neither leaves the kernel on the way.
 * Without irqfds the interrupt is raised by an ioctl, without ioeventfds the doorbell's write comes here and rings the same
 * eventfd. What starts, stops or resets the device is done in the loop's thread (machine_kvm.h).
 */
#include "vmm/machine/kvm/machine_kvm.h"

#include "base/cleanup.h"
#include "vmm/virtio/mmio.h"

#include <linux/virtio_mmio.h>

/** A write that is to be done in the loop's thread. */
struct deferred_write {
	struct machine_call call;
	struct virtio_mmio *mmio;
	uint64_t offset;
	const void *bytes;
	unsigned n;
};

static void do_write(struct machine_call *call)
{
	struct deferred_write *w = CONTAINER_OF(call, struct deferred_write, call);
	virtio_mmio_write(w->mmio, w->offset, w->bytes, w->n);
}

static void slot_read(void *data, uint64_t offset, void *bytes, unsigned n)
{
	struct slot *s = data;
	virtio_mmio_read(s->mmio, offset, bytes, n);
}

static void slot_write(void *data, uint64_t offset, const void *bytes, unsigned n)
{
	struct slot *s = data;
	struct deferred_write w = {.call.run = do_write, .mmio = s->mmio, .offset = offset, .bytes = bytes, .n = n};

	if (virtio_mmio_reaches_device(offset))
		machine_call(s->machine, &w.call);
	else
		virtio_mmio_write(s->mmio, offset, bytes, n);
}

static const struct bus_ops slot_ops = {.read = slot_read, .write = slot_write, .needs_lock = virtio_mmio_needs_lock};

static void on_interrupt(void *data)
{
	struct slot *s = data;
	machine_interrupt(s->machine, s->irq_fd, x86_slot_gsi(s->index));
}

static void on_broken(void *data, const char *why)
{
	struct slot *s = data;
	s->broken(s->data, why);
}

/** The eventfds of a slot that has a device: none of a spare one's is on KVM's bus, where each costs. */
static int connect_eventfds(struct slot *s, struct husk_error *err)
{
	struct machine *m = s->machine;
	uint64_t doorbell = X86_VIRTIO + s->index * X86_VIRTIO_SIZE + VIRTIO_MMIO_QUEUE_NOTIFY;

	int rc = machine_irqfd(m, x86_slot_gsi(s->index), &s->irq_fd, err);
	if (rc == 0 && m->kvm.caps.ioeventfd)
		rc = kvm_vm_ioeventfd(&m->vm, virtio_mmio_kick_fd(s->mmio), doorbell, sizeof(uint32_t), err);
	return rc;
}

int slot_add(struct machine *machine, const struct machine_device *device, struct husk_error *err)
{
	if (machine->n_slots == X86_SLOTS)
		return error_set(err, -ENOSPC, "more than %d devices in a machine", X86_SLOTS);
	struct slot *s = &machine->slots[machine->n_slots];
	const struct virtio_mmio_setup setup = {.loop = machine->loop,
		.memory = machine->setup.memory,
		.interrupt = on_interrupt,
		.failed = on_broken,
		.data = s};
	uint64_t base = X86_VIRTIO + machine->n_slots * X86_VIRTIO_SIZE;

	*s = (struct slot){.machine = machine,
		.index = machine->n_slots,
		.irq_fd = -1,
		.broken = device->broken,
		.data = device->data};
	int rc = virtio_mmio_create(&setup, device->device, &s->mmio, err);
	if (rc < 0)
		return error_prefix(err, rc, "%s", device->name);
	machine->n_slots++;
	if (device->device)
		rc = connect_eventfds(s, err);
	return rc < 0 ? rc : bus_add(&machine->mmio, base, X86_VIRTIO_SIZE, &slot_ops, s, err);
}

void slot_destroy(struct slot *slot)
{
	virtio_mmio_destroy(slot->mmio);
	slot->mmio = NULL;
	cleanup_fd(&slot->irq_fd);
}
