/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.c - a host port for a program in a microVM, opened while it runs: door PORT IMAGE COMMAND [ARG…]
 *
 * Prints where the door is, keeps it open until the end of stdin, and prints what went through it.
 */
#include <husk.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const struct husk_error *err)
{
	fprintf(stderr, "door: %s\n", err->message);
	return 125;
}

/** Open a door to @port of the guest and close it again at the end of stdin. */
static int serve(struct husk_vm *vm, uint16_t port, struct husk_error *err)
{
	struct husk_door door;
	char *endpoint = NULL, *stats = NULL;

	husk_door_init(&door);
	door.kind = HUSK_DOOR_TCP;
	door.guest_port = port;
	int rc = husk_vm_expose(vm, &door, &endpoint, err);
	if (rc < 0)
		return rc;
	printf("%s\n", endpoint);
	fflush(stdout);
	while (getchar() != EOF)
		;
	rc = husk_vm_stats(vm, &stats, err);
	if (rc == 0)
		printf("%s\n", stats);
	if (rc == 0)
		rc = husk_vm_unexpose(vm, endpoint, err);
	free(endpoint);
	free(stats);
	return rc;
}

int main(int argc, char **argv)
{
	struct husk *husk = NULL;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	struct husk_vm_config config;
	int status = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: door PORT IMAGE COMMAND [ARG...]\n");
		return 2;
	}
	husk_vm_config_init(&config);
	config.image = argv[2];
	config.command = (const char *const *)argv + 3;
	config.stderr_fd = 2;
	if (husk_open(NULL, &husk, &err) < 0 || husk_vm_start(husk, &config, &vm, &err) < 0 ||
		serve(vm, (uint16_t)atoi(argv[1]), &err) < 0)
		status = fail(&err);
	husk_vm_close(vm);
	husk_close(husk);
	return status;
}
