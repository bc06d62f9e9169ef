/* SPDX-License-Identifier: Apache-2.0 */
/* start.c - husk start: VMs that exist */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/batch.h"
#include "cli/verbs.h"

/** Boot @vm, which may run already: then there is nothing to do, as with Docker. */
static int boot(struct husk_vm *vm, const struct husk_boot_options *options, struct husk_error *err)
{
	int rc = husk_vm_boot(vm, options, err);
	return rc == -EALREADY ? 0 : rc;
}

static int boot_one(struct husk_vm *vm, void *data, struct husk_error *err)
{
	return boot(vm, data, err);
}

int verb_start(struct cli *cli)
{
	struct husk_boot_options options;
	husk_boot_options_init(&options);
	options.progress_fd = cli_progress_fd(cli);
	return batch_run(cli, boot_one, &options, false);
}
