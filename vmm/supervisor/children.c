/* SPDX-License-Identifier: Apache-2.0 */
/*
 * children.c - start worker and QEMU, and tell how they died
 *
 * Theory of operation: everything the two share is made here and passed by descriptor: guest RAM (a memfd that nobody can
 * resize), a socket pair for QMP, one for the console, one per device. Both children die with the supervisor
 * (PR_SET_PDEATHSIG), both sides of a pair are closed here at once, so that the end of one is seen by the other. Both are born
 * into namespaces of their own; the worker builds the rest of its shell itself, `husk-vmm enclose` builds QEMU's (vmm/jail).
 * On the `kvm` machine there is no QEMU: the worker gets /dev/kvm, the kernel and the initramfs, and nothing links it to
 * anybody.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "base/tlv.h"
#include "memory/memory.h"
#include "vmm/jail/jail.h"
#include "vmm/machine/qemu/qemu_argv.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/** The stream pairs between worker and QEMU: [0] is the worker's end. Behind LINK_DEVICES one for each device, in the order
 *  of VMM_DEVICE_FD. */
enum link { LINK_QMP, LINK_CONSOLE, LINK_HVC, LINK_DEVICES };
#define HVC_BUFFER (4 << 20)
#define LINKS (LINK_DEVICES + VMM_DEVICES_MAX)
_Static_assert(QEMU_DISKS_MAX == VMM_DISKS_MAX + 2, "root, the user's and scratch");

struct wiring {
	int memory;
	int link[LINKS][2];
};

static void wiring_close(struct wiring *w)
{
	cleanup_fd(&w->memory);
	for (int i = 0; i < LINKS; i++) {
		cleanup_fd(&w->link[i][0]);
		cleanup_fd(&w->link[i][1]);
	}
}

/** QEMU drops what its console's stream does not take at once (sink.h): let it take much. Root may exceed the host's limit. */
static void widen(int fd)
{
	const int size = HVC_BUFFER;

	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static int wiring_make(struct wiring *w, const struct vmm_config *c, struct husk_error *err)
{
	*w = (struct wiring){.memory = -1};
	for (int i = 0; i < LINKS; i++)
		w->link[i][0] = w->link[i][1] = -1;
	int rc = c->machine == VMM_MACHINE_QEMU ? memory_make_fd(c->memory, &w->memory, err) : 0;
	size_t links = c->machine == VMM_MACHINE_QEMU ? LINK_DEVICES + vmm_config_devices(c) : 0;
	for (size_t i = 0; rc == 0 && i < links; i++)
		if ((i != LINK_HVC || c->serial == VMM_SERIAL_CAPTURE) &&
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w->link[i]) < 0)
			rc = error_errno(err, "make a socket pair");
	widen(w->link[LINK_HVC][1]);
	return rc;
}

/** What a child gets beyond its stdio: descriptors, and entries that name them by their number there. */
struct passing {
	int fds[VMM_LAYERS_MAX + VMM_DISKS_MAX + VMM_DEVICES_MAX + 32];
	size_t n;
	struct buffer envelope;
};

/** Pass @fd (-1: nothing); its number in the child, or -1. */
static int pass(struct passing *p, int fd)
{
	if (fd < 0)
		return -1;
	p->fds[p->n] = fd;
	return SPAWN_FDS + (int)p->n++;
}

static void pass_as(struct passing *p, enum vmm_tag tag, int fd)
{
	int number = pass(p, fd);
	if (number >= 0)
		tlv_put_u32(&p->envelope, tag, (uint32_t)number);
}

/** What a VM that lives on has. */
static void fill_lasting(struct passing *p, const struct vmm_config *c)
{
	struct buffer *b = &p->envelope;

	tlv_put_u64(b, VMM_LOG_SIZE, c->log_size);
	pass_as(p, VMM_CONSOLE_LOG_FD, c->console_log_fd[0]);
	pass_as(p, VMM_CONSOLE_LOG_2_FD, c->console_log_fd[1]);
	pass_as(p, VMM_WORKLOAD_LOG_FD, c->workload_log_fd[0]);
	pass_as(p, VMM_WORKLOAD_LOG_2_FD, c->workload_log_fd[1]);
	tlv_put_u32(b, VMM_OPEN_STDIN, c->open_stdin);
	tlv_put_u64(b, VMM_BALLOON, c->balloon);
}

static void fill_envelope(struct passing *p, const struct supervisor *s, const struct wiring *w, int channel)
{
	const struct vmm_config *c = &s->config;
	struct buffer *b = &p->envelope;

	tlv_begin(b, VMM_MAGIC, VMM_VERSION);
	tlv_put_string(b, VMM_ID, c->id);
	tlv_put_u32(b, VMM_MACHINE, c->machine);
	tlv_put_u64(b, VMM_MEMORY, c->memory);
	tlv_put_u32(b, VMM_CPUS, c->cpus);
	tlv_put_u64(b, VMM_TIMEOUT_MS, c->timeout_ms);
	tlv_put_u64(b, VMM_LISTEN_WAIT_MS, c->listen_wait_ms);
	if (c->machine == VMM_MACHINE_KVM) {
		tlv_put_string(b, VMM_CMDLINE, c->cmdline ? c->cmdline : "");
		pass_as(p, VMM_KVM_FD, c->kvm_fd);
		pass_as(p, VMM_KERNEL_FD, c->kernel_fd);
		pass_as(p, VMM_INITRD_FD, c->initrd_fd);
	}
	if (c->exec)
		tlv_put(b, VMM_EXEC, c->exec, c->exec_size);
	for (size_t i = 0; i < c->n_layers; i++)
		pass_as(p, VMM_LAYER_FD, c->layer_fd[i]);
	for (size_t i = 0; i < c->n_disks; i++) {
		struct vmm_disk disk = c->disks[i];
		disk.fd = pass(p, disk.fd);
		tlv_put(b, VMM_DISK, &disk, sizeof(disk));
	}
	pass_as(p, VMM_SCRATCH_FD, c->scratch_fd);
	pass_as(p, VMM_RUNTIME_FD, c->runtime_fd);
	pass_as(p, VMM_LOG_FD, c->log_fd);
	pass_as(p, VMM_CONTROL_FD, c->control_fd);
	pass_as(p, VMM_STATS_FD, c->stats_fd);
	for (int i = 0; i < 3; i++)
		pass_as(p, VMM_STDIN_FD + i, c->stdio_fd[i]);
	fill_lasting(p, c);
	pass_as(p, VMM_MEMORY_FD, w->memory);
	pass_as(p, VMM_QMP_FD, w->link[LINK_QMP][0]);
	for (size_t i = 0; i < VMM_DEVICES_MAX; i++)
		pass_as(p, VMM_DEVICE_FD, w->link[LINK_DEVICES + i][0]);
	pass_as(p, VMM_CONSOLE_FD, w->link[LINK_CONSOLE][0]);
	pass_as(p, VMM_HVC_FD, w->link[LINK_HVC][0]);
	tlv_put_u32(b, VMM_SERIAL, c->serial);
	tlv_put_u32(b, VMM_NO_AGENT, c->no_agent);
	pass_as(p, VMM_SERIAL_OUT_FD, c->serial_out_fd);
	pass_as(p, VMM_SERIAL_IN_FD, c->serial_in_fd);
	pass_as(p, VMM_SUPERVISOR_FD, channel);
	pass_as(p, VMM_EXEC_SOCKET_FD, c->exec_socket_fd);
	pass_as(p, VMM_VSOCK_SOCKET_FD, c->vsock_socket_fd);
	pass_as(p, VMM_DIAL_FD, c->dial_fd);
	tlv_put_u32(b, VMM_WALLS, c->walls);
	tlv_seal(b);
}

/** Start a child behind its walls. */
static int start_child(struct supervisor *s, struct spawn *how, struct child *child, struct husk_error *err)
{
	struct jail_birth birth;

	jail_birth(&birth, s->config.walls, how);
	int rc = spawn(how, &child->pid, &child->pidfd, err);
	return rc < 0 ? jail_birth_failed(s->config.walls, rc, err) : 0;
}

static int start_worker(struct supervisor *s, const struct wiring *w, struct husk_error *err)
{
	char name[] = "husk-vmm", verb[] = "worker";
	char *argv[] = {name, verb, NULL};
	int pair[2];
	CLEANUP_FD int envelope = memfd_create("husk-envelope", MFD_CLOEXEC);
	struct passing p = {.n = 1};

	if (envelope < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, "connect to the worker");
	s->channel = pair[0];
	fd_set_nonblocking(s->channel, true); /* our end only: a worker that does not read must not hold us */
	CLEANUP_FD int theirs = pair[1];
	p.fds[0] = envelope;
	fill_envelope(&p, s, w, theirs);
	int rc = fd_write_all(envelope, buffer_bytes(&p.envelope), p.envelope.size);
	buffer_free(&p.envelope);
	if (rc < 0)
		return error_set(err, rc, "write the worker's configuration: %s", strerror(-rc));
	struct spawn how = {
		.path = "/proc/self/exe",
		.argv = argv,
		.stdio = {-1, s->config.log_fd, s->config.log_fd},
		.fds = p.fds,
		.n_fds = p.n,
		.die_with_parent = true,
	};
	return start_child(s, &how, &s->worker, err);
}

/** QEMU opens these by their number in /proc/self/fd, which asks for the file's permissions again: with an id of its own it
 *  needs one that everybody may read. */
static int let_read(int *fd, struct husk_error *err)
{
	struct stat st;

	if (*fd < 0 || (fstat(*fd, &st) == 0 && (st.st_mode & S_IROTH)))
		return 0;
	CLEANUP_FD int copy =
		memfd_create("husk-copy", MFD_CLOEXEC); /* mode 0777, for whoever has it as a descriptor */
	off_t at = 0;
	if (copy < 0)
		return error_errno(err, "copy a file for QEMU");
	while (at < st.st_size)
		if (sendfile(copy, *fd, &at, (size_t)(st.st_size - at)) <= 0)
			return error_errno(err, "copy a file for QEMU");
	close(*fd);
	*fd = steal_fd(&copy);
	return 0;
}

/** Put `husk-vmm enclose …` in front of QEMU's command line. */
static char **enclose(struct supervisor *s, char **qemu, int runtime_fd, char numbers[3][16])
{
	static char name[] = "husk-vmm", verb[] = "enclose";
	size_t n = 0;

	while (qemu[n])
		n++;
	char **argv = calloc(n + 6, sizeof(*argv));
	if (!argv)
		return NULL;
	snprintf(numbers[0], 16, "%u", s->config.walls);
	snprintf(numbers[1], 16, "%u", jail_id(s->config.id, true));
	snprintf(numbers[2], 16, "%d", runtime_fd);
	char *const head[] = {name, verb, numbers[0], numbers[1], numbers[2]};
	memcpy(argv, head, sizeof(head));
	memcpy(argv + ARRAY_SIZE(head), qemu, n * sizeof(*argv));
	return argv;
}

static int start_qemu(struct supervisor *s, const struct wiring *w, struct husk_error *err)
{
	struct vmm_config *c = &s->config;
	char path[] = "PATH=/usr/bin:/bin", numbers[3][16];
	char *envp[] = {path, NULL};
	char **argv = NULL;
	int errors[2];
	struct passing p = {0};
	int rc = access(c->qemu_path, X_OK) < 0 ? error_errno(err, "start %s", c->qemu_path) : 0;
	rc = rc < 0 ? rc : let_read(&c->kernel_fd, err);
	rc = rc < 0 ? rc : let_read(&c->initrd_fd, err);
	if (rc < 0)
		return rc;
	struct qemu_start start = {
		.path = c->qemu_path,
		.id = c->id,
		.cmdline = c->cmdline,
		.memory = c->memory,
		.cpus = c->cpus,
		.memory_fd = pass(&p, w->memory),
		.kernel_fd = pass(&p, c->kernel_fd),
		.initrd_fd = pass(&p, c->initrd_fd),
		.qmp_fd = pass(&p, w->link[LINK_QMP][1]),
		.console_fd = pass(&p, w->link[LINK_CONSOLE][1]),
		.hvc_fd = pass(&p, w->link[LINK_HVC][1]),
		.n_disks = vmm_config_devices(c) - 1,
	};
	for (size_t i = 0; i < start.n_disks; i++)
		start.disk_fd[i] = pass(&p, w->link[LINK_DEVICES + i][1]);
	start.vsock_fd = pass(&p, w->link[LINK_DEVICES + start.n_disks][1]);

	if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_errno(err, "make a pipe");
	s->errors.fd = errors[0];
	CLEANUP_FD int theirs = errors[1];
	fd_set_nonblocking(theirs, false);
	rc = qemu_argv_make(&start, &argv, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char **enclosed = enclose(s, argv, pass(&p, c->runtime_fd), numbers);
	if (!enclosed) {
		qemu_argv_free(&argv);
		return error_set(err, -ENOMEM, "make QEMU's command line: out of memory");
	}
	struct spawn how = {
		.path = "/proc/self/exe",
		.argv = enclosed,
		.envp = envp,
		.stdio = {-1, theirs, theirs},
		.fds = p.fds,
		.n_fds = p.n,
		.die_with_parent = true,
	};
	rc = start_child(s, &how, &s->machine, err);
	qemu_argv_free(&argv);
	return rc;
}

int children_start(struct supervisor *s, struct husk_error *err)
{
	struct wiring CLEANUP(wiring_close) w;

	int rc = wiring_make(&w, &s->config, err);
	if (rc == 0 && s->config.machine == VMM_MACHINE_QEMU)
		rc = start_qemu(s, &w, err); /* first: it takes longer to set itself up than the worker does */
	if (rc == 0)
		rc = start_worker(s, &w, err);
	return rc;
}

bool child_reap(struct child *c)
{
	if (c->pid && !c->dead)
		c->dead = waitpid(c->pid, &c->status, WNOHANG) == c->pid;
	return c->dead;
}

void children_end(struct supervisor *s)
{
	struct child *both[] = {&s->machine, &s->worker};

	for (size_t i = 0; i < ARRAY_SIZE(both); i++)
		if (both[i]->pid && !both[i]->dead)
			kill(both[i]->pid, SIGKILL); /* ours and not reaped: the pid cannot be another's */
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		struct child *c = both[i];
		while (c->pid && !c->dead)
			c->dead = waitpid(c->pid, &c->status, 0) == c->pid || errno == ECHILD;
	}
}

void child_fate(const struct child *c, char *out, size_t room)
{
	if (WIFSIGNALED(c->status))
		snprintf(out, room, "%s was killed by signal %d%s", c->name, WTERMSIG(c->status),
			WTERMSIG(c->status) == SIGSYS ? " (a system call that its filter forbids)" : "");
	else
		snprintf(out, room, "%s exited with status %d", c->name, WEXITSTATUS(c->status));
}
