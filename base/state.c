/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.c - the VM's state record on disk, and the identity of processes
 *
 * Theory of operation: a slot is a 16-byte header (u32 magic | u16 version | u16 0 | u32 length | u32 CRC-32 of the
 * length bytes that follow) and the fields in a fixed order; doors come last, and none behind the last open one. A generation
 * overwrites the older of the two slots with one pwrite(), so a writer that dies in the middle damages only what was out of
 * date. There is no fsync: the record tells about processes, none of which outlives the host's boot, and the boot id in it says
 * which boot that was.
 *
 * `husk ps` reads a thousand of these: a VM with few doors is read with two small pread(), and of the two slots only the
 * newer one's CRC is computed, unless it turns out damaged.
 */
#include "base/state.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/tlv.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEADER_SIZE 16
#define PROCESS_SIZE 12
#define DOOR_SIZE (4 * 4 + 2 * 8 + VM_ENDPOINT_MAX + 32 + 32)
#define DOORS_AT (8 + 3 * 4 + 8 + 40 + 3 * PROCESS_SIZE + 4 * 8 + 2 * 4 + 64 + 512)
#define BODY_MAX (DOORS_AT + VM_DOORS_MAX * DOOR_SIZE)
#define SLOT_MAX (HEADER_SIZE + BODY_MAX)
#define FIRST_READ 2048 /* takes five doors; every VM has two */

_Static_assert(SLOT_MAX <= STATE_SLOT, "a record fits its slot");
_Static_assert(
	FIRST_READ >= HEADER_SIZE + DOORS_AT && FIRST_READ <= SLOT_MAX, "the first read has what always is there");

static uint8_t *put_process(uint8_t *at, const struct process_id *id)
{
	put_le32(at, (uint32_t)id->pid);
	put_le64(at + 4, id->start_time);
	return at + PROCESS_SIZE;
}

static const uint8_t *get_process(const uint8_t *at, struct process_id *id)
{
	id->pid = (int32_t)get_le32(at);
	id->start_time = get_le64(at + 4);
	return at + PROCESS_SIZE;
}

static void put_door(uint8_t *at, const struct vm_door *d)
{
	put_le32(at, d->id);
	put_le32(at + 4, d->kind);
	put_le32(at + 8, d->guest_port);
	put_le32(at + 12, 0);
	put_le64(at + 16, d->device);
	put_le64(at + 24, d->inode);
	memcpy(at + 32, d->endpoint, sizeof(d->endpoint));
	memcpy(at + 32 + VM_ENDPOINT_MAX, d->inner, sizeof(d->inner));
	memcpy(at + 64 + VM_ENDPOINT_MAX, d->alpn, sizeof(d->alpn));
}

static void get_door(const uint8_t *at, struct vm_door *d)
{
	*d = (struct vm_door){
		.id = get_le32(at),
		.kind = get_le32(at + 4),
		.guest_port = get_le32(at + 8),
		.device = get_le64(at + 16),
		.inode = get_le64(at + 24),
	};
	memcpy(d->endpoint, at + 32, sizeof(d->endpoint) - 1);
	memcpy(d->inner, at + 32 + VM_ENDPOINT_MAX, sizeof(d->inner) - 1);
	memcpy(d->alpn, at + 64 + VM_ENDPOINT_MAX, sizeof(d->alpn) - 1);
}

/** The doors up to the last one: open, or, with an endpoint and no id yet, about to be. */
static size_t doors_used(const struct vm_state_record *r)
{
	size_t n = VM_DOORS_MAX;

	while (n && !r->doors[n - 1].id && !r->doors[n - 1].endpoint[0])
		n--;
	return n;
}

/** Fill @slot; its size. */
static size_t encode(uint8_t slot[SLOT_MAX], const struct vm_state_record *r)
{
	uint8_t *at = slot + HEADER_SIZE;
	size_t n = doors_used(r), body = DOORS_AT + n * DOOR_SIZE;

	put_le64(at, r->generation);
	put_le32(at + 8, r->state);
	put_le32(at + 12, r->end);
	put_le32(at + 16, r->value);
	put_le64(at + 20, r->changed_ns);
	memcpy(at + 28, r->boot_id, sizeof(r->boot_id));
	at = put_process(at + 68, &r->supervisor);
	at = put_process(at, &r->worker);
	at = put_process(at, &r->machine);
	put_le64(at, r->duration_ns);
	put_le64(at + 8, r->peak_rss);
	put_le64(at + 16, r->started_ns);
	put_le64(at + 24, r->ended_ns);
	put_le32(at + 32, r->starts);
	put_le32(at + 36, r->flags);
	memcpy(at + 40, r->console, sizeof(r->console));
	memcpy(at + 104, r->reason, sizeof(r->reason));
	for (size_t i = 0; i < n; i++)
		put_door(slot + HEADER_SIZE + DOORS_AT + i * DOOR_SIZE, &r->doors[i]);
	put_le32(slot, STATE_MAGIC);
	put_le16(slot + 4, STATE_VERSION);
	put_le16(slot + 6, 0);
	put_le32(slot + 8, (uint32_t)body);
	put_le32(slot + 12, crc32_ieee(0, slot + HEADER_SIZE, body));
	return HEADER_SIZE + body;
}

/** A slot as it was read. */
struct slot {
	uint8_t bytes[SLOT_MAX];
	size_t read; /* of them */
	size_t body; /* as its header says; 0: it is none */
	uint64_t generation; /* not to be believed before the CRC was looked at */
};

/** Read the slot's beginning and judge its header: 0, -EPROTO for another version, or -errno of the reading. */
static int open_slot(int fd, int index, struct slot *s)
{
	ssize_t n = pread(fd, s->bytes, FIRST_READ, index * STATE_SLOT);

	if (n < 0)
		return -errno;
	s->read = (size_t)n;
	s->body = 0;
	if (s->read < HEADER_SIZE || get_le32(s->bytes) != STATE_MAGIC)
		return 0;
	if (get_le16(s->bytes + 4) != STATE_VERSION)
		return -EPROTO;
	uint32_t body = get_le32(s->bytes + 8);
	bool fits = body >= DOORS_AT && body <= BODY_MAX && (body - DOORS_AT) % DOOR_SIZE == 0;
	if (!fits || get_le16(s->bytes + 6) || s->read < HEADER_SIZE + DOORS_AT)
		return 0;
	s->body = body;
	s->generation = get_le64(s->bytes + HEADER_SIZE);
	return 0;
}

/** Read what is still missing of the slot: true when it is whole. */
static bool complete_slot(int fd, int index, struct slot *s)
{
	size_t size = HEADER_SIZE + s->body;

	if (!s->body)
		return false;
	if (size > s->read) {
		ssize_t n = pread(fd, s->bytes + s->read, size - s->read, index * STATE_SLOT + (off_t)s->read);
		if (n != (ssize_t)(size - s->read))
			return false;
	}
	return get_le32(s->bytes + 12) == crc32_ieee(0, s->bytes + HEADER_SIZE, s->body);
}

static void decode(const struct slot *s, struct vm_state_record *r)
{
	const uint8_t *at = s->bytes + HEADER_SIZE;
	size_t n = (s->body - DOORS_AT) / DOOR_SIZE;

	r->generation = get_le64(at);
	r->state = get_le32(at + 8);
	r->end = get_le32(at + 12);
	r->value = get_le32(at + 16);
	r->changed_ns = get_le64(at + 20);
	memcpy(r->boot_id, at + 28, sizeof(r->boot_id));
	r->boot_id[sizeof(r->boot_id) - 1] = 0;
	at = get_process(at + 68, &r->supervisor);
	at = get_process(at, &r->worker);
	at = get_process(at, &r->machine);
	r->duration_ns = get_le64(at);
	r->peak_rss = get_le64(at + 8);
	r->started_ns = get_le64(at + 16);
	r->ended_ns = get_le64(at + 24);
	r->starts = get_le32(at + 32);
	r->flags = get_le32(at + 36);
	memcpy(r->console, at + 40, sizeof(r->console));
	r->console[sizeof(r->console) - 1] = 0;
	memcpy(r->reason, at + 104, sizeof(r->reason));
	r->reason[sizeof(r->reason) - 1] = 0;
	for (size_t i = 0; i < n; i++)
		get_door(s->bytes + HEADER_SIZE + DOORS_AT + i * DOOR_SIZE, &r->doors[i]);
	memset(r->doors + n, 0, (VM_DOORS_MAX - n) * sizeof(*r->doors));
}

int state_write(int fd, struct vm_state_record *record, struct husk_error *err)
{
	uint8_t slot[SLOT_MAX];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	record->changed_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	record->generation++;
	size_t size = encode(slot, record);
	ssize_t n = pwrite(fd, slot, size, (off_t)(record->generation % 2 * STATE_SLOT));
	if (n < 0)
		return error_errno(err, "write the VM's state");
	return (size_t)n == size ? 0 : error_set(err, -ENOSPC, "write the VM's state: only a part was written");
}

int state_read(int fd, struct vm_state_record *record, struct husk_error *err)
{
	struct slot slot[2];

	for (int i = 0; i < 2; i++) {
		int rc = open_slot(fd, i, &slot[i]);
		if (rc == -EPROTO)
			return error_set(err, rc, "read the VM's state: it was written by another version of husk");
		if (rc < 0)
			return error_set(err, rc, "read the VM's state: %s", strerror(-rc));
	}
	int newer = slot[1].body && (!slot[0].body || slot[1].generation > slot[0].generation);
	int whole = complete_slot(fd, newer, &slot[newer])     ? newer
		    : complete_slot(fd, !newer, &slot[!newer]) ? !newer
							       : -1;
	if (whole < 0)
		return error_set(err, -EBADMSG, "read the VM's state: no whole record in it");
	decode(&slot[whole], record);
	return 0;
}

int process_identify(pid_t pid, struct process_id *id)
{
	char path[32], text[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -ESRCH;
	text[n] = 0;
	/* Field 2, the name, may hold spaces and parentheses; field 3 follows the last ')'. proc(5) */
	char *at = strrchr(text, ')');
	if (at && at[1] == ' ' && (at[2] == 'Z' || at[2] == 'X'))
		return -ESRCH; /* it has ended and only waits to be reaped, which some init never does */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (!at)
		return -ESRCH;
	*id = (struct process_id){.pid = pid, .start_time = strtoull(at + 1, NULL, 10)};
	return 0;
}

bool process_alive(const struct process_id *id, const char *boot_id)
{
	struct process_id now;
	char here[40];

	/* Most that are asked about are dead, so what tells that comes first. */
	if (id->pid <= 0 || process_identify(id->pid, &now) < 0 || now.start_time != id->start_time)
		return false;
	host_boot_id(here);
	return strcmp(here, boot_id) == 0;
}

void host_boot_id(char out[40])
{
	CLEANUP_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, 39);
	out[n > 0 ? n : 0] = 0;
	out[strcspn(out, "\n")] = 0;
}

const char *vm_state_name(uint32_t state)
{
	static const char *const names[] = {
		[VM_CREATING] = "creating",
		[VM_STARTING] = "starting",
		[VM_RUNNING] = "running",
		[VM_PAUSED] = "paused",
		[VM_STOPPED] = "stopped",
		[VM_ERROR] = "error",
		[VM_CREATED] = "created",
	};
	return state < ARRAY_SIZE(names) && names[state] ? names[state] : "unknown";
}

static bool printable(const char *text, size_t room)
{
	const char *end = memchr(text, 0, room);

	for (const char *at = text; end && at < end; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			return false;
	return end != NULL;
}

bool vm_door_check(const struct vm_door *d)
{
	bool named = (d->kind == VM_DOOR_TLS) == (d->inner[0] != 0) && !memchr(d->inner, '/', sizeof(d->inner));

	return d->kind >= VM_DOOR_UNIX && d->kind <= VM_DOOR_TLS && d->guest_port <= 65535 && !d->reserved && named &&
	       d->endpoint[0] && printable(d->endpoint, sizeof(d->endpoint)) && printable(d->inner, sizeof(d->inner)) &&
	       printable(d->alpn, sizeof(d->alpn));
}

const char *vm_door_kind_name(uint32_t kind)
{
	static const char *const names[] = {
		[VM_DOOR_UNIX] = "unix",
		[VM_DOOR_TCP] = "tcp",
		[VM_DOOR_EXEC] = "exec",
		[VM_DOOR_VSOCK] = "vsock",
		[VM_DOOR_HANDOFF] = "handoff",
		[VM_DOOR_TLS] = "tls",
	};
	return kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "unknown";
}
