/* SPDX-License-Identifier: Apache-2.0 */
/* disks.h - the user's disks: judged, opened, locked */
#ifndef ENGINE_DISKS_H
#define ENGINE_DISKS_H

#include "base/error.h"
#include "engine/envelope.h"

#include <husk.h>

/** A VM's disks, opened; descriptors are owned. */
struct open_disks {
	struct vmm_disk disk[VMM_DISKS_MAX];
	char *path[VMM_DISKS_MAX]; /* absolute; owned */
	size_t n;
};

/** What can be said of the list without looking at the files: -EINVAL, -E2BIG, -ENOTSUP. */
int disks_check(const struct husk_vm_config *config, struct husk_error *err);
/** Open and lock them all. -EBUSY: one is in use. After a failure disks_close() closes what was opened. */
int disks_open(const struct husk_vm_config *config, struct open_disks *out, struct husk_error *err);
void disks_put(const struct open_disks *disks, struct envelope *e);
void disks_close(struct open_disks *disks);

#endif
