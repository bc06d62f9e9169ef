/* SPDX-License-Identifier: Apache-2.0 */
/* cell_access.c - cells in the public API: who may do what with which; the words themselves are cell.h's */
#include "sandbox/access.h"

#include <inttypes.h>

static int add_cell(struct husk_sandbox *sandbox, const char *name, enum husk_sandbox_cell_owner owner, uint64_t gpa,
	unsigned *cell, struct husk_error *err)
{
	int rc = access_name(sandbox, name, err);

	if (rc < 0)
		return rc;
	if (gpa < SANDBOX_ADDRESS_MAX && places_reserved(&sandbox->places, gpa, sizeof(uint64_t)))
		return error_set(err, -EEXIST,
			"cell '%s' cannot be at 0x%" PRIx64 ": from 0x%llx to 0x%" PRIx64 " all is the library's", name,
			gpa, SANDBOX_SUPPORT, sandbox->places.end);
	return cells_add(&sandbox->cells, &sandbox->areas, name, owner, gpa, sandbox->places.cells.at, cell, err);
}

int husk_sandbox_add_cell(struct husk_sandbox *sandbox, const char *name, enum husk_sandbox_cell_owner owner,
	uint64_t gpa, unsigned *cell, struct husk_error *err)
{
	int rc = access_add_begin(sandbox, "add a cell", err);

	if (rc < 0)
		return rc;
	rc = add_cell(sandbox, name, owner, gpa, cell, err);
	access_add_end(sandbox);
	return rc;
}

int husk_sandbox_find_cell(
	struct husk_sandbox *sandbox, const char *name, unsigned *cell, uint64_t *gpa, struct husk_error *err)
{
	int rc = name ? access_begin(sandbox, err) : error_set(err, -EINVAL, "find a cell: no name");

	if (rc < 0)
		return rc;
	int at = cells_find(&sandbox->cells, name);
	if (at >= 0 && cell)
		*cell = (unsigned)at;
	if (at >= 0 && gpa)
		*gpa = sandbox->cells.list[at].gpa;
	access_end(sandbox);
	return at >= 0 ? 0 : error_set(err, -ENOENT, "there is no cell called '%.80s'", name);
}

/** Take the memory lock and find cell number @number, which is @owner's. NULL, *@rc: -ESHUTDOWN, -ENOENT, -EACCES; then the
 *  lock is not taken. */
static struct cell *begin(struct husk_sandbox *sandbox, unsigned number, enum husk_sandbox_cell_owner owner, int *rc,
	struct husk_error *err)
{
	*rc = access_begin(sandbox, err);
	if (*rc < 0)
		return NULL;
	struct cell *cell = number < sandbox->cells.n ? &sandbox->cells.list[number] : NULL;
	if (cell && cell->owner == owner)
		return cell;
	if (!cell)
		*rc = error_set(err, -ENOENT, "there is no cell number %u", number);
	else
		*rc = error_set(err, -EACCES, "cell '%s' is owned by the %s", cell->name,
			cell->owner == HUSK_SANDBOX_CELL_GUEST ? "guest, and only loaded" : "host, which knows it");
	access_end(sandbox);
	return NULL;
}

int husk_sandbox_cell_set(struct husk_sandbox *sandbox, unsigned number, uint64_t value, struct husk_error *err)
{
	int rc;
	struct cell *cell = begin(sandbox, number, HUSK_SANDBOX_CELL_HOST, &rc, err);

	if (!cell)
		return rc;
	cell_store(cell, &sandbox->areas, value);
	access_end(sandbox);
	return 0;
}

/** Raise the cell by @delta, or lower it; it does not wrap around. */
static int step(struct husk_sandbox *sandbox, unsigned number, uint64_t delta, bool down, uint64_t *value,
	struct husk_error *err)
{
	uint64_t to;
	int rc;
	struct cell *cell = begin(sandbox, number, HUSK_SANDBOX_CELL_HOST, &rc, err);

	if (!cell)
		return rc;
	if (down ? __builtin_sub_overflow(cell->shadow, delta, &to) : __builtin_add_overflow(cell->shadow, delta, &to))
		rc = error_set(err, -EOVERFLOW, "cell '%s', which is %" PRIu64 ", would wrap around", cell->name,
			cell->shadow);
	else
		cell_store(cell, &sandbox->areas, to);
	if (rc == 0 && value)
		*value = to;
	access_end(sandbox);
	return rc;
}

int husk_sandbox_cell_add(
	struct husk_sandbox *sandbox, unsigned number, uint64_t delta, uint64_t *value, struct husk_error *err)
{
	return step(sandbox, number, delta, false, value, err);
}

int husk_sandbox_cell_sub(
	struct husk_sandbox *sandbox, unsigned number, uint64_t delta, uint64_t *value, struct husk_error *err)
{
	return step(sandbox, number, delta, true, value, err);
}

int husk_sandbox_cell_get(struct husk_sandbox *sandbox, unsigned number, uint64_t *value, struct husk_error *err)
{
	int rc;
	struct cell *cell = begin(sandbox, number, HUSK_SANDBOX_CELL_HOST, &rc, err);

	if (!cell)
		return rc;
	*value = cell->shadow;
	access_end(sandbox);
	return 0;
}

int husk_sandbox_cell_load(
	struct husk_sandbox *sandbox, unsigned number, uint64_t max, uint64_t *value, struct husk_error *err)
{
	int rc;
	struct cell *cell = begin(sandbox, number, HUSK_SANDBOX_CELL_GUEST, &rc, err);

	if (!cell)
		return rc;
	uint64_t loaded = cell_load(cell);
	if (loaded > max)
		rc = error_set(err, -ERANGE, "the guest says %" PRIu64 " in cell '%s', and %" PRIu64 " is the most",
			loaded, cell->name, max);
	else
		*value = loaded;
	access_end(sandbox);
	return rc;
}
