/* SPDX-License-Identifier: Apache-2.0 */
/* life.c - husk stop, kill, pause, unpause, restart, rm, wait, rename, update: what a VM's life has besides its start */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "cli/batch.h"
#include "cli/verbs.h"

#include <signal.h>

#define GRACE_MS 10000 /* Docker's */

static int take_grace(const struct cli *cli, uint64_t *ms, struct husk_error *err)
{
	const char *time = cli_value(cli, "time");
	*ms = GRACE_MS;
	return time ? parse_duration(time, "--time", ms, err) : 0;
}

static int stop(struct husk_vm *vm, void *data, struct husk_error *err)
{
	const uint64_t *grace_ms = data;
	return husk_vm_stop(vm, *grace_ms, err);
}

int verb_stop(struct cli *cli)
{
	struct husk_error err;
	uint64_t grace_ms;
	if (take_grace(cli, &grace_ms, &err) < 0)
		return cli_fail(&err, 1);
	return batch_run(cli, stop, &grace_ms, false);
}

static int restart(struct husk_vm *vm, void *data, struct husk_error *err)
{
	int rc = stop(vm, data, err);
	return rc < 0 ? rc : husk_vm_boot(vm, NULL, err);
}

int verb_restart(struct cli *cli)
{
	struct husk_error err;
	uint64_t grace_ms;
	if (take_grace(cli, &grace_ms, &err) < 0)
		return cli_fail(&err, 1);
	return batch_run(cli, restart, &grace_ms, false);
}

/** As Docker has it, a VM that does not run cannot be killed; the library's husk_vm_kill() is content with that. */
static int end(struct husk_vm *vm, void *data, struct husk_error *err)
{
	const int *signal_number = data;
	struct husk_status now = {.size = sizeof(now)};
	if (*signal_number != SIGKILL)
		return husk_vm_signal(vm, *signal_number, err);
	int rc = husk_vm_status(vm, &now, err);
	if (rc < 0)
		return rc;
	if (now.state != HUSK_STATE_STARTING && now.state != HUSK_STATE_RUNNING && now.state != HUSK_STATE_PAUSED)
		return error_set(err, -ESRCH, "kill VM %s: it does not run", husk_vm_id(vm));
	return husk_vm_kill(vm, err);
}

int verb_kill(struct cli *cli)
{
	const char *name = cli_value(cli, "signal");
	int signal_number = SIGKILL;
	struct husk_error err;
	if (name && parse_signal(name, "--signal", &signal_number, &err) < 0)
		return cli_fail(&err, 1);
	return batch_run(cli, end, &signal_number, false);
}

static int halt(struct husk_vm *vm, void *data, struct husk_error *err)
{
	return husk_vm_pause(vm, err);
}

int verb_pause(struct cli *cli)
{
	return batch_run(cli, halt, NULL, false);
}

static int go_on(struct husk_vm *vm, void *data, struct husk_error *err)
{
	return husk_vm_resume(vm, err);
}

int verb_unpause(struct cli *cli)
{
	return batch_run(cli, go_on, NULL, false);
}

static int discard(struct husk_vm *vm, void *data, struct husk_error *err)
{
	const bool *force = data;
	return husk_vm_remove(vm, *force, err);
}

/** With --force what counts is that the VM is not there afterwards: as Docker has it. */
int verb_rm(struct cli *cli)
{
	bool force = cli_flag(cli, "force");
	return batch_run(cli, discard, &force, force);
}

static int limit(struct husk_vm *vm, void *data, struct husk_error *err)
{
	const uint64_t *memory = data;
	return husk_vm_set_memory(vm, *memory, err);
}

int verb_update(struct cli *cli)
{
	const char *size = cli_value(cli, "memory");
	struct husk_error err;
	uint64_t memory;
	if (!size) {
		cli_say("nothing to change: --memory is what can be");
		return 1;
	}
	if (parse_size(size, "--memory", 1, UINT64_MAX, &memory, &err) < 0)
		return cli_fail(&err, 1);
	return batch_run(cli, limit, &memory, false);
}

int verb_rename(struct cli *cli)
{
	struct husk_error err;
	struct husk_vm *vm;
	if (husk_vm_open(cli->husk, cli->operands[0], &vm, &err) < 0)
		return cli_fail(&err, 1);
	int status = husk_vm_rename(vm, cli->operands[1], &err) < 0 ? cli_fail(&err, 1) : 0;
	husk_vm_close(vm);
	return status;
}

/** All are opened before the first one is waited for: what is removed meanwhile can still tell how it ended. */
int verb_wait(struct cli *cli)
{
	CLEANUP_FREE struct husk_vm **vms = calloc(cli->n_operands, sizeof(struct husk_vm *));
	struct husk_error err;
	int status = 0;
	for (size_t i = 0; vms && i < cli->n_operands; i++)
		if (husk_vm_open(cli->husk, cli->operands[i], &vms[i], &err) < 0)
			status = cli_fail(&err, 1);
	for (size_t i = 0; vms && i < cli->n_operands; i++) {
		struct husk_outcome outcome = {.size = sizeof(outcome)};
		if (!vms[i])
			continue;
		if (husk_vm_wait(vms[i], -1, &outcome, &err) < 0)
			status = cli_fail(&err, 1);
		else
			printf("%d\n", outcome.exit_code);
		fflush(stdout);
		husk_vm_close(vms[i]);
	}
	return vms ? status : 1;
}
