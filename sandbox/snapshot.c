/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - a sandbox remembered (theory of operation: snapshot.h) */
#include "sandbox/snapshot.h"

#include "base/cleanup.h"

#include <sys/mman.h>

struct husk_sandbox_snapshot *snapshot_new(void)
{
	struct husk_sandbox_snapshot *snapshot = calloc(1, sizeof(*snapshot));

	if (snapshot) {
		snapshot->refs = 1;
		snapshot->fd = -1;
	}
	return snapshot;
}

struct husk_sandbox_snapshot *snapshot_ref(struct husk_sandbox_snapshot *snapshot)
{
	__atomic_fetch_add(&snapshot->refs, 1, __ATOMIC_RELAXED);
	return snapshot;
}

void snapshot_unref(struct husk_sandbox_snapshot *snapshot)
{
	if (!snapshot || __atomic_sub_fetch(&snapshot->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (snapshot->memory)
		munmap((void *)snapshot->memory, snapshot->size);
	if (snapshot->fd >= 0)
		close(snapshot->fd);
	if (snapshot->image)
		image_unref(snapshot->image);
	free(snapshot->areas);
	free(snapshot->cells);
	free(snapshot->functions);
	free(snapshot);
}

void husk_sandbox_snapshot_free(struct husk_sandbox_snapshot *snapshot)
{
	snapshot_unref(snapshot);
}
