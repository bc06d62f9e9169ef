/* SPDX-License-Identifier: Apache-2.0 */
/*
 * button.c - press a VM's power button once its command runs, and wait for its end
 *
 * usage: button IMAGE COMMAND [ARG…]; the command says a line when it is ready. HUSK_MACHINE chooses the machine.
 */
#include <errno.h>
#include <husk.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/** Until the VM has ended: a guest that is still loading the button's driver does not hear it. */
static int press(struct husk_vm *vm, struct husk_outcome *outcome, struct husk_error *err)
{
	int rc = husk_vm_power_button(vm, err);
	while (rc == 0 && (rc = husk_vm_wait(vm, 2000, outcome, err)) == -ETIMEDOUT)
		rc = husk_vm_power_button(vm, err);
	return rc == -ESRCH ? husk_vm_wait(vm, -1, outcome, err) : rc;
}

int main(int argc, char **argv)
{
	struct husk *husk = NULL;
	struct husk_vm *vm = NULL;
	struct husk_error err = {0};
	struct husk_outcome outcome = {.size = sizeof(outcome), .exit_code = 125};
	struct husk_vm_config config;
	char line[256];
	int out[2];

	if (argc < 3 || pipe(out) < 0)
		return 2;
	husk_vm_config_init(&config);
	config.image = argv[1];
	config.command = (const char *const *)argv + 2;
	config.machine = getenv("HUSK_MACHINE");
	config.stdout_fd = out[1];
	config.stderr_fd = 2;
	if (husk_open(NULL, &husk, &err) < 0 || husk_vm_start(husk, &config, &vm, &err) < 0)
		fprintf(stderr, "button: %s\n", err.message);
	else if (read(out[0], line, sizeof(line)) <= 0)
		fprintf(stderr, "button: the command said nothing\n");
	else if (press(vm, &outcome, &err) < 0)
		fprintf(stderr, "button: %s\n", err.message);
	husk_vm_close(vm);
	husk_close(husk);
	return outcome.exit_code;
}
