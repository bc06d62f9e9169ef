/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.c - guest kernels in the public API */
#include "base/error.h"

int husk_kernel_fetch(struct husk *husk, int progress_fd, char **id, struct husk_error *err)
{
	return error_set(err, -ENOSYS, "kernel fetch is not built yet");
}

int husk_kernel_find(struct husk *husk, char **id, struct husk_error *err)
{
	return error_set(err, -ENOENT, "none was fetched");
}
