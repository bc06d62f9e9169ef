/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_user_internal.h - what the files of the vhost-user transport share
 *
 * vhost_user.c is the socket: messages are received whole, checked by size and descriptors, answered. Each kind of message
 * has its handler in vhost_user_requests.c. vhost_user_rings.c starts and stops queues, takes the guest's kicks and passes on
 * what the device asks for.
 */
#ifndef VMM_VIRTIO_VHOST_USER_INTERNAL_H
#define VMM_VIRTIO_VHOST_USER_INTERNAL_H

#include "vmm/virtio/vhost_user.h"
#include "vmm/virtio/vhost_user_protocol.h"

#include <unistd.h>

/** One queue as QEMU describes it, piece by piece; it runs once it has a kick descriptor and is enabled. */
struct vhost_user_ring {
	struct loop_watch kick; /* kick.fd is owned, -1: none */
	int call_fd, err_fd; /* owned, -1: none */
	bool enabled, addressed;
	struct virtqueue_setup setup;
	struct vhost_user *transport;
};

struct vhost_user {
	struct loop *loop;
	const struct memory *memory;
	struct virtio_device *device;
	vhost_user_failed_fn *failed;
	void *data;
	struct loop_watch socket;
	struct loop_watch later; /* an eventfd: work of a later round */
	uint32_t again; /* bit per queue: kick the device */
	bool report_broken;
	uint64_t features, protocol_features;
	uint32_t n_regions;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
	struct vhost_user_ring rings[VIRTIO_QUEUES_MAX];

	/* the message that is being read, and what its handler answers */
	struct vhost_user_message in, reply;
	size_t have;
	int fds[VHOST_USER_REGIONS_MAX];
	size_t n_fds;
	struct husk_error err;
};

/** What a request must look like: payload of exactly @size bytes (@variable: at most), at most @fds descriptors. */
struct vhost_user_rule {
	int (*handle)(struct vhost_user *vu); /* finds such a payload; 0 or an error in vu->err */
	uint16_t size;
	uint8_t fds;
	bool variable, answers;
};

static inline void vhost_user_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- vhost_user_requests.c ---- */
/** The request's rule and handler, or NULL when it is unknown. */
const struct vhost_user_rule *vhost_user_rule_find(uint32_t request);
/** Note in vu->err that QEMU broke the protocol; returns its code. */
int vhost_user_protocol_error(struct vhost_user *vu, const char *what);
void vhost_user_reply_u64(struct vhost_user *vu, uint64_t value);

/* ---- vhost_user_rings.c ---- */
extern const struct virtio_transport_ops vhost_user_transport_ops;
/** Start queue @i if all that it needs is known. */
int vhost_user_ring_start(struct vhost_user *vu, unsigned i);
void vhost_user_ring_stop(struct vhost_user *vu, unsigned i);
/** Listen for the guest on @fd (non-blocking, taken on success). */
int vhost_user_ring_set_kick(struct vhost_user *vu, struct vhost_user_ring *ring, int fd);
void vhost_user_ring_drop_kick(struct vhost_user *vu, struct vhost_user_ring *ring);
/** Handler of vu->later. */
void vhost_user_on_later(struct loop_watch *watch, uint32_t events);

#endif
