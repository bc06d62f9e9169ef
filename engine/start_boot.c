/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_boot.c - from a record to a supervisor that runs
 *
 * Theory of operation: kernel, initramfs, layers, scratch disk, doors and streams become descriptors, the envelope names them, and
 * husk-vmm's supervisor is started in a session of its own, so that a terminal's Ctrl-C reaches the caller alone, who decides.
 * It ends with the caller by the end of the caller's socket, unless the VM belongs to nobody: then it is no child of the caller's
 * either. Opened layers cannot be taken away by a later `rmi`.
 */
#include "base/path.h"
#include "base/spawn.h"
#include "engine/exec.h"
#include "engine/scratch.h"
#include "engine/start_internal.h"
#include "engine/vsock_port.h"

#include <fcntl.h>
#include <sys/socket.h>

#define AGENTLESS_TIMEOUT_MS (365ull * 86400 * 1000)

static int open_layers(struct start *s, struct husk_error *err)
{
	if (s->image.n_layers == 0 || s->image.n_layers > VMM_LAYERS_MAX)
		return error_set(err, -EINVAL, "image %s has %zu layers; 1 to %d can be", s->image.id,
			s->image.n_layers, VMM_LAYERS_MAX);
	for (size_t i = 0; i < s->image.n_layers; i++) {
		int fd = open(s->image.layers[i].path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return error_errno(err, "open layer %s", s->image.layers[i].path);
		s->layers[s->n_layers++] = fd;
	}
	return 0;
}

/** The disk is the VM's for as long as any process of it lives: the lock goes with the descriptor (disks.c). What is left of an
 *  earlier life and does not die, asleep in the kernel, keeps the next one from writing to it. */
static int claim(int fd, const char *path, struct husk_error *err)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES
		       ? error_set(err, -EBUSY, "the scratch disk %s is in the hands of an earlier life of the VM", path)
		       : error_errno(err, "lock the scratch disk %s", path);
}

/** Make the scratch disk, or open the one that is kept: it has its name once it is whole. */
static int open_scratch(struct start *s, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(s->record.directory, "scratch.img");
	CLEANUP_FREE char *unfinished = path_join(s->record.directory, "scratch.new");
	if (!path || !unfinished)
		return error_set(err, -ENOMEM, "make the scratch disk: out of memory");
	int rc = access(path, F_OK) == 0 ? scratch_open(path, start_scratch(s->config), &s->scratch_fd, err) : -ENOENT;
	if (rc != -ENOENT)
		return rc < 0 ? rc : claim(s->scratch_fd, path, err);
	unlink(unfinished);
	rc = scratch_create(unfinished, start_scratch(s->config), s->config->cancel_fd, &s->scratch_fd, err);
	if (rc == 0 && rename(unfinished, path) < 0)
		return error_errno(err, "make the scratch disk %s", path);
	return rc < 0 ? rc : claim(s->scratch_fd, path, err);
}

static int pair(int *ours, int *theirs, struct husk_error *err)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return error_errno(err, "make the VM's sockets");
	*ours = ends[0];
	*theirs = ends[1];
	return 0;
}

/** The caller's socket, and the control socket: a VM that belongs to nobody is told things by its supervisor only. */
static int open_sockets(struct start *s, struct husk_error *err)
{
	int rc = pair(&s->our_caller_fd, &s->caller_fd, err);
	return rc < 0 || start_is_detached(s) ? rc : pair(&s->our_control_fd, &s->control_fd, err);
}

/** What the guest is: machine, kernel, disks. */
static void put_guest(struct start *s)
{
	struct envelope *e = &s->envelope;
	const struct husk_vm_config *c = s->config;
	envelope_string(e, VMM_ID, s->record.id);
	envelope_u32(e, VMM_MACHINE, s->machine.kind);
	envelope_u64(e, VMM_MEMORY, start_memory(c));
	envelope_u32(e, VMM_CPUS, c->cpus);
	if (s->machine.qemu)
		envelope_string(e, VMM_QEMU_PATH, s->machine.qemu);
	envelope_fd(e, VMM_KVM_FD, s->machine.kvm_fd);
	envelope_u32(e, VMM_WALLS, s->shell.walls);
	envelope_string(e, VMM_CMDLINE, s->boot.cmdline);
	envelope_fd(e, VMM_KERNEL_FD, s->boot.kernel_fd);
	envelope_fd(e, VMM_INITRD_FD, s->boot.initrd_fd);
	for (size_t i = 0; i < s->n_layers; i++)
		envelope_fd(e, VMM_LAYER_FD, s->layers[i]);
	disks_put(&s->disks, e);
	envelope_fd(e, VMM_SCRATCH_FD, s->scratch_fd);
}

/** What goes in and out of it, and for how long. */
static void put_life(struct start *s, struct husk_vm *vm)
{
	struct envelope *e = &s->envelope;
	const struct husk_vm_config *c = s->config;
	vsock_port_put(c, s->vsock_port, e);
	envelope_u32(e, VMM_NO_AGENT, vm->agentless);
	envelope_fd(e, VMM_RUNTIME_FD, s->record.runtime_fd);
	envelope_fd(e, VMM_STATE_FD, s->record.state_fd);
	envelope_fd(e, VMM_LOG_FD, s->record.log_fd);
	envelope_fd(e, VMM_LOCK_FD, s->record.lock_fd);
	envelope_fd(e, VMM_CALLER_FD, s->caller_fd);
	envelope_fd(e, VMM_CONTROL_FD, s->control_fd);
	for (int i = 0; i < 3 && !vm->agentless; i++)
		envelope_fd(e, (uint16_t)(VMM_STDIN_FD + i), vm->io.fd[i]);
	if (!vm->agentless)
		envelope_bytes(e, VMM_EXEC, buffer_bytes(&s->exec), s->exec.size);
	/* Without an agent nothing will ever answer, so no time for it can run out. */
	envelope_u64(e, VMM_START_TIMEOUT_MS, vm->agentless ? AGENTLESS_TIMEOUT_MS : c->start_timeout_ms);
	envelope_u64(e, VMM_TIMEOUT_MS, c->timeout_ms);
	envelope_u64(e, VMM_LISTEN_WAIT_MS, start_listen_wait(s));
	envelope_u32(e, VMM_LIFETIME, start_is_detached(s));
	start_doors_put(&s->doors, e);
}

/** For the events that the supervisor tells. */
static int put_events(struct start *s, struct husk_error *err)
{
	CLEANUP_FREE char *events = path_join(s->husk->home, "events");
	if (!events)
		return error_set(err, -ENOMEM, "build the VM's envelope: out of memory");
	envelope_string(&s->envelope, VMM_EVENTS_PATH, events);
	if (s->record.name)
		envelope_string(&s->envelope, VMM_NAME, s->record.name);
	envelope_u32(&s->envelope, VMM_STOP_SIGNAL, (uint32_t)exec_stop_signal(s->image.stop_signal));
	return 0;
}

static int build_envelope(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	envelope_begin(&s->envelope);
	put_guest(s);
	put_life(s, vm);
	if (start_is_detached(s)) {
		start_detached_put(s);
	} else {
		envelope_u32(&s->envelope, VMM_SERIAL, (uint32_t)s->config->serial);
		envelope_fd(&s->envelope, VMM_SERIAL_IN_FD, vm->serial.fd[0]);
		envelope_fd(&s->envelope, VMM_SERIAL_OUT_FD, vm->serial.fd[1]);
	}
	int rc = put_events(s, err);
	return rc < 0 ? rc : envelope_seal(&s->envelope, err);
}

static int start_supervisor(struct start *s, struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	const char *const argv[] = {"husk-vmm", "supervisor", NULL};
	int rc = engine_helper(s->husk, "husk-vmm", &path, err);
	struct spawn how = {
		.path = path,
		.argv = (char *const *)argv,
		.stdio = {-1, -1, s->record.log_fd},
		.fds = s->envelope.fds,
		.n_fds = s->envelope.n_fds,
		.new_session = true,
		.detached = start_is_detached(s),
	};
	return rc < 0 ? rc : spawn(&how, &s->pid, &s->pidfd, err);
}

int start_boot(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	int rc = vm_record_make_runtime(&s->record, err);
	rc = rc < 0 ? rc : start_doors_open(s->husk, s->config, &s->record, &s->doors, err);
	rc = rc < 0 ? rc : boot_build(s->husk, s->config, &s->image, s->record.id, &s->disks, &s->boot, err);
	rc = rc < 0 ? rc : open_layers(s, err);
	rc = rc < 0 ? rc : open_scratch(s, err);
	rc = rc < 0 ? rc : open_sockets(s, err);
	if (start_is_detached(s))
		rc = rc < 0 ? rc : start_detached_open(s, err);
	rc = rc < 0 ? rc : build_envelope(s, vm, err);
	rc = rc < 0 ? rc : start_supervisor(s, err);
	if (s->caller_fd >= 0)
		close(steal_fd(&s->caller_fd)); /* so that the supervisor's death is an end of file here */
	if (s->control_fd >= 0)
		close(steal_fd(&s->control_fd));
	return rc;
}
