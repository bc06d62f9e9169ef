/* SPDX-License-Identifier: Apache-2.0 */
/* find.h - from what a user calls a VM to its id */
#ifndef ENGINE_FIND_H
#define ENGINE_FIND_H

#include "engine/vm.h"

#define FIND_PREFIX_MIN 3

/** The id of the VM that @reference names: a full id, else a name, else a unique prefix of an id, at least FIND_PREFIX_MIN
 *  digits. -ENOENT, -ENOTUNIQ. */
int find_vm(const struct husk *husk, const char *reference, char id[VM_ID_SIZE], struct husk_error *err);

#endif
