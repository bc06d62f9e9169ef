/* SPDX-License-Identifier: Apache-2.0 */
/* known.h - a VM that is known by its record: it belongs to nobody, or to another process */
#ifndef ENGINE_KNOWN_H
#define ENGINE_KNOWN_H

#include "engine/live.h"

/** A handle of the VM @id. -ENOENT, -EPROTO. Closed with live_close(). */
int known_open(const struct husk *husk, const char *id, struct husk_vm **out, struct husk_error *err);
/** As husk_vm_wait(); the outcome is vm->outcome. A VM that has never run is waited for until it has. -ENOENT: it was removed. */
int known_wait(struct husk_vm *vm, int64_t timeout_ms, struct husk_error *err);
/** It was started again: what is remembered of its end is of an earlier life. */
void known_again(struct husk_vm *vm);

#endif
