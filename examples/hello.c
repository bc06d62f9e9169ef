/* SPDX-License-Identifier: Apache-2.0 */
/* hello.c - run a command in a microVM: cc hello.c $(pkg-config --cflags --libs husk) && ./a.out oci:DIR echo hello */
#include <husk.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct husk *husk = NULL;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	struct husk_outcome outcome = {.size = sizeof(outcome)};
	struct husk_vm_config config;

	husk_vm_config_init(&config);
	config.image = argc > 1 ? argv[1] : "debian:12";
	config.command = argc > 2 ? (const char *const *)argv + 2 : NULL;
	config.stdout_fd = 1;
	config.stderr_fd = 2;
	if (husk_open(NULL, &husk, &err) < 0 || husk_vm_start(husk, &config, &vm, &err) < 0 ||
		husk_vm_wait(vm, -1, &outcome, &err) < 0) {
		fprintf(stderr, "hello: %s\n", err.message);
		outcome.exit_code = 125;
	}
	husk_vm_close(vm);
	husk_close(husk);
	return outcome.exit_code;
}
