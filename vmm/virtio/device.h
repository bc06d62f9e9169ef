/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - the seam between a virtio device and its transport
 *
 * Theory of operation: a device is a state struct with a struct virtio_device in it and one constant table of operations.
 * It reads requests from its virtqueues and knows nothing of how the guest reached it. A transport (vhost_user.h, later
 * mmio) owns the conversation with the driver: it negotiates features, starts and stops the queues, calls kick() when the
 * driver has announced buffers (and once when a queue starts) and delivers interrupts. A malformed chain breaks the
 * device: virtio_broken() tells the transport, which raises DEVICE_NEEDS_RESET (virtio 1.2 §2.1) as far as it can; the
 * device stays still until its transport resets or restarts it. The worker lives on.
 *
 * All of it runs in the worker's one thread.
 */
#ifndef VMM_VIRTIO_DEVICE_H
#define VMM_VIRTIO_DEVICE_H

#include "base/buffer.h"
#include "vmm/virtio/queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_QUEUES_MAX 16

struct virtio_device;

struct virtio_ops {
	const char *name;
	uint32_t id; /* virtio 1.2 §5 */
	/** Feature bits the device offers on top of the queue's own (VIRTIO_QUEUE_FEATURES). */
	uint64_t (*features)(const struct virtio_device *device);
	/** Copy @n bytes of configuration space from @offset; bytes beyond it are zero. */
	void (*config_read)(const struct virtio_device *device, uint32_t offset, void *bytes, uint32_t n);
	/** The driver writes configuration space; NULL: no field is writable, writes are dropped (virtio 1.2 §2.5.2). */
	void (*config_write)(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t n);
	/** @queue (ready, not broken) may have new buffers. */
	void (*kick)(struct virtio_device *device, unsigned queue);
	/** Back to the state after creation: the queues are stopped already. May be NULL. */
	void (*reset)(struct virtio_device *device);
	/** Append what the device must remember beyond its queues and features, in a form of its own that names its
	 *  version. The queues are quiet meanwhile. NULL: nothing. Called by virtio_save(). */
	int (*save)(const struct virtio_device *device, struct buffer *out);
	/** The reverse, on a device made with the same setup, reset, its features set, before its queues start. Every byte
	 *  is checked. Called by virtio_load(). */
	int (*load)(struct virtio_device *device, const void *bytes, size_t n, struct husk_error *err);
};

/** What a transport does for its device. */
struct virtio_transport_ops {
	/** Interrupt the driver for @queue. */
	void (*notify)(void *transport, unsigned queue);
	/** Call kick() for @queue again in a later round of the loop: the device had enough for now. */
	void (*again)(void *transport, unsigned queue);
	/** The device is broken until it is reset. */
	void (*needs_reset)(void *transport, const char *why);
	/** Configuration space changed: tell the driver. NULL where the transport cannot. */
	void (*config_changed)(void *transport);
};

struct virtio_device {
	const struct virtio_ops *ops;
	unsigned n_queues;
	struct virtqueue queues[VIRTIO_QUEUES_MAX];
	uint64_t features; /* as negotiated; set by the transport before a queue starts */
	const char *broken; /* why, or NULL */
	const struct virtio_transport_ops *transport; /* NULL while there is none */
	void *transport_data;
};

/** Feature bits of every device here: VIRTIO_F_VERSION_1, RING_EVENT_IDX, INDIRECT_DESC. */
#define VIRTIO_QUEUE_FEATURES (1ULL << 32 | 1ULL << 29 | 1ULL << 28)

/** Interrupt the driver for @queue when it wants to hear of what was pushed since the last time. */
void virtio_notify(struct virtio_device *device, unsigned queue);

/** The driver broke the rules: stop the device and have its transport tell. @why is a constant. */
void virtio_broken(struct virtio_device *device, const char *why);

/** True when @queue may be worked on. */
static inline bool virtio_usable(const struct virtio_device *device, unsigned queue)
{
	return !device->broken && device->queues[queue].ready;
}

/** config_read for a constant block of @size bytes. */
void virtio_config_copy(const void *config, size_t size, uint32_t offset, void *bytes, uint32_t n);

/** The envelopes that virtio_save() makes. */
#define VIRTIO_STATE_MAX (64u << 10)

/* ---- for transports ---- */

/** Append an envelope (base/tlv.h) to @out that holds what the driver and @device agreed on: which device it is, the features,
 *  whether it is broken, where its running queues lie and how far they are, and the device's own part. Nothing may run
 *  meanwhile. 0 or a negative errno. */
int virtio_save(const struct virtio_device *device, struct buffer *out);
/** The reverse, on a device made with the same setup, over @memory with the content of that time: resets the
 *  device, checks every byte, restores it and starts its queues; the transport then kicks each of them, as if it had just started. On
 *  failure the device is reset. */
int virtio_load(
	struct virtio_device *device, const struct memory *memory, const void *bytes, size_t n, struct husk_error *err);

/** Stop all queues, forget features and what was broken, reset the device. */
void virtio_reset(struct virtio_device *device);

#endif
