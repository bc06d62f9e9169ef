/* SPDX-License-Identifier: Apache-2.0 */
/* tlv-test.c - an envelope reads back as written, and every damaged one is refused */
#include "base/tlv.h"
#include "tests/tap.h"

#define MAGIC 0x54534554u

static void make(struct buffer *b)
{
	tlv_begin(b, MAGIC, 3);
	tlv_put_u32(b, 1, 0xdeadbeef);
	tlv_put_string(b, 2, "hello");
	tlv_put_string(b, 2, "");
	tlv_put_u64(b, 7, 1ull << 40);
	tlv_seal(b);
}

static void test_round_trip(void)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct husk_error err;
	struct tlv_reader r;
	struct tlv e;
	uint32_t u32 = 0;
	uint64_t u64 = 0;

	make(&b);
	CHECK(tlv_open(&r, buffer_bytes(&b), b.size, MAGIC, 3, &err) == 0, "an envelope opens");
	CHECK(tlv_next(&r, &e) && e.tag == 1 && tlv_u32(&e, &u32) && u32 == 0xdeadbeef, "a u32 reads back");
	CHECK(!tlv_u64(&e, &u64), "a u32 is not taken for a u64");
	CLEANUP_FREE char *text = tlv_next(&r, &e) ? tlv_string(&e) : NULL;
	CHECK_STRING(text, "hello", "a string reads back");
	CLEANUP_FREE char *empty = tlv_next(&r, &e) ? tlv_string(&e) : NULL;
	CHECK_STRING(empty, "", "an empty string reads back, with its repeated tag");
	CHECK(tlv_next(&r, &e) && tlv_u64(&e, &u64) && u64 == 1ull << 40, "a u64 reads back");
	CHECK(!tlv_next(&r, &e) && !r.broken, "the end is not a fault");
}

static void test_damage(void)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct husk_error err;
	struct tlv_reader r;

	make(&b);
	bool all = true;
	for (size_t i = 0; i < b.size; i++) {
		buffer_bytes(&b)[i] ^= 0x10;
		all &= tlv_open(&r, buffer_bytes(&b), b.size, MAGIC, 3, &err) < 0;
		buffer_bytes(&b)[i] ^= 0x10;
	}
	CHECK(all, "a flipped bit anywhere is refused");
	all = true;
	for (size_t n = 0; n < b.size; n++)
		all &= tlv_open(&r, buffer_bytes(&b), n, MAGIC, 3, &err) < 0;
	CHECK(all, "a truncated envelope is refused at every length");
	CHECK(tlv_open(&r, buffer_bytes(&b), b.size, MAGIC, 4, &err) == -EPROTO, "another version is refused as such");
	CHECK(strstr(err.message, "version 3") && strstr(err.message, "version 4"), "and both versions are named");
}

static void test_malformed_entries(void)
{
	static const uint8_t too_long[] = {1, 0, 0, 0, 2, 0, 0, 0, 'x'};
	static const uint8_t reserved[] = {1, 0, 1, 0, 1, 0, 0, 0, 'x'};
	static const uint8_t stub[] = {1, 0, 0};
	struct tlv_reader r;
	struct tlv e;
	tlv_start(&r, too_long, sizeof(too_long));
	CHECK(!tlv_next(&r, &e) && r.broken, "a length beyond the end breaks the reader");
	tlv_start(&r, reserved, sizeof(reserved));
	CHECK(!tlv_next(&r, &e) && r.broken, "reserved bits break the reader");
	tlv_start(&r, stub, sizeof(stub));
	CHECK(!tlv_next(&r, &e) && r.broken, "a cut entry header breaks the reader");
	struct tlv nul = {.size = 3, .value = (const uint8_t *)"a\0b"};
	CHECK(tlv_string(&nul) == NULL, "a string with a NUL inside is refused");
}

/** Long strings are summed in another way than short ones. */
static void test_long_checksum(void)
{
	static uint8_t bytes[20000];
	unsigned wrong = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * i >> 3);
	for (size_t n = 4080; n < sizeof(bytes) - 7; n += 997)
		for (size_t from = 0; from < 8; from++) {
			uint32_t pieces = 77;
			for (size_t at = 0; at < n; at += 100)
				pieces = crc32_ieee(pieces, bytes + from + at, n - at < 100 ? n - at : 100);
			wrong += crc32_ieee(77, bytes + from, n) != pieces;
		}
	CHECK(wrong == 0, "CRC-32 of much at once is that of its pieces");
}

int main(void)
{
	CHECK(crc32_ieee(0, "123456789", 9) == 0xcbf43926, "CRC-32 has its check value");
	test_long_checksum();
	CHECK(crc32_ieee(crc32_ieee(0, "12345", 5), "6789", 4) == 0xcbf43926, "CRC-32 continues");
	test_round_trip();
	test_damage();
	test_malformed_entries();
	return tap_done();
}
