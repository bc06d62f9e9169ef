/* SPDX-License-Identifier: Apache-2.0 */
/* places.c - the layout of one sandbox */
#include "sandbox/places.h"

/** The next @size bytes, and a guard behind them. */
static struct sandbox_range take(uint64_t *at, uint64_t size)
{
	struct sandbox_range range = {.at = *at, .size = size};

	*at += size + SANDBOX_PAGE;
	return range;
}

void places_make(
	struct sandbox_places *places, const struct husk_sandbox_image *image, const struct husk_sandbox_config *config)
{
	uint64_t at = SANDBOX_SUPPORT + image->ro_size;

	places->core.at = at;
	places->data = take(&at, image->data_size);
	places->fault_stack = take(&at, SANDBOX_PAGE);
	places->heap = take(&at, config->heap);
	places->stack = take(&at, config->stack);
	places->input = take(&at, config->input);
	places->output = take(&at, config->output);
	places->core.size = at - SANDBOX_PAGE - places->core.at;
	places->info = take(&at, SANDBOX_INFO_SIZE);
	places->tables = take(&at, SANDBOX_TABLES_SIZE);
	places->cells = take(&at, 2 * SANDBOX_PAGE);
	places->end = at;
}
