/* SPDX-License-Identifier: Apache-2.0 */
/* envelope.c - the sealed envelope that husk-vmm is started with (vmm/config.h) */
#include "engine/envelope.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "base/tlv.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

static void keep(struct envelope *e, int rc)
{
	if (rc < 0 && !e->failed)
		e->failed = rc;
}

void envelope_begin(struct envelope *e)
{
	*e = (struct envelope){.n_fds = 1, .fds = {-1}};
	keep(e, tlv_begin(&e->bytes, VMM_MAGIC, VMM_VERSION));
}

void envelope_string(struct envelope *e, uint16_t tag, const char *text)
{
	keep(e, tlv_put_string(&e->bytes, tag, text));
}

void envelope_u32(struct envelope *e, uint16_t tag, uint32_t value)
{
	keep(e, tlv_put_u32(&e->bytes, tag, value));
}

void envelope_u64(struct envelope *e, uint16_t tag, uint64_t value)
{
	keep(e, tlv_put_u64(&e->bytes, tag, value));
}

void envelope_bytes(struct envelope *e, uint16_t tag, const void *bytes, size_t n)
{
	keep(e, tlv_put(&e->bytes, tag, bytes, n));
}

/** The number that @fd will have in husk-vmm, or -1. */
static int pass(struct envelope *e, int fd)
{
	if (e->n_fds == ENVELOPE_FDS) {
		keep(e, -E2BIG);
		return -1;
	}
	e->fds[e->n_fds] = fd;
	return SPAWN_FDS + (int)e->n_fds++;
}

void envelope_fd(struct envelope *e, uint16_t tag, int fd)
{
	if (fd >= 0)
		envelope_u32(e, tag, (uint32_t)pass(e, fd));
}

void envelope_door(struct envelope *e, const struct vm_door *door, const int fds[VMM_DOOR_FDS])
{
	struct vmm_door_entry entry = {.n_fds = vmm_door_fds(door->kind), .fd = {-1, -1, -1, -1}, .door = *door};
	for (uint32_t i = 0; i < entry.n_fds; i++)
		entry.fd[i] = pass(e, fds[i]);
	envelope_bytes(e, VMM_DOOR, &entry, sizeof(entry));
}

void envelope_disk(struct envelope *e, const struct vmm_disk *disk)
{
	struct vmm_disk entry = *disk;
	entry.fd = pass(e, disk->fd);
	envelope_bytes(e, VMM_DISK, &entry, sizeof(entry));
}

int envelope_seal(struct envelope *e, struct husk_error *err)
{
	if (e->failed)
		return error_set(err, e->failed, "build the VM's envelope: %s", strerror(-e->failed));
	tlv_seal(&e->bytes);
	int fd = memfd_create("husk-envelope", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_errno(err, "build the VM's envelope");
	e->fds[0] = fd;
	int rc = fd_write_all(fd, buffer_bytes(&e->bytes), e->bytes.size);
	if (rc < 0)
		return error_set(err, rc, "build the VM's envelope: %s", strerror(-rc));
	if (lseek(fd, 0, SEEK_SET) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return error_errno(err, "seal the VM's envelope");
	return 0;
}

void envelope_free(struct envelope *e)
{
	if (e->fds[0] >= 0)
		close(e->fds[0]);
	e->fds[0] = -1;
	buffer_free(&e->bytes);
}
