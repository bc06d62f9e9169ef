/* SPDX-License-Identifier: Apache-2.0 */
/* fake_driver.c - the guest's side of virtqueues, without a guest */
#include "tests/unit/fake_driver.h"

#include <stdio.h>
#include <stdlib.h>

void fake_init(struct fake_driver *driver)
{
	struct husk_error err;
	int fd;
	*driver = (struct fake_driver){.allocated = 4096};
	if (memory_make_fd(FAKE_RAM, &fd, &err) < 0 || memory_init(&driver->memory, fd, &err) < 0 ||
		memory_add(&driver->memory, 0, FAKE_RAM, 0, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		exit(1);
	}
	driver->ram = memory_at(&driver->memory, 0, FAKE_RAM);
}

void fake_destroy(struct fake_driver *driver)
{
	memory_destroy(&driver->memory);
}

uint64_t fake_alloc(struct fake_driver *driver, uint64_t n)
{
	uint64_t at = driver->allocated;
	driver->allocated += (n + 63) & ~63ULL;
	if (driver->allocated > FAKE_RAM)
		abort();
	return at;
}

void fake_queue(struct fake_driver *driver, unsigned i, uint16_t size)
{
	struct fake_queue *q = &driver->queues[i];
	*q = (struct fake_queue){.size = size,
		.desc_gpa = fake_alloc(driver, sizeof(struct vring_desc) * size),
		.avail_gpa = fake_alloc(driver, 6 + 2ULL * size),
		.used_gpa = fake_alloc(driver, 6 + 8ULL * size)};
	q->desc = (void *)(driver->ram + q->desc_gpa);
	q->avail = (void *)(driver->ram + q->avail_gpa);
	q->used = (void *)(driver->ram + q->used_gpa);
}

struct virtqueue_setup fake_setup(const struct fake_driver *driver, unsigned i, uint64_t features)
{
	const struct fake_queue *q = &driver->queues[i];
	return (struct virtqueue_setup){
		.size = q->size, .desc = q->desc_gpa, .avail = q->avail_gpa, .used = q->used_gpa, .features = features};
}

static void notify(void *transport, unsigned queue)
{
	((struct fake_driver *)transport)->interrupts[queue]++;
}

static void again(void *transport, unsigned queue)
{
	struct fake_driver *driver = transport;
	driver->agains++;
	driver->again_mask |= 1u << queue;
}

static void needs_reset(void *transport, const char *why)
{
	((struct fake_driver *)transport)->needs_reset = why;
}

static void config_changed(void *transport)
{
	((struct fake_driver *)transport)->config_changes++;
}

static const struct virtio_transport_ops ops = {
	.notify = notify, .again = again, .needs_reset = needs_reset, .config_changed = config_changed};

void fake_attach(struct fake_driver *driver, struct virtio_device *device, unsigned n, uint64_t features)
{
	struct husk_error err;
	driver->device = device;
	driver->needs_reset = NULL;
	device->broken = NULL;
	device->transport = &ops;
	device->transport_data = driver;
	device->features = features;
	for (unsigned i = 0; i < n; i++) {
		struct virtqueue_setup setup = fake_setup(driver, i, features);
		if (virtqueue_start(&device->queues[i], &driver->memory, &setup, &err) < 0) {
			printf("Bail out! %s\n", err.message);
			exit(1);
		}
	}
}

void fake_desc(struct fake_queue *queue, uint16_t i, uint64_t gpa, uint32_t size, uint16_t flags, uint16_t next)
{
	queue->desc[i] = (struct vring_desc){.addr = gpa, .len = size, .flags = flags, .next = next};
}

const char *fake_malformed(struct fake_driver *driver, unsigned i, unsigned kind)
{
	static const struct {
		const char *what;
		uint64_t gpa;
		uint32_t size;
		uint16_t flags, next, head;
	} kinds[FAKE_MALFORMED] = {
		{"a loop", 4096, 16, VRING_DESC_F_NEXT, 0, 0},
		{"a next out of range", 4096, 16, VRING_DESC_F_NEXT, 0xffff, 0},
		{"a head out of range", 4096, 16, 0, 0, 0x8000},
		{"an address out of range", FAKE_RAM, 16, 0, 0, 0},
		{"a buffer across the end of memory", FAKE_RAM - 8, 16, VRING_DESC_F_WRITE, 0, 0},
		{"an address that wraps with its length", UINT64_MAX - 7, 16, VRING_DESC_F_WRITE, 0, 0},
		{"a length of 2^32 - 1", 4096, UINT32_MAX, VRING_DESC_F_WRITE, 0, 0},
		{"a length of zero", 4096, 0, 0, 0, 0},
		{"a writable length of zero", 4096, 0, VRING_DESC_F_WRITE, 0, 0},
		{"an indirect table of a part", 4096, 17, VRING_DESC_F_INDIRECT, 0, 0},
		{"an indirect table out of range", FAKE_RAM, 16, VRING_DESC_F_INDIRECT, 0, 0},
		{"an indirect table that goes on", 4096, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1, 0},
	};
	struct fake_queue *queue = &driver->queues[i];
	fake_desc(queue, 0, kinds[kind].gpa, kinds[kind].size, kinds[kind].flags, kinds[kind].next);
	fake_offer(queue, kinds[kind].head);
	return kinds[kind].what;
}

void fake_offer(struct fake_queue *queue, uint16_t head)
{
	queue->avail->ring[queue->avail_idx++ % queue->size] = head;
	__atomic_store_n(&queue->avail->idx, queue->avail_idx, __ATOMIC_RELEASE);
}

void fake_kick(struct fake_driver *driver, unsigned i)
{
	driver->again_mask |= 1u << i;
	while (driver->again_mask) {
		unsigned queue = (unsigned)__builtin_ctz(driver->again_mask);
		driver->again_mask &= ~(1u << queue);
		if (virtio_usable(driver->device, queue))
			driver->device->ops->kick(driver->device, queue);
	}
}

bool fake_used(struct fake_queue *queue, uint32_t *id, uint32_t *size)
{
	if (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) == queue->used_idx)
		return false;
	const struct vring_used_elem *elem = &queue->used->ring[queue->used_idx++ % queue->size];
	*id = elem->id;
	*size = elem->len;
	return true;
}
