/* SPDX-License-Identifier: Apache-2.0 */
/* envelope.h - the descriptors and the sealed envelope that husk-vmm is started with */
#ifndef ENGINE_ENVELOPE_H
#define ENGINE_ENVELOPE_H

#include "base/buffer.h"
#include "vmm/config.h"

#define ENVELOPE_FDS (VMM_LAYERS_MAX + VMM_DISKS_MAX + 32 + VM_DOORS_MAX * VMM_DOOR_FDS)

/** An envelope in the making: entries, and the descriptors that they name, which become 3, 4, … in husk-vmm. The first is
 *  the envelope itself. Descriptors are borrowed. The first failure is kept until envelope_seal(). */
struct envelope {
	struct buffer bytes;
	int fds[ENVELOPE_FDS];
	size_t n_fds;
	int failed;
};

void envelope_begin(struct envelope *e);
void envelope_string(struct envelope *e, uint16_t tag, const char *text);
void envelope_u32(struct envelope *e, uint16_t tag, uint32_t value);
void envelope_u64(struct envelope *e, uint16_t tag, uint64_t value);
void envelope_bytes(struct envelope *e, uint16_t tag, const void *bytes, size_t n);
/** @fd is passed on under @tag; -1 puts nothing. */
void envelope_fd(struct envelope *e, uint16_t tag, int fd);
/** A disk of the user's; disk->fd is passed on. */
void envelope_disk(struct envelope *e, const struct vmm_disk *disk);
/** A door with its descriptors, as many as its kind has. */
void envelope_door(struct envelope *e, const struct vm_door *door, const int fds[VMM_DOOR_FDS]);
/** Put the finished envelope into a sealed memfd, which is fds[0] and owned by @e from then on. */
int envelope_seal(struct envelope *e, struct husk_error *err);
void envelope_free(struct envelope *e);

#endif
