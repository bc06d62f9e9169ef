/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock.h - virtio-vsock (virtio 1.2 §5.10): the device and its muxer
 *
 * A connection is a host stream (a non-blocking unix or TCP stream descriptor) tied to a guest port. The muxer does credit
 * accounting, half-close in both directions, resets, and back-pressure: what is in flight towards a host stream that does
 * not take it is bounded by the buffer that was announced to the guest.
 */
#ifndef VMM_VIRTIO_VSOCK_H
#define VMM_VIRTIO_VSOCK_H

#include "base/loop.h"
#include "vmm/virtio/device.h"

#define VSOCK_CID_HOST 2
#define VSOCK_CID_GUEST 3
#define VSOCK_CONNECTIONS_MAX 20000
#define VSOCK_CONNECT_TIMEOUT_MS 10000

struct vsock;

/** The guest answered a connect of the host: @error is 0, or -ECONNREFUSED, -ECONNRESET, -ETIMEDOUT. On success bytes flow.
 *  Called once, never from within vsock_connect(); not called any more after vsock_destroy(). */
typedef void vsock_connected_fn(void *data, int error);

/** A guest program connects to host port @port: return a non-blocking stream descriptor (ownership passes to the muxer) to
 *  accept, or a negative errno to refuse with a reset. */
typedef int vsock_accept_fn(void *data, uint32_t port);

/** Make the device; @loop drives its host streams. @accept decides on guest-initiated connections. */
int vsock_create(struct loop *loop, uint64_t guest_cid, vsock_accept_fn *accept, void *data, struct vsock **out,
	struct husk_error *err);
void vsock_destroy(struct vsock *vsock);
/** The device's face to a transport. */
struct virtio_device *vsock_device(struct vsock *vsock);

/** Connect the host stream @fd (non-blocking, taken, also on failure) to guest @port. @connected may be NULL. With
 *  @hybrid "OK <local port>\n" is written to @fd before any byte of the guest, once connected. Fails with -ENOSPC when
 *  there are VSOCK_CONNECTIONS_MAX already. A guest that does not answer within VSOCK_CONNECT_TIMEOUT_MS, be it because
 *  its driver is not up yet, gives -ETIMEDOUT. */
int vsock_connect(struct vsock *vsock, int fd, uint32_t port, bool hybrid, vsock_connected_fn *connected, void *data,
	struct husk_error *err);

#endif
