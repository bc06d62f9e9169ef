/* SPDX-License-Identifier: Apache-2.0 */
/* usage.h - what a running VM uses, and what went through it, as JSON */
#ifndef ENGINE_USAGE_H
#define ENGINE_USAGE_H

#include "engine/vm.h"

/** As husk_stats(), for the VM @id; the caller decrefs. -ESRCH: it does not run. */
int usage_vm(const struct husk *husk, const char *id, json_t **out, struct husk_error *err);

#endif
