/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_state.c - a device's state as bytes, and back
 *
 * Theory of operation: the envelope comes from a file that anybody may have written. It is read into a struct first and
 * checked there; then the device is reset, takes its own part, and the queues start by the same checks as when a driver starts
 * them. So a false envelope can do no more than a false driver. What the guest's rings say of the device's own progress is not
 * asked: the guest may write there.
 */
#include "base/cleanup.h"
#include "base/tlv.h"
#include "vmm/virtio/device.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>

#define MAGIC 0x4f495648u /* "HVIO" */
#define VERSION 1

enum tag {
	TAG_ID = 1, /* u32 */
	TAG_FEATURES, /* u64 */
	TAG_BROKEN, /* u32 1, or absent */
	TAG_QUEUE, /* struct saved_queue, for each that runs */
	TAG_DEVICE, /* the device's own part, or absent */
};

/** Little-endian. */
struct __attribute__((packed)) saved_queue {
	uint16_t index, size;
	uint16_t next_avail, next_used;
	uint64_t desc, avail, used;
};

/** What an envelope says. */
struct saved {
	bool has_id, has_features, broken;
	uint32_t id;
	uint64_t features;
	uint32_t seen; /* queues, a bit each */
	struct saved_queue queues[VIRTIO_QUEUES_MAX];
	const uint8_t *own;
	uint32_t own_size;
};

static int save_queue(const struct virtqueue *q, unsigned index, struct buffer *b)
{
	uint64_t desc = 0, avail = 0, used = 0;
	if (!memory_gpa(q->memory, q->desc, &desc) || !memory_gpa(q->memory, q->avail, &avail) ||
		!memory_gpa(q->memory, q->used, &used))
		return -EFAULT;
	struct saved_queue saved = {
		.index = htole16((uint16_t)index),
		.size = htole16(q->size),
		.next_avail = htole16(q->next_avail),
		.next_used = htole16(q->next_used),
		.desc = htole64(desc),
		.avail = htole64(avail),
		.used = htole64(used),
	};
	return tlv_put(b, TAG_QUEUE, &saved, sizeof(saved));
}

int virtio_save(const struct virtio_device *device, struct buffer *out)
{
	CLEANUP_BUFFER struct buffer b = {0}, own = {0};
	int rc = tlv_begin(&b, MAGIC, VERSION);
	rc = rc < 0 ? rc : tlv_put_u32(&b, TAG_ID, device->ops->id);
	rc = rc < 0 ? rc : tlv_put_u64(&b, TAG_FEATURES, device->features);
	if (device->broken)
		rc = rc < 0 ? rc : tlv_put_u32(&b, TAG_BROKEN, 1);
	for (unsigned i = 0; i < device->n_queues; i++)
		if (device->queues[i].ready)
			rc = rc < 0 ? rc : save_queue(&device->queues[i], i, &b);
	if (device->ops->save) {
		rc = rc < 0 ? rc : device->ops->save(device, &own);
		rc = rc < 0 ? rc : tlv_put(&b, TAG_DEVICE, buffer_bytes(&own), own.size);
	}
	if (rc < 0)
		return rc;
	tlv_seal(&b);
	return b.size > VIRTIO_STATE_MAX ? -EFBIG : buffer_append(out, buffer_bytes(&b), b.size);
}

static bool take_queue(struct saved *s, const struct tlv *entry)
{
	struct saved_queue q;
	if (entry->size != sizeof(q))
		return false;
	memcpy(&q, entry->value, sizeof(q));
	unsigned index = le16toh(q.index);
	if (index >= VIRTIO_QUEUES_MAX || s->seen & 1u << index)
		return false;
	s->seen |= 1u << index;
	s->queues[index] = q;
	return true;
}

/** True when @entry is one that there may be, for the first time. */
static bool take_entry(struct saved *s, const struct tlv *entry)
{
	uint32_t one = 0;
	switch (entry->tag) {
	case TAG_ID:
		return !s->has_id && (s->has_id = tlv_u32(entry, &s->id));
	case TAG_FEATURES:
		return !s->has_features && (s->has_features = tlv_u64(entry, &s->features));
	case TAG_BROKEN:
		return !s->broken && (s->broken = tlv_u32(entry, &one) && one == 1);
	case TAG_QUEUE:
		return take_queue(s, entry);
	case TAG_DEVICE:
		if (s->own)
			return false;
		s->own = entry->value;
		s->own_size = entry->size;
		return true;
	default:
		return false;
	}
}

static int parse(struct saved *s, const void *bytes, size_t n, struct husk_error *err)
{
	struct tlv_reader r;
	struct tlv entry;
	if (n > VIRTIO_STATE_MAX)
		return error_set(err, -EFBIG, "a device's state of %zu bytes", n);
	int rc = tlv_open(&r, bytes, n, MAGIC, VERSION, err);
	if (rc < 0)
		return error_prefix(err, rc, "a device's state");
	while (tlv_next(&r, &entry))
		if (!take_entry(s, &entry))
			return error_set(err, -EINVAL, "a device's state has a wrong entry %u", entry.tag);
	if (r.broken || !s->has_id || !s->has_features)
		return error_set(err, -EINVAL, "a device's state is not whole");
	return 0;
}

/** Does it fit this device? */
static int check(const struct virtio_device *device, const struct saved *s, struct husk_error *err)
{
	uint64_t offered = device->ops->features(device) | VIRTIO_QUEUE_FEATURES;
	if (s->id != device->ops->id)
		return error_set(err, -EINVAL, "the state of a device of kind %" PRIu32 " for the %s device", s->id,
			device->ops->name);
	if (s->features & ~offered)
		return error_set(err, -EINVAL, "the state of a %s device with features 0x%" PRIx64 ", of 0x%" PRIx64,
			device->ops->name, s->features, offered);
	if (s->seen >> device->n_queues)
		return error_set(err, -EINVAL, "the state of a %s device with more than %u queues", device->ops->name,
			device->n_queues);
	if (!s->own != !device->ops->load)
		return error_set(err, -EINVAL, "the state of a %s device %s a part of its own", device->ops->name,
			s->own ? "has" : "lacks");
	return 0;
}

static int start_queue(
	struct virtio_device *device, const struct memory *memory, const struct saved_queue *s, struct husk_error *err)
{
	struct virtqueue *q = &device->queues[le16toh(s->index)];
	uint16_t next_used = le16toh(s->next_used);
	const struct virtqueue_setup setup = {
		.size = le16toh(s->size),
		.desc = le64toh(s->desc),
		.avail = le64toh(s->avail),
		.used = le64toh(s->used),
		.base = le16toh(s->next_avail),
		.features = device->features,
	};
	int rc = virtqueue_start(q, memory, &setup, err);
	if (rc < 0)
		return rc;
	if ((uint16_t)(setup.base - next_used) > q->size)
		return error_set(err, -EINVAL, "a virtqueue that has more in work than it holds");
	q->next_used = next_used;
	return 0;
}

static int restore(
	struct virtio_device *device, const struct memory *memory, const struct saved *s, struct husk_error *err)
{
	int rc = 0;
	device->features = s->features;
	if (s->own)
		rc = device->ops->load(device, s->own, s->own_size, err);
	for (unsigned i = 0; rc == 0 && i < device->n_queues; i++)
		if (s->seen & 1u << i)
			rc = start_queue(device, memory, &s->queues[i], err);
	if (rc == 0 && s->broken)
		device->broken = "it was broken when its state was saved";
	return rc;
}

int virtio_load(
	struct virtio_device *device, const struct memory *memory, const void *bytes, size_t n, struct husk_error *err)
{
	struct saved saved = {0};
	virtio_reset(device);
	int rc = parse(&saved, bytes, n, err);
	rc = rc < 0 ? rc : check(device, &saved, err);
	if (rc < 0)
		return rc;
	rc = restore(device, memory, &saved, err);
	if (rc < 0) {
		virtio_reset(device);
		error_prefix(err, rc, "the state of the %s device", device->ops->name);
	}
	return rc;
}
