/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.h - split virtqueues (virtio 1.2 §2.7), the device's side
 *
 * Theory of operation: the driver puts the head of a descriptor chain into the available ring; virtqueue_pop() copies each
 * descriptor of it exactly once, checks the copy against guest memory and hands the device plain iovecs: first those it
 * reads, then those it writes. Nothing of the ring is read twice, so a guest that changes a descriptor later changes
 * nothing. The device does its work and virtqueue_push()es the head into the used ring; virtqueue_interrupt() then tells
 * whether the driver wants to know (EVENT_IDX, §2.7.7 and 2.7.10, or the NO_INTERRUPT flag).
 *
 * Refused, as a broken queue, for good until it is started again: an available index that runs ahead by more than the
 * queue's size, a head or next out of range, a chain longer than the queue, an address outside of guest memory or across
 * regions, a length of zero, a readable descriptor after a writable one, an indirect table that was not negotiated, is
 * nested, chained, empty or no multiple of 16 bytes.
 */
#ifndef VMM_VIRTIO_QUEUE_H
#define VMM_VIRTIO_QUEUE_H

#include "base/error.h"
#include "memory/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define VIRTQUEUE_SIZE_MAX 1024 /* also IOV_MAX: one chain fits one preadv */

struct vring_desc;
struct vring_avail;
struct vring_used;

struct virtqueue {
	bool ready;
	const char *broken; /* why, or NULL */
	bool event_idx, indirect; /* negotiated */
	bool signalled_valid;
	uint16_t size;
	uint16_t next_avail; /* free-running: the next head to take */
	uint16_t next_used; /* free-running: the next used element to write */
	uint16_t signalled; /* next_used at the last decision on an interrupt */
	uint16_t seen_avail; /* the driver's index as last read: saves reading it per chain */
	const struct memory *memory;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
};

/** One chain: iov[0, n_read) for the device to read, iov[n_read, n_read + n_write) for it to write. */
struct virtqueue_chain {
	uint16_t head;
	unsigned n_read, n_write;
	uint64_t read_bytes, write_bytes;
	struct iovec iov[VIRTQUEUE_SIZE_MAX];
};

/** Where the driver put a queue (guest-physical), and where to go on. */
struct virtqueue_setup {
	uint32_t size;
	uint64_t desc, avail, used;
	uint16_t base; /* next_avail */
	uint64_t features;
};

/** Check and start; next_used comes from the ring itself. */
int virtqueue_start(struct virtqueue *queue, const struct memory *memory, const struct virtqueue_setup *setup,
	struct husk_error *err);
/** Stop; returns where a later start must go on. */
uint16_t virtqueue_stop(struct virtqueue *queue);

/** The next chain: 1, 0 when there is none, -EPROTO when the queue is broken (queue->broken says why). */
int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain);
/** Give the last @n popped chains back, as if they had not been popped. */
void virtqueue_unpop(struct virtqueue *queue, unsigned n);
/** Return the chain that began with @head, @written bytes of it written. */
void virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t written);
/** True when the driver wants an interrupt for what was pushed since the last call. */
bool virtqueue_interrupt(struct virtqueue *queue);

/** Ask the driver for kicks; true when chains have come meanwhile, which no kick will announce. */
bool virtqueue_enable_kicks(struct virtqueue *queue);
/** Ask the driver to spare its kicks while the device looks by itself. */
void virtqueue_disable_kicks(struct virtqueue *queue);

/* ---- iovecs ---- */

/** Bytes copied from (to) the first @n bytes of @iov. */
size_t iov_gather(const struct iovec *iov, unsigned n_iov, void *bytes, size_t n);
size_t iov_scatter(const struct iovec *iov, unsigned n_iov, const void *bytes, size_t n);
/** The part [@skip, @skip + @n) of @iov, in @out (room for n_iov); returns how many iovecs it takes. */
unsigned iov_slice(const struct iovec *iov, unsigned n_iov, uint64_t skip, uint64_t n, struct iovec *out);

#endif
