/* SPDX-License-Identifier: Apache-2.0 */
/* gpt.c - the GUID partition table of a generated disk */
#include "vmm/virtio/gpt.h"

#include "base/bytes.h"
#include "base/tlv.h"

#include <stdio.h>

#define HEADER_SIZE 92

/* 0FC63DAF-8483-4772-8E79-3D69D8477DE4, Linux file system data, in its mixed-endian form */
static const uint8_t linux_data[16] = {
	0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4};

/** A GUID of version 8 (RFC 9562 §5.8, of one's own making): the layout's checksum and @index. */
static void make_guid(uint8_t *guid, uint32_t checksum, uint16_t index)
{
	put_le32(guid, checksum);
	put_le16(guid + 4, index);
	put_le16(guid + 6, 0x8000);
	guid[8] = 0x80;
	guid[9] = 0;
	memcpy(guid + 10, "husk-d", 6);
}

static void write_mbr(uint8_t *mbr, uint64_t sectors)
{
	uint8_t *entry = mbr + 446;
	entry[2] = 2; /* first CHS 0/0/2 */
	entry[4] = 0xee;
	memset(entry + 5, 0xff, 3);
	put_le32(entry + 8, 1);
	put_le32(entry + 12, sectors - 1 > UINT32_MAX ? UINT32_MAX : (uint32_t)(sectors - 1));
	mbr[510] = 0x55;
	mbr[511] = 0xaa;
}

static void write_entries(uint8_t *entries, const struct gpt_partition *partitions, size_t n, uint32_t checksum)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t *entry = entries + i * GPT_ENTRY_SIZE;
		memcpy(entry, linux_data, sizeof(linux_data));
		make_guid(entry + 16, checksum, (uint16_t)(i + 1));
		put_le64(entry + 32, partitions[i].first);
		put_le64(entry + 40, partitions[i].last);
		put_le64(entry + 48, 1ULL << 60); /* read-only, as systemd's partition specification has it */
		char name[32];
		snprintf(name, sizeof(name), "layer-%zu", i + 1);
		for (size_t c = 0; name[c]; c++)
			put_le16(entry + 56 + 2 * c, (uint16_t)name[c]);
	}
}

/** The header at sector @here, its twin at @other, the entries at @entries_at. */
static void write_header(uint8_t *header, uint64_t here, uint64_t other, uint64_t entries_at, uint64_t sectors,
	uint32_t checksum, uint32_t entries_crc)
{
	memcpy(header, "EFI PART", 8);
	put_le32(header + 8, 0x00010000);
	put_le32(header + 12, HEADER_SIZE);
	put_le64(header + 24, here);
	put_le64(header + 32, other);
	put_le64(header + 40, GPT_HEAD_SECTORS);
	put_le64(header + 48, sectors - GPT_TAIL_SECTORS - 1);
	make_guid(header + 56, checksum, 0);
	put_le64(header + 72, entries_at);
	put_le32(header + 80, GPT_ENTRIES);
	put_le32(header + 84, GPT_ENTRY_SIZE);
	put_le32(header + 88, entries_crc);
	put_le32(header + 16, crc32_ieee(0, header, HEADER_SIZE));
}

void gpt_write(const struct gpt_partition *partitions, size_t n, uint64_t sectors, uint8_t *head, uint8_t *tail_end)
{
	uint8_t *entries = head + 2 * GPT_SECTOR;
	uint8_t *tail = tail_end - GPT_TAIL_SECTORS * GPT_SECTOR;
	size_t entries_size = GPT_ENTRIES * GPT_ENTRY_SIZE;
	uint32_t checksum = crc32_ieee(0, partitions, n * sizeof(*partitions));
	write_mbr(head, sectors);
	write_entries(entries, partitions, n, checksum);
	memcpy(tail, entries, entries_size);
	uint32_t crc = crc32_ieee(0, entries, entries_size);
	write_header(head + GPT_SECTOR, 1, sectors - 1, 2, sectors, checksum, crc);
	write_header(tail_end - GPT_SECTOR, sectors - 1, 1, sectors - GPT_TAIL_SECTORS, sectors, checksum, crc);
}
