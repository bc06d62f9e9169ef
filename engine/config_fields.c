/* SPDX-License-Identifier: Apache-2.0 */
/* config_fields.c - the table of a VM's configuration (theory of operation: config_fields.h) */
#include "engine/config_fields.h"

#include "base/cleanup.h"
#include "engine/check.h"

#define FIELD(struct_, name_, kind_)                                                                                   \
	{                                                                                                              \
		.name = #name_, .kind = kind_, .offset = offsetof(struct struct_, name_)                               \
	}
#define CHOICE(struct_, name_, member_, names_)                                                                        \
	{                                                                                                              \
		.name = name_, .kind = CONFIG_CHOICE, .offset = offsetof(struct struct_, member_), .choices = names_,  \
		.size = ARRAY_SIZE(names_)                                                                             \
	}
#define LIST(name_, fields_, one_)                                                                                     \
	{                                                                                                              \
		.name = #name_, .kind = CONFIG_LIST, .offset = offsetof(struct husk_vm_config, name_),                 \
		.fields = fields_, .size = sizeof(struct one_), .count = offsetof(struct husk_vm_config, n_##name_)    \
	}

static const char *const pulls[] = {
	[HUSK_PULL_MISSING] = "missing", [HUSK_PULL_ALWAYS] = "always", [HUSK_PULL_NEVER] = "never"};
static const char *const serials[] = {
	[HUSK_SERIAL_LOG] = "log", [HUSK_SERIAL_INHERIT] = "inherit", [HUSK_SERIAL_CAPTURE] = "capture"};
static const char *const lifetimes[] = {[HUSK_LIFETIME_CALLER] = "caller", [HUSK_LIFETIME_DETACHED] = "detached"};
static const char *const vsocks[] = {[HUSK_VSOCK_ANY] = "any",
	[HUSK_VSOCK_DISABLED] = "disabled",
	[HUSK_VSOCK_AUTO] = "auto",
	[HUSK_VSOCK_FIXED] = "fixed"};
static const char *const door_kinds[] = {[HUSK_DOOR_UNIX] = "unix",
	[HUSK_DOOR_TCP] = "tcp",
	[HUSK_DOOR_EXEC] = "exec",
	[HUSK_DOOR_HANDOFF] = "handoff",
	[HUSK_DOOR_TLS] = "tls"};

static const struct config_field disk_fields[] = {
	FIELD(husk_disk, path, CONFIG_TEXT),
	FIELD(husk_disk, read_only, CONFIG_FLAG),
	FIELD(husk_disk, serial, CONFIG_TEXT),
	FIELD(husk_disk, format, CONFIG_TEXT),
	{0},
};

static const struct config_field share_fields[] = {
	FIELD(husk_share, path, CONFIG_TEXT),
	FIELD(husk_share, target, CONFIG_TEXT),
	FIELD(husk_share, read_only, CONFIG_FLAG),
	{0},
};

static const struct config_field door_fields[] = {
	CHOICE(husk_door, "kind", kind, door_kinds),
	FIELD(husk_door, path, CONFIG_TEXT),
	FIELD(husk_door, address, CONFIG_TEXT),
	FIELD(husk_door, port, CONFIG_U16),
	FIELD(husk_door, guest_port, CONFIG_U16),
	FIELD(husk_door, certificate, CONFIG_TEXT),
	FIELD(husk_door, key, CONFIG_TEXT),
	FIELD(husk_door, alpn, CONFIG_TEXT),
	{0},
};

static const struct config_field vsock_fields[] = {
	CHOICE(husk_vm_config, "policy", vsock, vsocks),
	{.name = "port", .kind = CONFIG_U32, .offset = offsetof(struct husk_vm_config, vsock_port)},
	{0},
};

const struct config_field config_fields[] = {
	FIELD(husk_vm_config, image, CONFIG_TEXT),
	FIELD(husk_vm_config, command, CONFIG_TEXTS),
	FIELD(husk_vm_config, entrypoint, CONFIG_TEXTS),
	FIELD(husk_vm_config, env, CONFIG_TEXTS),
	FIELD(husk_vm_config, working_dir, CONFIG_TEXT),
	FIELD(husk_vm_config, user, CONFIG_TEXT),
	FIELD(husk_vm_config, hostname, CONFIG_TEXT),
	FIELD(husk_vm_config, name, CONFIG_TEXT),
	FIELD(husk_vm_config, tty, CONFIG_FLAG),
	FIELD(husk_vm_config, init, CONFIG_FLAG),
	FIELD(husk_vm_config, read_only, CONFIG_FLAG),
	FIELD(husk_vm_config, machine, CONFIG_TEXT),
	FIELD(husk_vm_config, require_hardware, CONFIG_FLAG),
	FIELD(husk_vm_config, shell, CONFIG_TEXT),
	FIELD(husk_vm_config, memory, CONFIG_BYTES),
	FIELD(husk_vm_config, cpus, CONFIG_U32),
	FIELD(husk_vm_config, kernel, CONFIG_TEXT),
	FIELD(husk_vm_config, initramfs, CONFIG_TEXT),
	FIELD(husk_vm_config, cmdline, CONFIG_TEXT),
	FIELD(husk_vm_config, scratch, CONFIG_BYTES),
	LIST(disks, disk_fields, husk_disk),
	LIST(shares, share_fields, husk_share),
	FIELD(husk_vm_config, net, CONFIG_TEXT),
	LIST(doors, door_fields, husk_door),
	FIELD(husk_vm_config, listen_wait_ms, CONFIG_TIME),
	{.name = "vsock", .kind = CONFIG_GROUP, .fields = vsock_fields},
	CHOICE(husk_vm_config, "serial", serial, serials),
	CHOICE(husk_vm_config, "lifetime", lifetime, lifetimes),
	FIELD(husk_vm_config, remove, CONFIG_FLAG),
	FIELD(husk_vm_config, open_stdin, CONFIG_FLAG),
	FIELD(husk_vm_config, log_size, CONFIG_BYTES),
	FIELD(husk_vm_config, timeout_ms, CONFIG_TIME),
	FIELD(husk_vm_config, start_timeout_ms, CONFIG_TIME),
	FIELD(husk_vm_config, platform, CONFIG_TEXT),
	CHOICE(husk_vm_config, "pull", pull, pulls),
	FIELD(husk_vm_config, offline, CONFIG_FLAG),
	{0},
};

const struct husk_vm_config config_defaults = {
	.size = sizeof(struct husk_vm_config),
	.stdin_fd = -1,
	.stdout_fd = -1,
	.stderr_fd = -1,
	.memory = 512ull << 20,
	.cpus = 1,
	.scratch = 8ull << 30,
	.start_timeout_ms = 60000,
	.progress_fd = -1,
	.cancel_fd = -1,
	.serial_fd = -1,
	.serial_input_fd = -1,
	.log_size = CHECK_LOG_DEFAULT,
};
