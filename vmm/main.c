/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - husk-vmm: one executable for the processes of one VM
 *
 * Theory of operation: `husk-vmm supervisor` and `husk-vmm worker` are started by husk's own code with their envelope as
 * descriptor 3, `husk-vmm enclose` in QEMU's place; they are no commands for people. `husk-vmm state FILE` prints a state
 * record, `husk-vmm shell DIRECTORY` which walls can be built on this host.
 */
#include "base/cleanup.h"
#include "base/state.h"
#include "vmm/jail/jail.h"
#include "vmm/supervisor/supervisor.h"
#include "vmm/worker.h"

#include <fcntl.h>
#include <string.h>

#define ENVELOPE_FD 3

static void print_process(const char *name, const struct process_id *id, const char *boot_id)
{
	if (id->pid)
		printf("%s: %d%s\n", name, id->pid, process_alive(id, boot_id) ? "" : " (gone)");
}

static int print_state(const char *path)
{
	struct vm_state_record r;
	struct husk_error err;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		fprintf(stderr, "husk-vmm: open %s: %s\n", path, strerror(errno));
		return 1;
	}
	if (state_read(fd, &r, &err) < 0) {
		fprintf(stderr, "husk-vmm: %s: %s\n", path, err.message);
		return 1;
	}
	printf("generation: %llu\nstate: %s\nend: %u\nvalue: %u\nstarts: %u\nflags: %u\n",
		(unsigned long long)r.generation, vm_state_name(r.state), r.end, r.value, r.starts, r.flags);
	printf("started_ns: %llu\nended_ns: %llu\n", (unsigned long long)r.started_ns, (unsigned long long)r.ended_ns);
	if (r.console[0])
		printf("console: %s\n", r.console);
	print_process("supervisor", &r.supervisor, r.boot_id);
	print_process("worker", &r.worker, r.boot_id);
	print_process("machine", &r.machine, r.boot_id);
	printf("duration_ns: %llu\npeak_rss: %llu\nreason: %s\n", (unsigned long long)r.duration_ns,
		(unsigned long long)r.peak_rss, r.reason);
	for (size_t i = 0; i < VM_DOORS_MAX; i++)
		if (r.doors[i].id)
			printf("door %u: %s %s\n", r.doors[i].id, vm_door_kind_name(r.doors[i].kind),
				r.doors[i].endpoint);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "supervisor") == 0)
		return supervisor_run(ENVELOPE_FD);
	if (argc == 2 && strcmp(argv[1], "worker") == 0)
		return worker_run(ENVELOPE_FD);
	if (argc > 2 && strcmp(argv[1], "enclose") == 0)
		return jail_enclose_main(argc, argv);
	if (argc > 2 && (strcmp(argv[1], "shell") == 0 || strcmp(argv[1], "shell-try") == 0))
		return jail_shell_main(argc, argv);
	if (argc == 3 && strcmp(argv[1], "state") == 0)
		return print_state(argv[2]);
	fprintf(stderr, "usage: husk-vmm state FILE\nhusk-vmm is started by husk; see husk(1).\n");
	return 2;
}
