/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buffer.h - a byte queue: append at the end, consume from the front
 *
 * Zero-initialised is empty and valid. Memory moves only on append. The owner sets limits: a buffer never says no, the
 * code that appends must (every frame has a limit).
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include "base/cleanup.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** data[start, start + size) is the content; NULL when nothing was ever appended. */
struct buffer {
	uint8_t *data;
	size_t start;
	size_t size;
	size_t capacity;
};

static inline uint8_t *buffer_bytes(const struct buffer *b)
{
	return b->data + b->start;
}

/** Room for @n more bytes behind the content; returns where they go, NULL without memory. Commit with buffer_commit(). */
void *buffer_reserve(struct buffer *b, size_t n);

static inline void buffer_commit(struct buffer *b, size_t n)
{
	b->size += n;
}

/** Append @n bytes; 0 or -ENOMEM. */
int buffer_append(struct buffer *b, const void *bytes, size_t n);

/** Append formatted text without its NUL; 0 or -ENOMEM. */
__attribute__((format(printf, 2, 3))) int buffer_printf(struct buffer *b, const char *format, ...);

/** Drop @n bytes (at most size) from the front. */
void buffer_consume(struct buffer *b, size_t n);

/** read(2) up to @max bytes from @fd onto the end; what read returned, or -errno. */
ssize_t buffer_read(struct buffer *b, int fd, size_t max);

/** write(2) content to @fd and consume what was taken; bytes taken, or -errno. */
ssize_t buffer_write(struct buffer *b, int fd);

/** Free the memory and leave an empty buffer. */
void buffer_free(struct buffer *b);

#define CLEANUP_BUFFER CLEANUP(buffer_free)

#endif
