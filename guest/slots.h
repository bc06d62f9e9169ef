/* SPDX-License-Identifier: Apache-2.0 */
/* slots.h - virtio-mmio slots that were empty when the guest booted: let the driver look again */
#ifndef GUEST_SLOTS_H
#define GUEST_SLOTS_H

#include "base/error.h"

/** Let the kernel probe every slot without a device anew. @sysfs: where it is mounted; NULL: mount it, for which the caller is
 *  a process of its own. How many devices have appeared, or -errno. */
int slots_rescan(const char *sysfs, struct husk_error *err);

#endif
