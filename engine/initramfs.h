/* SPDX-License-Identifier: Apache-2.0 */
/* initramfs.h - the guest's initramfs: a part that VMs share, and a small one with the VM's boot envelope */
#ifndef ENGINE_INITRAMFS_H
#define ENGINE_INITRAMFS_H

#include "base/error.h"

#include <stddef.h>

/** Write the shared archive to @fd: husk-init as /init, /dev/console, and the @n files @module_paths below
 *  BOOT_MODULES_DIR under their own names. */
int initramfs_write(
	int fd, const char *husk_init_path, const char *const *module_paths, size_t n, struct husk_error *err);

/** Append to @fd (at its end) an archive with the boot envelope as BOOT_PATH. */
int initramfs_append_boot(int fd, const void *envelope, size_t size, struct husk_error *err);

#endif
