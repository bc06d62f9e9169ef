/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_user.h - the transport towards QEMU: one vhost-user socket per device, the worker is the back-end
 *
 * Theory of operation: QEMU shows the guest a PCI device and passes us, over a unix socket, where the guest's driver put
 * its queues, an eventfd per queue for kicks and one for interrupts (docs/interop/vhost-user in QEMU's source). Guest memory
 * is the worker's own: the descriptors of SET_MEM_TABLE are closed and only its translation from QEMU's addresses to
 * guest-physical ones is kept; every address then goes through memory_at(). QEMU is half trusted: each message is checked
 * for length, range and descriptors, and a malformed one ends this device, not the worker.
 *
 * QEMU waits for answers to some messages while its own QMP answers wait: keep the loop running.
 */
#ifndef VMM_VIRTIO_VHOST_USER_H
#define VMM_VIRTIO_VHOST_USER_H

#include "base/loop.h"
#include "memory/memory.h"
#include "vmm/virtio/device.h"

struct vhost_user;

/** Something is wrong with a device; called from the loop. err->code tells what:
 *  -EBADMSG: the guest broke a queue; the device stands still until its driver starts it anew, the transport lives.
 *  -EPIPE:   QEMU closed the socket; the transport is over, the device was reset.
 *  others:   QEMU sent nonsense or a system call failed; the transport is over, the device was reset.
 *  vhost_user_destroy() may be called from within. */
typedef void vhost_user_failed_fn(void *data, struct husk_error *err);

/** Serve @device on @socket_fd (taken on success, made non-blocking). @memory and @device must outlive the transport. */
int vhost_user_create(struct loop *loop, const struct memory *memory, struct virtio_device *device, int socket_fd,
	vhost_user_failed_fn *failed, void *data, struct vhost_user **out, struct husk_error *err);
/** End the transport; the device is reset. NULL is fine. */
void vhost_user_destroy(struct vhost_user *transport);

#endif
