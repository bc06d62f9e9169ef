/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - husk run, husk create: make a VM; then start, attend and end it, or leave it to itself
 *
 * Theory of operation: every signal that the user may send is blocked and read from signalfds. Until the VM has started,
 * one that asks to end is the start's cancel descriptor; afterwards it is passed on to the workload. The streams are the
 * library's work, the terminal's modes are ours.
 */
#include "cli/run.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/request.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>

#define FIRST_DOOR_ID 3

/** The file of --cidfile. It is ours before the VM is made, so that no two VMs write the same. */
struct id_file {
	const char *path; /* NULL: none */
	int fd;
};

static int id_file_open(struct id_file *file, const struct cli *cli, struct husk_error *err)
{
	const char *path = cli_value(cli, "cidfile");
	if (!path)
		return 0;
	file->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (file->fd < 0 && errno == EEXIST)
		return error_set(err, -EEXIST,
			"--cidfile: '%s' exists: it may be another VM's; remove it or name another", path);
	if (file->fd < 0)
		return error_errno(err, "--cidfile: '%s'", path);
	file->path = path;
	return 0;
}

/** Write @id into it, or remove it when there is none; fine when there is no file. */
static int id_file_close(struct id_file *file, const char *id, struct husk_error *err)
{
	if (!file->path)
		return 0;
	const char *path = file->path;
	CLEANUP_FD int fd = file->fd;
	file->path = NULL;
	if (!id)
		unlink(path);
	int rc = id ? fd_write_all(fd, id, strlen(id)) : 0;
	return rc < 0 ? error_set(err, rc, "--cidfile: write '%s': %s", path, strerror(-rc)) : 0;
}

static void id_file_drop(struct id_file *file)
{
	id_file_close(file, NULL, NULL);
}

/** A port that the kernel has chosen is known to nobody else: say it. Doors have the ids from 3 on, in our order. */
static void say_ports(struct husk_vm *vm, const struct vm_request *r)
{
	CLEANUP_FREE char *text = NULL;
	json_t *door;
	size_t index;
	if (!r->config.n_doors || husk_vm_inspect(vm, &text, NULL) < 0)
		return;
	json_t *json = json_loads(text, 0, NULL);
	json_array_foreach(json_object_get(json, "doors"), index, door)
	{
		size_t at = (size_t)json_integer_value(json_object_get(door, "id")) - FIRST_DOOR_ID;
		const char *endpoint = json_string_value(json_object_get(door, "endpoint"));
		const struct husk_door *asked = at < r->config.n_doors ? &r->config.doors[at] : NULL;
		if (!asked || asked->path || asked->port || !endpoint)
			continue;
		if (asked->guest_port)
			cli_say("%s leads to port %u of the guest", endpoint, asked->guest_port);
		else
			cli_say("%s leads to the guest's first listener", endpoint);
	}
	json_decref(json);
}

/** Make it, and start it unless that is for later; *@status is set when there is no VM. */
static struct husk_vm *make(struct cli *cli, struct vm_request *r, struct run_signals *signals, int *status)
{
	struct husk_vm *vm = NULL;
	struct husk_error err;
	r->config.cancel_fd = signals->ending;
	int rc = r->create ? husk_vm_create(cli->husk, &r->config, &vm, &err)
			   : husk_vm_start(cli->husk, &r->config, &vm, &err);
	if (rc == -ECANCELED)
		*status = 128 + run_signals_take(signals->ending);
	else if (rc < 0)
		*status = cli_fail(&err, *status);
	return rc < 0 ? NULL : vm;
}

/** The exit status for a VM that is left to itself: its command's where that could not be run, as Docker has it. */
static int judge(struct husk_vm *vm)
{
	struct husk_status now = {.size = sizeof(now)};
	if (husk_vm_status(vm, &now, NULL) < 0 || now.end != HUSK_END_NOT_STARTED)
		return 0;
	cli_say("%s", now.reason);
	return now.exit_code;
}

/** The VM is there: stay with it, or say its id and go. */
static int go_on(struct husk_vm *vm, struct vm_request *r, struct run_signals *signals)
{
	struct husk_error err;
	if (!r->create)
		say_ports(vm, r);
	if (r->config.lifetime == HUSK_LIFETIME_DETACHED) {
		puts(husk_vm_id(vm));
		return r->create ? 0 : judge(vm);
	}
	return r->raw && terminal_raw(&err) < 0 ? cli_fail(&err, CLI_FAILED) : run_attend(vm, signals, r->config.tty);
}

static int run(struct cli *cli, bool create)
{
	CLEANUP(vm_request_free) struct vm_request request = {.create = create};
	CLEANUP(id_file_drop) struct id_file file = {0};
	struct run_signals signals;
	struct husk_error err;
	int status = create ? 1 : CLI_FAILED;
	if (vm_request_take(cli, &request, &err) < 0 || id_file_open(&file, cli, &err) < 0 ||
		run_signals_open(&signals, &err) < 0)
		return cli_fail(&err, status);
	struct husk_vm *vm = make(cli, &request, &signals, &status);
	if (vm) {
		if (id_file_close(&file, husk_vm_id(vm), &err) < 0)
			cli_fail(&err, 0);
		status = go_on(vm, &request, &signals);
		husk_vm_close(vm);
	}
	run_signals_close(&signals);
	return status;
}

int verb_run(struct cli *cli)
{
	return run(cli, false);
}

int verb_create(struct cli *cli)
{
	return run(cli, true);
}
