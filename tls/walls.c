/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walls.c - husk-tls gives up what it does not need
 *
 * Theory of operation: whoever takes this process over through OpenSSL finds the keys it serves with, its clients'
 * connections and the door into its VM, and shall find nothing else:
 *
 *     no_new_privs, no capabilities      also when husk is run by root
 *     not dumpable, no core              the key reaches no file, and no other process of this user may read its memory
 *     the socket's directory as root     of all unix sockets of this machine only the door's own can be entered; where the
 *                                        system lets us: as root or with user namespaces
 *     Landlock, an empty ruleset         no file or directory can be opened, made, removed or executed; no TCP connection
 *                                        made; no process signalled, no abstract socket of another reached
 *     a filter of system calls           only those of the table below; whatever else fails with EPERM
 *
 * Connecting to a unix socket by its path is not among the accesses that the ruleset names, which is why the door can still
 * be entered; the working directory is the one that holds it.
 */
#include "tls/walls.h"

#include "base/cleanup.h"
#include "base/confine.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/** Make the working directory the root. Paths of sockets are not among what Landlock denies, and those of a session bus or a
 *  container engine are as good as a shell. */
static void leave_root(void)
{
	if (chroot(".") < 0 && unshare(CLONE_NEWUSER) == 0 && chroot(".") < 0) {
		/* not with this kernel's settings */
	}
}

/** A system call that stays: always, or when argument @argument masked with @mask is @value. */
struct allowed {
	int number;
	uint32_t mask; /* 0: always */
	unsigned argument;
	uint32_t value;
};

static const struct allowed allowed[] = {
	/* connections */
	{SYS_read},
	{SYS_write},
	{SYS_close},
	{SYS_shutdown},
	{SYS_setsockopt},
	{SYS_accept4},
	{SYS_connect},
	{SYS_socket, .argument = 0, .mask = UINT32_MAX, .value = AF_UNIX},
	/* the loop; which of two names, the C library chooses */
	{SYS_epoll_ctl},
	{SYS_epoll_pwait},
	{SYS_ppoll},
#ifdef SYS_epoll_wait
	{SYS_epoll_wait},
	{SYS_poll},
#endif
	{SYS_timerfd_settime},
	{SYS_clock_gettime},
	{SYS_gettimeofday},
#ifdef SYS_time
	{SYS_time},
#endif
	{SYS_restart_syscall},
	/* memory, never executable */
	{SYS_brk},
	{SYS_mmap, .argument = 2, .mask = PROT_EXEC, .value = 0},
	{SYS_mprotect, .argument = 2, .mask = PROT_EXEC, .value = 0},
	{SYS_mremap},
	{SYS_munmap},
	{SYS_madvise},
	/* OpenSSL's locks and random generator */
	{SYS_futex},
	{SYS_getrandom},
	{SYS_getpid},
	/* an end, abort(3) included */
	{SYS_rt_sigprocmask},
	{SYS_rt_sigreturn},
	{SYS_gettid},
	{SYS_tgkill},
	{SYS_exit_group},
#ifdef __SANITIZE_ADDRESS__
	{SYS_sigaltstack},
#endif
};

#if defined(__x86_64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#define INSTRUCTIONS_PER_CALL 6
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_EQUAL(value, then_skip, else_skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then_skip, else_skip)
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define REFUSE RETURN(SECCOMP_RET_ERRNO | EPERM)

/** Write the instructions for one call, with its number in the accumulator; how many. */
static size_t put_call(struct sock_filter *at, const struct allowed *call)
{
	/* args[] are 64 bits wide, little-endian on both architectures; what is looked at lies in the lower half. */
	struct sock_filter always[] = {IF_EQUAL((uint32_t)call->number, 0, 1), RETURN(SECCOMP_RET_ALLOW)};
	struct sock_filter masked[INSTRUCTIONS_PER_CALL] = {
		IF_EQUAL((uint32_t)call->number, 0, 5),
		LOAD(args[call->argument]),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, call->mask),
		IF_EQUAL(call->value, 0, 1),
		RETURN(SECCOMP_RET_ALLOW),
		REFUSE,
	};
	size_t n = call->mask ? ARRAY_SIZE(masked) : ARRAY_SIZE(always);

	memcpy(at, call->mask ? masked : always, n * sizeof(*at));
	return n;
}

/** Refuse every system call that is not in the table. 1: this kernel has no filters. */
static int deny_calls(struct husk_error *err)
{
	static const struct sock_filter head[] = {
		LOAD(arch),
		IF_EQUAL(THIS_ARCHITECTURE, 1, 0),
		RETURN(SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
	};
	struct sock_filter code[ARRAY_SIZE(head) + INSTRUCTIONS_PER_CALL * ARRAY_SIZE(allowed) + 1];
	size_t n = ARRAY_SIZE(head);

	memcpy(code, head, sizeof(head));
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		n += put_call(code + n, &allowed[i]);
	code[n++] = (struct sock_filter)REFUSE;
	return confine_calls(code, n, err);
}

int walls_build(char missing[WALLS_MISSING_MAX], struct husk_error *err)
{
	leave_root();
	int rc = confine_process(err);
	if (rc == 0)
		rc = confine_capabilities(err);
	int files = rc < 0 ? rc : confine_files(err);
	int calls = files < 0 ? files : deny_calls(err);

	snprintf(missing, WALLS_MISSING_MAX, "%s%s%s", files > 0 ? "Landlock" : "",
		files > 0 && calls > 0 ? " and " : "", calls > 0 ? "filters of system calls" : "");
	return calls < 0 ? calls : 0;
}
