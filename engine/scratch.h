/* SPDX-License-Identifier: Apache-2.0 */
/* scratch.h - the sparse ext4 disk that takes all a workload writes */
#ifndef ENGINE_SCRATCH_H
#define ENGINE_SCRATCH_H

#include "engine/engine.h"

#include <stdint.h>

#define SCRATCH_MIN (64ull << 20)
#define SCRATCH_MAX (16ull << 40)

/** Make the disk at @path, @size bytes (a multiple of 4096), and open it read-write: *@fd. */
int scratch_create(const char *path, uint64_t size, int cancel_fd, int *fd, struct husk_error *err);
/** Open the disk that scratch_create() has made at @path, with all that the VM has left on it: *@fd. -ENOENT: it is not there;
 *  -EBADMSG: it is not what was made (another size, no ext4, no regular file). */
int scratch_open(const char *path, uint64_t size, int *fd, struct husk_error *err);

#endif
