/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpt.h - the GUID partition table of a generated disk (UEFI 2.10 §5.3)
 *
 * Theory of operation: the root disk is never written, so its tables are made once, at start, from the list of partitions:
 * protective MBR, primary header and entries at the front, entries and backup header at the end, 128 entries of 128 bytes.
 * The GUIDs are derived from the layout, so that the same layers always give the same disk.
 */
#ifndef VMM_VIRTIO_GPT_H
#define VMM_VIRTIO_GPT_H

#include <stddef.h>
#include <stdint.h>

#define GPT_SECTOR 512
#define GPT_ENTRIES 128
#define GPT_ENTRY_SIZE 128
#define GPT_ENTRIES_SECTORS (GPT_ENTRIES * GPT_ENTRY_SIZE / GPT_SECTOR)
#define GPT_HEAD_SECTORS (2 + GPT_ENTRIES_SECTORS) /* MBR, header, entries */
#define GPT_TAIL_SECTORS (1 + GPT_ENTRIES_SECTORS)

/** In sectors, both ends included. */
struct gpt_partition {
	uint64_t first, last;
};

/** Write the tables of a disk of @sectors sectors with @n (at most GPT_ENTRIES) partitions: GPT_HEAD_SECTORS from @head
 *  on and GPT_TAIL_SECTORS that end at @tail_end. Both must be zeroed. */
void gpt_write(const struct gpt_partition *partitions, size_t n, uint64_t sectors, uint8_t *head, uint8_t *tail_end);

#endif
