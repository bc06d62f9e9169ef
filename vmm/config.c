/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - the envelope that husk-vmm gets, and the messages between caller, supervisor and worker
 *
 * Theory of operation: the entries of the envelope are described by a table: tag, kind and the member of struct vm_config
 * that takes the value. Reading walks the entries once; every tag may occur once but those of a list, a tag outside the table
 * is refused (base/tlv.h), and each descriptor must be open at that moment and named only once, so that the struct owns
 * what it holds and closes nothing twice. What a process needs of the optional members it checks itself.
 */
#include "vmm/config.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/tlv.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum kind { KIND_STRING, KIND_U32, KIND_U64, KIND_FD };

/** Where a tag's value goes. */
struct entry_rule {
	uint16_t tag;
	enum kind kind;
	size_t member;
	size_t string_max;
};

#define RULE(tag_, kind_, member_, ...)                                                                                \
	{                                                                                                              \
		tag_, kind_, offsetof(struct vmm_config, member_), ##__VA_ARGS__                                       \
	}

static const struct entry_rule rules[] = {
	RULE(VMM_ID, KIND_STRING, id, 64),
	RULE(VMM_MACHINE, KIND_U32, machine),
	RULE(VMM_MEMORY, KIND_U64, memory),
	RULE(VMM_CPUS, KIND_U32, cpus),
	RULE(VMM_QEMU_PATH, KIND_STRING, qemu_path, 4095),
	RULE(VMM_CMDLINE, KIND_STRING, cmdline, 2047), /* COMMAND_LINE_SIZE of x86 is 2048 */
	RULE(VMM_KERNEL_FD, KIND_FD, kernel_fd),
	RULE(VMM_INITRD_FD, KIND_FD, initrd_fd),
	RULE(VMM_SCRATCH_FD, KIND_FD, scratch_fd),
	RULE(VMM_RUNTIME_FD, KIND_FD, runtime_fd),
	RULE(VMM_STATE_FD, KIND_FD, state_fd),
	RULE(VMM_LOG_FD, KIND_FD, log_fd),
	RULE(VMM_CALLER_FD, KIND_FD, caller_fd),
	RULE(VMM_CONTROL_FD, KIND_FD, control_fd),
	RULE(VMM_STDIN_FD, KIND_FD, stdio_fd[0]),
	RULE(VMM_STDOUT_FD, KIND_FD, stdio_fd[1]),
	RULE(VMM_STDERR_FD, KIND_FD, stdio_fd[2]),
	RULE(VMM_START_TIMEOUT_MS, KIND_U64, start_timeout_ms),
	RULE(VMM_TIMEOUT_MS, KIND_U64, timeout_ms),
	RULE(VMM_MEMORY_FD, KIND_FD, memory_fd),
	RULE(VMM_QMP_FD, KIND_FD, qmp_fd),
	RULE(VMM_SUPERVISOR_FD, KIND_FD, supervisor_fd),
	RULE(VMM_CONSOLE_FD, KIND_FD, console_fd),
	RULE(VMM_EXEC_SOCKET_FD, KIND_FD, exec_socket_fd),
	RULE(VMM_VSOCK_SOCKET_FD, KIND_FD, vsock_socket_fd),
	RULE(VMM_DIAL_FD, KIND_FD, dial_fd),
	RULE(VMM_REACH, KIND_U32, reach),
	RULE(VMM_REACH_PORT, KIND_U32, reach_port),
	RULE(VMM_SERIAL, KIND_U32, serial),
	RULE(VMM_NO_AGENT, KIND_U32, no_agent),
	RULE(VMM_SERIAL_OUT_FD, KIND_FD, serial_out_fd),
	RULE(VMM_SERIAL_IN_FD, KIND_FD, serial_in_fd),
	RULE(VMM_HVC_FD, KIND_FD, hvc_fd),
	RULE(VMM_WALLS, KIND_U32, walls),
	RULE(VMM_LISTEN_WAIT_MS, KIND_U64, listen_wait_ms),
	RULE(VMM_STATS_FD, KIND_FD, stats_fd),
	RULE(VMM_KVM_FD, KIND_FD, kvm_fd),
	RULE(VMM_SERVICE_FD, KIND_FD, service_fd),
	RULE(VMM_TLS_PATH, KIND_STRING, tls_path, 4095),
	RULE(VMM_LOG_SIZE, KIND_U64, log_size),
	RULE(VMM_CONSOLE_LOG_FD, KIND_FD, console_log_fd[0]),
	RULE(VMM_CONSOLE_LOG_2_FD, KIND_FD, console_log_fd[1]),
	RULE(VMM_WORKLOAD_LOG_FD, KIND_FD, workload_log_fd[0]),
	RULE(VMM_WORKLOAD_LOG_2_FD, KIND_FD, workload_log_fd[1]),
	RULE(VMM_OPEN_STDIN, KIND_U32, open_stdin),
	RULE(VMM_STOP_SIGNAL, KIND_U32, stop_signal),
	RULE(VMM_BALLOON, KIND_U64, balloon),
	RULE(VMM_NAME, KIND_STRING, name, 128),
	RULE(VMM_EVENTS_PATH, KIND_STRING, events_path, 4095),
	RULE(VMM_PTY_FD, KIND_FD, pty_fd),
	RULE(VMM_LOCK_FD, KIND_FD, lock_fd),
	RULE(VMM_PTY_PATH, KIND_STRING, pty_path, 63),
	RULE(VMM_REMOVER_PATH, KIND_STRING, remover_path, 4095),
	RULE(VMM_HOME, KIND_STRING, home, 4095),
	RULE(VMM_RUNTIME_PATH, KIND_STRING, runtime_path, 4095),
};

_Static_assert(ARRAY_SIZE(rules) <= 64, "VMM_FDS_MAX counts 64 beside those of lists");
_Static_assert(sizeof(enum vmm_machine) == sizeof(uint32_t) && sizeof(enum vmm_reach) == sizeof(uint32_t) &&
		       sizeof(enum vmm_serial) == sizeof(uint32_t),
	"an enum is read as a u32");

/** What a walk over the entries has met. */
struct reading {
	struct vmm_config *config;
	uint64_t seen; /* bit per tag, all tags are below 64 */
	uint64_t fds_seen[16]; /* bit per descriptor number; those beyond are compared one by one */
	struct husk_error *err;
};

static void config_init(struct vmm_config *c)
{
	*c = (struct vmm_config){.machine = VMM_MACHINE_QEMU, .walls = UINT32_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].kind == KIND_FD)
			*(int *)((char *)c + rules[i].member) = -1;
}

/** Take ownership of descriptor @fd into *@to. */
static int take_fd_number(struct reading *r, uint16_t tag, uint32_t fd, int *to)
{
	if (fd < 3 || fd >= sizeof(r->fds_seen) * 8)
		return error_set(r->err, -EINVAL, "entry %u of the configuration is no descriptor", tag);
	if (r->fds_seen[fd / 64] >> fd % 64 & 1)
		return error_set(r->err, -EINVAL, "descriptor %u is named twice in the configuration", fd);
	if (fd_set_cloexec((int)fd, true) < 0)
		return error_set(r->err, -EBADF, "descriptor %u of the configuration is not open", fd);
	r->fds_seen[fd / 64] |= 1ull << fd % 64;
	*to = (int)fd;
	return 0;
}

/** Take ownership of the descriptor that an entry names into *@to. */
static int take_fd(struct reading *r, const struct tlv *entry, int *to)
{
	uint32_t fd;

	if (!tlv_u32(entry, &fd))
		return error_set(r->err, -EINVAL, "entry %u of the configuration is no descriptor", entry->tag);
	return take_fd_number(r, entry->tag, fd, to);
}

static int take_door(struct reading *r, const struct tlv *entry)
{
	struct vmm_config *c = r->config;
	struct vmm_door_entry given;

	if (entry->size != sizeof(given))
		return error_set(r->err, -EINVAL, "a door in the configuration is malformed");
	memcpy(&given, entry->value, sizeof(given));
	if (given.door.id || !vm_door_check(&given.door) || given.n_fds != vmm_door_fds(given.door.kind))
		return error_set(r->err, -EINVAL, "a door in the configuration is malformed");
	if (c->n_doors == VM_DOORS_MAX)
		return error_set(r->err, -E2BIG, "more than %d doors", VM_DOORS_MAX);
	struct vmm_door_entry *doors = realloc(c->doors, (c->n_doors + 1) * sizeof(*doors));
	if (!doors)
		return error_set(r->err, -ENOMEM, "read the configuration: out of memory");
	c->doors = doors;
	struct vmm_door_entry *door = &doors[c->n_doors++];
	*door = (struct vmm_door_entry){.n_fds = given.n_fds, .fd = {-1, -1, -1, -1}, .door = given.door};
	for (uint32_t i = 0; i < given.n_fds; i++) {
		int rc = take_fd_number(r, entry->tag, (uint32_t)given.fd[i], &door->fd[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int take_exec(struct reading *r, const struct tlv *entry)
{
	struct vmm_config *c = r->config;

	if (entry->size == 0 || entry->size > AGENT_PAYLOAD_MAX)
		return error_set(r->err, -EINVAL, "the workload's description has %u bytes, not 1 to %u", entry->size,
			AGENT_PAYLOAD_MAX);
	c->exec = malloc(entry->size);
	if (!c->exec)
		return error_set(r->err, -ENOMEM, "read the configuration: out of memory");
	memcpy(c->exec, entry->value, entry->size);
	c->exec_size = entry->size;
	return 0;
}

static int take_layer(struct reading *r, const struct tlv *entry)
{
	struct vmm_config *c = r->config;

	if (c->n_layers == VMM_LAYERS_MAX)
		return error_set(r->err, -E2BIG, "more than %d layers", VMM_LAYERS_MAX);
	int rc = take_fd(r, entry, &c->layer_fd[c->n_layers]);
	if (rc == 0)
		c->n_layers++;
	return rc;
}

static int take_device(struct reading *r, const struct tlv *entry)
{
	struct vmm_config *c = r->config;

	if (c->n_devices == VMM_DEVICES_MAX)
		return error_set(r->err, -E2BIG, "more than %d devices", VMM_DEVICES_MAX);
	int rc = take_fd(r, entry, &c->device_fd[c->n_devices]);
	if (rc == 0)
		c->n_devices++;
	return rc;
}

static int take_disk(struct reading *r, const struct tlv *entry)
{
	struct vmm_config *c = r->config;
	struct vmm_disk given;

	if (entry->size != sizeof(given))
		return error_set(r->err, -EINVAL, "a disk in the configuration is malformed");
	memcpy(&given, entry->value, sizeof(given));
	if (given.read_only > 1 || strnlen(given.serial, sizeof(given.serial)) > VMM_SERIAL_MAX)
		return error_set(r->err, -EINVAL, "a disk in the configuration is malformed");
	if (c->n_disks == VMM_DISKS_MAX)
		return error_set(r->err, -E2BIG, "more than %d disks", VMM_DISKS_MAX);
	struct vmm_disk *disk = &c->disks[c->n_disks++];
	*disk = given;
	disk->fd = -1;
	return take_fd_number(r, entry->tag, (uint32_t)given.fd, &disk->fd);
}

static int take_by_rule(struct reading *r, const struct tlv *entry, const struct entry_rule *rule)
{
	void *member = (char *)r->config + rule->member;
	bool ok = true;

	switch (rule->kind) {
	case KIND_STRING:
		ok = entry->size <= rule->string_max && (*(char **)member = tlv_string(entry)) != NULL;
		break;
	case KIND_U32:
		ok = tlv_u32(entry, member);
		break;
	case KIND_U64:
		ok = tlv_u64(entry, member);
		break;
	case KIND_FD:
		return take_fd(r, entry, member);
	}
	return ok ? 0 : error_set(r->err, -EINVAL, "entry %u of the configuration is malformed", entry->tag);
}

static int take_entry(struct reading *r, const struct tlv *entry)
{
	static const struct {
		uint16_t tag;
		int (*take)(struct reading *r, const struct tlv *entry);
	} lists[] = {
		{VMM_LAYER_FD, take_layer}, {VMM_DOOR, take_door}, {VMM_DISK, take_disk}, {VMM_DEVICE_FD, take_device}};
	uint32_t lifetime;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (lists[i].tag == entry->tag)
			return lists[i].take(r, entry);
	if (entry->tag < 64 && r->seen >> entry->tag & 1)
		return error_set(r->err, -EINVAL, "entry %u occurs twice in the configuration", entry->tag);
	if (entry->tag < 64)
		r->seen |= 1ull << entry->tag;
	if (entry->tag == VMM_EXEC)
		return take_exec(r, entry);
	if (entry->tag == VMM_LIFETIME) {
		if (!tlv_u32(entry, &lifetime) || lifetime > 1)
			return error_set(r->err, -EINVAL, "unknown lifetime in the configuration");
		r->config->detached = lifetime == 1;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].tag == entry->tag)
			return take_by_rule(r, entry, &rules[i]);
	return error_set(r->err, -EINVAL, "unknown entry %u in the configuration", entry->tag);
}

static int check_config(const struct vmm_config *c, struct husk_error *err)
{
	if (!c->id || !c->id[0] || c->id[strspn(c->id, "0123456789abcdef")])
		return error_set(err, -EINVAL, "the configuration has no VM id of hex digits");
	if (c->machine != VMM_MACHINE_QEMU && c->machine != VMM_MACHINE_KVM)
		return error_set(err, -EINVAL, "unknown machine kind %u", (unsigned)c->machine);
	if (c->memory == 0 || c->memory % (1u << 20) || c->memory > 1ull << 46)
		return error_set(err, -EINVAL, "the VM's memory is not a multiple of 1 MiB in range");
	if (c->reach > VMM_REACH_ONE || c->serial > VMM_SERIAL_PTY)
		return error_set(err, -EINVAL, "the VM's vsock policy or its serial sink is unknown");
	for (int i = 0; i < 2; i++) {
		const int *pair = i ? c->workload_log_fd : c->console_log_fd;
		if ((pair[0] >= 0) != (pair[1] >= 0))
			return error_set(err, -EINVAL, "a log has one file of two");
	}
	if (c->open_stdin > 1 || c->stop_signal > 64)
		return error_set(err, -EINVAL, "the VM's stdin or stop signal is unknown");
	if (c->cpus < 1 || c->cpus > 255)
		return error_set(err, -EINVAL, "the VM's number of CPUs is not 1 to 255");
	return 0;
}

static int read_entries(int fd, struct vmm_config *config, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct reading reading = {.config = config, .err = err};
	struct tlv_reader reader;
	struct tlv entry;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(err, "read the configuration");
	int rc = fd_read_to_end(fd, &b, VMM_SIZE_MAX);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "read the configuration");
	}
	rc = tlv_open(&reader, buffer_bytes(&b), b.size, VMM_MAGIC, VMM_VERSION, err);
	if (rc < 0)
		return error_prefix(err, rc, "read the configuration");
	if (fd < 1024)
		reading.fds_seen[fd / 64] |= 1ull << fd % 64; /* closed below, so no entry can own it */
	while (tlv_next(&reader, &entry))
		if ((rc = take_entry(&reading, &entry)) < 0)
			return rc;
	if (reader.broken)
		return error_set(err, -EBADMSG, "the configuration is malformed");
	return check_config(config, err);
}

int vmm_config_read(int fd, struct vmm_config *config, struct husk_error *err)
{
	CLEANUP_FD int envelope = fd;

	config_init(config);
	int rc = read_entries(envelope, config, err);
	if (rc < 0)
		vmm_config_free(config);
	return rc;
}

size_t vmm_config_fds(const struct vmm_config *config, int fds[VMM_FDS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		int fd = rules[i].kind == KIND_FD ? *(const int *)((const char *)config + rules[i].member) : -1;
		if (fd >= 0)
			fds[n++] = fd;
	}
	for (size_t i = 0; i < config->n_layers; i++)
		fds[n++] = config->layer_fd[i];
	for (size_t i = 0; i < config->n_disks; i++)
		fds[n++] = config->disks[i].fd;
	for (size_t i = 0; i < config->n_devices; i++)
		fds[n++] = config->device_fd[i];
	for (size_t i = 0; i < config->n_doors; i++)
		for (size_t k = 0; k < config->doors[i].n_fds; k++)
			fds[n++] = config->doors[i].fd[k];
	return n;
}

void vmm_config_free(struct vmm_config *config)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		void *member = (char *)config + rules[i].member;
		if (rules[i].kind == KIND_STRING)
			cleanup_free(member);
		else if (rules[i].kind == KIND_FD)
			cleanup_fd(member);
	}
	for (size_t i = 0; i < config->n_layers; i++)
		cleanup_fd(&config->layer_fd[i]);
	for (size_t i = 0; i < config->n_disks; i++)
		cleanup_fd(&config->disks[i].fd);
	for (size_t i = 0; i < config->n_devices; i++)
		cleanup_fd(&config->device_fd[i]);
	for (size_t i = 0; i < config->n_doors; i++)
		for (size_t k = 0; k < VMM_DOOR_FDS; k++)
			cleanup_fd(&config->doors[i].fd[k]);
	free(config->doors);
	free(config->exec);
	config_init(config);
}

const char *vm_end_name(uint32_t end)
{
	static const char *const names[] = {
		[VM_END_NONE] = "none",
		[VM_END_EXITED] = "exited",
		[VM_END_SIGNALED] = "signaled",
		[VM_END_TIMEOUT] = "timeout",
		[VM_END_NOT_STARTED] = "not_started",
		[VM_END_START_TIMEOUT] = "start_timeout",
		[VM_END_GUEST] = "guest",
		[VM_END_MACHINE] = "machine",
		[VM_END_WORKER] = "worker",
		[VM_END_SUPERVISOR] = "supervisor",
		[VM_END_CALLER] = "caller",
		[VM_END_KILLED] = "killed",
		[VM_END_FAILED] = "failed",
	};

	return end < ARRAY_SIZE(names) ? names[end] : "unknown";
}

int vm_end_exit_code(uint32_t end, uint32_t value)
{
	switch (end) {
	case VM_END_EXITED:
		return (int)(value & 255);
	case VM_END_SIGNALED:
		return 128 + (int)(value & 127);
	case VM_END_TIMEOUT:
		return 124;
	case VM_END_NOT_STARTED:
		return value == AGENT_ERROR_NOT_EXECUTABLE ? 126 : value == AGENT_ERROR_NOT_FOUND ? 127 : 125;
	case VM_END_KILLED:
		return 137;
	default:
		return 125;
	}
}

/** A worker's word about a workload is held to the ranges that a process can have. */
static bool end_check(const struct vm_message *m)
{
	switch (m->end) {
	case VM_END_EXITED:
		return m->value <= 255;
	case VM_END_SIGNALED:
		return m->value >= 1 && m->value <= 64;
	case VM_END_NOT_STARTED:
		return m->value >= AGENT_ERROR_PROTOCOL && m->value <= AGENT_ERROR_UNSUPPORTED;
	default:
		return m->end > VM_END_NONE && m->end <= VM_END_FAILED;
	}
}

bool vm_message_check(const struct vm_message *m)
{
	const char *end = memchr(m->text, 0, sizeof(m->text));

	if (!end || m->reserved)
		return false;
	for (const char *at = m->text; at < end; at++)
		if (*at < 0x20 || *at > 0x7e)
			return false;
	bool door = m->kind == VM_CONTROL_EXPOSE || m->kind == VM_CONTROL_UNEXPOSE || m->kind == VM_MESSAGE_EXPOSED;
	static const struct vm_door none;
	if (!door && memcmp(&m->door, &none, sizeof(none)) != 0)
		return false;
	if (m->number && m->kind != VM_MESSAGE_DONE && m->kind != VM_CONTROL_BALLOON && m->kind != VM_MESSAGE_OUTCOME)
		return false;
	switch (m->kind) {
	case VM_CONTROL_EXPOSE:
		return m->end == VM_END_NONE && m->door.id <= VM_DOORS_MAX && vm_door_check(&m->door);
	case VM_CONTROL_UNEXPOSE:
		return m->end == VM_END_NONE && m->door.id <= VM_DOORS_MAX &&
		       memchr(m->door.endpoint, 0, sizeof(m->door.endpoint));
	case VM_MESSAGE_EXPOSED:
		return m->end == VM_END_NONE && m->door.id <= VM_DOORS_MAX && m->value < 4096 &&
		       (!m->door.kind || vm_door_check(&m->door));
	case VM_MESSAGE_BEGUN:
	case VM_MESSAGE_READY:
	case VM_MESSAGE_STARTED:
	case VM_MESSAGE_DRAINING:
	case VM_CONTROL_KILL:
	case VM_CONTROL_POWER_BUTTON:
	case VM_CONTROL_RESIZE:
	case VM_CONTROL_STOP:
	case VM_CONTROL_PAUSE:
	case VM_CONTROL_RESUME:
	case VM_CONTROL_BALLOON:
	case VM_CONTROL_STATS:
		return m->end == VM_END_NONE;
	case VM_MESSAGE_ANSWER:
		return m->end == VM_END_NONE && m->value < 4096;
	case VM_MESSAGE_DONE:
		return m->end == VM_END_NONE && m->value < 4096 && m->number >= VM_CONTROL_PAUSE &&
		       m->number <= VM_CONTROL_ATTACH;
	case VM_CONTROL_ATTACH:
		return m->end == VM_END_NONE && m->value <= 1;
	case VM_MESSAGE_OUTCOME:
		return end_check(m) && m->number <= VM_STATE_OOM;
	case VM_CONTROL_SIGNAL:
		return m->end == VM_END_NONE && m->value >= 1 && m->value <= 64;
	default:
		return false;
	}
}

void vm_message_text(struct vm_message *message, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vm_message_vtext(message, format, args);
	va_end(args);
}

void vm_message_vtext(struct vm_message *message, const char *format, va_list args)
{
	memset(message->text, 0, sizeof(message->text));
	vsnprintf(message->text, sizeof(message->text), format, args);
	for (char *at = message->text; *at; at++)
		if (*at < 0x20 || *at > 0x7e)
			*at = '?';
}
