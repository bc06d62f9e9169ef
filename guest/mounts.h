/* SPDX-License-Identifier: Apache-2.0 */
/* mounts.h - the root that workloads see: layers, overlay, cgroup */
#ifndef GUEST_MOUNTS_H
#define GUEST_MOUNTS_H

#include "base/error.h"
#include "guest/envelope.h"

#include <sys/types.h>

#define MOUNTS_ROOT "/root"   /* the overlay is mounted here in the agent's mount namespace */
#define MOUNTS_CGROUP "/cgroup" /* cgroup2 */

/** devtmpfs on /dev: what all that follows needs. */
int mounts_devices(struct husk_error *err);
/** Wait until the node @path of devtmpfs exists. */
int mounts_wait_for(const char *path, struct husk_error *err);
/** Wait for the disks and stack the layers over the scratch disk at MOUNTS_ROOT; volumes are made where missing. */
int mounts_root(const struct envelope *envelope, struct husk_error *err);
/** Mount cgroup2 and make the workload's cgroup; its directory, CLOEXEC. */
int mounts_cgroup(int *fd, struct husk_error *err);

/** Open @path as it is seen from the directory @root as root: no link in it leads out. O_CLOEXEC is added. */
int mounts_open_in(int root, const char *path, int flags, mode_t mode);
/** Make the directory @path below @root with its parents, 0755; its descriptor (O_PATH) or -errno. */
int mounts_make_directory_in(int root, const char *path);

#endif
