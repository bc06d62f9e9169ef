/* SPDX-License-Identifier: Apache-2.0 */
/* vm_row.h - the VMs of husk_vm_list(), as they stand in its text: `ps` and its filters read a thousand of them */
#ifndef CLI_VM_ROW_H
#define CLI_VM_ROW_H

#include "base/skim.h"

enum vm_row_member {
	VM_ID,
	VM_NAME,
	VM_IMAGE,
	VM_IMAGE_ID,
	VM_COMMAND,
	VM_CREATED,
	VM_STATE,
	VM_REASON,
	VM_STATUS,
	VM_EXIT_CODE,
	VM_PORTS,
	VM_LIFETIME,
	VM_ROW_MEMBERS
};

struct vm_row {
	struct skim whole; /* the object */
	struct skim member[VM_ROW_MEMBERS];
};

/** The rows of the array @text, malloc'ed, as long as which they live; *@n. NULL without memory. */
struct vm_row *vm_rows_read(const char *text, size_t *n);

/** A member that is a string, malloc'ed; "" when it is none. NULL without memory. */
static inline char *vm_row_text(const struct vm_row *row, enum vm_row_member member)
{
	return skim_string(&row->member[member]);
}

#endif
