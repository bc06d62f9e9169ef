/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - files of a VM that runs: files VM PATH DIRECTORY
 *
 * Writes a file in the guest, reads it back, and copies PATH of the guest into DIRECTORY.
 */
#include <husk.h>
#include <stdio.h>
#include <stdlib.h>

static void skipped(void *data, const char *name, const char *why)
{
	fprintf(stderr, "files: '%s' is %s\n", name, why);
	(void)data;
}

static int use(struct husk_vm *vm, const char *path, const char *directory, struct husk_error *err)
{
	struct husk_copy_options options;
	void *bytes = NULL;
	size_t n = 0;

	husk_copy_options_init(&options);
	options.skipped = skipped;
	int rc = husk_vm_write_file(vm, "/tmp/greeting", "hello\n", 6, 0600, &options, err);
	if (rc == 0)
		rc = husk_vm_read_file(vm, "/tmp/greeting", 1 << 20, &bytes, &n, &options, err);
	if (rc == 0)
		fwrite(bytes, 1, n, stdout);
	free(bytes);
	return rc < 0 ? rc : husk_vm_copy_out(vm, path, directory, &options, err);
}

int main(int argc, char **argv)
{
	struct husk *husk = NULL;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	int status = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: files VM PATH DIRECTORY\n");
		return 2;
	}
	if (husk_open(NULL, &husk, &err) < 0 || husk_vm_open(husk, argv[1], &vm, &err) < 0 ||
		use(vm, argv[2], argv[3], &err) < 0) {
		fprintf(stderr, "files: %s\n", err.message);
		status = 125;
	}
	husk_vm_close(vm);
	husk_close(husk);
	return status;
}
