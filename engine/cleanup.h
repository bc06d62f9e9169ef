/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.h - set right what a crash left behind */
#ifndef ENGINE_CLEANUP_H
#define ENGINE_CLEANUP_H

#include "engine/vm.h"

/** See husk_cleanup(). */
int cleanup_run(const struct husk *husk, size_t *n, struct husk_error *err);

/** Remove the paths of doors that the state of @record still names, if its supervisor, whose part this is, is dead. */
void cleanup_doors(const struct vm_record *record);

/** The VM has no living supervisor, and its lock is held: wait for its processes, which die with that, remove the paths of the
 *  doors in @state, and the runtime directory. */
void cleanup_after(const struct vm_record *record, const struct vm_state_record *state);

#endif
