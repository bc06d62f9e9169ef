/* SPDX-License-Identifier: Apache-2.0 */
/* rng.c - virtio-rng (theory of operation: rng.h) */
#include "vmm/virtio/rng.h"

#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#define BYTES_PER_BUFFER 4096
#define BUFFERS_PER_KICK 16 /* then the other devices get their turn */

struct rng {
	struct virtio_device device;
	struct virtqueue_chain chain;
};

static uint64_t rng_features(const struct virtio_device *device)
{
	return 0;
}

static void rng_config_read(const struct virtio_device *device, uint32_t offset, void *bytes, uint32_t n)
{
	virtio_config_copy(NULL, 0, offset, bytes, n);
}

/** Random bytes straight into guest memory; how many, or -errno. */
static ssize_t fill(const struct iovec *iov, unsigned n_iov)
{
	size_t done = 0;
	for (unsigned i = 0; i < n_iov && done < BYTES_PER_BUFFER; i++) {
		size_t at = 0, want = iov[i].iov_len;
		if (want > BYTES_PER_BUFFER - done)
			want = BYTES_PER_BUFFER - done;
		while (at < want) { /* a signal may cut it short */
			ssize_t n = getrandom((uint8_t *)iov[i].iov_base + at, want - at, 0);
			if (n < 0 && errno != EINTR)
				return -errno;
			at += n > 0 ? (size_t)n : 0;
		}
		done += want;
	}
	return (ssize_t)done;
}

/** The next request in rng->chain: true, or false when there is none or the device is broken. */
static bool next(struct rng *rng, struct virtqueue *q)
{
	int rc;
	while ((rc = virtqueue_pop(q, &rng->chain)) == 0)
		if (!virtqueue_enable_kicks(q))
			return false;
	if (rc < 0)
		virtio_broken(&rng->device, q->broken);
	return rc > 0;
}

static void rng_kick(struct virtio_device *device, unsigned queue)
{
	struct rng *rng = (struct rng *)device;
	struct virtqueue *q = &device->queues[queue];
	unsigned served = 0;
	virtqueue_disable_kicks(q);
	while (served++ < BUFFERS_PER_KICK && next(rng, q)) {
		ssize_t n = fill(&rng->chain.iov[rng->chain.n_read], rng->chain.n_write);
		if (n <= 0) {
			virtio_broken(device, n < 0 ? "the host has no random bytes" : "an entropy buffer of no bytes");
			break;
		}
		virtqueue_push(q, rng->chain.head, (uint32_t)n);
	}
	if (served > BUFFERS_PER_KICK)
		device->transport->again(device->transport_data, queue);
	virtio_notify(device, queue);
}

static const struct virtio_ops rng_ops = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.features = rng_features,
	.config_read = rng_config_read,
	.kick = rng_kick,
};

int rng_create(struct rng **out, struct husk_error *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));
	if (!rng)
		return error_set(err, -ENOMEM, "no memory for an entropy device");
	rng->device.ops = &rng_ops;
	rng->device.n_queues = 1;
	*out = rng;
	return 0;
}

void rng_destroy(struct rng *rng)
{
	free(rng);
}

struct virtio_device *rng_device(struct rng *rng)
{
	return &rng->device;
}
