/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - refuse what cannot work before anything is done for it */
#ifndef ENGINE_CHECK_H
#define ENGINE_CHECK_H

#include "base/error.h"

#define CHECK_MEMORY_MIN (96ull << 20) /* tried: with 64 MiB the distribution kernel does not come up */
#define CHECK_CPUS_MAX 32

/** Ranges and combinations of a configuration. -EINVAL, -ERANGE, -ENODEV. */
int check_config(const struct husk_vm_config *config, struct husk_error *err);

#endif
