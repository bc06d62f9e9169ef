/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - husk-init: PID 1 of a husk VM
 *
 * Theory of operation: the kernel unpacks the initramfs and runs this program as /init. It reads the boot envelope, loads
 * the modules, stacks the root, says READY to the host over vsock and serves the agent protocol until the VM shall end.
 * There is no way out but the VM's end: whatever fails is said on the console and powers the machine off, the kernel's
 * panic=-1 resets it should PID 1 ever die, and a shell does not exist here.
 *
 * Speed matters, all of this is on every cold start's path: nothing is forked, nothing sleeps, every file system is mounted
 * once.
 */
#include "agent/boot.h"
#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/tlv.h"
#include "guest/agent.h"
#include "guest/console.h"
#include "guest/envelope.h"
#include "guest/modules.h"
#include "guest/mounts.h"
#include "guest/network.h"
#include "guest/nodes.h"

#include <fcntl.h>
#include <linux/random.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX (1u << 20) /* fs.nr_open's default; a forward has two descriptors */
#define VSOCK_BUFFER (1u << 20) /* what the host may have in flight towards one connection of the agent */
#define NICE (-10)
#define HOST_PATIENCE_S 60
#define CLOCK_SLACK_NS 1000000000ll

static uint64_t boot_clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

_Noreturn static void power_off(void)
{
	reboot(RB_POWER_OFF);
	for (;;) /* not reached: a kernel without power off halts inside the call */
		pause();
}

/** Credit the host's bytes to the random generator. */
static int seed(const struct bytes *entropy, struct husk_error *err)
{
	CLEANUP_FREE struct rand_pool_info *pool = NULL;
	if (!entropy->size)
		return 0;
	CLEANUP_FD int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	pool = malloc(sizeof(*pool) + entropy->size);
	if (!pool)
		return error_set(err, -ENOMEM, "seed the random generator: out of memory");
	pool->entropy_count = (int)entropy->size * 8;
	pool->buf_size = (int)entropy->size;
	memcpy(pool->buf, entropy->data, entropy->size);
	int rc = fd < 0 || ioctl(fd, RNDADDENTROPY, pool) < 0 ? error_errno(err, "seed the random generator") : 0;
	explicit_bzero(pool, sizeof(*pool) + entropy->size);
	return rc;
}

/** Set the clock when the machine's own was wrong. The envelope was written just before the machine started. */
static int set_clock(uint64_t host_ns, struct husk_error *err)
{
	struct timespec now;
	if (!host_ns)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t expected = (int64_t)(host_ns + boot_clock_ns());
	int64_t off = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - expected;
	if (off > -CLOCK_SLACK_NS && off < CLOCK_SLACK_NS)
		return 0;
	struct timespec set = {.tv_sec = (time_t)(expected / 1000000000), .tv_nsec = (long)(expected % 1000000000)};
	return clock_settime(CLOCK_REALTIME, &set) < 0 ? error_errno(err, "set the clock") : 0;
}

static int prepare(struct envelope *envelope, struct nodes *nodes, int *cgroup, struct husk_error *err)
{
	int rc = envelope_read(BOOT_PATH, envelope, err);
	if (rc < 0)
		return rc;
	unlink(BOOT_PATH);
	console_set_debug(envelope->flags & BOOT_FLAG_DEBUG);
	console_debug("boot envelope read");
	rc = mounts_devices(err);
	if (rc == 0)
		rc = seed(&envelope->entropy, err);
	if (rc == 0)
		rc = set_clock(envelope->time_ns, err);
	if (rc == 0)
		rc = modules_load(BOOT_MODULES_DIR, envelope->modules, envelope->n_modules, err);
	console_debug("%zu modules loaded", envelope->n_modules);
	if (rc == 0)
		rc = mounts_root(envelope, err);
	if (rc == 0)
		rc = nodes_find(envelope, nodes, err);
	if (rc == 0)
		rc = network_up(envelope->hostname, err);
	if (rc == 0)
		rc = network_write_files(MOUNTS_ROOT, envelope, err);
	console_debug("network files written");
	if (rc == 0)
		rc = mounts_cgroup(cgroup, err);
	console_debug("cgroup made");
	return rc;
}

static void set_vsock_buffer(int fd)
{
	uint64_t size = VSOCK_BUFFER;
	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &size, sizeof(size));
	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof(size));
}

static int listen_vsock(struct husk_error *err)
{
	struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT};
	CLEANUP_FD int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, "make a vsock socket");
	set_vsock_buffer(fd);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, AGENT_LISTEN_BACKLOG) < 0)
		return error_errno(err, "listen on vsock port %d", AGENT_PORT);
	return steal_fd(&fd);
}

/** Connect to the host and say READY; the connection. */
static int say_ready(uint64_t init_ns, struct husk_error *err)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = AGENT_PORT};
	CLEANUP_BUFFER struct buffer entries = {0}, frames = {0};
	struct utsname names;

	uname(&names);
	tlv_put_u64(&entries, AGENT_READY_BOOT_NS, boot_clock_ns());
	tlv_put_u64(&entries, AGENT_READY_INIT_NS, init_ns);
	tlv_put_string(&entries, AGENT_READY_KERNEL, names.release);
	agent_hello_put(&frames);
	if (!entries.data || agent_frame_put(&frames, AGENT_READY, 0, buffer_bytes(&entries), entries.size) < 0)
		return error_set(err, -ENOMEM, "say READY: out of memory");
	/* The kernel's own limit is two seconds, which a busy host may need to answer; its start timeout ends a wait in vain. */
	const struct timeval patience = {.tv_sec = HOST_PATIENCE_S};
	CLEANUP_FD int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience));
	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof(host)) < 0)
		return error_errno(err, "connect to the host");
	int rc = fd_write_all(fd, buffer_bytes(&frames), frames.size);
	if (rc == 0)
		rc = fd_set_nonblocking(fd, true);
	return rc < 0 ? error_set(err, rc, "say READY: %s", strerror(-rc)) : steal_fd(&fd);
}

/** The agent's own limit; programs get theirs before their exec. */
static void allow_files(void)
{
	const struct rlimit files = {.rlim_cur = FILES_MAX, .rlim_max = FILES_MAX};
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		console_debug("raise the limit of open files: %s", strerror(errno));
}

/** The agent stands between programs and the host, on one CPU with them. As a batch process it does not interrupt a program
 *  that sends, but takes in one go what that has sent until it waits; and with its priority it finishes its turn before the
 *  program that it woke goes on. Programs get the ordinary schedule back with their fork. */
static void choose_schedule(void)
{
	const struct sched_param none = {0};
	if (sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none) < 0 ||
		setpriority(PRIO_PROCESS, 0, NICE) < 0)
		console_debug("choose a schedule: %s", strerror(errno));
}

static int serve(const struct envelope *envelope, const struct nodes *nodes, int cgroup, uint64_t init_ns,
	const char **why, struct husk_error *err)
{
	struct agent_setup setup = {
		.workload =
			{
				.root = MOUNTS_ROOT,
				.cgroup = cgroup,
				.hostname = envelope->hostname,
				.read_only = envelope->flags & BOOT_FLAG_READ_ONLY,
				.volumes = envelope->volumes,
				.n_volumes = envelope->n_volumes,
				.shm_size = envelope->shm_size,
				.nofile = envelope->nofile,
				.nodes = nodes,
				.vsock_port = envelope->vsock_port,
			},
		.from_host_only = true,
		.input = "/dev/input",
		.stop_signal = envelope->stop_signal,
		.kept = envelope->flags & BOOT_FLAG_KEPT,
	};
	allow_files();
	choose_schedule();
	setup.listener = listen_vsock(err);
	if (setup.listener < 0)
		return setup.listener;
	setup.ready = say_ready(init_ns, err);
	if (setup.ready < 0)
		return setup.ready;
	console_debug("ready");
	setup.late_modules = modules_load_later(BOOT_MODULES_DIR, envelope->late_modules, envelope->n_late_modules);
	return agent_serve(&setup, why, err);
}

/** Be the workload of a self-test, which runs below the husk-init that is PID 1. */
static int selftest(void)
{
	static const char line[] = BOOT_SELFTEST_LINE;
	return write(STDOUT_FILENO, line, sizeof(line) - 1) == sizeof(line) - 1 ? BOOT_SELFTEST_STATUS : 1;
}

int main(int argc, char **argv)
{
	static struct nodes nodes;
	struct husk_error err = {0};
	struct envelope envelope = {0};
	const char *why = "";
	uint64_t init_ns = boot_clock_ns();
	int cgroup = -1;

	if (argc == 2 && strcmp(argv[1], BOOT_SELFTEST_WORD) == 0)
		return selftest();
	if (getpid() != 1) {
		console_say("I am PID 1 of a husk VM and nothing else");
		return 125;
	}
	console_begin();
	umask(022);
	reboot(RB_DISABLE_CAD);
	int rc = prepare(&envelope, &nodes, &cgroup, &err);
	if (rc == 0)
		rc = serve(&envelope, &nodes, cgroup, init_ns, &why, &err);
	if (rc < 0)
		console_say("%s; powering off", err.message);
	else
		console_debug("powering off: %s", why);
	power_off();
}
