/* SPDX-License-Identifier: Apache-2.0 */
/* outcome.h - how a VM ended, in words */
#ifndef ENGINE_OUTCOME_H
#define ENGINE_OUTCOME_H

#include "vmm/config.h"

/** Why it ended, as a sentence: what @outcome says, else what its kind means. */
void outcome_describe(const struct vm_message *outcome, char *text, size_t room);
/** What a state record that says how its VM ended would have been as a message. */
void outcome_of_state(const struct vm_state_record *state, struct vm_message *out);

#endif
