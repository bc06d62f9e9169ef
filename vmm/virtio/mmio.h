/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmio.h - the virtio-mmio transport (virtio 1.2 §4.2): one slot, a window of registers with a device behind it or none
 *
 * Theory of operation: the driver negotiates and places its queues by register accesses, which the machine brings here; its
 * doorbell is an eventfd that the loop watches, and interrupts go out by a callback. Queues start with DRIVER_OK and not
 * before, so that a device never sees a half-made driver. A slot without a device has DeviceID 0, which drivers pass by;
 * virtio_mmio_fill() gives it one later.
 *
 * Interrupts are edges: the bit in InterruptStatus is set before the line is raised. A driver that reads the bit, clears it
 * and then looks at its rings misses nothing: what came between read and clear lies in the rings already, and what comes
 * after raises the line again.
 *
 * Threads: a vCPU's thread may read, and write where virtio_mmio_reaches_device() says no, with the loop's lock held; other
 * writes run the device and belong into the loop's thread. The two registers of each interrupt need no lock
 * (virtio_mmio_needs_lock()), so that a guest's interrupt handler does not wait for requests that the loop is serving.
 */
#ifndef VMM_VIRTIO_MMIO_H
#define VMM_VIRTIO_MMIO_H

#include "base/loop.h"
#include "memory/memory.h"
#include "vmm/virtio/device.h"

struct virtio_mmio;

struct virtio_mmio_setup {
	struct loop *loop;
	const struct memory *memory;
	/** Raise the slot's line, an edge. */
	void (*interrupt)(void *data);
	/** The guest broke the device; said each time. The slot must not be destroyed in it. */
	void (*failed)(void *data, const char *why);
	void *data;
};

/** Make a slot with @device (NULL: none yet), which must outlive it. */
int virtio_mmio_create(const struct virtio_mmio_setup *setup, struct virtio_device *device, struct virtio_mmio **out,
	struct husk_error *err);
/** Give a slot without a device @device; the guest has to look again. -EBUSY when it has one. */
int virtio_mmio_fill(struct virtio_mmio *slot, struct virtio_device *device, struct husk_error *err);
/** The device is reset and free. NULL is fine. */
void virtio_mmio_destroy(struct virtio_mmio *slot);

/** An eventfd; each write to it is a ring of the doorbell of all queues. */
int virtio_mmio_kick_fd(const struct virtio_mmio *slot);

/** A guest's access, @n bytes (1 to 8) at @offset of the window. */
void virtio_mmio_read(struct virtio_mmio *slot, uint64_t offset, void *bytes, unsigned n);
void virtio_mmio_write(struct virtio_mmio *slot, uint64_t offset, const void *bytes, unsigned n);
/** False for the registers of an interrupt, which any thread may access at any time. */
bool virtio_mmio_needs_lock(uint64_t offset);
/** True for an offset whose write runs the device's code. */
bool virtio_mmio_reaches_device(uint64_t offset);

#define VIRTIO_MMIO_STATE_MAX (VIRTIO_STATE_MAX + 4096)

/** Append an envelope (base/tlv.h) to @out with the registers and, in virtio_save()'s form, the device. Nothing may run
 *  meanwhile. 0 or a negative errno. */
int virtio_mmio_save(const struct virtio_mmio *slot, struct buffer *out);
/** The reverse, on a slot with a device made with the same setup (or a spare one), over memory with the content of that time.
 *  Every byte is checked; registers and device have to agree with one another. Rings the doorbell, and raises the line when
 *  the driver had not acknowledged all. On failure the slot and its device are reset. */
int virtio_mmio_load(struct virtio_mmio *slot, const void *bytes, size_t n, struct husk_error *err);

#endif
