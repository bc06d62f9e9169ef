/* SPDX-License-Identifier: Apache-2.0 */
/* shared.c - what the host shares with the program, found by name in the info page */
#include "runtime.h"

static const struct sandbox_named *find(const char *name, uint32_t cell)
{
	const struct sandbox_info *info = husk_runtime.info;

	for (uint32_t i = 0; i < info->n_names; i++)
		if (info->names[i].cell == cell && strcmp(info->names[i].name, name) == 0)
			return &info->names[i];
	return NULL;
}

volatile void *husk_region(const char *name, size_t *size)
{
	const uint32_t guest_r = 4; /* HUSK_SANDBOX_GUEST_R of husk.h, which is not for guests */
	const struct sandbox_named *named = find(name, 0);

	if (!named || !(named->rights & guest_r))
		return NULL;
	if (size)
		*size = named->size;
	return (volatile void *)named->at;
}

volatile uint64_t *husk_cell(const char *name)
{
	const struct sandbox_named *named = find(name, 1);

	return named ? (volatile uint64_t *)named->at : NULL;
}

const struct sandbox_info *husk_info(void)
{
	return husk_runtime.info;
}
