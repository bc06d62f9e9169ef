/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables.c - the guest's page tables
 *
 * Four levels (Intel SDM vol. 3, 4.5), pages of 4 KiB and, inside of large ranges, of 2 MiB. Accessed and dirty bits are set
 * from the start, so that the CPU has nothing to write: the tables of a sandbox stay as they were made, and so does every copy
 * of them.
 */
#include "sandbox/tables.h"

#include <inttypes.h>

#define PRESENT (1ull << 0)
#define WRITABLE (1ull << 1)
#define ACCESSED (1ull << 5)
#define DIRTY (1ull << 6)
#define LARGE (1ull << 7)
#define NO_EXECUTE (1ull << 63)
#define ADDRESS 0x000ffffffffff000ull

#define LARGE_PAGE (2ull << 20)
#define LEVELS 4

void tables_begin(struct tables *tables, void *page, uint64_t gpa, uint64_t size)
{
	*tables = (struct tables){.page = page, .gpa = gpa, .size = size, .used = SANDBOX_PAGE};
}

/** Entry of @gpa in a table of @level, 0 being the one of 4 KiB pages. */
static unsigned slot(uint64_t gpa, unsigned level)
{
	return gpa >> (12 + 9 * level) & 511;
}

/** The entry for @gpa in the table of @level below the top, whose tables are made where they are missing; NULL: no room. */
static uint64_t *entry_at(struct tables *tables, uint64_t gpa, unsigned level)
{
	uint64_t *table = tables->page;

	for (unsigned at = LEVELS - 1; at > level; at--) {
		uint64_t *entry = &table[slot(gpa, at)];
		if (!*entry) {
			if (tables->size - tables->used < SANDBOX_PAGE)
				return NULL;
			*entry = (tables->gpa + tables->used) | PRESENT | WRITABLE | ACCESSED;
			tables->used += SANDBOX_PAGE;
		}
		table = tables->page + ((*entry & ADDRESS) - tables->gpa) / sizeof(*table);
	}
	return &table[slot(gpa, level)];
}

int tables_map(struct tables *tables, uint64_t gpa, uint64_t size, unsigned rights, struct husk_error *err)
{
	uint64_t flags = PRESENT | ACCESSED | DIRTY | (rights & TABLES_WRITE ? WRITABLE : 0) |
			 (rights & TABLES_EXECUTE ? 0 : NO_EXECUTE);

	for (uint64_t at = gpa, end = gpa + size; at < end;) {
		bool large = at % LARGE_PAGE == 0 && end - at >= LARGE_PAGE;
		uint64_t *entry = entry_at(tables, at, large ? 1 : 0);
		if (!entry)
			return error_set(err, -ENOSPC,
				"map 0x%" PRIx64 " bytes at 0x%" PRIx64 " for the guest: %" PRIu64
				" bytes of page tables are full",
				size, gpa, tables->size);
		*entry = at | flags | (large ? LARGE : 0);
		at += large ? LARGE_PAGE : SANDBOX_PAGE;
	}
	return 0;
}
