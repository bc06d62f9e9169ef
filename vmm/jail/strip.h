/* SPDX-License-Identifier: Apache-2.0 */
/* strip.h - the third stage: no rights */
#ifndef VMM_JAIL_STRIP_H
#define VMM_JAIL_STRIP_H

#include "vmm/jail/jail.h"

/** Give up ids, capabilities, cores, and the means to get any of them back; die with the parent all the same. */
int strip(const struct jail *jail, struct husk_error *err);

#endif
