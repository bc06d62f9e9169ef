/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_driver.h - the guest's side of virtqueues, without a guest: rings in a memfd, filled by hand
 *
 * The driver writes what a test asks for, right or wrong. fake_attach() stands in for a transport: it starts the device's
 * queues, counts interrupts and remembers why a device broke.
 */
#ifndef TESTS_FAKE_DRIVER_H
#define TESTS_FAKE_DRIVER_H

#include "vmm/virtio/device.h"

#include <linux/virtio_ring.h>

#define FAKE_RAM (32u << 20)

struct fake_queue {
	uint16_t size, avail_idx, used_idx;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
};

struct fake_driver {
	struct memory memory;
	uint8_t *ram; /* guest-physical 0 */
	uint64_t allocated;
	struct fake_queue queues[VIRTIO_QUEUES_MAX];
	struct virtio_device *device;
	unsigned interrupts[VIRTIO_QUEUES_MAX], agains, config_changes;
	unsigned again_mask;
	const char *needs_reset;
};

void fake_init(struct fake_driver *driver);
void fake_destroy(struct fake_driver *driver);
/** Guest-physical address of @n fresh bytes. */
uint64_t fake_alloc(struct fake_driver *driver, uint64_t n);
/** Lay out queue @i. */
void fake_queue(struct fake_driver *driver, unsigned i, uint16_t size);
struct virtqueue_setup fake_setup(const struct fake_driver *driver, unsigned i, uint64_t features);
/** Become @device's transport with @n queues running (again: all that was broken is forgotten). */
void fake_attach(struct fake_driver *driver, struct virtio_device *device, unsigned n, uint64_t features);

void fake_desc(struct fake_queue *queue, uint16_t i, uint64_t gpa, uint32_t size, uint16_t flags, uint16_t next);
/** A malformed chain, or several descriptors of one, is put into queue @i: the @kind-th way to do it wrong, which lies before
 *  FAKE_MALFORMED; the device must break. Returns what it is. */
#define FAKE_MALFORMED 12
const char *fake_malformed(struct fake_driver *driver, unsigned i, unsigned kind);

/** Put @head into the available ring. */
void fake_offer(struct fake_queue *queue, uint16_t head);
/** Kick queue @i, and again as often as the device asks for. */
void fake_kick(struct fake_driver *driver, unsigned i);
/** The next used element; false when there is none. */
bool fake_used(struct fake_queue *queue, uint32_t *id, uint32_t *size);

#endif
