/* SPDX-License-Identifier: Apache-2.0 */
/*
 * access.h - what every access to a sandbox's memory begins with
 *
 * Theory of operation: regions, cells and memory can be used by any thread in any state but dead. The memory lock is held for
 * the whole of an access; husk_sandbox_destroy() takes it to make the sandbox dead and to take its areas away, so that an
 * access sees all of them or is told that they are gone.
 */
#ifndef SANDBOX_ACCESS_H
#define SANDBOX_ACCESS_H

#include "sandbox/sandbox.h"

/** Take the memory lock. -ESHUTDOWN: the sandbox is dead, and the lock is not taken. */
int access_begin(struct husk_sandbox *sandbox, struct husk_error *err);
/** Let it go. */
void access_end(struct husk_sandbox *sandbox);
/** Become the owner of a configured sandbox and take the memory lock, to @what; access_add_end() undoes it. */
int access_add_begin(struct husk_sandbox *sandbox, const char *what, struct husk_error *err);
void access_add_end(struct husk_sandbox *sandbox);
/** Can a new region or cell be called @name? -EINVAL, -EEXIST. */
int access_name(const struct husk_sandbox *sandbox, const char *name, struct husk_error *err);
/** The area of the region called @name, and *@region, its number; NULL: there is none. */
const struct area *access_region(const struct husk_sandbox *sandbox, const char *name, unsigned *region);

#endif
