/* SPDX-License-Identifier: Apache-2.0 */
/* adopt.c - structs of callers that were built with another version of husk.h */
#include "base/adopt.h"

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

int adopt_list(const void *given, size_t n, size_t size, const char *what, void **out, struct husk_error *err)
{
	if (n > SIZE_MAX / size - 1 || (n && !given))
		return error_set(err, -EINVAL, "%zu of %s, and nowhere to read them", n, what);
	CLEANUP_FREE char *list = calloc(n + 1, size);
	if (!list)
		return error_set(err, -ENOMEM, "read a list of %s: out of memory", what);
	size_t theirs = n ? *(const size_t *)given : 0;
	for (size_t i = 0; i < n; i++) {
		/* The caller's array is spaced by the caller's size. */
		const char *one = (const char *)given + i * theirs;
		int rc = *(const size_t *)(const void *)one == theirs
				 ? adopt_struct(list + i * size, size, one, what, err)
				 : error_set(err, -EINVAL, "a list of %s has different sizes", what);
		if (rc < 0)
			return rc;
	}
	*out = steal_pointer(&list);
	return 0;
}
