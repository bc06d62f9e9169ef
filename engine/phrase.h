/* SPDX-License-Identifier: Apache-2.0 */
/* phrase.h - the state of a VM in a few words, as `ps` shows it */
#ifndef ENGINE_PHRASE_H
#define ENGINE_PHRASE_H

#include "engine/status.h"

#define PHRASE_SIZE 128 /* with its NUL */

/** "created", "up 3 minutes (paused)", "stopped (137) 2 hours ago", "stopped (worker lost) 1 second ago", "error: …" */
void phrase_status(const struct status *status, uint64_t now_ns, char out[PHRASE_SIZE]);
/** "error: " and as much of @reason as fits. */
void phrase_error(const char *reason, char out[PHRASE_SIZE]);

#endif
