/* SPDX-License-Identifier: Apache-2.0 */
/* live.c - a VM that lives on: made, started, looked at, stopped, started again with what it has written, removed.
 * cc live.c $(pkg-config --cflags --libs husk) && ./a.out oci:DIR */
#include <husk.h>
#include <stdio.h>
#include <stdlib.h>

/** Each start appends a line to a file on the VM's own disk and ends with the number of lines; stopped, with 40 more. */
static const char *const command[] = {"sh", "-c",
	"trap 'exit $((40 + $(wc -l < /starts)))' TERM; echo start >> /starts; echo number $(wc -l < /starts); "
	"while :; do sleep 0.1; done",
	NULL};

static int show(struct husk_vm *vm, const char *when, struct husk_error *err)
{
	struct husk_status status = {.size = sizeof(status)};
	int rc = husk_vm_status(vm, &status, err);
	if (rc == 0)
		printf("%s: state %d, started %u times, supervisor %d: %s\n", when, (int)status.state, status.starts,
			status.supervisor_pid, status.reason);
	return rc;
}

/** The first output: 1, which ends the reading. */
static int on_output(void *data, enum husk_stream stream, uint64_t time_ns, const void *bytes, size_t n)
{
	(void)data, (void)time_ns;
	printf("output %d: %.*s", (int)stream, (int)n, (const char *)bytes);
	return stream == HUSK_STDOUT;
}

/** Wait until the workload has said something: by then it can be asked to end. */
static int wait_for_output(struct husk_vm *vm, struct husk_error *err)
{
	struct husk_log_options options;

	husk_log_options_init(&options);
	options.follow = true;
	options.last_start = true;
	options.timeout_ms = 60000;
	int rc = husk_vm_logs(vm, &options, on_output, NULL, err);
	return rc < 0 ? rc : 0;
}

/** From stopped to stopped. */
static int run_once(struct husk_vm *vm, struct husk_error *err)
{
	struct husk_outcome outcome = {.size = sizeof(outcome)};
	int rc = husk_vm_boot(vm, NULL, err);
	rc = rc < 0 ? rc : show(vm, "started", err);
	rc = rc < 0 ? rc : wait_for_output(vm, err);
	rc = rc < 0 ? rc : husk_vm_stop(vm, 30000, err);
	rc = rc < 0 ? rc : husk_vm_wait(vm, 0, &outcome, err);
	if (rc == 0)
		printf("ended: %d\n", outcome.exit_code);
	return rc < 0 ? rc : show(vm, "stopped", err);
}

int main(int argc, char **argv)
{
	struct husk *husk = NULL;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	struct husk_vm_config config;

	husk_vm_config_init(&config);
	config.image = argc > 1 ? argv[1] : "debian:12";
	config.command = command;
	config.machine = getenv("HUSK_MACHINE");
	config.lifetime = HUSK_LIFETIME_DETACHED;
	setvbuf(stdout, NULL, _IOLBF, 0);
	int rc = husk_open(NULL, &husk, &err);
	rc = rc < 0 ? rc : husk_vm_create(husk, &config, &vm, &err);
	rc = rc < 0 ? rc : show(vm, "created", &err);
	rc = rc < 0 ? rc : run_once(vm, &err);
	rc = rc < 0 ? rc : run_once(vm, &err);
	if (vm && husk_vm_remove(vm, true, rc < 0 ? NULL : &err) < 0)
		rc = rc < 0 ? rc : -1;
	if (rc < 0)
		fprintf(stderr, "live: %s\n", err.message);
	husk_vm_close(vm);
	husk_close(husk);
	return rc < 0;
}
