/* SPDX-License-Identifier: Apache-2.0 */
/* buffer.c - a byte queue */
#include "base/buffer.h"

#include <stdarg.h>
#include <string.h>

#define BUFFER_MIN 256

void *buffer_reserve(struct buffer *b, size_t n)
{
	if (b->capacity - b->start - b->size >= n && b->data)
		return b->data + b->start + b->size;
	if (b->start && b->capacity - b->size >= n) {
		memmove(b->data, b->data + b->start, b->size);
		b->start = 0;
		return b->data + b->size;
	}
	size_t need;
	if (__builtin_add_overflow(b->size, n, &need) || need > SIZE_MAX / 2)
		return NULL;
	size_t capacity = b->capacity ? b->capacity : BUFFER_MIN;
	while (capacity < need)
		capacity *= 2;
	uint8_t *data = malloc(capacity);
	if (!data)
		return NULL;
	if (b->size)
		memcpy(data, b->data + b->start, b->size);
	free(b->data);
	b->data = data;
	b->start = 0;
	b->capacity = capacity;
	return b->data + b->size;
}

int buffer_append(struct buffer *b, const void *bytes, size_t n)
{
	if (!n)
		return 0;
	void *to = buffer_reserve(b, n);
	if (!to)
		return -ENOMEM;
	memcpy(to, bytes, n);
	b->size += n;
	return 0;
}

int buffer_printf(struct buffer *b, const char *format, ...)
{
	va_list ap, again;
	va_start(ap, format);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	char *to = n < 0 ? NULL : buffer_reserve(b, (size_t)n + 1);
	if (to) {
		vsnprintf(to, (size_t)n + 1, format, again);
		b->size += (size_t)n;
	}
	va_end(again);
	return to ? 0 : -ENOMEM;
}

void buffer_consume(struct buffer *b, size_t n)
{
	b->start += n;
	b->size -= n;
	if (!b->size)
		b->start = 0;
}

ssize_t buffer_read(struct buffer *b, int fd, size_t max)
{
	void *to = buffer_reserve(b, max);
	if (!to)
		return -ENOMEM;
	ssize_t n = read(fd, to, max);
	if (n < 0)
		return -errno;
	b->size += (size_t)n;
	return n;
}

ssize_t buffer_write(struct buffer *b, int fd)
{
	if (!b->size)
		return 0;
	ssize_t n = write(fd, buffer_bytes(b), b->size);
	if (n < 0)
		return -errno;
	buffer_consume(b, (size_t)n);
	return n;
}

void buffer_free(struct buffer *b)
{
	int saved = errno;
	free(b->data);
	*b = (struct buffer){0};
	errno = saved;
}
