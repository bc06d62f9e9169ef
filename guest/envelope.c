/* SPDX-License-Identifier: Apache-2.0 */
/*
 * envelope.c - the boot envelope, read and checked
 *
 * Theory of operation: a table says for each tag which shape its value has and where it goes; a shape has one function
 * that checks and stores. What is not in the table is a fault: both ends come from one build.
 */
#include "guest/envelope.h"

#include "agent/boot.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/tlv.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define SHM_SIZE_DEFAULT (64ull << 20)
#define NOFILE_DEFAULT 1048576
#define SIGNAL_MAX 64

enum shape {
	SHAPE_U32,
	SHAPE_U64,
	SHAPE_BYTES,
	SHAPE_DEVICE,
	SHAPE_HOSTNAME,
	SHAPE_MODULE,
	SHAPE_LATE_MODULE,
	SHAPE_VOLUME,
	SHAPE_DISK
};

struct field {
	enum shape shape;
	size_t offset;
	const char *name;
};

#define AT(member) offsetof(struct envelope, member)
static const struct field fields[] = {
	[BOOT_MODULE] = {SHAPE_MODULE, 0, "module"},
	[BOOT_ROOT_DEVICE] = {SHAPE_DEVICE, AT(root_device), "root device"},
	[BOOT_LAYERS] = {SHAPE_U32, AT(layers), "layers"},
	[BOOT_SCRATCH_DEVICE] = {SHAPE_DEVICE, AT(scratch_device), "scratch device"},
	[BOOT_FLAGS] = {SHAPE_U32, AT(flags), "flags"},
	[BOOT_HOSTNAME] = {SHAPE_HOSTNAME, AT(hostname), "hostname"},
	[BOOT_RESOLV_CONF] = {SHAPE_BYTES, AT(resolv_conf), "resolv.conf"},
	[BOOT_HOSTS] = {SHAPE_BYTES, AT(hosts), "hosts"},
	[BOOT_VOLUME] = {SHAPE_VOLUME, 0, "volume"},
	[BOOT_SHM_SIZE] = {SHAPE_U64, AT(shm_size), "size of /dev/shm"},
	[BOOT_NOFILE] = {SHAPE_U32, AT(nofile), "open file limit"},
	[BOOT_TIME_NS] = {SHAPE_U64, AT(time_ns), "time"},
	[BOOT_ENTROPY] = {SHAPE_BYTES, AT(entropy), "entropy"},
	[BOOT_STOP_SIGNAL] = {SHAPE_U32, AT(stop_signal), "stop signal"},
	[BOOT_LATE_MODULE] = {SHAPE_LATE_MODULE, 0, "late module"},
	[BOOT_VSOCK_PORT] = {SHAPE_U32, AT(vsock_port), "vsock port"},
	[BOOT_CONSOLE] = {SHAPE_DEVICE, AT(console), "console"},
	[BOOT_DISK] = {SHAPE_DISK, 0, "disk"},
};
#undef AT

static bool store_bytes(const struct tlv *entry, struct bytes *to)
{
	if (to->data)
		return false;
	to->data = malloc((size_t)entry->size + 1);
	if (!to->data)
		return false;
	if (entry->size)
		memcpy(to->data, entry->value, entry->size);
	to->size = entry->size;
	return true;
}

/** Text of 1 to @max characters that are letters, digits or one of @also. */
static bool copy_word(const uint8_t *text, size_t n, char *to, size_t max, const char *also)
{
	if (n < 1 || n > max)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!text[i] || (!isalnum(text[i]) && !strchr(also, text[i])))
			return false;
	memcpy(to, text, n);
	to[n] = 0;
	return true;
}

static bool store_word(const struct tlv *entry, char *to, size_t max, const char *also)
{
	return copy_word(entry->value, entry->size, to, max, also);
}

/** "vdb SERIAL". */
static bool store_disk(const struct tlv *entry, struct envelope *out)
{
	const uint8_t *space = entry->size ? memchr(entry->value, ' ', entry->size) : NULL;
	if (!space || out->n_disks == ENVELOPE_DISKS_MAX)
		return false;
	struct envelope_disk *disk = &out->disks[out->n_disks++];
	size_t device = (size_t)(space - entry->value);
	return copy_word(entry->value, device, disk->device, ENVELOPE_DEVICE_MAX - 1, "") &&
	       copy_word(space + 1, entry->size - device - 1, disk->serial, ENVELOPE_SERIAL_MAX, "._-");
}

static bool store_item(const struct tlv *entry, char **list, size_t *n, bool path)
{
	if (*n == ENVELOPE_LIST_MAX || !entry->size || entry->size > 4095)
		return false;
	CLEANUP_FREE char *text = tlv_string(entry);
	if (!text || (path ? text[0] != '/' : strchr(text, '/') != NULL))
		return false;
	list[(*n)++] = steal_pointer(&text);
	return true;
}

static bool store(const struct tlv *entry, const struct field *field, struct envelope *out)
{
	void *to = (char *)out + field->offset;
	switch (field->shape) {
	case SHAPE_U32:
		return tlv_u32(entry, to);
	case SHAPE_U64:
		return tlv_u64(entry, to);
	case SHAPE_BYTES:
		return store_bytes(entry, to);
	case SHAPE_DEVICE:
		return store_word(entry, to, ENVELOPE_DEVICE_MAX - 1, "");
	case SHAPE_HOSTNAME:
		return store_word(entry, to, ENVELOPE_HOSTNAME_MAX, "-._");
	case SHAPE_MODULE:
		return store_item(entry, out->modules, &out->n_modules, false);
	case SHAPE_LATE_MODULE:
		return store_item(entry, out->late_modules, &out->n_late_modules, false);
	case SHAPE_VOLUME:
		return store_item(entry, out->volumes, &out->n_volumes, true);
	case SHAPE_DISK:
		return store_disk(entry, out);
	}
	return false;
}

static int check(const struct envelope *e, struct husk_error *err)
{
	if (!e->root_device[0] || !e->scratch_device[0])
		return error_set(err, -EBADMSG, "the boot envelope names no root or no scratch device");
	if (e->layers < 1 || e->layers > ENVELOPE_LAYERS_MAX)
		return error_set(err, -EBADMSG, "the boot envelope says %u layers", e->layers);
	if (e->flags & ~(BOOT_FLAG_READ_ONLY | BOOT_FLAG_DEBUG | BOOT_FLAG_KEPT))
		return error_set(err, -EBADMSG, "the boot envelope has unknown flags %#x", e->flags);
	if (e->nofile < 3)
		return error_set(err, -EBADMSG, "the boot envelope allows %u open files", e->nofile);
	if (e->stop_signal < 1 || e->stop_signal > SIGNAL_MAX)
		return error_set(err, -EBADMSG, "the boot envelope has %u as the stop signal", e->stop_signal);
	return 0;
}

int envelope_parse(const void *bytes, size_t size, struct envelope *out, struct husk_error *err)
{
	struct tlv_reader reader;
	struct tlv entry;

	*out = (struct envelope){.shm_size = SHM_SIZE_DEFAULT,
		.nofile = NOFILE_DEFAULT,
		.stop_signal = SIGTERM,
		.hostname = "husk"};
	int rc = tlv_open(&reader, bytes, size, BOOT_MAGIC, BOOT_VERSION, err);
	if (rc < 0)
		return error_prefix(err, rc, "read the boot envelope");
	while (rc == 0 && tlv_next(&reader, &entry)) {
		if (entry.tag >= ARRAY_SIZE(fields) || !fields[entry.tag].name)
			rc = error_set(err, -EPROTO, "the boot envelope has an unknown tag %u", entry.tag);
		else if (!store(&entry, &fields[entry.tag], out))
			rc = error_set(
				err, -EBADMSG, "the boot envelope has a bad value for: %s", fields[entry.tag].name);
	}
	if (rc == 0 && reader.broken)
		rc = error_set(err, -EBADMSG, "the boot envelope is malformed");
	if (rc == 0)
		rc = check(out, err);
	if (rc < 0)
		envelope_free(out);
	return rc;
}

int envelope_read(const char *path, struct envelope *out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer b = {0};
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "open the boot envelope %s", path);
	int rc = fd_read_to_end(fd, &b, BOOT_SIZE_MAX);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "read the boot envelope %s", path);
	}
	rc = envelope_parse(b.data ? buffer_bytes(&b) : (const uint8_t *)"", b.size, out, err);
	if (b.data)
		explicit_bzero(b.data, b.capacity);
	return rc;
}

void envelope_free(struct envelope *e)
{
	for (size_t i = 0; i < e->n_modules; i++)
		free(e->modules[i]);
	for (size_t i = 0; i < e->n_late_modules; i++)
		free(e->late_modules[i]);
	for (size_t i = 0; i < e->n_volumes; i++)
		free(e->volumes[i]);
	if (e->entropy.data)
		explicit_bzero(e->entropy.data, e->entropy.size);
	free(e->entropy.data);
	free(e->resolv_conf.data);
	free(e->hosts.data);
	*e = (struct envelope){0};
}
