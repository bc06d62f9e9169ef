/* SPDX-License-Identifier: Apache-2.0 */
/* walls.c - names of walls, and ids (theory of operation: jail.h) */
#include "base/cleanup.h"
#include "vmm/jail/jail.h"

#include <stdlib.h>
#include <unistd.h>

#define ID_BITS 26

_Static_assert(JAIL_ID_FIRST + (2u << ID_BITS) - 1 == JAIL_ID_LAST, "two ids per VM");

static const char *const names[JAIL_WALLS] = {
	"user namespace",
	"mount namespace and root",
	"PID namespace",
	"network namespace",
	"IPC namespace",
	"UTS namespace",
	"id of its own",
	"filter of system calls",
};

uint32_t jail_full(void)
{
	return ((1u << JAIL_WALLS) - 1) & ~(geteuid() == 0 ? JAIL_USER : JAIL_ID);
}

const char *jail_wall_name(uint32_t wall)
{
	for (unsigned i = 0; i < JAIL_WALLS; i++)
		if (wall == 1u << i)
			return names[i];
	return "unknown";
}

uid_t jail_id(const char *id, bool machine)
{
	uint64_t number = strtoull(id, NULL, 16) & ((1u << ID_BITS) - 1);

	return JAIL_ID_FIRST + 2 * (uid_t)number + machine;
}
