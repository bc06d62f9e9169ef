/* SPDX-License-Identifier: Apache-2.0 */
/* list.h - all VMs of a home as JSON, fast */
#ifndef ENGINE_LIST_H
#define ENGINE_LIST_H

#include "engine/vm.h"

/** As husk_vm_list(). */
int list_vms(const struct husk *husk, bool all, char **json, struct husk_error *err);

#endif
