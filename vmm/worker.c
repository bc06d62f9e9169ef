/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - wiring of one VM from its configuration
 *
 * Theory of operation: the worker gets everything as descriptors in one envelope, makes guest memory, devices, machine and
 * doors from it, and then lives in one event loop on one thread. Before it makes the first of them it goes into its jail, whose
 * root is the VM's runtime directory; sockets in there it is given, or asks the supervisor for. It frees nothing at its end: the supervisor kills it, or it dies with it.
 */
#include "vmm/worker.h"

#include "base/cleanup.h"
#include "vmm/jail/jail.h"
#include "vmm/log.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define STANDBYS 8 /* connections to the agent that await their use; each is a socket of the guest's */

void worker_log(struct worker *w, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vmm_log(w->config.log_fd, "husk-vmm worker", format, args);
	va_end(args);
}

static void on_device_broken(void *data, const char *why)
{
	struct worker_device *d = data;

	if (!d->broken) /* a guest may break it again and again; the log says so once */
		worker_log(d->worker, "%s: the guest broke it: %s", d->name, why);
	d->broken = true;
}

/** Give the machine @device, and where that is another process the next of the sockets. */
static int attach(struct worker *w, const char *name, struct virtio_device *device, struct husk_error *err)
{
	struct worker_device *d = &w->devices[w->n_devices];
	int none = -1, *fd = w->n_devices < w->config.n_devices ? &w->config.device_fd[w->n_devices] : &none;

	*d = (struct worker_device){.worker = w};
	snprintf(d->name, sizeof(d->name), "%s", name);
	w->n_devices++;
	const struct machine_device into = {
		.name = d->name, .device = device, .socket_fd = *fd, .broken = on_device_broken, .data = d};
	int rc = w->ops->attach(w->machine, &into, err);
	if (rc == 0)
		*fd = -1;
	return rc;
}

/** A block device over @disk (taken), the next in the guest. */
static int attach_disk(
	struct worker *w, const char *name, const char *serial, struct disk *disk, struct husk_error *err)
{
	struct worker_disk *d = &w->disks[w->n_disks++];

	/* A queue per vCPU spares the guest's a lock; QEMU is told of one (qemu_argv.c). */
	bool many = w->config.machine == VMM_MACHINE_KVM;
	unsigned n_queues = !many ? 1 : w->config.cpus < VIRTIO_QUEUES_MAX ? w->config.cpus : VIRTIO_QUEUES_MAX;

	d->disk = disk;
	int rc = blk_create(disk, serial, n_queues, &d->blk, err);
	if (rc < 0)
		return rc;
	blk_count(d->blk, &w->stats->block);
	return attach(w, name, blk_device(d->blk), err);
}

static int make_root(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	struct disk *disk;

	int rc = disk_open_layers(c->layer_fd, c->n_layers, &disk, err);
	if (rc < 0)
		return rc;
	c->n_layers = 0;
	return attach_disk(w, "root disk", "husk-root", disk, err);
}

/** A disk over the one file @fd, which is taken on success. */
static int make_file_disk(
	struct worker *w, const char *name, const char *serial, int *fd, bool read_only, struct husk_error *err)
{
	struct disk *disk;

	int rc = disk_open_file(*fd, read_only, &disk, err);
	if (rc < 0)
		return error_prefix(err, rc, "%s", name);
	*fd = -1;
	return attach_disk(w, name, serial, disk, err);
}

/** Root first, then the user's in their order, scratch last: what the guest is told of their names relies on it. */
static int make_disks(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	char name[32];

	int rc = make_root(w, err);
	for (size_t i = 0; rc == 0 && i < c->n_disks; i++) {
		struct vmm_disk *given = &c->disks[i];
		snprintf(name, sizeof(name), "disk %zu", i);
		rc = make_file_disk(w, name, given->serial, &given->fd, given->read_only, err);
	}
	if (rc == 0 && c->scratch_fd >= 0)
		rc = make_file_disk(w, "scratch disk", "husk-scratch", &c->scratch_fd, false, err);
	return rc;
}

static int make_vsock(struct worker *w, struct husk_error *err)
{
	int rc = vsock_create(&w->loop, VSOCK_CID_GUEST, workload_accept, w, &w->vsock, err);
	if (rc < 0)
		return rc;
	vsock_count(w->vsock, &w->stats->net);
	return attach(w, "vsock", vsock_device(w->vsock), err);
}

/** Tie the caller's descriptors to the guest's console, where that is what the serial sink says. */
static int make_sink(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	bool capture = c->serial == VMM_SERIAL_CAPTURE;
	unsigned both = 1u << VCONSOLE_WORKLOAD | 1u << VCONSOLE_LOG;

	w->sink = (struct sink)SINK_NONE;
	if (c->serial == VMM_SERIAL_LOG)
		return 0;
	int rc = sink_open(&w->sink, &w->loop, steal_fd(&c->serial_out_fd), steal_fd(&c->serial_in_fd),
		capture ? NULL : &w->console, err);
	if (rc < 0)
		return rc;
	w->sink.lossy = c->serial == VMM_SERIAL_PTY;
	if (w->vconsole)
		return sink_tie_vconsole(&w->sink, w->vconsole, capture ? 1u << VCONSOLE_WORKLOAD : both,
			capture ? VCONSOLE_WORKLOAD : VCONSOLE_LOG, err);
	return sink_tie_stream(&w->sink, steal_fd(capture ? &c->hvc_fd : &c->console_fd), err);
}

/** The kernel's and init's words on hvc1 go where those of the early console went. */
static size_t on_chatter(void *data, const struct iovec *iov, unsigned n_iov)
{
	struct worker *w = data;
	size_t n = 0;

	for (unsigned i = 0; i < n_iov; i++) {
		console_write(&w->console, iov[i].iov_base, iov[i].iov_len);
		n += iov[i].iov_len;
	}
	return n;
}

/** Console, entropy and balloon, which QEMU has of its own. */
static int make_own_devices(struct worker *w, struct husk_error *err)
{
	static const struct vconsole_end chatter = {.output = on_chatter};

	if (!w->ops->capabilities.own_devices)
		return 0;
	int rc = vconsole_create(&w->vconsole, err);
	if (rc < 0)
		return rc;
	vconsole_set_end(w->vconsole, VCONSOLE_LOG, &chatter, w);
	vconsole_set_end(w->vconsole, VCONSOLE_WORKLOAD, &chatter, w); /* unless a sink takes it */
	rc = attach(w, "console", vconsole_device(w->vconsole), err);
	rc = rc < 0 ? rc : rng_create(&w->rng, err);
	rc = rc < 0 ? rc : attach(w, "entropy", rng_device(w->rng), err);
	rc = rc < 0 ? rc : balloon_create(&w->memory, &w->balloon, err);
	return rc < 0 ? rc : attach(w, "balloon", balloon_device(w->balloon), err);
}

static int make_memory(struct worker *w, struct husk_error *err)
{
	int rc = 0;

	if (w->config.memory_fd < 0) /* nobody else has to see it */
		memory_init_anonymous(&w->memory, w->config.memory);
	else
		rc = memory_init(&w->memory, w->config.memory_fd, err);
	if (rc < 0)
		return rc;
	w->config.memory_fd = -1;
	return w->ops->map_memory(&w->memory, w->config.memory, err);
}

static void on_machine(void *data, enum machine_event event, const char *text)
{
	struct worker *w = data;

	orders_machine(w, event, text);
	/* A guest without our agent has no workload to report: powering off is how it ends well. */
	if (event == MACHINE_OFF && !w->config.exec)
		workload_settle(w, VM_END_EXITED, "", 100);
	else if (event == MACHINE_OFF || event == MACHINE_ENDED)
		workload_settle(w, VM_END_GUEST, text, 100);
	else if (event == MACHINE_LOST)
		workload_settle(w, VM_END_MACHINE, text, 1000);
	else if (event == MACHINE_RUNNING && text[0])
		worker_log(w, "vCPUs run %.2f ms after the worker's start, %s",
			(double)(w->running_ns - w->begun_ns) / 1e6, text);
}

/** What the kernel says goes through the sink, which logs it. */
static bool on_sink(const struct worker *w)
{
	return w->config.serial == VMM_SERIAL_INHERIT || w->config.serial == VMM_SERIAL_PTY;
}

static void on_console(void *data, const void *bytes, size_t n)
{
	struct worker *w = data;
	if (on_sink(w))
		sink_early(&w->sink, bytes, n);
	else
		console_write(&w->console, bytes, n);
}

/** The first byte of the guest is met by the loop, or by a vCPU's thread, which seals itself (machine_setup.vcpu_begins); so
 *  this comes behind the start of those threads, which would get the loop's filter otherwise. */
static int seal(struct worker *w, enum jail_thread kind, struct husk_error *err)
{
	return w->config.walls & JAIL_FILTER ? jail_seal(kind, err) : 0;
}

static int on_vcpu(void *data, struct husk_error *err)
{
	return seal(data, JAIL_VCPU, err);
}

static int make_machine(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	const struct machine_setup setup = {.loop = &w->loop,
		.memory = &w->memory,
		.event = on_machine,
		.data = w,
		.control_fd = c->qmp_fd,
		.ballooned = sample_ballooned,
		.kvm_fd = c->kvm_fd,
		.kernel_fd = c->kernel_fd,
		.initrd_fd = c->initrd_fd,
		.cmdline = c->cmdline,
		.cpus = c->cpus,
		.console = on_console,
		.vcpu_begins = on_vcpu};

	int rc = w->ops->create(&setup, &w->machine, err);
	if (rc == 0)
		c->qmp_fd = c->kvm_fd = c->kernel_fd = c->initrd_fd = -1;
	return rc;
}

static void on_door_line(void *data, const char *line)
{
	worker_log(data, "%s", line);
}

/** A door that every VM has, on the listening socket @fd (taken). */
static int open_own(struct worker *w, uint32_t id, uint32_t kind, const char *name, int fd, struct husk_error *err)
{
	struct vm_door door = {.id = id, .kind = kind};

	snprintf(door.endpoint, sizeof(door.endpoint), "%s", name);
	return doors_add(w->doors, &door, fd, err);
}

static int make_doors(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;

	const struct doors_setup setup = {.loop = &w->loop,
		.vsock = w->vsock,
		.stats = w->stats,
		.listen_wait_ms = c->listen_wait_ms,
		.standbys = STANDBYS,
		.no_agent = c->no_agent,
		.log = on_door_line,
		.data = w};
	int rc = doors_create(&setup, &w->doors, err);
	if (rc == 0)
		rc = open_own(w, VM_DOOR_EXEC_ID, VM_DOOR_EXEC, "exec.sock", steal_fd(&c->exec_socket_fd), err);
	if (rc == 0)
		rc = open_own(w, VM_DOOR_VSOCK_ID, VM_DOOR_VSOCK, "vsock.sock", steal_fd(&c->vsock_socket_fd), err);
	if (rc == 0)
		rc = orders_open(w, err);
	if (rc == 0 && c->control_fd >= 0)
		rc = control_open(&w->control, &w->loop, steal_fd(&c->control_fd), workload_control, w, err);
	return rc;
}

/** Open the log in the files @fd; every start of the VM is told in it. None is fine. */
static int open_log(struct worker *w, struct record_log *log, const int fd[2], struct husk_error *err)
{
	if (fd[0] < 0)
		return 0;
	int rc = record_log_open(log, fd, w->config.log_size, err);
	if (rc == 0)
		record_log_write(log, RECORD_BOOT, NULL, 0);
	return rc;
}

/** The guest's console and the workload's output on their way into the VM's logs. */
static int open_logs(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	bool sunk = on_sink(w); /* the sink reads it then, and logs it */

	int rc = open_log(w, &w->console_log, c->console_log_fd, err);
	rc = rc < 0 ? rc : open_log(w, &w->workload_log, c->workload_log_fd, err);
	rc = rc < 0 ? rc : console_open(&w->console, &w->loop, sunk ? -1 : c->console_fd, c->log_fd, err);
	if (rc == 0 && !sunk)
		c->console_fd = -1;
	return rc < 0 || !w->console_log.limit ? rc : console_record(&w->console, &w->console_log, err);
}

static int check(const struct vmm_config *c, struct husk_error *err)
{
	const int always[] = {c->supervisor_fd, c->exec_socket_fd, c->vsock_socket_fd,
		c->dial_fd};
	const int qemu[] = {c->memory_fd, c->qmp_fd, c->console_fd};
	const int kvm[] = {c->kvm_fd, c->kernel_fd};
	bool emulated = c->machine == VMM_MACHINE_QEMU, lacks = false;

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		lacks |= always[i] < 0;
	for (size_t i = 0; i < ARRAY_SIZE(qemu) && emulated; i++)
		lacks |= qemu[i] < 0;
	for (size_t i = 0; i < ARRAY_SIZE(kvm) && !emulated; i++)
		lacks |= kvm[i] < 0;
	if (lacks)
		return error_set(err, -EINVAL, "the worker's configuration lacks a descriptor");
	if (c->n_layers == 0)
		return error_set(err, -EINVAL, "the worker's configuration lacks a root disk");
	if ((c->console_log_fd[0] < 0) != (c->console_log_fd[1] < 0) ||
		(c->workload_log_fd[0] < 0) != (c->workload_log_fd[1] < 0))
		return error_set(err, -EINVAL, "the worker's configuration has one of a log's two files");
	if (c->balloon >= c->memory)
		return error_set(err, -EINVAL, "the worker's configuration leaves the guest no memory");
	if (emulated && c->serial == VMM_SERIAL_CAPTURE && c->hvc_fd < 0)
		return error_set(err, -EINVAL, "the worker's configuration lacks hvc0");
	if (c->n_devices != (emulated ? vmm_config_devices(c) : 0))
		return error_set(err, -EINVAL, "the worker's configuration has %zu devices' sockets", c->n_devices);
	return 0;
}

static int set_up(struct worker *w, struct husk_error *err)
{
	w->ops = machine_find(w->config.machine);
	if (!w->ops)
		return error_set(err, -ENOTSUP, "this husk-vmm has no machine of that kind");
	int rc = check(&w->config, err);
	if (rc == 0)
		rc = workload_init(w, err);
	if (rc == 0)
		rc = open_logs(w, err);
	if (rc == 0)
		rc = sample_open(w, err);
	if (rc == 0)
		rc = make_memory(w, err);
	if (rc == 0)
		rc = make_machine(w, err);
	if (rc == 0)
		rc = make_disks(w, err);
	if (rc == 0)
		rc = make_vsock(w, err);
	if (rc == 0)
		rc = make_own_devices(w, err);
	if (rc == 0)
		rc = make_sink(w, err);
	if (rc == 0)
		rc = make_doors(w, err);
	rc = rc < 0 ? rc : w->ops->start(w->machine, err); /* last: from here on other threads reach the devices */
	w->running_ns = clock_monotonic_ns();
	return rc;
}

/** Everything that is needed has come as a descriptor; the rest of the machine is left behind before anything is made from
 *  it. */
static int enter_jail(struct worker *w, struct husk_error *err)
{
	struct vmm_config *c = &w->config;
	const struct jail jail = {.walls = c->walls,
		.id = jail_id(c->id, false),
		.runtime_fd = c->runtime_fd,
		.parent_fd = c->supervisor_fd};
	int fds[VMM_FDS_MAX];

	int rc = jail_keep(fds, vmm_config_fds(c, fds), c->runtime_fd, err);
	rc = rc < 0 ? rc : jail_enter(&jail, err);
	c->runtime_fd = -1;
	return rc;
}

int worker_run(int fd)
{
	static struct worker worker; /* the process is the worker; it is large and zeroed */
	static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER; /* vCPUs' threads reach devices, too */
	struct worker *w = &worker;
	struct husk_error err;

	w->begun_ns = clock_monotonic_ns();
	prctl(PR_SET_NAME, "husk-worker");
	prctl(PR_SET_DUMPABLE, 0);
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* a descriptor per connection; no select(2) here */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	if (vmm_config_read(fd, &w->config, &err) < 0) {
		fprintf(stderr, "husk-vmm worker: %s\n", err.message);
		return 1;
	}
	int rc = enter_jail(w, &err);
	if (rc == 0)
		rc = loop_init(&w->loop, &err);
	w->loop.lock = &device_lock;
	if (rc == 0)
		rc = set_up(w, &err);
	if (rc == 0)
		rc = seal(w, JAIL_LOOP, &err);
	if (rc == 0)
		rc = loop_run(&w->loop, &err);
	sink_close(&w->sink); /* nothing would wake it any more */
	if (rc < 0 && w->config.supervisor_fd >= 0)
		workload_report(w, VM_END_FAILED, 0, "%s", err.message);
	worker_log(w, "%s", rc < 0 ? err.message : "ended");
	return 1;
}
