/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.h - set right what a crash left behind */
#ifndef ENGINE_CLEANUP_H
#define ENGINE_CLEANUP_H

#include "engine/vm.h"

/** See husk_cleanup(). */
int cleanup_run(const struct husk *husk, size_t *n, struct husk_error *err);

/** Remove the paths of doors that the state of @record still names, if its supervisor, whose part this is, is dead. */
void cleanup_doors(const struct vm_record *record);

#endif
