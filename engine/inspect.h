/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - what is known of a VM, as JSON: read from its record, without a lock and without asking it */
#ifndef ENGINE_INSPECT_H
#define ENGINE_INSPECT_H

#include "engine/vm.h"

/** As husk_inspect(), for the VM @id; the caller decrefs. */
int inspect_vm(const struct husk *husk, const char *id, json_t **out, struct husk_error *err);
/** A door: kind and endpoint, and the port, where it leads to one. */
json_t *inspect_door(const struct vm_door *door);

#endif
