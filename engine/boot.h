/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - what a VM boots: kernel, initramfs with the boot envelope, command line */
#ifndef ENGINE_BOOT_H
#define ENGINE_BOOT_H

#include "engine/disks.h"
#include "engine/engine.h"
#include "engine/kernel.h"
#include "image/record.h"
#include "vmm/config.h"

#define BOOT_DISK_NAME 8

/** Owned; free with boot_free(). */
struct boot {
	enum vmm_machine machine;
	bool hvc; /* the workload's console is hvc0 */
	uint32_t vsock_port; /* told to the guest; 0: none */
	int kernel_fd, initrd_fd;
	char *cmdline;
	struct kernel kernel; /* empty: a kernel of the user's */
};

#define BOOT_INIT                                                                                                      \
	{                                                                                                              \
		.kernel_fd = -1, .initrd_fd = -1                                                                       \
	}

/** Open what @config names or the home has: all that can be refused before there is an image. -ENOENT: no kernel. */
int boot_open(const struct husk *husk, const struct husk_vm_config *config, enum vmm_machine machine, struct boot *boot,
	struct husk_error *err);
/** The name that a guest gives the disk in @slot: 0 is the root, then come the user's disks, then scratch. The one owner of
 *  these names: machines attach disks in the order of their slots, and kernels name them so. -E2BIG beyond "vdz". */
int boot_disk_name(size_t slot, char name[BOOT_DISK_NAME]);
/** Build what goes with @image and @disks in the VM @id. */
int boot_build(const struct husk *husk, const struct husk_vm_config *config, const struct image_record *image,
	const char *id, const struct open_disks *disks, struct boot *boot, struct husk_error *err);
void boot_free(struct boot *boot);

#endif
