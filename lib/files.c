/* SPDX-License-Identifier: Apache-2.0 */
/* files.c - files of a running VM, in the public API: options in; the work is the engine's */
#include "base/adopt.h"
#include "engine/copy.h"
#include "engine/live.h"

void husk_copy_options_init(struct husk_copy_options *options)
{
	*options = (struct husk_copy_options){.size = sizeof(*options), .timeout_ms = 30000, .cancel_fd = -1};
}

/** The caller's options as ours; NULL: all defaults. */
static int adopt(struct husk_copy_options *to, const struct husk_copy_options *given, struct husk_error *err)
{
	husk_copy_options_init(to);
	return given ? adopt_struct(to, sizeof(*to), given, "struct husk_copy_options", err) : 0;
}

int husk_vm_copy_in(struct husk_vm *vm, const char *from, const char *to, const struct husk_copy_options *given,
	struct husk_error *err)
{
	struct husk_copy_options options;
	int rc = adopt(&options, given, err);
	return rc < 0 ? rc : copy_in(vm->husk, vm->record.id, from, to, &options, err);
}

int husk_vm_copy_out(struct husk_vm *vm, const char *from, const char *to, const struct husk_copy_options *given,
	struct husk_error *err)
{
	struct husk_copy_options options;
	int rc = adopt(&options, given, err);
	return rc < 0 ? rc : copy_out(vm->husk, vm->record.id, from, to, &options, err);
}

int husk_vm_copy_in_tar(
	struct husk_vm *vm, int fd, const char *to, const struct husk_copy_options *given, struct husk_error *err)
{
	struct husk_copy_options options;
	int rc = adopt(&options, given, err);
	return rc < 0 ? rc : copy_in_tar(vm->husk, vm->record.id, fd, to, &options, err);
}

int husk_vm_copy_out_tar(
	struct husk_vm *vm, const char *from, int fd, const struct husk_copy_options *given, struct husk_error *err)
{
	struct husk_copy_options options;
	int rc = adopt(&options, given, err);
	return rc < 0 ? rc : copy_out_tar(vm->husk, vm->record.id, from, fd, &options, err);
}

int husk_vm_write_file(struct husk_vm *vm, const char *path, const void *data, size_t n, uint32_t mode,
	const struct husk_copy_options *given, struct husk_error *err)
{
	struct husk_copy_options options;
	int rc = adopt(&options, given, err);
	return rc < 0 ? rc : copy_write_file(vm->husk, vm->record.id, path, data, n, mode, &options, err);
}

int husk_vm_read_file(struct husk_vm *vm, const char *path, size_t max, void **data, size_t *n,
	const struct husk_copy_options *given, struct husk_error *err)
{
	struct husk_copy_options options;
	int rc = adopt(&options, given, err);
	return rc < 0 ? rc : copy_read_file(vm->husk, vm->record.id, path, max, data, n, &options, err);
}
