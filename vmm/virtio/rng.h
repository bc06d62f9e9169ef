/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rng.h - virtio-rng, the entropy device (virtio 1.2 §5.4)
 *
 * Theory of operation: the host's getrandom() fills the buffers that the guest offers. A buffer gets at most a page of it,
 * which the device may (§5.4.6.1), and a kick at most a few buffers before the other devices have their turn: a guest that
 * asks without end costs the worker its fair share and no more.
 */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "vmm/virtio/device.h"

struct rng;

int rng_create(struct rng **out, struct husk_error *err);
void rng_destroy(struct rng *rng);
/** The device's face to a transport. */
struct virtio_device *rng_device(struct rng *rng);

#endif
