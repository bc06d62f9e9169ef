/* SPDX-License-Identifier: Apache-2.0 */
/* gc.h - collect what belongs to nothing, and VMs that nobody needs */
#ifndef ENGINE_GC_H
#define ENGINE_GC_H

#include "base/buffer.h"
#include "engine/engine.h"

/** As husk_gc(); lines are appended to @report. */
int gc_run(const struct husk *husk, bool images, bool dry_run, struct buffer *report, struct husk_error *err);
/** As husk_vm_prune(). */
int prune_run(const struct husk *husk, struct buffer *report, uint64_t *freed, struct husk_error *err);

#endif
