/* SPDX-License-Identifier: Apache-2.0 */
/* boot.c - what a VM boots */
#include "engine/boot.h"

#include "base/cleanup.h"

int boot_prepare(const struct husk *husk, const struct husk_vm_config *config, const struct image_record *image,
	const char *id, struct boot *out, struct husk_error *err)
{
	return error_set(err, -ENODEV, "no guest kernel; run 'husk kernel fetch'");
}

void boot_free(struct boot *boot)
{
	if (boot->kernel_fd >= 0)
		close(boot->kernel_fd);
	if (boot->initrd_fd >= 0)
		close(boot->initrd_fd);
	free(boot->cmdline);
	free(boot->kernel_id);
}
