/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.c - guest kernels in the public API */
#include "engine/kernel.h"
#include "base/cleanup.h"
#include "engine/engine.h"

int husk_kernel_fetch(struct husk *husk, int progress_fd, char **id, struct husk_error *err)
{
	return kernel_fetch(husk->home, progress_fd, id, err);
}

int husk_kernel_find(struct husk *husk, char **id, struct husk_error *err)
{
	struct kernel kernel = {0};
	int rc = kernel_find(husk->home, NULL, &kernel, err);
	if (rc == 0)
		*id = steal_pointer(&kernel.id);
	kernel_free(&kernel);
	return rc;
}
