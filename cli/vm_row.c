/* SPDX-License-Identifier: Apache-2.0 */
/* vm_row.c - the VMs of husk_vm_list(), as they stand in its text */
#include "cli/vm_row.h"

#include "base/cleanup.h"

#include <string.h>

static const char *const keys[VM_ROW_MEMBERS] = {
	[VM_ID] = "id",
	[VM_NAME] = "name",
	[VM_IMAGE] = "image",
	[VM_IMAGE_ID] = "image_id",
	[VM_COMMAND] = "command",
	[VM_CREATED] = "created",
	[VM_STATE] = "state",
	[VM_REASON] = "reason",
	[VM_STATUS] = "status",
	[VM_EXIT_CODE] = "exit_code",
	[VM_PORTS] = "ports",
	[VM_LIFETIME] = "lifetime",
};

struct vm_row *vm_rows_read(const char *text, size_t *n)
{
	const char *at = text, *end = text + strlen(text);
	size_t room = 64;
	CLEANUP_FREE struct vm_row *rows = malloc(room * sizeof(*rows));
	struct skim whole;

	for (*n = 0; rows && skim_element(&at, end, &whole); ++*n) {
		if (*n == room) {
			struct vm_row *more = reallocarray(rows, room *= 2, sizeof(*rows));
			if (!more)
				return NULL;
			rows = more;
		}
		struct vm_row *row = &rows[*n];
		row->whole = whole;
		for (size_t i = 0; i < VM_ROW_MEMBERS; i++)
			row->member[i].key = keys[i];
		skim_object(whole.text, whole.n, row->member, VM_ROW_MEMBERS);
	}
	return steal_pointer(&rows);
}
