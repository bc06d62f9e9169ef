/* SPDX-License-Identifier: Apache-2.0 */
/* mmio.c - the virtio-mmio transport (theory of operation: mmio.h) */
#include "vmm/virtio/mmio_internal.h"

#include "base/cleanup.h"

#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2
#define VENDOR 0x4b535548u /* "HUSK" */
#define SHM_NONE 0xffffffffu /* §4.2.2: the length of a region that does not exist */

static uint64_t offered(const struct virtio_mmio *s)
{
	return s->device->ops->features(s->device) | VIRTIO_QUEUE_FEATURES;
}

bool mmio_acceptable(const struct virtio_mmio *s, uint64_t features)
{
	return !(features & ~offered(s)) && features >> VIRTIO_F_VERSION_1 & 1; /* no driver of before 1.0 */
}

static bool has(const struct virtio_mmio *s, uint32_t bit)
{
	return s->status & bit;
}

static struct mmio_queue *selected(struct virtio_mmio *s)
{
	return s->queue_sel < s->device->n_queues ? &s->queues[s->queue_sel] : NULL;
}

/* ---- towards the driver ---- */

static void raise_interrupt(struct virtio_mmio *s, uint32_t why)
{
	__atomic_or_fetch(&s->interrupt_status, why, __ATOMIC_SEQ_CST);
	s->setup.interrupt(s->setup.data);
}

void mmio_ring(struct virtio_mmio *s)
{
	uint64_t one = 1;
	(void)!write(s->kick.fd, &one, sizeof(one)); /* full: its reader is awake already */
}

static void mmio_notify(void *transport, unsigned queue)
{
	(void)queue;
	raise_interrupt(transport, VIRTIO_MMIO_INT_VRING);
}

static void mmio_again(void *transport, unsigned queue)
{
	(void)queue;
	mmio_ring(transport);
}

static void mmio_needs_reset(void *transport, const char *why)
{
	struct virtio_mmio *s = transport;

	s->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (has(s, VIRTIO_CONFIG_S_DRIVER_OK)) /* §2.1.2 */
		raise_interrupt(s, VIRTIO_MMIO_INT_CONFIG);
	s->setup.failed(s->setup.data, why);
}

static void mmio_config_changed(void *transport)
{
	struct virtio_mmio *s = transport;

	s->generation++;
	if (has(s, VIRTIO_CONFIG_S_DRIVER_OK))
		raise_interrupt(s, VIRTIO_MMIO_INT_CONFIG);
}

static const struct virtio_transport_ops mmio_transport_ops = {
	.notify = mmio_notify,
	.again = mmio_again,
	.needs_reset = mmio_needs_reset,
	.config_changed = mmio_config_changed,
};

static void on_kick(struct loop_watch *watch, uint32_t events)
{
	struct virtio_mmio *s = CONTAINER_OF(watch, struct virtio_mmio, kick);
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	for (unsigned i = 0; s->device && i < s->device->n_queues; i++)
		if (virtio_usable(s->device, i))
			s->device->ops->kick(s->device, i);
}

/* ---- status ---- */

void mmio_reset(struct virtio_mmio *s)
{
	virtio_reset(s->device);
	s->status = 0;
	__atomic_store_n(&s->interrupt_status, 0, __ATOMIC_SEQ_CST);
	s->device_features_sel = s->driver_features_sel = s->queue_sel = 0;
	s->driver_features = 0;
	memset(s->queues, 0, sizeof(s->queues));
}

/** A queue begins at index 0 on both sides (§2.7.6, §2.7.8), whatever the guest has left in its used ring: a state that is saved
 *  holds both, and is refused where they do not fit together. */
static void start_queue(struct virtio_mmio *s, unsigned i)
{
	const struct mmio_queue *q = &s->queues[i];
	struct virtqueue *queue = &s->device->queues[i];
	const struct virtqueue_setup setup = {
		.size = q->num, .desc = q->desc, .avail = q->avail, .used = q->used, .features = s->driver_features};

	if (!q->ready || queue->ready)
		return;
	if (q->num > MMIO_QUEUE_NUM_MAX || virtqueue_start(queue, s->setup.memory, &setup, NULL) < 0) {
		virtio_broken(s->device, "a queue lies where none can be");
		return;
	}
	queue->next_used = 0;
	mmio_ring(s); /* buffers may wait already */
}

static void drive(struct virtio_mmio *s)
{
	s->device->features = s->driver_features;
	for (unsigned i = 0; i < s->device->n_queues; i++)
		start_queue(s, i);
}

static void write_status(struct virtio_mmio *s, uint32_t value)
{
	uint32_t added = value & ~s->status & 0xff & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET;

	if (!value) {
		mmio_reset(s);
		return;
	}
	if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
		added &= mmio_acceptable(s, s->driver_features) ? ~0u : ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	}
	if ((added & VIRTIO_CONFIG_S_DRIVER_OK) && !((s->status | added) & VIRTIO_CONFIG_S_FEATURES_OK))
		added &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
	s->status |= added; /* bits go away by a reset only (§2.1.1) */
	if (added & VIRTIO_CONFIG_S_DRIVER_OK)
		drive(s);
}

/* ---- registers ---- */

static uint32_t read_register(struct virtio_mmio *s, uint32_t offset)
{
	const struct mmio_queue *q;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return s->device_features_sel > 1 ? 0 : (uint32_t)(offered(s) >> 32 * s->device_features_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return selected(s) ? MMIO_QUEUE_NUM_MAX : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		q = selected(s);
		return q && q->ready;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return __atomic_load_n(&s->interrupt_status, __ATOMIC_SEQ_CST);
	case VIRTIO_MMIO_STATUS:
		return s->status;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return SHM_NONE;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return s->generation;
	default:
		return 0;
	}
}

/** What a slot says of itself also without a device (§4.2.2). */
static uint32_t read_identity(const struct virtio_mmio *s, uint32_t offset, bool *is)
{
	*is = true;
	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return s->device ? s->device->ops->id : 0;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	default:
		*is = false;
		return 0;
	}
}

static void set_half(uint64_t *value, bool high, uint32_t half)
{
	*value = high ? (*value & 0xffffffffu) | (uint64_t)half << 32 : (*value & ~0xffffffffull) | half;
}

/** Where the selected queue lies; not while the driver says that it is ready (§4.2.2.2). */
static void write_queue(struct virtio_mmio *s, uint32_t offset, uint32_t value)
{
	struct mmio_queue *q = selected(s);

	if (!q || q->ready)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->num = value;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&q->desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&q->avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&q->used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	default:
		break;
	}
}

static void write_queue_ready(struct virtio_mmio *s, bool ready)
{
	struct mmio_queue *q = selected(s);

	if (!q || q->ready == ready)
		return;
	q->ready = ready;
	if (!ready && s->device->queues[s->queue_sel].ready)
		virtqueue_stop(&s->device->queues[s->queue_sel]);
	else if (ready && has(s, VIRTIO_CONFIG_S_DRIVER_OK) && !s->device->broken)
		start_queue(s, s->queue_sel);
}

static void write_driver_features(struct virtio_mmio *s, uint32_t value)
{
	if (!has(s, VIRTIO_CONFIG_S_FEATURES_OK) && s->driver_features_sel <= 1)
		set_half(&s->driver_features, s->driver_features_sel == 1, value);
}

static void write_register(struct virtio_mmio *s, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		s->device_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_driver_features(s, value);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		s->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		s->queue_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		write_queue_ready(s, value & 1);
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		mmio_ring(s);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		__atomic_and_fetch(&s->interrupt_status, ~value, __ATOMIC_SEQ_CST);
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(s, value);
		break;
	default:
		write_queue(s, offset, value);
		break;
	}
}

bool virtio_mmio_needs_lock(uint64_t offset)
{
	return offset != VIRTIO_MMIO_INTERRUPT_STATUS && offset != VIRTIO_MMIO_INTERRUPT_ACK;
}

bool virtio_mmio_reaches_device(uint64_t offset)
{
	return offset >= VIRTIO_MMIO_CONFIG || offset == VIRTIO_MMIO_STATUS || offset == VIRTIO_MMIO_QUEUE_READY;
}

void virtio_mmio_read(struct virtio_mmio *s, uint64_t offset, void *bytes, unsigned n)
{
	bool identity;

	memset(bytes, 0, n);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		if (s->device)
			s->device->ops->config_read(s->device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), bytes, n);
		return;
	}
	if (n != sizeof(uint32_t) || offset % sizeof(uint32_t)) /* §4.2.2.2: the driver uses nothing else */
		return;
	uint32_t value = read_identity(s, (uint32_t)offset, &identity);
	if (!identity && s->device)
		value = read_register(s, (uint32_t)offset);
	value = htole32(value);
	memcpy(bytes, &value, sizeof(value));
}

void virtio_mmio_write(struct virtio_mmio *s, uint64_t offset, const void *bytes, unsigned n)
{
	uint32_t value;

	if (!s->device)
		return;
	if (offset >= VIRTIO_MMIO_CONFIG) {
		if (s->device->ops->config_write)
			s->device->ops->config_write(s->device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), bytes, n);
		return;
	}
	if (n != sizeof(value) || offset % sizeof(value))
		return;
	memcpy(&value, bytes, sizeof(value));
	write_register(s, (uint32_t)offset, le32toh(value));
}

/* ---- its life ---- */

int virtio_mmio_kick_fd(const struct virtio_mmio *slot)
{
	return slot->kick.fd;
}

int virtio_mmio_fill(struct virtio_mmio *slot, struct virtio_device *device, struct husk_error *err)
{
	if (slot->device)
		return error_set(err, -EBUSY, "the slot has a device, %s", slot->device->ops->name);
	slot->device = device;
	device->transport = &mmio_transport_ops;
	device->transport_data = slot;
	return 0;
}

int virtio_mmio_create(const struct virtio_mmio_setup *setup, struct virtio_device *device, struct virtio_mmio **out,
	struct husk_error *err)
{
	CLEANUP_FREE struct virtio_mmio *s = calloc(1, sizeof(*s));
	CLEANUP_FD int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (!s)
		return error_set(err, -ENOMEM, "no memory for a virtio-mmio slot");
	if (kick < 0)
		return error_errno(err, "make an eventfd");
	s->setup = *setup;
	int rc = loop_add(setup->loop, &s->kick, kick, EPOLLIN, on_kick, err);
	if (rc < 0)
		return rc;
	steal_fd(&kick);
	if (device)
		(void)virtio_mmio_fill(s, device, NULL); /* an empty slot takes it */
	*out = steal_pointer(&s);
	return 0;
}

void virtio_mmio_destroy(struct virtio_mmio *slot)
{
	if (!slot)
		return;
	int kick = slot->kick.fd;

	loop_remove(slot->setup.loop, &slot->kick);
	close(kick);
	if (slot->device) {
		slot->device->transport = NULL;
		virtio_reset(slot->device);
	}
	free(slot);
}
