/* SPDX-License-Identifier: Apache-2.0 */
/* root.h - the second stage: a root of its own. In a mount namespace of its own, with the right to mount */
#ifndef VMM_JAIL_ROOT_H
#define VMM_JAIL_ROOT_H

#include "base/error.h"

#include <stdbool.h>

/** Have the directory @directory as root and working directory, read-only. The descriptor stays the caller's. */
int root_enter(int directory, struct husk_error *err);
/** Have a root made of what @program, an absolute path, needs, and of a proc of this PID namespace (@own_pids; otherwise
 *  the one that is there), built over the directory @directory. */
int root_build(int directory, const char *program, bool own_pids, struct husk_error *err);

#endif
