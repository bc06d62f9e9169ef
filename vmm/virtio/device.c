/* SPDX-License-Identifier: Apache-2.0 */
/* device.c - what every virtio device and transport share */
#include "vmm/virtio/device.h"

#include <string.h>

void virtio_notify(struct virtio_device *device, unsigned queue)
{
	struct virtqueue *q = &device->queues[queue];
	if (q->ready && virtqueue_interrupt(q) && device->transport)
		device->transport->notify(device->transport_data, queue);
}

void virtio_broken(struct virtio_device *device, const char *why)
{
	if (device->broken)
		return;
	device->broken = why;
	if (device->transport)
		device->transport->needs_reset(device->transport_data, why);
}

void virtio_config_copy(const void *config, size_t size, uint32_t offset, void *bytes, uint32_t n)
{
	memset(bytes, 0, n);
	if (offset < size)
		memcpy(bytes, (const uint8_t *)config + offset, n < size - offset ? n : size - offset);
}

void virtio_reset(struct virtio_device *device)
{
	for (unsigned i = 0; i < device->n_queues; i++)
		device->queues[i] = (struct virtqueue){0};
	device->features = 0;
	device->broken = NULL;
	if (device->ops->reset)
		device->ops->reset(device);
}
