/* SPDX-License-Identifier: Apache-2.0 */
/* info.h - the info page: what the host tells the guest of its memory, and of regions and cells by name */
#ifndef SANDBOX_INFO_H
#define SANDBOX_INFO_H

#include "sandbox/sandbox.h"

/** Write the info page. Regions that the guest has no right to are not in it. The caller holds the memory lock. -EFAULT: there
 *  is no area for it. */
int info_write(struct husk_sandbox *sandbox);

#endif
