/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - what a VM boots: kernel, initramfs with the boot envelope, command line */
#ifndef ENGINE_BOOT_H
#define ENGINE_BOOT_H

#include "engine/engine.h"
#include "image/record.h"

/** Owned; free with boot_free(). */
struct boot {
	int kernel_fd, initrd_fd;
	char *cmdline;
	char *kernel_id; /* NULL: a kernel of the user's */
};

#define BOOT_INIT                                                                                                      \
	{                                                                                                              \
		.kernel_fd = -1, .initrd_fd = -1                                                                       \
	}

/** Open and build it all for @config on @image in the VM @id. -ENODEV: no kernel was fetched. */
int boot_prepare(const struct husk *husk, const struct husk_vm_config *config, const struct image_record *image,
	const char *id, struct boot *out, struct husk_error *err);
void boot_free(struct boot *boot);

#endif
