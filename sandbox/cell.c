/* SPDX-License-Identifier: Apache-2.0 */
/* cell.c - words that host and guest share (theory of operation: cell.h) */
#include "sandbox/cell.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <string.h>

#define CELL_SIZE sizeof(uint64_t)

_Static_assert(CELLS_MAX <= SANDBOX_PAGE / CELL_SIZE, "one page has room for all cells of an owner");

/** What the two kinds of pages are. */
static const struct {
	const char *whose;
	enum area_kind kind;
	unsigned rights;
} owners[] = {
	[HUSK_SANDBOX_CELL_HOST] = {"host", AREA_CELLS_HOST, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R},
	[HUSK_SANDBOX_CELL_GUEST] = {"guest", AREA_CELLS_GUEST,
		HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W},
};

int cells_find(const struct cells *cells, const char *name)
{
	for (unsigned i = 0; i < cells->n; i++)
		if (strcmp(cells->list[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

static uint64_t page_of(uint64_t gpa)
{
	return gpa & ~(SANDBOX_PAGE - 1);
}

static bool is_default(uint64_t page, uint64_t pages)
{
	return page == pages || page == pages + SANDBOX_PAGE;
}

static bool is_page_of_cells(const struct area *area)
{
	return area->kind == AREA_CELLS_HOST || area->kind == AREA_CELLS_GUEST;
}

static const struct cell *at_word(const struct cells *cells, uint64_t gpa)
{
	for (unsigned i = 0; i < cells->n; i++)
		if (cells->list[i].gpa == gpa)
			return &cells->list[i];
	return NULL;
}

/** Can a cell be at @gpa, which a caller chose? */
static int check_choice(const struct cells *cells, uint64_t gpa, struct husk_error *err)
{
	if (gpa % CELL_SIZE)
		return error_set(err, -EINVAL, "a cell cannot be at 0x%" PRIx64 ", which is no multiple of 8", gpa);
	if (gpa >= SANDBOX_ADDRESS_MAX)
		return error_set(err, -EINVAL, "a cell cannot be at 0x%" PRIx64 ", which is not below 0x%llx", gpa,
			SANDBOX_ADDRESS_MAX);
	const struct cell *other = at_word(cells, gpa);
	if (other)
		return error_set(err, -EEXIST, "cell '%s' is at 0x%" PRIx64 " already", other->name, gpa);
	return 0;
}

/** The first word of the default page @page that no cell has; there is one while there can be another cell. */
static uint64_t free_word(const struct cells *cells, uint64_t page)
{
	bool taken[SANDBOX_PAGE / CELL_SIZE] = {false};
	unsigned at = 0;

	for (unsigned i = 0; i < cells->n; i++)
		if (page_of(cells->list[i].gpa) == page)
			taken[(cells->list[i].gpa - page) / CELL_SIZE] = true;
	while (taken[at])
		at++;
	return page + at * CELL_SIZE;
}

/** Make sure that the page at @page is one of cells of @owner. @pages: where the default ones are. */
static int make_page(
	struct areas *areas, uint64_t page, enum husk_sandbox_cell_owner owner, uint64_t pages, struct husk_error *err)
{
	const struct memory_region *r = memory_find(&areas->memory, page, 1);
	unsigned n = 0;

	if (r && areas->list[r->tag].kind == owners[owner].kind)
		return 0;
	if (r && is_page_of_cells(&areas->list[r->tag]))
		return error_set(err, -EEXIST, "the page at 0x%" PRIx64 " has cells of the other owner than the %s",
			page, owners[owner].whose);
	if (r)
		return error_set(err, -EEXIST, "the page at 0x%" PRIx64 " is no page of cells, but in use", page);
	for (unsigned i = 0; i < areas->n; i++)
		n += is_page_of_cells(&areas->list[i]) && !is_default(areas->list[i].gpa, pages);
	if (!is_default(page, pages) && n == CELL_PAGES_MAX)
		return error_set(err, -ENOSPC, "cells are in %d pages at chosen places already, which are the most",
			CELL_PAGES_MAX);
	return areas_add(areas, owners[owner].kind, owners[owner].rights, page, SANDBOX_PAGE, -1, 0, NULL, err);
}

/** Make sure that the list has room for one more. */
static int make_room(struct cells *cells, struct husk_error *err)
{
	unsigned room = cells->room ? 2 * cells->room : 8;

	if (cells->n == CELLS_MAX)
		return error_set(err, -ENOSPC, "a sandbox has at most %d cells", CELLS_MAX);
	if (cells->n < cells->room)
		return 0;
	struct cell *list = reallocarray(cells->list, room, sizeof(*list));
	if (!list)
		return error_set(err, -ENOMEM, "no memory for it");
	cells->list = list;
	cells->room = room;
	return 0;
}

static void append(struct cells *cells, struct areas *areas, const char *name, enum husk_sandbox_cell_owner owner,
	uint64_t gpa, uint64_t shadow)
{
	struct cell *cell = &cells->list[cells->n++];

	*cell = (struct cell){.owner = owner, .gpa = gpa, .shadow = shadow, .word = areas_at(areas, gpa, CELL_SIZE)};
	memcpy(cell->name, name, strnlen(name, SANDBOX_NAME_MAX));
}

int cells_add(struct cells *cells, struct areas *areas, const char *name, enum husk_sandbox_cell_owner owner,
	uint64_t gpa, uint64_t pages, unsigned *cell, struct husk_error *err)
{
	bool chosen = gpa != HUSK_SANDBOX_ANYWHERE;
	int rc;

	if (owner != HUSK_SANDBOX_CELL_HOST && owner != HUSK_SANDBOX_CELL_GUEST)
		return error_set(err, -EINVAL, "cell '%s': %u is no owner", name, (unsigned)owner);
	if (chosen && (rc = check_choice(cells, gpa, err)) < 0)
		return rc;
	rc = make_room(cells, err);
	if (rc == 0 && !chosen)
		gpa = free_word(cells, pages + (owner == HUSK_SANDBOX_CELL_GUEST ? SANDBOX_PAGE : 0));
	rc = rc < 0 ? rc : make_page(areas, page_of(gpa), owner, pages, err);
	if (rc < 0)
		return error_prefix(err, rc, "cell '%s'", name);
	append(cells, areas, name, owner, gpa, 0);
	if (cell)
		*cell = cells->n - 1;
	return 0;
}

int cells_add_back(struct cells *cells, struct areas *areas, const char *name, enum husk_sandbox_cell_owner owner,
	uint64_t gpa, uint64_t shadow, struct husk_error *err)
{
	const struct memory_region *r = memory_find(&areas->memory, gpa, CELL_SIZE);

	if ((owner != HUSK_SANDBOX_CELL_HOST && owner != HUSK_SANDBOX_CELL_GUEST) || gpa % CELL_SIZE || !r ||
		areas->list[r->tag].kind != owners[owner].kind || at_word(cells, gpa))
		return error_set(err, -EINVAL, "cell '%s' cannot be at 0x%" PRIx64, name, gpa);
	int rc = make_room(cells, err);
	if (rc < 0)
		return error_prefix(err, rc, "cell '%s'", name);
	append(cells, areas, name, owner, gpa, shadow);
	return 0;
}

void cells_destroy(struct cells *cells)
{
	free(cells->list);
	*cells = (struct cells){0};
}

void cell_store(struct cell *cell, struct areas *areas, uint64_t value)
{
	cell->shadow = value;
	__atomic_store_n(cell->word, value, __ATOMIC_RELEASE);
	areas_touched(areas, cell->gpa, CELL_SIZE);
}

uint64_t cell_load(const struct cell *cell)
{
	return __atomic_load_n(cell->word, __ATOMIC_ACQUIRE);
}

void cells_publish(struct cells *cells, struct areas *areas)
{
	for (unsigned i = 0; i < cells->n; i++) {
		struct cell *cell = &cells->list[i];
		/* The page is the host's alone: a word that is right already stays clean. */
		if (cell->owner == HUSK_SANDBOX_CELL_HOST &&
			__atomic_load_n(cell->word, __ATOMIC_RELAXED) != cell->shadow)
			cell_store(cell, areas, cell->shadow);
	}
}
