/* SPDX-License-Identifier: Apache-2.0 */
/* exec.c - running more in a VM, in the public API: structs in and out; the work is the engine's */
#include "base/adopt.h"
#include "base/cleanup.h"
#include "base/event.h"
#include "base/path.h"
#include "engine/joined.h"
#include "engine/live.h"

#include <string.h>

void husk_staged_file_init(struct husk_staged_file *file)
{
	*file = (struct husk_staged_file){.size = sizeof(*file)};
}

void husk_exec_config_init(struct husk_exec_config *config)
{
	*config = (struct husk_exec_config){
		.size = sizeof(*config),
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.start_timeout_ms = 30000,
	};
}

void husk_exec_outcome_free(struct husk_exec_outcome *outcome)
{
	if (!outcome)
		return;
	free(steal_pointer(&outcome->out));
	free(steal_pointer(&outcome->err));
	outcome->out_size = outcome->err_size = 0;
}

/** For `husk events`: what was started, its first word only, since arguments may be secrets. */
static void tell(const struct husk_vm *vm, const struct husk_exec_config *config)
{
	CLEANUP_FREE char *path = path_join(vm->husk->home, "events");
	const char *const *command = config->command ? config->command : config->chain[0];
	const struct event_field fields[] = {{.key = "command", .text = command[0]}};
	if (path)
		event_tell(path, "exec", vm->record.id, vm->record.name, fields, ARRAY_SIZE(fields));
}

int husk_exec_start(
	struct husk_vm *vm, const struct husk_exec_config *given, struct husk_exec **out, struct husk_error *err)
{
	struct husk_exec_config config;
	CLEANUP_FREE void *files = NULL;
	husk_exec_config_init(&config);
	int rc = adopt_struct(&config, sizeof(config), given, "struct husk_exec_config", err);
	rc = rc < 0 ? rc : ADOPT_LIST(config.files, config.n_files, "struct husk_staged_file", &files, err);
	config.files = files;
	rc = rc < 0 ? rc : joined_start(vm->husk, vm->record.id, &config, out, err);
	if (rc == 0)
		tell(vm, &config);
	return rc;
}

int husk_exec_fd(const struct husk_exec *exec)
{
	return joined_fd(exec);
}

int husk_exec_wait(
	struct husk_exec *exec, int64_t timeout_ms, struct husk_exec_outcome *outcome, struct husk_error *err)
{
	struct husk_exec_outcome full = {0};
	size_t size = outcome ? outcome->size : 0;
	if (outcome && size < offsetof(struct husk_exec_outcome, err_size) + sizeof(full.err_size))
		return error_set(err, -EINVAL, "struct husk_exec_outcome has no size");
	int rc = joined_wait(exec, timeout_ms, outcome ? &full : NULL, err);
	if (rc < 0 || !outcome)
		return rc;
	full.size = size;
	memset(outcome, 0, size);
	memcpy(outcome, &full, size < sizeof(full) ? size : sizeof(full));
	return 0;
}

int husk_vm_exec(struct husk_vm *vm, const struct husk_exec_config *config, struct husk_exec_outcome *outcome,
	struct husk_error *err)
{
	struct husk_exec *exec = NULL;
	int rc = husk_exec_start(vm, config, &exec, err);
	rc = rc < 0 ? rc : husk_exec_wait(exec, -1, outcome, err);
	husk_exec_close(exec);
	return rc;
}

int husk_exec_signal(struct husk_exec *exec, int signal_number, struct husk_error *err)
{
	if (signal_number < 1 || signal_number > 64)
		return error_set(err, -EINVAL, "%d is not a signal (1 to 64)", signal_number);
	if (joined_wait(exec, 0, NULL, NULL) != -ETIMEDOUT)
		return error_set(err, -ESRCH, "the program has ended");
	joined_signal(exec, (unsigned)signal_number);
	return 0;
}

int husk_exec_resize(struct husk_exec *exec, uint16_t rows, uint16_t columns, struct husk_error *err)
{
	if (joined_wait(exec, 0, NULL, NULL) != -ETIMEDOUT)
		return error_set(err, -ESRCH, "the program has ended");
	joined_resize(exec, rows, columns);
	return 0;
}

int husk_exec_leave(struct husk_exec *exec, struct husk_error *err)
{
	return joined_leave(exec, err);
}

void husk_exec_close(struct husk_exec *exec)
{
	joined_close(exec);
}
