/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h - byte strings: fixed-width little-endian integers in them, whatever their alignment; whether they are zero */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BYTES_LE(bits)                                                                                                 \
	static inline uint##bits##_t get_le##bits(const void *p)                                                       \
	{                                                                                                              \
		uint##bits##_t v;                                                                                      \
		memcpy(&v, p, sizeof(v));                                                                              \
		return le##bits##toh(v);                                                                               \
	}                                                                                                              \
	static inline void put_le##bits(void *p, uint##bits##_t v)                                                     \
	{                                                                                                              \
		v = htole##bits(v);                                                                                    \
		memcpy(p, &v, sizeof(v));                                                                              \
	}
BYTES_LE(16)
BYTES_LE(32)
BYTES_LE(64)
#undef BYTES_LE

/** Whether all of @n bytes are zero: the first is, and each is like the one before it. */
static inline bool bytes_are_zero(const void *p, size_t n)
{
	const uint8_t *bytes = p;
	return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

#endif
