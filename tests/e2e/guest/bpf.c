/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bpf.c - BPF programs inside a guest of the tests, by the bare system call; static
 *
 *   bpf load              loads one program of each type that container engines and husk's agent use; a line for each
 *   bpf deny DIRECTORY    attaches a program to the cgroup that drops what its sockets send; prints "attached", waits for stdin's end
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/** return @value; */
static int load(uint32_t type, uint32_t attach_type, int value, char *log, size_t room)
{
	struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = value},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr = {
		.prog_type = type,
		.expected_attach_type = attach_type,
		.insns = (uintptr_t)program,
		.insn_cnt = 2,
		.license = (uintptr_t)"Dual BSD/GPL",
		.log_buf = (uintptr_t)log,
		.log_size = room,
		.log_level = 1,
	};
	return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
}

static int make_map(uint32_t type, uint32_t key, uint32_t value, uint32_t entries)
{
	union bpf_attr attr = {.map_type = type, .key_size = key, .value_size = value, .max_entries = entries};
	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static int load_all(void)
{
	static const struct {
		const char *name;
		uint32_t type, attach_type;
		int value;
	} programs[] = {
		{"socket filter", BPF_PROG_TYPE_SOCKET_FILTER, 0, 0},
		{"traffic control", BPF_PROG_TYPE_SCHED_CLS, 0, 0},
		{"xdp", BPF_PROG_TYPE_XDP, 0, 2},
		{"cgroup device", BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, 1},
		{"cgroup skb", BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS, 1},
		{"cgroup connect", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, 1},
		{"cgroup sysctl", BPF_PROG_TYPE_CGROUP_SYSCTL, BPF_CGROUP_SYSCTL, 1},
		{"sock_ops", BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS, 1},
		{"sk_lookup", BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP, 1},
		{"sk_msg", BPF_PROG_TYPE_SK_MSG, 0, 1},
		{"kprobe", BPF_PROG_TYPE_KPROBE, 0, 0},
		{"tracepoint", BPF_PROG_TYPE_TRACEPOINT, 0, 0},
	};
	static const struct {
		const char *name;
		uint32_t type, key, value, entries;
	} maps[] = {
		{"hash", BPF_MAP_TYPE_HASH, 4, 4, 8},
		{"lru hash", BPF_MAP_TYPE_LRU_HASH, 4, 4, 8},
		{"array", BPF_MAP_TYPE_ARRAY, 4, 4, 8},
		{"per-cpu array", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 4, 8},
		{"ring buffer", BPF_MAP_TYPE_RINGBUF, 0, 0, 4096},
		{"socket map", BPF_MAP_TYPE_SOCKMAP, 4, 4, 8},
	};
	int failed = 0;
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		static char log[4096];
		int fd = load(programs[i].type, programs[i].attach_type, programs[i].value, log, sizeof(log));
		printf("%s program %s%s %s\n", fd < 0 ? "not" : "loaded", programs[i].name, fd < 0 ? ": " : "",
			fd < 0 ? strerror(errno) : "");
		failed |= fd < 0;
	}
	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
		int fd = make_map(maps[i].type, maps[i].key, maps[i].value, maps[i].entries);
		printf("%s map %s%s %s\n", fd < 0 ? "not" : "made", maps[i].name, fd < 0 ? ": " : "",
			fd < 0 ? strerror(errno) : "");
		failed |= fd < 0;
	}
	return failed;
}

static int deny(const char *directory)
{
	static char log[4096];
	int cgroup = open(directory, O_RDONLY | O_DIRECTORY);
	int program = load(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS, 0, log, sizeof(log));
	union bpf_attr attr = {
		.target_fd = (uint32_t)cgroup, .attach_bpf_fd = (uint32_t)program, .attach_type = BPF_CGROUP_INET_EGRESS};
	if (cgroup < 0 || program < 0 || syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0) {
		perror("attach");
		return 1;
	}
	printf("attached\n");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "load"))
		return load_all();
	if (argc == 3 && !strcmp(argv[1], "deny"))
		return deny(argv[2]);
	fprintf(stderr, "usage: bpf load | bpf deny DIRECTORY\n");
	return 2;
}
