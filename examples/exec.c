/* SPDX-License-Identifier: Apache-2.0 */
/* exec.c - run more in a VM that runs: a chain of commands with a file staged before, output collected and streamed, a limit of
 * time; and files, to it and back. cc exec.c $(pkg-config --cflags --libs husk) && ./a.out VM */
#include <husk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Three commands in one round trip and without a shell, on a file that is written before the first. */
static int chain(struct husk_vm *vm, struct husk_error *err)
{
	static const char *const count[] = {"wc", "-l", "/tmp/names", NULL}, *const sort[] = {
										     "sort", "/tmp/names", NULL};
	static const char *const clean[] = {"rm", "/tmp/names", NULL};
	static const char *const *const commands[] = {count, sort, clean, NULL};
	struct husk_staged_file names;
	struct husk_exec_config config;
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};

	husk_staged_file_init(&names);
	names.path = "/tmp/names";
	names.data = "oats\nbarley\nrye\n";
	names.n = strlen(names.data);
	husk_exec_config_init(&config);
	config.chain = commands;
	config.files = &names;
	config.n_files = 1;
	config.collect = 65536;
	int rc = husk_vm_exec(vm, &config, &outcome, err);
	if (rc < 0)
		return rc;
	printf("exit status %d after command %u:\n%s", outcome.exit_code, outcome.step + 1, (const char *)outcome.out);
	husk_exec_outcome_free(&outcome);
	return 0;
}

static void on_output(void *data, enum husk_stream stream, const void *bytes, size_t n)
{
	size_t *total = data;
	*total += stream == HUSK_STDOUT ? n : 0;
}

/** Output as it comes; the program never ends, and is ended. */
static int limited(struct husk_vm *vm, struct husk_error *err)
{
	static const char *const command[] = {"sh", "-c", "echo begun; exec sleep 1000", NULL};
	struct husk_exec_config config;
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};
	size_t total = 0;

	husk_exec_config_init(&config);
	config.command = command;
	config.timeout_ms = 1000;
	config.output = on_output;
	config.output_data = &total;
	int rc = husk_vm_exec(vm, &config, &outcome, err);
	if (rc < 0)
		return rc;
	printf("%zu bytes; timed out: %s, exit status %d\n", total, outcome.timed_out ? "yes" : "no",
		outcome.exit_code);
	husk_exec_outcome_free(&outcome);
	return 0;
}

static int files(struct husk_vm *vm, struct husk_error *err)
{
	static const char text[] = "kept as it is\0even this";
	void *data = NULL;
	size_t n;
	int rc = husk_vm_write_file(vm, "/tmp/example", text, sizeof(text), 0600, NULL, err);
	rc = rc < 0 ? rc : husk_vm_read_file(vm, "/tmp/example", 1 << 20, &data, &n, NULL, err);
	if (rc < 0)
		return rc;
	printf("%zu bytes back, %s\n", n,
		n == sizeof(text) && memcmp(data, text, n) == 0 ? "the same" : "not the same");
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	struct husk *husk = NULL;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	if (argc != 2) {
		fprintf(stderr, "usage: %s VM\n", argv[0]);
		return 2;
	}
	int rc = husk_open(NULL, &husk, &err);
	rc = rc < 0 ? rc : husk_vm_open(husk, argv[1], &vm, &err);
	rc = rc < 0 ? rc : chain(vm, &err);
	rc = rc < 0 ? rc : limited(vm, &err);
	rc = rc < 0 ? rc : files(vm, &err);
	if (rc < 0)
		fprintf(stderr, "%s\n", err.message);
	husk_vm_close(vm);
	husk_close(husk);
	return rc < 0;
}
