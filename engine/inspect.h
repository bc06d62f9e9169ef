/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - what is known of a VM, as JSON: read from its record and its counters, without a lock and without asking it */
#ifndef ENGINE_INSPECT_H
#define ENGINE_INSPECT_H

#include "engine/vm.h"

/** As husk_inspect() and husk_stats(), for the VM @id; the caller decrefs. */
int inspect_vm(const struct husk *husk, const char *id, json_t **out, struct husk_error *err);
int inspect_stats(const struct husk *husk, const char *id, json_t **out, struct husk_error *err);

#endif
