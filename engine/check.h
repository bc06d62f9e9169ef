/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - refuse what cannot work before anything is done for it */
#ifndef ENGINE_CHECK_H
#define ENGINE_CHECK_H

#include "base/error.h"

#define CHECK_MEMORY_MIN (96ull << 20) /* tried: with 64 MiB the distribution kernel does not come up */
#define CHECK_CPUS_MAX 32
#define CHECK_DOORS_MAX 62 /* of 64; two every VM has */
#define CHECK_TIME_MAX (366ull * 24 * 3600 * 1000) /* ms */
#define CHECK_LOG_MIN (64ull << 10)
#define CHECK_LOG_MAX (1ull << 40)
#define CHECK_LOG_DEFAULT (16ull << 20)
#define CHECK_VSOCK_FIRST 50000 /* of the policy `auto` */
#define CHECK_VSOCK_LAST 59999
#define CHECK_LISTEN_WAIT_MAX (24 * 3600 * 1000ull) /* ms */

/** All rules that need nothing but the configuration itself. -EINVAL, -ERANGE, -E2BIG, -ENOTSUP: FIELD: VALUE, RULE. */
int check_config(const struct husk_vm_config *config, struct husk_error *err);

/** A door's fields go with its kind. -EINVAL. */
int check_door(const struct husk_door *door, struct husk_error *err);
/** The doors of a configuration, each by itself and all together. -EINVAL, -ERANGE, -E2BIG. */
int check_doors(const struct husk_vm_config *config, struct husk_error *err);

#endif
