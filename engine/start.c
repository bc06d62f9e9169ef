/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.c - from a configuration to a VM whose agent has answered
 *
 * Theory of operation: what can be refused is refused first (check.c, the command, the name), then the image is obtained,
 * then the record is made: from there on every failure removes it again, and so does the next command should we die. Then
 * kernel, initramfs, layers, scratch disk and streams become descriptors, the envelope names them, and husk-vmm's
 * supervisor is started in a session of its own, so that a terminal's Ctrl-C reaches the caller alone, who decides. It
 * ends with the caller by the end of the caller's socket. Opened layers cannot be taken away by a later `rmi`.
 */
#include "engine/start.h"

#include "base/fd.h"
#include "base/path.h"
#include "base/spawn.h"
#include "engine/boot.h"
#include "engine/check.h"
#include "engine/cleanup.h"
#include "engine/config_json.h"
#include "engine/disks.h"
#include "engine/effective.h"
#include "engine/envelope.h"
#include "engine/exec.h"
#include "engine/images.h"
#include "engine/machine.h"
#include "engine/scratch.h"
#include "engine/shell.h"
#include "engine/start_doors.h"
#include "engine/vsock_port.h"
#include "image/platform.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define START_GRACE_MS 15000 /* beyond the start timeout, which the worker itself keeps */
#define LOG_LINES 12
#define LISTEN_WAIT_SOFTWARE_MS 10000 /* an emulated guest is slow to come up */
#define LISTEN_WAIT_HARDWARE_MS 1000
#define AGENTLESS_TIMEOUT_MS (365ull * 86400 * 1000)

/** What a start holds until the supervisor has it. */
struct start {
	const struct husk *husk;
	const struct husk_vm_config *config;
	struct image_record image;
	struct boot boot;
	struct buffer exec;
	struct machine_choice machine;
	struct shell_choice shell;
	uint32_t vsock_port; /* of the policies `auto` and `fixed` */
	int layers[VMM_LAYERS_MAX];
	size_t n_layers;
	int scratch_fd, caller_fd, control_fd; /* the supervisor's ends */
	struct open_disks disks;
	struct start_doors doors;
	struct envelope envelope;
};

static void start_free(struct start *s)
{
	image_record_free(&s->image);
	boot_free(&s->boot);
	buffer_free(&s->exec);
	machine_choice_free(&s->machine);
	shell_choice_free(&s->shell);
	for (size_t i = 0; i < s->n_layers; i++)
		close(s->layers[i]);
	int fds[] = {s->scratch_fd, s->caller_fd, s->control_fd};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	disks_close(&s->disks);
	start_doors_free(&s->doors);
	envelope_free(&s->envelope);
}

static uint64_t memory_of(const struct husk_vm_config *c)
{
	return (c->memory + (1 << 20) - 1) & ~(uint64_t)((1 << 20) - 1);
}

static uint64_t scratch_of(const struct husk_vm_config *c)
{
	return c->scratch & ~(uint64_t)4095;
}

static uint64_t listen_wait_of(const struct start *s)
{
	uint64_t usual_ms = s->machine.hardware ? LISTEN_WAIT_HARDWARE_MS : LISTEN_WAIT_SOFTWARE_MS;
	return s->config->listen_wait_ms ? s->config->listen_wait_ms : usual_ms;
}

static json_t *configuration(const struct start *s)
{
	const struct husk_vm_config *c = s->config;
	const struct effective effective = {.config = c,
		.machine = &s->machine,
		.boot = &s->boot,
		.disks = &s->disks,
		.memory = memory_of(c),
		.scratch = scratch_of(c),
		.listen_wait_ms = listen_wait_of(s),
		.vsock_port = s->vsock_port};
	json_t *config = effective_write(&effective);
	if (!config)
		return NULL;
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:I, s:b, s:b, s:b, s:I, s:I, s:o, s:o}", "image", c->image,
		"image_id", s->image.id, "lifetime", "caller", "machine", machine_name(s->machine.kind), "wall",
		s->machine.hardware ? "hardware" : "software", "memory", (json_int_t)effective.memory, "cpus",
		(int)c->cpus, "scratch", (json_int_t)effective.scratch, "read_only", c->read_only, "tty", c->tty,
		"init", c->init, "timeout_ms", (json_int_t)c->timeout_ms, "start_timeout_ms",
		(json_int_t)c->start_timeout_ms, "vsock_port",
		s->vsock_port ? json_integer(s->vsock_port) : json_null(), "config", config);
}

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

static int open_scratch(struct start *s, const struct husk_vm *vm, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(vm->record.directory, "scratch.img");
	if (!path)
		return error_set(err, -ENOMEM, "make the scratch disk: out of memory");
	return scratch_create(path, scratch_of(s->config), s->config->cancel_fd, &s->scratch_fd, err);
}

static int open_sockets(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	int caller[2], control[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, caller) < 0)
		return error_errno(err, "make the VM's sockets");
	vm->caller_fd = caller[0];
	s->caller_fd = caller[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return error_errno(err, "make the VM's sockets");
	vm->control_fd = control[0];
	s->control_fd = control[1];
	return 0;
}

static int build_envelope(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	struct envelope *e = &s->envelope;
	const struct husk_vm_config *c = s->config;
	envelope_begin(e);
	envelope_string(e, VMM_ID, vm->record.id);
	envelope_u32(e, VMM_MACHINE, s->machine.kind);
	envelope_u64(e, VMM_MEMORY, memory_of(c));
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
	vsock_port_put(c, s->vsock_port, e);
	envelope_u32(e, VMM_NO_AGENT, vm->agentless);
	envelope_u32(e, VMM_SERIAL, (uint32_t)c->serial);
	envelope_fd(e, VMM_SERIAL_IN_FD, vm->serial.fd[0]);
	envelope_fd(e, VMM_SERIAL_OUT_FD, vm->serial.fd[1]);
	envelope_fd(e, VMM_SCRATCH_FD, s->scratch_fd);
	envelope_fd(e, VMM_RUNTIME_FD, vm->record.runtime_fd);
	envelope_fd(e, VMM_STATE_FD, vm->record.state_fd);
	envelope_fd(e, VMM_LOG_FD, vm->record.log_fd);
	envelope_fd(e, VMM_CALLER_FD, s->caller_fd);
	envelope_fd(e, VMM_CONTROL_FD, s->control_fd);
	if (!vm->agentless) {
		for (int i = 0; i < 3; i++)
			envelope_fd(e, (uint16_t)(VMM_STDIN_FD + i), vm->io.fd[i]);
		envelope_bytes(e, VMM_EXEC, buffer_bytes(&s->exec), s->exec.size);
	}
	/* Without an agent nothing will ever answer, so no time for it can run out. */
	envelope_u64(e, VMM_START_TIMEOUT_MS, vm->agentless ? AGENTLESS_TIMEOUT_MS : c->start_timeout_ms);
	envelope_u64(e, VMM_TIMEOUT_MS, c->timeout_ms);
	envelope_u64(e, VMM_LISTEN_WAIT_MS, listen_wait_of(s));
	envelope_u32(e, VMM_LIFETIME, 0);
	start_doors_put(&s->doors, e);
	return envelope_seal(e, err);
}

static int start_supervisor(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	const char *const argv[] = {"husk-vmm", "supervisor", NULL};
	int rc = engine_helper(s->husk, "husk-vmm", &path, err);
	struct spawn how = {
		.path = path,
		.argv = (char *const *)argv,
		.stdio = {-1, -1, vm->record.log_fd},
		.fds = s->envelope.fds,
		.n_fds = s->envelope.n_fds,
		.new_session = true,
	};
	return rc < 0 ? rc : spawn(&how, &vm->pid, &vm->pidfd, err);
}

/** What came of the start: the error of one that failed. */
static int judge(struct husk_vm *vm, struct husk_error *err)
{
	char text[VM_MESSAGE_TEXT + 128];
	if (vm->ready || !vm->ended)
		return 0;
	/* A workload that could not be started, and whatever came after READY, is an outcome and no failed start. */
	if (vm->outcome.end == VM_END_NOT_STARTED || vm->outcome.end == VM_END_EXITED ||
		vm->outcome.end == VM_END_SIGNALED || vm->outcome.end == VM_END_TIMEOUT || vm->agentless)
		return 0;
	live_describe(vm, text, sizeof(text));
	return error_set(err, vm->outcome.end == VM_END_START_TIMEOUT ? -ETIMEDOUT : -EIO, "start VM %s: %s",
		vm->record.id, text);
}

/** An image of another architecture would only say "Exec format error", or run as what it is not. */
static int check_platform(const struct husk_vm_config *c, const struct image_record *image, struct husk_error *err)
{
	struct platform ours, theirs;
	char text[2][3 * PLATFORM_FIELD];
	if (!image->architecture || !*image->architecture)
		return 0;
	int rc = platform_parse(NULL, &ours, err);
	if (rc < 0)
		return rc;
	platform_set(&theirs, image->os && *image->os ? image->os : "linux", image->architecture, NULL);
	if (platform_rank(&ours, &theirs) >= 0)
		return 0;
	platform_format(&ours, text[0]);
	platform_format(&theirs, text[1]);
	return error_set(err, -EINVAL, "image '%s' is for the platform %s, and VMs on this host are %s", c->image,
		text[1], text[0]);
}

/** All that comes before the VM's record exists. */
static int prepare(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	const struct husk_vm_config *c = s->config;
	const int serial[3] = {c->serial_input_fd, c->serial_fd, -1};
	const int streams[3] = {c->stdin_fd, c->stdout_fd, c->tty ? -1 : c->stderr_fd};
	int rc = check_config(c, err);
	if (rc == 0 && c->name)
		rc = vm_name_free(s->husk, c->name, err);
	if (rc < 0)
		return rc;
	rc = disks_open(c, &s->disks, err);
	rc = rc < 0 ? rc : vsock_port_choose(s->husk, c, &s->vsock_port, err);
	s->boot.vsock_port = s->vsock_port;
	rc = rc < 0 ? rc : machine_choose(s->husk, c->machine, c->require_hardware, &s->machine, err);
	if (rc < 0)
		return rc;
	vm->hardware = s->machine.hardware;
	rc = shell_choose(s->husk, c->shell, &s->shell, err);
	if (rc < 0)
		return rc;
	int found = images_find(s->husk, c, &s->image, err);
	rc = found < 0 ? found : boot_open(s->husk, c, s->machine.kind, &s->boot, err);
	if (rc == 0 && !found)
		rc = images_fetch(s->husk, c, &s->image, err);
	if (rc == 0 && !vm->agentless)
		rc = check_platform(c, &s->image, err);
	vm->stop_signal = exec_stop_signal(rc == 0 ? s->image.stop_signal : NULL);
	if (rc == 0 && !vm->agentless)
		rc = exec_payload(c, &s->image, &s->exec, err);
	if (rc == 0 && !vm->agentless)
		rc = stdio_prepare(&vm->io, streams, err);
	if (rc == 0 && c->serial != HUSK_SERIAL_LOG)
		rc = stdio_prepare(&vm->serial, serial, err);
	return rc;
}

static int run(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = configuration(s);
	if (!json || json_object_set_new(json, "shell", shell_json(&s->shell)) < 0)
		return error_set(err, -EINVAL, "describe the VM: a value is not valid UTF-8");
	int rc = vm_record_create(s->husk, s->config->name, json, &vm->record, err);
	rc = rc < 0 ? rc : start_doors_open(s->husk, s->config, &vm->record, &s->doors, err);
	rc = rc < 0 ? rc : boot_build(s->husk, s->config, &s->image, vm->record.id, &s->disks, &s->boot, err);
	rc = rc < 0 ? rc : open_layers(s, err);
	rc = rc < 0 ? rc : open_scratch(s, vm, err);
	rc = rc < 0 ? rc : open_sockets(s, vm, err);
	rc = rc < 0 ? rc : build_envelope(s, vm, err);
	rc = rc < 0 ? rc : start_supervisor(s, vm, err);
	if (rc < 0)
		return rc;
	close(steal_fd(&s->caller_fd)); /* so that the supervisor's death is an end of file here */
	close(steal_fd(&s->control_fd));
	rc = stdio_start(&vm->io, err);
	rc = rc < 0 ? rc : stdio_start(&vm->serial, err);
	rc = rc < 0 ? rc : live_watch(vm, err);
	if (rc == 0 && !vm->agentless)
		rc = live_wait_ready(vm, s->config->start_timeout_ms + START_GRACE_MS, s->config->cancel_fd, err);
	rc = rc < 0 ? rc : judge(vm, err);
	if (rc < 0 && rc != -ECANCELED)
		live_show_log(vm, LOG_LINES);
	return rc;
}

static int say_missing(const struct start *s, struct husk_error *err)
{
	CLEANUP_FREE char *text = NULL;
	int rc = shell_missing(&s->shell, &text, err);
	if (rc == 0)
		engine_notice(s->husk, HUSK_NOTICE_WARNING,
			"degraded shell: the VM's processes go without: %s", text);
	return rc;
}

int start_vm(const struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err)
{
	CLEANUP(start_free)
	struct start s = {
		.husk = husk,
		.config = config,
		.boot = BOOT_INIT,
		.machine = MACHINE_CHOICE_INIT,
		.scratch_fd = -1,
		.caller_fd = -1,
		.control_fd = -1,
		.doors = START_DOORS_INIT,
		.envelope = {.fds = {-1}},
	};
	struct husk_vm *vm = live_new(husk, err);
	if (!vm)
		return -ENOMEM;
	vm->agentless = config->initramfs != NULL;
	cleanup_run(husk, NULL, NULL);
	int rc = prepare(&s, vm, err);
	if (rc == 0 && !vm->hardware)
		engine_notice(husk, HUSK_NOTICE_WALL,
			"software wall: %s, no CPU feature separates it (--require-hardware refuses this, --quiet "
			"hides "
			"this line)",
			s.machine.why);
	if (rc == 0 && s.shell.missing.size)
		rc = say_missing(&s, err);
	rc = rc < 0 ? rc : run(&s, vm, err);
	if (rc < 0) {
		start_doors_take_down(&s.doors);
		live_close(vm);
		return rc;
	}
	*out = vm;
	return 0;
}
