/* SPDX-License-Identifier: Apache-2.0 */
/* bytes-test.c - integers in byte strings have their order whatever their place, and one byte keeps a string from being zero */
#include "base/bytes.h"
#include "tests/tap.h"

static void test_integers(void)
{
	uint8_t bytes[16] = {0};
	const uint8_t want[] = {0, 8, 7, 6, 5, 4, 3, 2, 1, 0};

	put_le64(bytes + 1, 0x0102030405060708);
	CHECK(memcmp(bytes, want, sizeof(want)) == 0, "the lowest byte comes first, at an odd place, too");
	CHECK(get_le64(bytes + 1) == 0x0102030405060708 && get_le32(bytes + 1) == 0x05060708 &&
			get_le16(bytes + 3) == 0x0506,
		"and is read as the lowest");
}

static void test_zero(void)
{
	uint8_t bytes[80] = {0};
	bool zero = true, not_zero = false;

	for (size_t n = 0; n <= 70; n++) {
		bytes[n + 1] = 1; /* behind the end */
		zero &= bytes_are_zero(bytes + 1, n);
		bytes[n + 1] = 0;
		for (size_t at = 1; at <= n; at++) {
			bytes[at] = 0x80;
			not_zero |= bytes_are_zero(bytes + 1, n);
			bytes[at] = 0;
		}
	}
	CHECK(zero, "strings of zeroes are zero, whatever their length and what follows");
	CHECK(!not_zero, "a single bit anywhere is seen");
	memset(bytes, 0xff, sizeof(bytes));
	CHECK(!bytes_are_zero(bytes, sizeof(bytes)), "bytes that are alike are not zero for that");
}

int main(void)
{
	test_integers();
	test_zero();
	return tap_done();
}
