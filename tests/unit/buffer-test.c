/* SPDX-License-Identifier: Apache-2.0 */
/* buffer-test.c - the byte queue keeps order and content through growth, wrap to the front and partial reads */
#include "base/buffer.h"
#include "tests/tap.h"

static void test_growth(void)
{
	struct buffer b = {0};
	for (unsigned i = 0; i < 10000; i++) {
		uint8_t byte = (uint8_t)(i * 7);
		buffer_append(&b, &byte, 1);
	}
	CHECK(b.size == 10000, "10,000 appended bytes are held");
	bool same = true;
	for (unsigned i = 0; i < 10000; i++)
		same &= buffer_bytes(&b)[i] == (uint8_t)(i * 7);
	CHECK(same, "growth keeps every byte in its place");
	buffer_free(&b);
	CHECK(b.data == NULL && b.size == 0, "a freed buffer is empty");
}

static void test_queue_does_not_grow(void)
{
	struct buffer b = {0};
	uint8_t out = 0, in = 0;
	bool ordered = true;
	for (unsigned round = 0; round < 10000; round++) {
		uint8_t chunk[100];
		for (unsigned i = 0; i < sizeof(chunk); i++)
			chunk[i] = in++;
		buffer_append(&b, chunk, sizeof(chunk));
		for (unsigned i = 0; i < sizeof(chunk) && b.size > 10; i++) {
			ordered &= *buffer_bytes(&b) == out++;
			buffer_consume(&b, 1);
		}
	}
	CHECK(ordered, "bytes leave in the order they came");
	CHECK(b.capacity <= 1024, "a queue that is drained does not grow");
	buffer_free(&b);
}

static void test_reserve(void)
{
	struct buffer b = {0};
	CHECK(buffer_reserve(&b, SIZE_MAX) == NULL, "an absurd reservation is refused");
	CHECK(buffer_reserve(&b, 0) != NULL || b.data == NULL, "reserving nothing is harmless");
	buffer_printf(&b, "%s-%d", "a", 42);
	CHECK(b.size == 4 && memcmp(buffer_bytes(&b), "a-42", 4) == 0, "printf appends text without its NUL");
	buffer_free(&b);
}

int main(void)
{
	test_growth();
	test_queue_does_not_grow();
	test_reserve();
	return tap_done();
}
