/* SPDX-License-Identifier: Apache-2.0 */
/* modules.h - kernel modules, loaded in the order that the envelope gives */
#ifndef GUEST_MODULES_H
#define GUEST_MODULES_H

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

/** Load the @n files @names below @dir, dependencies first; one that is loaded already is fine. */
int modules_load(const char *dir, char *const *names, size_t n, struct husk_error *err);
/** The same in a process of its own, for what nobody waits for; failures are said on the console. Its pid, or -1. */
pid_t modules_load_later(const char *dir, char *const *names, size_t n);

#endif
