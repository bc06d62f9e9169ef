/* SPDX-License-Identifier: Apache-2.0 */
/* change.h - change a VM that exists: its name, and the memory that it may use */
#ifndef ENGINE_CHANGE_H
#define ENGINE_CHANGE_H

#include "engine/vm.h"

#define CHANGE_MEMORY_MIN (32ull << 20)

/** See husk_vm_rename(). */
int change_name(const struct husk *husk, const char *id, const char *name, struct husk_error *err);
/** See husk_vm_set_memory(). @recorded: further starts are to know of it; a VM that belongs to a program has none. */
int change_memory(const struct husk *husk, const char *id, uint64_t memory, bool recorded, struct husk_error *err);

#endif
