/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.c - husk kernel fetch and kernel list */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/verbs.h"

int verb_kernel_fetch(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *id = NULL;
	if (husk_kernel_fetch(cli->husk, cli_progress_fd(cli), &id, &err) < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}

int verb_kernel_list(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *id = NULL;
	int rc = husk_kernel_find(cli->husk, &id, &err);
	if (rc == -ENOENT || rc == -ENODEV)
		return 0;
	if (rc < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}
