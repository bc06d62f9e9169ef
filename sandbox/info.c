/* SPDX-License-Identifier: Apache-2.0 */
/* info.c - the info page: struct sandbox_info, filled from a sandbox */
#include "sandbox/info.h"

#include <string.h>

_Static_assert(sizeof(struct sandbox_info) + (REGIONS_MAX + CELLS_MAX) * sizeof(struct sandbox_named) <=
		       SANDBOX_INFO_SIZE - SANDBOX_TSS_ROOM,
	"all names that there can be fit");

static void write_name(
	struct sandbox_named *to, const char *name, uint64_t at, uint64_t size, unsigned rights, bool cell)
{
	*to = (struct sandbox_named){.at = at, .size = size, .rights = rights, .cell = cell};
	memcpy(to->name, name, strnlen(name, SANDBOX_NAME_MAX));
}

static uint32_t write_names(const struct husk_sandbox *sandbox, struct sandbox_named *to)
{
	const struct areas *areas = &sandbox->areas;
	uint32_t n = 0;

	for (unsigned i = 0; i < areas->n_regions; i++) {
		const struct area *area = &areas->list[areas->regions[i]];
		if (area->rights & HUSK_SANDBOX_GUEST_R)
			write_name(&to[n++], area->name, area->gpa, area->size, area->rights, false);
	}
	for (unsigned i = 0; i < sandbox->cells.n; i++) {
		const struct cell *cell = &sandbox->cells.list[i];
		const struct memory_region *page = memory_find(&areas->memory, cell->gpa, sizeof(uint64_t));
		write_name(&to[n++], cell->name, cell->gpa, sizeof(uint64_t), areas->list[page->tag].rights, true);
	}
	return n;
}

int info_write(struct husk_sandbox *sandbox)
{
	const struct sandbox_places *places = &sandbox->places;
	struct sandbox_info *info = areas_at(&sandbox->areas, places->info.at, SANDBOX_INFO_SIZE);

	if (!info)
		return -EFAULT;
	*info = (struct sandbox_info){
		.magic = SANDBOX_INFO_MAGIC,
		.protocol = SANDBOX_PROTOCOL,
		.size = sizeof(*info),
		.program = {.at = SANDBOX_PROGRAM, .size = sandbox->image->ro_size - SANDBOX_SUPPORT_SIZE},
		.data = places->data,
		.heap = places->heap,
		.stack = places->stack,
		.input = places->input,
		.output = places->output,
	};
	info->n_names = write_names(sandbox, info->names);
	areas_touched(&sandbox->areas, places->info.at, sizeof(*info) + info->n_names * sizeof(struct sandbox_named));
	return 0;
}
