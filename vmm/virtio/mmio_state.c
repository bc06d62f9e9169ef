/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmio_state.c - a slot's registers and its device as bytes, and back
 *
 * Theory of operation: as in device_state.c the envelope is nobody's word. It is read into a struct and checked; the device
 * takes its own part by virtio_load(); then what the registers say of it is held against what it is: status, features and the
 * places of the queues are in both, and a slot where they differ would be one that no driver can bring about.
 */
#include "base/cleanup.h"
#include "base/tlv.h"
#include "vmm/virtio/mmio_internal.h"

#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#define MAGIC 0x4f494d48u /* "HMIO" */
#define VERSION 1

enum tag {
	TAG_REGISTERS = 1, /* struct saved_registers; it and what follows are absent for a spare slot */
	TAG_QUEUE, /* struct saved_queue, for each of the device's in their order */
	TAG_DEVICE, /* virtio_save()'s envelope */
};

/** Little-endian, as all here. */
struct __attribute__((packed)) saved_registers {
	uint32_t status, interrupt_status, device_features_sel, driver_features_sel, queue_sel, generation;
	uint64_t driver_features;
};

struct __attribute__((packed)) saved_queue {
	uint32_t num, ready;
	uint64_t desc, avail, used;
};

/** What an envelope says; little-endian still. */
struct saved {
	bool has_registers;
	struct saved_registers registers;
	unsigned n_queues;
	struct saved_queue queues[VIRTIO_QUEUES_MAX];
	const uint8_t *device;
	uint32_t device_size;
};

static int save_registers(const struct virtio_mmio *s, struct buffer *b)
{
	const struct saved_registers registers = {
		.status = htole32(s->status),
		.interrupt_status = htole32(__atomic_load_n(&s->interrupt_status, __ATOMIC_SEQ_CST)),
		.device_features_sel = htole32(s->device_features_sel),
		.driver_features_sel = htole32(s->driver_features_sel),
		.queue_sel = htole32(s->queue_sel),
		.generation = htole32(s->generation),
		.driver_features = htole64(s->driver_features),
	};
	int rc = tlv_put(b, TAG_REGISTERS, &registers, sizeof(registers));

	for (unsigned i = 0; rc == 0 && i < s->device->n_queues; i++) {
		const struct mmio_queue *q = &s->queues[i];
		const struct saved_queue saved = {
			.num = htole32(q->num),
			.ready = htole32(q->ready),
			.desc = htole64(q->desc),
			.avail = htole64(q->avail),
			.used = htole64(q->used),
		};
		rc = tlv_put(b, TAG_QUEUE, &saved, sizeof(saved));
	}
	return rc;
}

int virtio_mmio_save(const struct virtio_mmio *s, struct buffer *out)
{
	CLEANUP_BUFFER struct buffer b = {0}, device = {0};
	int rc = tlv_begin(&b, MAGIC, VERSION);

	if (s->device) {
		rc = rc < 0 ? rc : save_registers(s, &b);
		rc = rc < 0 ? rc : virtio_save(s->device, &device);
		rc = rc < 0 ? rc : tlv_put(&b, TAG_DEVICE, buffer_bytes(&device), device.size);
	}
	if (rc < 0)
		return rc;
	tlv_seal(&b);
	return buffer_append(out, buffer_bytes(&b), b.size);
}

/** True when @entry is one that there may be, for the first time. */
static bool take_entry(struct saved *saved, const struct tlv *entry)
{
	switch (entry->tag) {
	case TAG_REGISTERS:
		if (saved->has_registers || entry->size != sizeof(saved->registers))
			return false;
		memcpy(&saved->registers, entry->value, sizeof(saved->registers));
		return saved->has_registers = true;
	case TAG_QUEUE:
		if (saved->n_queues == VIRTIO_QUEUES_MAX || entry->size != sizeof(saved->queues[0]))
			return false;
		memcpy(&saved->queues[saved->n_queues++], entry->value, sizeof(saved->queues[0]));
		return true;
	case TAG_DEVICE:
		if (saved->device)
			return false;
		saved->device = entry->value;
		saved->device_size = entry->size;
		return true;
	default:
		return false;
	}
}

static int parse(struct saved *saved, const void *bytes, size_t n, struct husk_error *err)
{
	struct tlv_reader r;
	struct tlv entry;

	if (n > VIRTIO_MMIO_STATE_MAX)
		return error_set(err, -EFBIG, "a slot's state of %zu bytes", n);
	int rc = tlv_open(&r, bytes, n, MAGIC, VERSION, err);
	if (rc < 0)
		return error_prefix(err, rc, "a slot's state");
	while (tlv_next(&r, &entry))
		if (!take_entry(saved, &entry))
			return error_set(err, -EINVAL, "a slot's state has a wrong entry %u", entry.tag);
	return r.broken ? error_set(err, -EINVAL, "a slot's state is not whole") : 0;
}

/** Registers that no driver can bring about are refused; the others are taken. */
static int take_registers(struct virtio_mmio *s, const struct saved_registers *r, struct husk_error *err)
{
	uint32_t status = le32toh(r->status), interrupts = le32toh(r->interrupt_status);
	bool negotiated = status & VIRTIO_CONFIG_S_FEATURES_OK;

	if (status & ~0xffu || ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !negotiated))
		return error_set(err, -EINVAL, "a slot's state has the status 0x%x", status);
	if (interrupts & ~(uint32_t)(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG))
		return error_set(err, -EINVAL, "a slot's state has the interrupts 0x%x", interrupts);
	if (negotiated && !mmio_acceptable(s, le64toh(r->driver_features)))
		return error_set(
			err, -EINVAL, "a slot's state has features that the %s device has not", s->device->ops->name);
	s->status = status;
	__atomic_store_n(&s->interrupt_status, interrupts, __ATOMIC_SEQ_CST);
	s->device_features_sel = le32toh(r->device_features_sel);
	s->driver_features_sel = le32toh(r->driver_features_sel);
	s->queue_sel = le32toh(r->queue_sel);
	s->generation = le32toh(r->generation);
	s->driver_features = le64toh(r->driver_features);
	return 0;
}

static bool lies_at(const struct virtqueue *q, const void *part, uint64_t place)
{
	uint64_t gpa = 0;
	return memory_gpa(q->memory, part, &gpa) && gpa == place;
}

/** Does queue @i of the device run where and when the registers say? A broken device's may stand still. */
static bool queue_agrees(const struct virtio_mmio *s, unsigned i)
{
	const struct mmio_queue *r = &s->queues[i];
	const struct virtqueue *q = &s->device->queues[i];
	bool runs = r->ready && (s->status & VIRTIO_CONFIG_S_DRIVER_OK);

	if (!q->ready)
		return !runs || s->device->broken;
	return runs && r->num <= MMIO_QUEUE_NUM_MAX && q->size == r->num && lies_at(q, q->desc, r->desc) &&
	       lies_at(q, q->avail, r->avail) && lies_at(q, q->used, r->used);
}

static bool device_agrees(const struct virtio_mmio *s)
{
	bool driven = s->status & VIRTIO_CONFIG_S_DRIVER_OK;

	for (unsigned i = 0; i < s->device->n_queues; i++)
		if (!queue_agrees(s, i))
			return false;
	return s->device->features == (driven ? s->driver_features : 0) &&
	       !s->device->broken == !(s->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static int restore(struct virtio_mmio *s, const struct saved *saved, struct husk_error *err)
{
	int rc = take_registers(s, &saved->registers, err);

	for (unsigned i = 0; rc == 0 && i < saved->n_queues; i++) {
		const struct saved_queue *q = &saved->queues[i];
		if (le32toh(q->ready) > 1)
			return error_set(err, -EINVAL, "a slot's state has a queue that is ready in no way there is");
		s->queues[i] = (struct mmio_queue){
			.num = le32toh(q->num),
			.desc = le64toh(q->desc),
			.avail = le64toh(q->avail),
			.used = le64toh(q->used),
			.ready = le32toh(q->ready),
		};
	}
	rc = rc < 0 ? rc : virtio_load(s->device, s->setup.memory, saved->device, saved->device_size, err);
	if (rc == 0 && !device_agrees(s))
		return error_set(
			err, -EINVAL, "a slot's state does not agree with its %s device", s->device->ops->name);
	return rc;
}

int virtio_mmio_load(struct virtio_mmio *s, const void *bytes, size_t n, struct husk_error *err)
{
	struct saved saved = {0};

	if (s->device)
		mmio_reset(s);
	int rc = parse(&saved, bytes, n, err);
	if (rc < 0)
		return rc;
	unsigned n_queues = s->device ? s->device->n_queues : 0;
	if (saved.has_registers != !!s->device || !saved.device != !s->device || saved.n_queues != n_queues)
		return error_set(err, -EINVAL, "the state of another slot");
	if (!s->device)
		return 0;
	rc = restore(s, &saved, err);
	if (rc < 0) {
		mmio_reset(s);
		return rc;
	}
	mmio_ring(s);
	if (s->interrupt_status)
		s->setup.interrupt(s->setup.data);
	return 0;
}
