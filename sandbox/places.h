/* SPDX-License-Identifier: Apache-2.0 */
/* places.h - the layout (layout.h) of one sandbox: places that follow from its program and its sizes */
#ifndef SANDBOX_PLACES_H
#define SANDBOX_PLACES_H

#include "sandbox/image.h"
#include "sandbox/layout.h"

#define SANDBOX_TABLES_SIZE (512 * SANDBOX_PAGE) /* far more than 80 areas take; pages that are not used cost nothing */

/** Guest addresses; sizes are whole pages. */
struct sandbox_places {
	struct sandbox_range core; /* data to output, guards between them included: one area */
	struct sandbox_range data, fault_stack, heap, stack, input, output;
	struct sandbox_range info; /* SANDBOX_INFO_SIZE; its last SANDBOX_TSS_ROOM bytes are the CPU's */
	struct sandbox_range tables; /* SANDBOX_TABLES_SIZE */
	struct sandbox_range cells; /* two pages: the default one of the host's cells, and the guest's */
	uint64_t end; /* of all this. [SANDBOX_SUPPORT, end) is the library's: no region or cell may be placed there */
};

/** Round the sizes of @config up to whole pages. -ERANGE names the one that is not within its limits. */
int places_round(struct husk_sandbox_config *config, struct husk_error *err);
/** @config: sizes as places_round() leaves them. */
void places_make(struct sandbox_places *places, const struct husk_sandbox_image *image,
	const struct husk_sandbox_config *config);

/** Does [@gpa, @gpa + @size), which does not wrap, reach into what is the library's own? */
static inline bool places_reserved(const struct sandbox_places *places, uint64_t gpa, uint64_t size)
{
	return gpa < places->end && gpa + size > SANDBOX_SUPPORT;
}

#endif
