/* SPDX-License-Identifier: Apache-2.0 */
/* tables.h - the guest's page tables: every virtual address is its own physical one, or nothing */
#ifndef SANDBOX_TABLES_H
#define SANDBOX_TABLES_H

#include "sandbox/layout.h"

enum { TABLES_WRITE = 1, TABLES_EXECUTE = 2 };

/** Tables that are being made, in the zeroed memory at @page, which the guest sees at gpa. */
struct tables {
	uint64_t *page; /* the first one is the top */
	uint64_t gpa, size;
	uint64_t used; /* bytes */
};

/** Start with the top page. */
void tables_begin(struct tables *tables, void *page, uint64_t gpa, uint64_t size);
/** Map whole pages below SANDBOX_ADDRESS_MAX that are not mapped yet. -ENOSPC: no room for tables. */
int tables_map(struct tables *tables, uint64_t gpa, uint64_t size, unsigned rights, struct husk_error *err);

#endif
