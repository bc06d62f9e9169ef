/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_user_rings.c - queues towards QEMU: start, stop, the guest's kicks, and what the device asks of its transport */
#include "vmm/virtio/vhost_user_internal.h"

#include <unistd.h>

static void wake(int fd)
{
	uint64_t one = 1;
	if (write(fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, so its reader is awake already. Anything else is QEMU's loss. */
	}
}

void vhost_user_ring_stop(struct vhost_user *vu, unsigned i)
{
	struct virtqueue *queue = &vu->device->queues[i];
	if (queue->ready)
		vu->rings[i].setup.base = virtqueue_stop(queue);
	vu->again &= ~(1u << i);
}

void vhost_user_ring_drop_kick(struct vhost_user *vu, struct vhost_user_ring *ring)
{
	int fd = ring->kick.fd;
	loop_remove(vu->loop, &ring->kick);
	vhost_user_close(&fd);
	ring->kick.fd = -1;
}

static void schedule(struct vhost_user *vu)
{
	wake(vu->later.fd);
}

static bool any_ready(const struct virtio_device *device)
{
	for (unsigned i = 0; i < device->n_queues; i++)
		if (device->queues[i].ready)
			return true;
	return false;
}

int vhost_user_ring_start(struct vhost_user *vu, unsigned i)
{
	struct vhost_user_ring *ring = &vu->rings[i];
	struct virtio_device *device = vu->device;
	if (device->queues[i].ready || !ring->enabled || !ring->addressed || ring->kick.fd < 0)
		return 0;
	if (device->broken && !any_ready(device)) { /* its driver begins anew */
		device->broken = NULL;
		if (device->ops->reset)
			device->ops->reset(device);
	}
	device->features = vu->features;
	ring->setup.features = vu->features;
	int rc = virtqueue_start(&device->queues[i], vu->memory, &ring->setup, &vu->err);
	if (rc < 0)
		return error_prefix(&vu->err, rc, "queue %u", i);
	vu->again |= 1u << i; /* buffers may wait already */
	schedule(vu);
	return 0;
}

static void on_kick(struct loop_watch *watch, uint32_t events)
{
	struct vhost_user_ring *ring = CONTAINER_OF(watch, struct vhost_user_ring, kick);
	struct vhost_user *vu = ring->transport;
	unsigned i = (unsigned)(ring - vu->rings);
	uint64_t count;
	ssize_t n = read(watch->fd, &count, sizeof(count));
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) { /* not an eventfd: never look at it again */
		loop_remove(vu->loop, watch);
		return;
	}
	if (virtio_usable(vu->device, i))
		vu->device->ops->kick(vu->device, i);
}

int vhost_user_ring_set_kick(struct vhost_user *vu, struct vhost_user_ring *ring, int fd)
{
	vhost_user_ring_drop_kick(vu, ring);
	int rc = loop_add(vu->loop, &ring->kick, fd, EPOLLIN, on_kick, &vu->err);
	if (rc < 0)
		ring->kick.fd = -1;
	return rc;
}

/* ---- what the device asks for ---- */

static void vhost_user_notify(void *transport, unsigned queue)
{
	struct vhost_user *vu = transport;
	if (vu->rings[queue].call_fd >= 0)
		wake(vu->rings[queue].call_fd);
}

static void vhost_user_again(void *transport, unsigned queue)
{
	struct vhost_user *vu = transport;
	vu->again |= 1u << queue;
	schedule(vu);
}

static void vhost_user_needs_reset(void *transport, const char *why)
{
	struct vhost_user *vu = transport;
	for (unsigned i = 0; i < vu->device->n_queues; i++)
		if (vu->rings[i].err_fd >= 0)
			wake(vu->rings[i].err_fd);
	vu->report_broken = true;
	schedule(vu);
}

const struct virtio_transport_ops vhost_user_transport_ops = {
	.notify = vhost_user_notify,
	.again = vhost_user_again,
	.needs_reset = vhost_user_needs_reset,
};

void vhost_user_on_later(struct loop_watch *watch, uint32_t events)
{
	struct vhost_user *vu = CONTAINER_OF(watch, struct vhost_user, later);
	uint64_t count;
	if (read(watch->fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: nothing lost, what is to do stands in the flags */
	}
	uint32_t again = vu->again;
	vu->again = 0;
	for (unsigned i = 0; i < vu->device->n_queues; i++)
		if ((again & 1u << i) && virtio_usable(vu->device, i))
			vu->device->ops->kick(vu->device, i);
	if (!vu->report_broken)
		return;
	vu->report_broken = false;
	struct husk_error err;
	error_set(&err, -EBADMSG, "the guest broke a queue of the %s device: %s", vu->device->ops->name,
		vu->device->broken ? vu->device->broken : "unknown");
	vu->failed(vu->data, &err);
}
