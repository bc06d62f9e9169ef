/* SPDX-License-Identifier: Apache-2.0 */
/* adopt.c - structs of callers that were built with another version of husk.h */
#include "lib/adopt.h"

#include "base/cleanup.h"

#include <string.h>

int adopt_struct(void *to, size_t size, const void *from, const char *what, struct husk_error *err)
{
	size_t theirs = *(const size_t *)from;
	if (theirs < sizeof(size_t))
		return error_set(err, -EINVAL, "%s has no size; call its init function first", what);
	for (size_t i = size; i < theirs; i++)
		if (((const char *)from)[i])
			return error_set(err, -E2BIG, "%s uses a field that this version of libhusk (%s) does not know",
				what, HUSK_VERSION);
	memcpy(to, from, theirs < size ? theirs : size);
	*(size_t *)to = size;
	return 0;
}

int adopt_doors(const struct husk_door *given, size_t n, struct husk_door **out, struct husk_error *err)
{
	if (n > SIZE_MAX / sizeof(*given) || (n && !given))
		return error_set(err, -EINVAL, "%zu doors, and nowhere to read them", n);
	CLEANUP_FREE struct husk_door *doors = calloc(n + 1, sizeof(*doors));
	if (!doors)
		return error_set(err, -ENOMEM, "read the doors: out of memory");
	for (size_t i = 0; i < n; i++) {
		/* The caller's array is spaced by the caller's size. */
		const struct husk_door *one = (const void *)((const char *)given + i * given->size);
		int rc = one->size == given->size
				 ? adopt_struct(&doors[i], sizeof(doors[i]), one, "struct husk_door", err)
				 : error_set(err, -EINVAL, "the doors are of different sizes");
		if (rc < 0)
			return rc;
	}
	*out = steal_pointer(&doors);
	return 0;
}
