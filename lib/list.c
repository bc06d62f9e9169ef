/* SPDX-License-Identifier: Apache-2.0 */
/* list.c - all VMs of a home in the public API */
#include "engine/list.h"

int husk_vm_list(struct husk *husk, bool all, char **json, struct husk_error *err)
{
	return list_vms(husk, all, json, err);
}
