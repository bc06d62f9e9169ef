/* SPDX-License-Identifier: Apache-2.0 */
/* access.c - memory of a sandbox by guest-physical address (theory of operation: access.h) */
#include "sandbox/access.h"

#include <inttypes.h>
#include <string.h>

int access_begin(struct husk_sandbox *sandbox, struct husk_error *err)
{
	pthread_mutex_lock(&sandbox->memory_lock);
	if (__atomic_load_n(&sandbox->state, __ATOMIC_ACQUIRE) != HUSK_SANDBOX_DEAD)
		return 0;
	pthread_mutex_unlock(&sandbox->memory_lock);
	return error_set(err, -ESHUTDOWN, "the sandbox is dead: its memory is gone");
}

void access_end(struct husk_sandbox *sandbox)
{
	pthread_mutex_unlock(&sandbox->memory_lock);
}

int access_add_begin(struct husk_sandbox *sandbox, const char *what, struct husk_error *err)
{
	int rc = sandbox_enter(sandbox, 1u << HUSK_SANDBOX_CONFIGURED, what, err);

	if (rc == 0)
		pthread_mutex_lock(&sandbox->memory_lock);
	return rc;
}

void access_add_end(struct husk_sandbox *sandbox)
{
	pthread_mutex_unlock(&sandbox->memory_lock);
	sandbox_leave(sandbox);
}

const struct area *access_region(const struct husk_sandbox *sandbox, const char *name, unsigned *region)
{
	for (unsigned i = 0; i < sandbox->areas.n_regions; i++) {
		const struct area *area = &sandbox->areas.list[sandbox->areas.regions[i]];
		if (strcmp(area->name, name) == 0) {
			*region = i;
			return area;
		}
	}
	return NULL;
}

int access_name(const struct husk_sandbox *sandbox, const char *name, struct husk_error *err)
{
	unsigned region;

	if (!name || !signature_name_fits(name, SANDBOX_NAME_MAX + 1))
		return error_set(err, -EINVAL,
			"'%.80s' is no name for a region or a cell: a C identifier of at most %d bytes is",
			name ? name : "", SANDBOX_NAME_MAX);
	if (access_region(sandbox, name, &region))
		return error_set(err, -EEXIST, "there is a region called '%s' already", name);
	if (cells_find(&sandbox->cells, name) >= 0)
		return error_set(err, -EEXIST, "there is a cell called '%s' already", name);
	return 0;
}

int husk_sandbox_memory_read(struct husk_sandbox *sandbox, uint64_t gpa, void *buf, size_t n, struct husk_error *err)
{
	int rc = access_begin(sandbox, err);

	if (rc < 0)
		return rc;
	rc = areas_copy_out(&sandbox->areas, gpa, buf, n, err);
	access_end(sandbox);
	return rc;
}

int husk_sandbox_memory_write(
	struct husk_sandbox *sandbox, uint64_t gpa, const void *buf, size_t n, struct husk_error *err)
{
	int rc = access_begin(sandbox, err);

	if (rc < 0)
		return rc;
	rc = areas_copy_in(&sandbox->areas, gpa, buf, n, err);
	access_end(sandbox);
	return rc;
}

#ifdef HUSK_UNSAFE_RAW_MEMORY
int husk_sandbox_memory_ptr_unsafe(
	struct husk_sandbox *sandbox, uint64_t gpa, size_t n, void **ptr, struct husk_error *err)
{
	int rc = access_begin(sandbox, err);

	if (rc < 0)
		return rc;
	void *at = areas_at(&sandbox->areas, gpa, n);
	access_end(sandbox);
	if (!at)
		return error_set(err, -EFAULT,
			"0x%zx bytes at 0x%" PRIx64 " are not in one piece of the sandbox's memory", n, gpa);
	*ptr = at;
	return 0;
}
#endif
