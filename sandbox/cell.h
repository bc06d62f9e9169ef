/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell.h - words that host and guest share
 *
 * Theory of operation: a cell is an aligned u64 in a page of cells that one side owns. The guest reads a host-owned cell from a
 * page that its memslot makes read-only; the host's own copy, the shadow, is the truth, so that the host never reads back what
 * it wrote. A guest-owned cell is loaded once, and a value above what the caller takes for possible is refused. Two cells that
 * only grow make a window of credits (examples/credits.c).
 *
 * Cells for which no place was chosen go into one page per owner, made when the first one is added: a page has room for as many
 * as there can be. No function locks: the caller holds the sandbox's memory lock.
 */
#ifndef SANDBOX_CELL_H
#define SANDBOX_CELL_H

#include "sandbox/area.h"

#define CELLS_MAX 512
#define CELL_PAGES_MAX 32 /* at places that callers chose */

struct cell {
	char name[SANDBOX_NAME_MAX + 1];
	enum husk_sandbox_cell_owner owner;
	uint64_t gpa;
	uint64_t shadow; /* of a host-owned cell */
	uint64_t *word; /* in this process */
};

struct cells {
	struct cell *list; /* malloc'ed */
	unsigned n, room;
};

/** Add a cell called @name, which is free and fits; @gpa may be HUSK_SANDBOX_ANYWHERE: @pages is where the default pages go,
 *  the host's first, the guest's behind it. Whether a chosen one is among the library's own is for the caller to see. -EINVAL,
 *  -EEXIST, -ENOSPC, -ENOMEM; nothing has changed then. */
int cells_add(struct cells *cells, struct areas *areas, const char *name, enum husk_sandbox_cell_owner owner,
	uint64_t gpa, uint64_t pages, unsigned *cell, struct husk_error *err);
/** Add a cell as a snapshot had it: at @gpa, which is in a page of cells of @owner that is among the areas already. -EINVAL:
 *  what is said of it cannot be; else as above. Its word is written by cells_publish(). */
int cells_add_back(struct cells *cells, struct areas *areas, const char *name, enum husk_sandbox_cell_owner owner,
	uint64_t gpa, uint64_t shadow, struct husk_error *err);
void cells_destroy(struct cells *cells);
/** The number of the cell called @name, or -ENOENT. */
int cells_find(const struct cells *cells, const char *name);
/** A host-owned cell gets @value: its shadow, and the guest's word by one release store. */
void cell_store(struct cell *cell, struct areas *areas, uint64_t value);
/** What a guest-owned cell holds, by one acquire load. */
uint64_t cell_load(const struct cell *cell);
/** Write every host-owned word from its shadow: after memory came back from a snapshot. */
void cells_publish(struct cells *cells, struct areas *areas);

#endif
