/* SPDX-License-Identifier: Apache-2.0 */
/* tlv.c - versioned envelopes of tagged values */
#include "base/tlv.h"

#include "base/bytes.h"

#include <string.h>

int tlv_put(struct buffer *b, uint16_t tag, const void *value, size_t size)
{
	if (size > UINT32_MAX)
		return -EINVAL;
	uint8_t *to = buffer_reserve(b, TLV_ENTRY_SIZE + size);
	if (!to)
		return -ENOMEM;
	put_le16(to, tag);
	put_le16(to + 2, 0);
	put_le32(to + 4, (uint32_t)size);
	if (size)
		memcpy(to + TLV_ENTRY_SIZE, value, size);
	buffer_commit(b, TLV_ENTRY_SIZE + size);
	return 0;
}

int tlv_put_u32(struct buffer *b, uint16_t tag, uint32_t value)
{
	uint8_t bytes[4];
	put_le32(bytes, value);
	return tlv_put(b, tag, bytes, sizeof(bytes));
}

int tlv_put_u64(struct buffer *b, uint16_t tag, uint64_t value)
{
	uint8_t bytes[8];
	put_le64(bytes, value);
	return tlv_put(b, tag, bytes, sizeof(bytes));
}

int tlv_put_string(struct buffer *b, uint16_t tag, const char *text)
{
	return text ? tlv_put(b, tag, text, strlen(text)) : 0;
}

int tlv_begin(struct buffer *b, uint32_t magic, uint16_t version)
{
	uint8_t header[TLV_HEADER_SIZE] = {0};
	put_le32(header, magic);
	put_le16(header + 4, version);
	return buffer_append(b, header, sizeof(header));
}

void tlv_seal(struct buffer *b)
{
	if (b->size < TLV_HEADER_SIZE)
		return;
	uint8_t *header = buffer_bytes(b);
	size_t size = b->size - TLV_HEADER_SIZE;
	put_le32(header + 8, (uint32_t)size);
	put_le32(header + 12, crc32_ieee(0, header + TLV_HEADER_SIZE, size));
}

int tlv_open(
	struct tlv_reader *r, const void *bytes, size_t size, uint32_t magic, uint16_t version, struct husk_error *err)
{
	const uint8_t *header = bytes;
	*r = (struct tlv_reader){.broken = true};
	if (size < TLV_HEADER_SIZE || get_le32(header) != magic)
		return error_set(err, -EBADMSG, "not an envelope of the expected kind (%zu bytes)", size);
	if (get_le16(header + 4) != version)
		return error_set(err, -EPROTO, "envelope has version %u, this build reads version %u",
			get_le16(header + 4), version);
	if (get_le16(header + 6) != 0 || get_le32(header + 8) != size - TLV_HEADER_SIZE)
		return error_set(err, -EBADMSG, "envelope of %zu bytes is truncated or has trailing bytes", size);
	if (get_le32(header + 12) != crc32_ieee(0, header + TLV_HEADER_SIZE, size - TLV_HEADER_SIZE))
		return error_set(err, -EBADMSG, "envelope has a wrong checksum");
	tlv_start(r, header + TLV_HEADER_SIZE, size - TLV_HEADER_SIZE);
	return 0;
}

void tlv_start(struct tlv_reader *r, const void *bytes, size_t size)
{
	*r = (struct tlv_reader){.at = bytes, .end = size ? (const uint8_t *)bytes + size : bytes};
}

bool tlv_next(struct tlv_reader *r, struct tlv *entry)
{
	if (r->broken || r->at == r->end)
		return false;
	size_t left = (size_t)(r->end - r->at);
	if (left < TLV_ENTRY_SIZE || get_le16(r->at + 2) != 0 || get_le32(r->at + 4) > left - TLV_ENTRY_SIZE) {
		r->broken = true;
		return false;
	}
	*entry = (struct tlv){.tag = get_le16(r->at), .size = get_le32(r->at + 4), .value = r->at + TLV_ENTRY_SIZE};
	r->at += TLV_ENTRY_SIZE + entry->size;
	return true;
}

bool tlv_u32(const struct tlv *entry, uint32_t *value)
{
	if (entry->size != sizeof(*value))
		return false;
	*value = get_le32(entry->value);
	return true;
}

bool tlv_u64(const struct tlv *entry, uint64_t *value)
{
	if (entry->size != sizeof(*value))
		return false;
	*value = get_le64(entry->value);
	return true;
}

char *tlv_string(const struct tlv *entry)
{
	if (entry->size && memchr(entry->value, 0, entry->size))
		return NULL;
	char *text = malloc((size_t)entry->size + 1);
	if (!text)
		return NULL;
	if (entry->size)
		memcpy(text, entry->value, entry->size);
	text[entry->size] = 0;
	return text;
}

/** One table entry per nibble: small enough to build by hand, fast enough for envelopes and GPT headers. */
static uint32_t crc_by_nibble(uint32_t crc, const uint8_t *at, size_t n)
{
	static const uint32_t nibble[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
		0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4,
		0xa00ae278, 0xbdbdf21c};
	while (n--) {
		crc ^= *at++;
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return crc;
}

/**
 * Eight bytes at a time, for snapshots: by[k][b] is what the byte b does when k more follow it. The tables take some microseconds
 * to make, and are made each time, so that they are nobody's state.
 */
static uint32_t crc_by_eight(uint32_t crc, const uint8_t *at, size_t n)
{
	uint32_t by[8][256];

	for (unsigned b = 0; b < 256; b++)
		by[0][b] = crc_by_nibble(0, &(uint8_t){(uint8_t)b}, 1);
	for (unsigned k = 1; k < 8; k++)
		for (unsigned b = 0; b < 256; b++)
			by[k][b] = by[k - 1][b] >> 8 ^ by[0][by[k - 1][b] & 255];
	for (; n >= 8; n -= 8, at += 8) {
		uint64_t x = get_le64(at) ^ crc;
		crc = by[7][x & 255] ^ by[6][x >> 8 & 255] ^ by[5][x >> 16 & 255] ^ by[4][x >> 24 & 255] ^
		      by[3][x >> 32 & 255] ^ by[2][x >> 40 & 255] ^ by[1][x >> 48 & 255] ^ by[0][x >> 56];
	}
	return crc_by_nibble(crc, at, n);
}

#define CRC_WORTH_TABLES 4096

uint32_t crc32_ieee(uint32_t crc, const void *bytes, size_t n)
{
	return ~(n < CRC_WORTH_TABLES ? crc_by_nibble : crc_by_eight)(~crc, bytes, n);
}
