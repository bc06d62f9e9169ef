/* SPDX-License-Identifier: Apache-2.0 */
/* adopt.c - structs of callers that were built with another version of husk.h */
#include "lib/adopt.h"

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
