/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.h - virtio-blk (virtio 1.2 §5.2)
 *
 * Theory of operation: requests are carried out at once, in the worker's thread, with preadv and pwritev straight between
 * the disk's file and guest memory (for cached files nothing is faster). Read-only is enforced here and in the disk: a
 * write request to a read-only device is an I/O error whatever the driver negotiated.
 */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include "base/stats.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/disk.h"

struct blk;

/** Make the device over @disk, which stays the caller's and must outlive it. @serial: at most 20 bytes, shown in the
 *  guest's sysfs. @n_queues: 1 to VIRTIO_QUEUES_MAX. */
int blk_create(struct disk *disk, const char *serial, unsigned n_queues, struct blk **out, struct husk_error *err);
void blk_destroy(struct blk *blk);
/** Count what is carried out in @meter, which several devices of one thread may share. */
void blk_count(struct blk *blk, struct block_meter *meter);
/** The device's face to a transport. */
struct virtio_device *blk_device(struct blk *blk);

#endif
