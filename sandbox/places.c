/* SPDX-License-Identifier: Apache-2.0 */
/* places.c - the layout of one sandbox */
#include "sandbox/places.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <stddef.h>

/** The limits that husk.h states. */
static const struct {
	const char *field;
	size_t at; /* in struct husk_sandbox_config */
	uint64_t least, most;
} sizes[] = {
	{"stack", offsetof(struct husk_sandbox_config, stack), SANDBOX_PAGE, 64ull << 20},
	{"heap", offsetof(struct husk_sandbox_config, heap), 0, 4ull << 30},
	{"input", offsetof(struct husk_sandbox_config, input), SANDBOX_PAGE, 1ull << 30},
	{"output", offsetof(struct husk_sandbox_config, output), SANDBOX_PAGE, 1ull << 30},
};

int places_round(struct husk_sandbox_config *config, struct husk_error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t *value = (uint64_t *)((char *)config + sizes[i].at);
		if (*value < sizes[i].least || *value > sizes[i].most)
			return error_set(err, -ERANGE, "%s: %" PRIu64 " bytes; %" PRIu64 " to %" PRIu64 " are possible",
				sizes[i].field, *value, sizes[i].least, sizes[i].most);
		*value = page_up(*value);
	}
	return 0;
}

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
