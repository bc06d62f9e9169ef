/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tlv.h - versioned envelopes of tagged values
 *
 * Theory of operation: husk's processes and the guest get their configuration as one binary envelope instead of text, so
 * that what reads it stays small. An envelope is a 16-byte header
 *
 *     u32 magic | u16 version | u16 0 | u32 length of what follows | u32 CRC-32 (IEEE) of what follows
 *
 * and then entries `u16 tag | u16 0 | u32 length | bytes`, all little-endian, unpadded. A tag may repeat; the order of
 * entries is kept. A reader knows one version and refuses every other, and refuses tags it does not know: both ends of an
 * envelope come from one build of husk, so an unknown tag is a fault and never an extension.
 *
 * The entries alone, without the header, serve as the payload of agent frames (agent/protocol.h).
 */
#ifndef BASE_TLV_H
#define BASE_TLV_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define TLV_HEADER_SIZE 16
#define TLV_ENTRY_SIZE 8

/** One entry as it lies in the caller's bytes; value is not NUL-terminated. */
struct tlv {
	uint16_t tag;
	uint32_t size;
	const uint8_t *value;
};

/** Where a reader stands: next entry, end, and whether something malformed was met. */
struct tlv_reader {
	const uint8_t *at;
	const uint8_t *end;
	bool broken;
};

/* Writers append entries to @b; 0 or -ENOMEM. Memory failures may be ignored until tlv_seal(), which checks them all when
 * the buffer was started with tlv_begin(). */
int tlv_put(struct buffer *b, uint16_t tag, const void *value, size_t size);
int tlv_put_u32(struct buffer *b, uint16_t tag, uint32_t value);
int tlv_put_u64(struct buffer *b, uint16_t tag, uint64_t value);
/** The bytes of @text without its NUL; NULL puts nothing. */
int tlv_put_string(struct buffer *b, uint16_t tag, const char *text);

/** Start an envelope in the empty buffer @b. */
int tlv_begin(struct buffer *b, uint32_t magic, uint16_t version);
/** Fill in length and CRC of the envelope that tlv_begin() started. */
void tlv_seal(struct buffer *b);

/** Check header, length (trailing bytes are refused) and CRC of an envelope and set @r to its first entry. */
int tlv_open(
	struct tlv_reader *r, const void *bytes, size_t size, uint32_t magic, uint16_t version, struct husk_error *err);
/** Read entries without a header. */
void tlv_start(struct tlv_reader *r, const void *bytes, size_t size);
/** The next entry; false at the end or where the bytes are malformed (then r->broken). */
bool tlv_next(struct tlv_reader *r, struct tlv *entry);

/** The value as an integer of exactly its size; false when the size differs. */
bool tlv_u32(const struct tlv *entry, uint32_t *value);
bool tlv_u64(const struct tlv *entry, uint64_t *value);
/** The value as a malloc'ed NUL-terminated string; NULL when it contains a NUL or memory is out. */
char *tlv_string(const struct tlv *entry);

/** CRC-32 (IEEE 802.3, reflected, as in zlib, GPT and gzip) of @n bytes, continuing from @crc (0 at first). */
uint32_t crc32_ieee(uint32_t crc, const void *bytes, size_t n);

#endif
