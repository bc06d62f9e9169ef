/* SPDX-License-Identifier: Apache-2.0 */
/* start.c - husk start: VMs that exist, one of which may be attended */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/attach.h"
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
	struct husk_status now = {.size = sizeof(now)};
	int rc = boot(vm, data, err);
	bool failed = rc == 0 && husk_vm_status(vm, &now, NULL) == 0 && now.end == HUSK_END_NOT_STARTED;
	return failed ? error_set(err, -ENOEXEC, "%s", now.reason) : rc;
}

/** Start the one VM, and be with it to its end. */
static int start_attached(struct cli *cli, struct husk_vm *vm, struct husk_boot_options *options)
{
	struct attach attach = {.from_start = true};
	struct run_signals signals;
	struct husk_error err;
	int status;
	if (attach_prepare(&attach, cli, vm, cli_flag(cli, "interactive"), &err) < 0 ||
		run_signals_open(&signals, &err) < 0)
		return cli_fail(&err, 1);
	options->cancel_fd = signals.ending;
	int rc = boot(vm, options, &err);
	if (rc == -ECANCELED)
		status = 128 + run_signals_take(signals.ending);
	else
		status = rc < 0 ? cli_fail(&err, 1) : attach_stay(vm, &attach, &signals);
	run_signals_close(&signals);
	return status;
}

int verb_start(struct cli *cli)
{
	struct husk_boot_options options;
	struct husk_error err;
	struct husk_vm *vm;
	husk_boot_options_init(&options);
	options.progress_fd = cli_progress_fd(cli);
	if (!cli_flag(cli, "attach") && !cli_flag(cli, "interactive"))
		return batch_run(cli, boot_one, &options, false);
	if (cli->n_operands > 1) {
		cli_say("start --attach: one VM at a time; start the others without it");
		return 1;
	}
	if (husk_vm_open(cli->husk, cli->operands[0], &vm, &err) < 0)
		return cli_fail(&err, 1);
	int status = start_attached(cli, vm, &options);
	husk_vm_close(vm);
	return status;
}
