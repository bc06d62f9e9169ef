/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmio_internal.h - between mmio.c (registers) and mmio_state.c (saved and loaded)
 */
#ifndef VMM_VIRTIO_MMIO_INTERNAL_H
#define VMM_VIRTIO_MMIO_INTERNAL_H

#include "vmm/virtio/mmio.h"

#define MMIO_QUEUE_NUM_MAX 256 /* entries of a queue */

/** Where the driver puts a queue. */
struct mmio_queue {
	uint32_t num;
	uint64_t desc, avail, used;
	bool ready; /* the driver's word; it runs from DRIVER_OK on */
};

struct virtio_mmio {
	struct virtio_mmio_setup setup;
	struct virtio_device *device; /* NULL: a spare slot */
	struct loop_watch kick; /* an eventfd, owned */
	uint32_t status;
	uint32_t interrupt_status; /* atomic */
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	uint32_t generation;
	struct mmio_queue queues[VIRTIO_QUEUES_MAX];
};

/** May a driver have negotiated @features? Not for a spare slot. */
bool mmio_acceptable(const struct virtio_mmio *slot, uint64_t features);
/** Ring the doorbell of all queues. */
void mmio_ring(struct virtio_mmio *slot);
/** Slot and device as after their creation; not for a spare slot. */
void mmio_reset(struct virtio_mmio *slot);

#endif
