/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listeners.c - the workload's listeners, told by the kernel
 *
 * Theory of operation: a sock_ops program is linked to the workload's cgroup. At each listen(2) it notes the socket in a
 * hash map under the socket's cookie and asks to hear of the socket's changes of state; when one leaves LISTEN (close,
 * shutdown, the end of its last process) it drops the note. The map is the truth. After each change it puts a record into a
 * ring buffer, whose descriptor epoll watches: that is only the doorbell, its records are skipped unread, and when it is
 * full it rings all the same. So a workload that flaps costs no memory and is told in as many states as the agent has time
 * for.
 *
 * An accepted socket inherits the wish to be heard of. It is left in place although the program has no use for it, since
 * it cannot be told from a wish that a program of the workload's own has set; such calls end after five instructions.
 *
 * The workload can have network namespaces of its own. What listens there is not reachable for the agent; their cookie
 * tells them apart.
 */
#include "guest/listeners.h"

#include "base/cleanup.h"

#include <linux/bpf.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* asm-generic/socket.h, Linux 5.14 */
#endif

struct listeners {
	struct loop_watch bell;
	int notes; /* the map */
	int link; /* while it is open the program stays linked */
	uint64_t network; /* the cookie of our own network namespace */
	unsigned long *consumed; /* positions in the ring buffer, shared with the kernel */
	const unsigned long *produced;
	listeners_changed_fn *changed;
	void *data;
	size_t n;
	uint64_t youngest; /* of all listeners that there ever were */
	struct agent_listener now[AGENT_LISTENERS_MAX], next[AGENT_LISTENERS_MAX];
	uint64_t cookies[AGENT_LISTENERS_MAX];
	struct listener_note read[AGENT_LISTENERS_MAX];
};

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* ---- the program ---- */

#define INSN(c, d, s, o, i)                                                                                            \
	{                                                                                                              \
		.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)                                    \
	}
#define SET(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define COPY(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define ADD(d, i) INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define OR(d, i) INSN(BPF_ALU64 | BPF_OR | BPF_K, d, 0, 0, i)
#define LOAD(d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_W, d, s, o, 0)
#define STORE(d, o, s) INSN(BPF_STX | BPF_MEM | BPF_W, d, s, o, 0)
#define STORE64(d, o, s) INSN(BPF_STX | BPF_MEM | BPF_DW, d, s, o, 0)
#define IF_EQUAL(d, i, o) INSN(BPF_JMP | BPF_JEQ | BPF_K, d, 0, o, i)
#define UNLESS_EQUAL(d, i, o) INSN(BPF_JMP | BPF_JNE | BPF_K, d, 0, o, i)
#define GOTO(o) INSN(BPF_JMP | BPF_JA, 0, 0, o, 0)
#define CALL(f) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##f)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define MAP(d, fd) INSN(BPF_LD | BPF_DW | BPF_IMM, d, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)
#define CTX(member) ((int16_t)offsetof(struct bpf_sock_ops, member))
/* On the stack: the key and below it the note. */
#define KEY (-8)
#define NOTE (KEY - (int)sizeof(struct listener_note))
#define AT(member) ((int16_t)(NOTE + (int)offsetof(struct listener_note, member)))

static int load_program(int notes, int ring)
{
	const struct bpf_insn program[] = {
		COPY(6, 1),
		LOAD(2, 6, CTX(op)),
		IF_EQUAL(2, BPF_SOCK_OPS_TCP_LISTEN_CB, 12),
		UNLESS_EQUAL(2, BPF_SOCK_OPS_STATE_CB, 56),
		LOAD(2, 6, CTX(args[0])), /* the state that it leaves */
		UNLESS_EQUAL(2, BPF_TCP_LISTEN, 54),
		/* 6: a listener has ended */
		COPY(1, 6),
		CALL(get_socket_cookie),
		STORE64(10, KEY, 0),
		MAP(1, notes),
		COPY(2, 10),
		ADD(2, KEY),
		CALL(map_delete_elem),
		GOTO(38),
		/* 15: a socket listens */
		COPY(1, 6),
		CALL(get_socket_cookie),
		STORE64(10, KEY, 0),
		CALL(ktime_get_ns),
		STORE64(10, AT(since), 0),
		COPY(1, 6),
		CALL(get_netns_cookie),
		STORE64(10, AT(network), 0),
		LOAD(7, 6, CTX(family)),
		STORE(10, AT(family), 7),
		LOAD(2, 6, CTX(local_port)),
		STORE(10, AT(port), 2),
		SET(0, 0),
		STORE64(10, AT(address[8]), 0),
		STORE(10, AT(address[4]), 0),
		LOAD(2, 6, CTX(local_ip4)),
		STORE(10, AT(address[0]), 2),
		UNLESS_EQUAL(7, AF_INET6, 8),
		LOAD(2, 6, CTX(local_ip6[0])),
		STORE(10, AT(address[0]), 2),
		LOAD(2, 6, CTX(local_ip6[1])),
		STORE(10, AT(address[4]), 2),
		LOAD(2, 6, CTX(local_ip6[2])),
		STORE(10, AT(address[8]), 2),
		LOAD(2, 6, CTX(local_ip6[3])),
		STORE(10, AT(address[12]), 2),
		/* 41 */
		MAP(1, notes),
		COPY(2, 10),
		ADD(2, KEY),
		COPY(3, 10),
		ADD(3, NOTE),
		SET(4, BPF_ANY),
		CALL(map_update_elem), /* a map that is full takes no more: that listener is not told */
		COPY(1, 6),
		LOAD(2, 6, CTX(bpf_sock_ops_cb_flags)),
		OR(2, BPF_SOCK_OPS_STATE_CB_FLAG),
		CALL(sock_ops_cb_flags_set),
		/* 53: ring the bell */
		MAP(1, ring),
		COPY(2, 10),
		ADD(2, KEY),
		SET(3, 8),
		SET(4, BPF_RB_FORCE_WAKEUP),
		CALL(ringbuf_output),
		/* 60: what a program of the workload's own has replied, in a cgroup below, stays its reply */
		SET(0, 1),
		EXIT,
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SOCK_OPS,
		.expected_attach_type = BPF_CGROUP_SOCK_OPS,
		.insns = (uintptr_t)program,
		.insn_cnt = ARRAY_SIZE(program),
		.license = (uintptr_t) "Apache-2.0",
		.prog_name = "husk_listeners",
	};
	return bpf(BPF_PROG_LOAD, &attr);
}

/* ---- the snapshot ---- */

static int by_age(const void *a, const void *b)
{
	const struct listener_note *one = a, *two = b;
	return one->since < two->since ? -1 : one->since > two->since;
}

size_t listeners_tell(struct listener_note *notes, size_t n, uint64_t network, struct agent_listener *to)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}; /* ::ffff:0:0/96, RFC 4291 2.5.5.2 */
	size_t told = 0;

	qsort(notes, n, sizeof(*notes), by_age);
	for (size_t i = 0; i < n; i++) {
		const struct listener_note *note = &notes[i];
		if (note->network != network || note->port < 1 || note->port > 65535)
			continue;
		struct agent_listener *l = &to[told++];
		*l = (struct agent_listener){.port = (uint16_t)note->port, .family = 4};
		if (note->family == AF_INET) {
			memcpy(l->address, note->address, 4);
		} else if (memcmp(note->address, mapped, sizeof(mapped)) == 0) {
			memcpy(l->address, note->address + 12, 4);
		} else {
			l->family = 6;
			memcpy(l->address, note->address, 16);
		}
	}
	return told;
}

bool listeners_renewed(const struct listener_note *notes, size_t n, uint64_t network, uint64_t *youngest)
{
	while (n > 0 && notes[n - 1].network != network)
		n--;
	if (n == 0 || notes[n - 1].since <= *youngest)
		return false;
	*youngest = notes[n - 1].since;
	return true;
}

/** Read the map into l->read: how many notes there are. */
static size_t read_notes(struct listeners *l)
{
	uint64_t next = 0;
	union bpf_attr attr = {.batch = {
				       .out_batch = (uintptr_t)&next,
				       .keys = (uintptr_t)l->cookies,
				       .values = (uintptr_t)l->read,
				       .count = AGENT_LISTENERS_MAX,
				       .map_fd = (uint32_t)l->notes,
			       }};
	/* The map holds no more than fits, so one call sees all of it, and says so with ENOENT. */
	if (bpf(BPF_MAP_LOOKUP_BATCH, &attr) < 0 && errno != ENOENT)
		return 0;
	return attr.batch.count;
}

static void bell_rings(struct loop_watch *watch, uint32_t events)
{
	struct listeners *l = CONTAINER_OF(watch, struct listeners, bell);

	/* What is noted from here on rings again. */
	__atomic_store_n(l->consumed, __atomic_load_n(l->produced, __ATOMIC_ACQUIRE), __ATOMIC_SEQ_CST);
	size_t n_read = read_notes(l), n = listeners_tell(l->read, n_read, l->network, l->next);
	/* One that closed and came again looks as before. But who was refused in between waits to be told of it. */
	bool renewed = listeners_renewed(l->read, n_read, l->network, &l->youngest);
	if (!renewed && n == l->n && memcmp(l->now, l->next, n * sizeof(*l->now)) == 0)
		return;
	memcpy(l->now, l->next, n * sizeof(*l->now));
	l->n = n;
	l->changed(l->data);
}

const struct agent_listener *listeners_get(const struct listeners *listeners, size_t *n)
{
	*n = listeners ? listeners->n : 0;
	return listeners ? listeners->now : NULL;
}

/* ---- setting up ---- */

static int make_map(enum bpf_map_type type, uint32_t key, uint32_t value, uint32_t entries, uint32_t flags)
{
	union bpf_attr attr = {
		.map_type = type, .key_size = key, .value_size = value, .max_entries = entries, .map_flags = flags};
	return bpf(BPF_MAP_CREATE, &attr);
}

static int network_cookie(uint64_t *cookie, struct husk_error *err)
{
	socklen_t size = sizeof(*cookie);
	CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &size) < 0)
		return error_errno(err, "ask for the network namespace's cookie");
	return 0;
}

/** Map the ring's two positions: a page to write, and one to read, Documentation/bpf/ringbuf.rst. */
static int map_ring(struct listeners *l, int ring, size_t page, struct husk_error *err)
{
	void *consumed = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
	if (consumed == MAP_FAILED)
		return error_errno(err, "map the ring buffer");
	void *produced = mmap(NULL, page, PROT_READ, MAP_SHARED, ring, (off_t)page);
	if (produced == MAP_FAILED) {
		munmap(consumed, page);
		return error_errno(err, "map the ring buffer");
	}
	l->consumed = consumed;
	l->produced = produced;
	return 0;
}

static int link_program(int program, int cgroup)
{
	union bpf_attr attr = {.link_create = {
				       .prog_fd = (uint32_t)program,
				       .target_fd = (uint32_t)cgroup,
				       .attach_type = BPF_CGROUP_SOCK_OPS,
			       }};
	return bpf(BPF_LINK_CREATE, &attr);
}

int listeners_open(struct loop *loop, int cgroup, listeners_changed_fn *changed, void *data, struct listeners **out,
	struct husk_error *err)
{
	CLEANUP_FREE struct listeners *l = calloc(1, sizeof(*l));
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!l)
		return error_set(err, -ENOMEM, "watch for listeners: out of memory");
	int rc = network_cookie(&l->network, err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int notes = make_map(BPF_MAP_TYPE_HASH, sizeof(uint64_t), sizeof(struct listener_note),
		AGENT_LISTENERS_MAX, BPF_F_NO_PREALLOC);
	CLEANUP_FD int ring = make_map(BPF_MAP_TYPE_RINGBUF, 0, 0, (uint32_t)page, 0);
	if (notes < 0 || ring < 0)
		return error_errno(err, "make a BPF map");
	CLEANUP_FD int program = load_program(notes, ring);
	if (program < 0)
		return error_errno(err, "load a BPF program");
	CLEANUP_FD int link = link_program(program, cgroup);
	if (link < 0)
		return error_errno(err, "link a BPF program to the workload's cgroup");
	rc = map_ring(l, ring, page, err);
	if (rc < 0)
		return rc;
	rc = loop_add(loop, &l->bell, ring, EPOLLIN, bell_rings, err);
	if (rc < 0) {
		munmap(l->consumed, page);
		munmap((void *)l->produced, page);
		return rc;
	}
	l->notes = steal_fd(&notes);
	l->changed = changed;
	l->data = data;
	steal_fd(&ring);
	l->link = steal_fd(&link);
	*out = steal_pointer(&l);
	return 0;
}
