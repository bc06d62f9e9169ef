/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prometheus.c - what VMs use, in the text format that Prometheus scrapes
 *
 * Theory of operation: a row of a table is a metric, with its help and type; its samples, one of each VM or door, follow each other
 * as the format wants it. Values of labels are escaped: a name is the user's, a path may hold anything. Nothing listens: a
 * collector of text files, or a line of cron, takes it from stdout.
 */
#include "cli/usage.h"

#include "base/cleanup.h"

struct metric {
	const char *name; /* behind "husk_vm_" */
	const char *type;
	const char *help;
	const char *path; /* of the number in husk_stats()'s object, or in that of a door */
	double unit; /* that number times this */
};

static const struct metric of_vm[] = {
	{"cpu_seconds_total", "counter", "CPU time of the VM's processes on the host.", "cpu_ns", 1e-9},
	{"memory_bytes", "gauge", "Memory that the host holds for the guest.", "memory.used", 1},
	{"memory_limit_bytes", "gauge", "Memory that the guest was given.", "memory.limit", 1},
	{"memory_given_back_bytes_total", "counter", "Memory that the guest has given back.", "memory.given_back", 1},
	{"balloon_target_bytes", "gauge", "Memory that the guest is asked to give back.", "memory.target", 1},
	{"block_reads_total", "counter", "Read requests to all disks.", "block.reads", 1},
	{"block_writes_total", "counter", "Write requests to all disks.", "block.writes", 1},
	{"block_read_bytes_total", "counter", "Bytes read from all disks.", "block.read_bytes", 1},
	{"block_write_bytes_total", "counter", "Bytes written to all disks.", "block.write_bytes", 1},
	{"block_errors_total", "counter", "Requests to disks that failed.", "block.errors", 1},
	{"net_in_bytes_total", "counter", "Bytes that went to the guest.", "net.in_bytes", 1},
	{"net_out_bytes_total", "counter", "Bytes that came from the guest.", "net.out_bytes", 1},
	{"exits_total", "counter", "Exits of vCPUs out of the guest, kvm machine only.", "exits", 1},
	{"tasks", "gauge", "Processes and threads of the VM on the host.", "pids", 1},
};

static const struct metric of_door[] = {
	{"door_connections_total", "counter", "Connections that a door has accepted.", "connections", 1},
	{"door_refused_total", "counter", "Connections that reached no program in the guest.", "refused", 1},
	{"door_active", "gauge", "Connections that are tied to the guest.", "active", 1},
	{"door_waiting", "gauge", "Connections that wait for a listener.", "waiting", 1},
	{"door_in_bytes_total", "counter", "Bytes that went to the guest through a door.", "bytes_in", 1},
	{"door_out_bytes_total", "counter", "Bytes that came from the guest through a door.", "bytes_out", 1},
};

static void print_label(const char *name, const json_t *object, const char *key)
{
	const char *at = json_string_value(json_object_get(object, key));

	printf("%s=\"", name);
	for (; at && *at; at++) {
		if (*at == '\n')
			fputs("\\n", stdout);
		else if (*at == '"' || *at == '\\')
			printf("\\%c", *at);
		else
			putchar(*at);
	}
	putchar('"');
}

static void print_head(const struct metric *m)
{
	printf("# HELP husk_vm_%s %s\n# TYPE husk_vm_%s %s\n", m->name, m->help, m->name, m->type);
}

static void print_sample(const struct metric *m, const json_t *vm, const json_t *door)
{
	uint64_t n = usage_number(door ? door : vm, m->path);

	printf("husk_vm_%s{", m->name);
	print_label("id", vm, "id");
	putchar(',');
	print_label("name", vm, "name");
	if (door) {
		putchar(',');
		print_label("kind", door, "kind");
		putchar(',');
		print_label("endpoint", door, "endpoint");
	}
	if (m->unit == 1)
		printf("} %llu\n", (unsigned long long)n);
	else
		printf("} %.9g\n", (double)n * m->unit);
}

void usage_print_prometheus(const json_t *vms)
{
	const json_t *vm, *door;
	size_t i, k;

	for (size_t m = 0; m < ARRAY_SIZE(of_vm); m++) {
		print_head(&of_vm[m]);
		json_array_foreach(vms, i, vm) print_sample(&of_vm[m], vm, NULL);
	}
	for (size_t m = 0; m < ARRAY_SIZE(of_door); m++) {
		print_head(&of_door[m]);
		json_array_foreach(vms, i, vm)
		{
			json_array_foreach(json_object_get(vm, "doors"), k, door) print_sample(&of_door[m], vm, door);
		}
	}
}
