/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protocol.c - the codec of the agent protocol
 *
 * Theory of operation: frames are appended to and read from byte queues that someone else fills and empties; nothing here
 * does I/O or keeps state, so the same code serves the worker, the library and husk-init, and can be fuzzed alone. A
 * decoder looks at every byte it is given once and answers yes, no, or "more".
 */
#include "agent/protocol.h"

#include "base/bytes.h"
#include "base/tlv.h"

#include <stdarg.h>
#include <stdio.h>

#define ERROR_TEXT_MAX 1000
#define SIGNAL_MAX 64

long agent_frame_decode(const void *bytes, size_t size, struct agent_frame *frame)
{
	const uint8_t *at = bytes;

	if (size < AGENT_HEADER_SIZE)
		return 0;
	uint32_t length = get_le32(at);
	if (length > AGENT_PAYLOAD_MAX || at[4] == 0 || get_le16(at + 6) != 0)
		return -EPROTO;
	if (size - AGENT_HEADER_SIZE < length)
		return 0;
	*frame =
		(struct agent_frame){.type = at[4], .stream = at[5], .size = length, .payload = at + AGENT_HEADER_SIZE};
	return (long)AGENT_HEADER_SIZE + (long)length;
}

int agent_frame_put(struct buffer *b, enum agent_type type, uint8_t stream, const void *payload, size_t size)
{
	if (size > AGENT_PAYLOAD_MAX)
		return -EMSGSIZE;
	uint8_t *to = buffer_reserve(b, AGENT_HEADER_SIZE + size);
	if (!to)
		return -ENOMEM;
	put_le32(to, (uint32_t)size);
	to[4] = (uint8_t)type;
	to[5] = stream;
	put_le16(to + 6, 0);
	if (size)
		memcpy(to + AGENT_HEADER_SIZE, payload, size);
	buffer_commit(b, AGENT_HEADER_SIZE + size);
	return 0;
}

int agent_hello_put(struct buffer *b)
{
	return agent_u32_put(b, AGENT_HELLO, 0, AGENT_VERSION);
}

int agent_u32_put(struct buffer *b, enum agent_type type, uint8_t stream, uint32_t value)
{
	uint8_t bytes[4];
	put_le32(bytes, value);
	return agent_frame_put(b, type, stream, bytes, sizeof(bytes));
}

int agent_resize_put(struct buffer *b, uint16_t rows, uint16_t columns)
{
	uint8_t bytes[4];
	put_le16(bytes, rows);
	put_le16(bytes + 2, columns);
	return agent_frame_put(b, AGENT_RESIZE, 0, bytes, sizeof(bytes));
}

int agent_exit_put(struct buffer *b, const struct agent_exit *exit)
{
	uint8_t bytes[AGENT_EXIT_SIZE];
	put_le32(bytes, exit->kind);
	put_le32(bytes + 4, exit->value);
	put_le64(bytes + 8, exit->duration_ns);
	put_le64(bytes + 16, exit->peak_rss);
	put_le32(bytes + 24, exit->flags);
	put_le32(bytes + 28, exit->step);
	return agent_frame_put(b, AGENT_EXIT, 0, bytes, sizeof(bytes));
}

int agent_forward_put(struct buffer *b, uint16_t port)
{
	uint8_t bytes[4];
	put_le16(bytes, port);
	put_le16(bytes + 2, 0);
	return agent_frame_put(b, AGENT_FORWARD, 0, bytes, sizeof(bytes));
}

int agent_listening_put(struct buffer *b, const struct agent_listener *listeners, size_t n)
{
	uint8_t bytes[AGENT_LISTENERS_MAX * AGENT_LISTENER_SIZE];
	if (n > AGENT_LISTENERS_MAX)
		n = AGENT_LISTENERS_MAX;
	for (size_t i = 0; i < n; i++) {
		uint8_t *at = bytes + i * AGENT_LISTENER_SIZE;
		put_le16(at, listeners[i].port);
		at[2] = listeners[i].family;
		at[3] = 0;
		memcpy(at + 4, listeners[i].address, sizeof(listeners[i].address));
	}
	return agent_frame_put(b, AGENT_LISTENING, 0, bytes, n * AGENT_LISTENER_SIZE);
}

int agent_error_put(struct buffer *b, enum agent_error code, const char *format, ...)
{
	uint8_t bytes[4 + ERROR_TEXT_MAX + 1];
	va_list ap;
	put_le32(bytes, code);
	va_start(ap, format);
	vsnprintf((char *)bytes + 4, ERROR_TEXT_MAX + 1, format, ap);
	va_end(ap);
	return agent_frame_put(b, AGENT_ERROR, 0, bytes, 4 + strlen((char *)bytes + 4));
}

bool agent_u32_get(const struct agent_frame *frame, uint32_t *value)
{
	if (frame->size != 4)
		return false;
	*value = get_le32(frame->payload);
	return true;
}

bool agent_resize_get(const struct agent_frame *frame, uint16_t *rows, uint16_t *columns)
{
	if (frame->size != 4)
		return false;
	*rows = get_le16(frame->payload);
	*columns = get_le16(frame->payload + 2);
	return true;
}

bool agent_forward_get(const struct agent_frame *frame, uint16_t *port)
{
	if (frame->size != 4 || get_le16(frame->payload + 2) || !get_le16(frame->payload))
		return false;
	*port = get_le16(frame->payload);
	return true;
}

bool agent_listening_get(const struct agent_frame *frame, struct agent_listener *listeners, size_t *n)
{
	static const uint8_t zero[12];
	size_t count = frame->size / AGENT_LISTENER_SIZE;
	if (frame->size % AGENT_LISTENER_SIZE || count > AGENT_LISTENERS_MAX || count > *n)
		return false;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *at = frame->payload + i * AGENT_LISTENER_SIZE;
		struct agent_listener *l = &listeners[i];
		*l = (struct agent_listener){.port = get_le16(at), .family = at[2]};
		memcpy(l->address, at + 4, sizeof(l->address));
		bool four = l->family == 4 && memcmp(l->address + 4, zero, sizeof(zero)) == 0;
		if (!l->port || at[3] || (!four && l->family != 6))
			return false;
	}
	*n = count;
	return true;
}

bool agent_exit_get(const struct agent_frame *frame, struct agent_exit *exit)
{
	if (frame->size != AGENT_EXIT_SIZE)
		return false;
	struct agent_exit got = {
		.kind = get_le32(frame->payload),
		.value = get_le32(frame->payload + 4),
		.duration_ns = get_le64(frame->payload + 8),
		.peak_rss = get_le64(frame->payload + 16),
		.flags = get_le32(frame->payload + 24),
		.step = get_le32(frame->payload + 28),
	};
	bool ok = got.kind == AGENT_EXITED ? got.value <= 255
					   : got.kind == AGENT_SIGNALED && got.value >= 1 && got.value <= SIGNAL_MAX;
	ok = ok && got.flags <= (AGENT_EXIT_TIMED_OUT | AGENT_EXIT_OOM) && got.step < AGENT_STEPS_MAX;
	if (ok)
		*exit = got;
	return ok;
}

bool agent_error_get(const struct agent_frame *frame, uint32_t *code, char *text, size_t room)
{
	if (frame->size < 4 || frame->size > 4 + ERROR_TEXT_MAX || !room)
		return false;
	uint32_t got = get_le32(frame->payload);
	size_t size = frame->size - 4;
	bool known = got >= AGENT_ERROR_PROTOCOL && got <= AGENT_ERROR_UNSUPPORTED;
	bool number = got > AGENT_ERROR_ERRNO && got <= AGENT_ERROR_ERRNO + AGENT_ERRNO_MAX;
	if ((!known && !number) || memchr(frame->payload + 4, 0, size))
		return false;
	*code = got;
	size_t n = size < room - 1 ? size : room - 1;
	for (size_t i = 0; i < n; i++) {
		uint8_t c = frame->payload[4 + i];
		text[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
	}
	text[n] = 0;
	return true;
}

int agent_data_put(struct buffer *b, uint64_t offset, const void *bytes, size_t n)
{
	if (n == 0 || n > AGENT_PAYLOAD_MAX - 8)
		return -EMSGSIZE;
	uint8_t *to = buffer_reserve(b, AGENT_HEADER_SIZE + 8 + n);
	if (!to)
		return -ENOMEM;
	put_le32(to, (uint32_t)(8 + n));
	to[4] = AGENT_DATA;
	to[5] = 0;
	put_le16(to + 6, 0);
	put_le64(to + AGENT_HEADER_SIZE, offset);
	memcpy(to + AGENT_HEADER_SIZE + 8, bytes, n);
	buffer_commit(b, AGENT_HEADER_SIZE + 8 + n);
	return 0;
}

bool agent_data_get(const struct agent_frame *frame, uint64_t *offset, const uint8_t **bytes, size_t *n)
{
	if (frame->size <= 8)
		return false;
	uint64_t at = get_le64(frame->payload);
	size_t size = frame->size - 8;
	if (at > INT64_MAX || size > INT64_MAX - at)
		return false;
	*offset = at;
	*bytes = frame->payload + 8;
	*n = size;
	return true;
}

/* ---- trees ---- */

#define DEVICE_MAJOR_MAX 0xfffu /* MINORBITS is 20 (Linux, include/linux/kdev_t.h) */
#define DEVICE_MINOR_MAX 0xfffffu

/** A path below the root: components that are names, and nothing that leads elsewhere. */
static bool is_name(const char *path)
{
	for (;;) {
		size_t n = strcspn(path, "/");
		if (n == 0 || (n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		if (!path[n])
			return true;
		path += n + 1;
	}
}

static bool is_device(enum agent_entry_type type)
{
	return type == AGENT_CHARACTER || type == AGENT_BLOCK;
}

static bool is_link(enum agent_entry_type type)
{
	return type == AGENT_SYMLINK || type == AGENT_HARDLINK;
}

/** Do the fields of @e go together? @found: bit n for tag n, of those that came. */
static bool entry_fits(const struct agent_entry *e, uint32_t found)
{
	const uint32_t always = 1u << AGENT_ENTRY_NAME | 1u << AGENT_ENTRY_TYPE;

	if ((found & always) != always || e->type < AGENT_FILE || e->type > AGENT_SOCKET || e->mode > 07777)
		return false;
	if ((e->name[0] && !is_name(e->name)) || (e->type == AGENT_HARDLINK && (!e->name[0] || !is_name(e->link))))
		return false;
	if (!(found & 1u << AGENT_ENTRY_LINK) != !is_link(e->type) || !e->link[0] != !is_link(e->type))
		return false;
	if (!(found & 1u << AGENT_ENTRY_DEVICE) != !is_device(e->type) || e->device >> 32 > DEVICE_MAJOR_MAX ||
		(uint32_t)e->device > DEVICE_MINOR_MAX)
		return false;
	return e->size <= INT64_MAX && (e->type == AGENT_FILE || !(found & 1u << AGENT_ENTRY_SIZE));
}

/** The tags that an entry of @type has. */
static uint32_t tags_of(enum agent_entry_type type)
{
	uint32_t tags = 1u << AGENT_ENTRY_NAME | 1u << AGENT_ENTRY_TYPE | 1u << AGENT_ENTRY_MODE |
			1u << AGENT_ENTRY_UID | 1u << AGENT_ENTRY_GID | 1u << AGENT_ENTRY_MTIME;
	if (type == AGENT_FILE)
		tags |= 1u << AGENT_ENTRY_SIZE;
	if (is_link(type))
		tags |= 1u << AGENT_ENTRY_LINK;
	if (is_device(type))
		tags |= 1u << AGENT_ENTRY_DEVICE;
	return tags;
}

static int put_entries(struct buffer *b, const struct agent_entry *e, uint32_t tags)
{
	int rc = tlv_put_string(b, AGENT_ENTRY_NAME, e->name);
	rc = rc < 0 ? rc : tlv_put_u32(b, AGENT_ENTRY_TYPE, e->type);
	rc = rc < 0 ? rc : tlv_put_u32(b, AGENT_ENTRY_MODE, e->mode);
	rc = rc < 0 ? rc : tlv_put_u32(b, AGENT_ENTRY_UID, e->uid);
	rc = rc < 0 ? rc : tlv_put_u32(b, AGENT_ENTRY_GID, e->gid);
	rc = rc < 0 ? rc : tlv_put_u64(b, AGENT_ENTRY_MTIME, (uint64_t)e->mtime_ns);
	if (rc == 0 && tags & 1u << AGENT_ENTRY_SIZE)
		rc = tlv_put_u64(b, AGENT_ENTRY_SIZE, e->size);
	if (rc == 0 && tags & 1u << AGENT_ENTRY_LINK)
		rc = tlv_put_string(b, AGENT_ENTRY_LINK, e->link);
	if (rc == 0 && tags & 1u << AGENT_ENTRY_DEVICE)
		rc = tlv_put_u64(b, AGENT_ENTRY_DEVICE, e->device);
	return rc;
}

int agent_entry_put(struct buffer *b, const struct agent_entry *entry)
{
	uint32_t tags = tags_of(entry->type);
	size_t before = b->size;

	if (!entry_fits(entry, tags))
		return -EINVAL;
	int rc = agent_frame_put(b, AGENT_ENTRY, 0, NULL, 0);
	rc = rc < 0 ? rc : put_entries(b, entry, tags);
	if (rc < 0)
		b->size = before;
	else
		put_le32(buffer_bytes(b) + before, (uint32_t)(b->size - before - AGENT_HEADER_SIZE));
	return rc;
}

static bool get_text(const struct tlv *tlv, char to[AGENT_NAME_MAX + 1])
{
	if (tlv->size > AGENT_NAME_MAX || (tlv->size && memchr(tlv->value, 0, tlv->size)))
		return false;
	if (tlv->size)
		memcpy(to, tlv->value, tlv->size);
	to[tlv->size] = 0;
	return true;
}

static bool get_entry(const struct tlv *tlv, struct agent_entry *e)
{
	uint64_t wide;
	uint32_t type;

	switch (tlv->tag) {
	case AGENT_ENTRY_NAME:
		return get_text(tlv, e->name);
	case AGENT_ENTRY_LINK:
		return get_text(tlv, e->link);
	case AGENT_ENTRY_TYPE:
		if (!tlv_u32(tlv, &type) || type > AGENT_SOCKET)
			return false;
		e->type = (enum agent_entry_type)type;
		return true;
	case AGENT_ENTRY_MODE:
		return tlv_u32(tlv, &e->mode);
	case AGENT_ENTRY_UID:
		return tlv_u32(tlv, &e->uid);
	case AGENT_ENTRY_GID:
		return tlv_u32(tlv, &e->gid);
	case AGENT_ENTRY_MTIME:
		if (!tlv_u64(tlv, &wide))
			return false;
		e->mtime_ns = (int64_t)wide;
		return true;
	case AGENT_ENTRY_SIZE:
		return tlv_u64(tlv, &e->size);
	case AGENT_ENTRY_DEVICE:
		return tlv_u64(tlv, &e->device);
	default:
		return false;
	}
}

bool agent_entry_get(const struct agent_frame *frame, struct agent_entry *entry)
{
	struct tlv_reader reader;
	struct tlv tlv;
	uint32_t found = 0;

	*entry = (struct agent_entry){.device = 0};
	tlv_start(&reader, frame->payload, frame->size);
	while (tlv_next(&reader, &tlv)) {
		if (tlv.tag > AGENT_ENTRY_DEVICE || found & 1u << tlv.tag || !get_entry(&tlv, entry))
			return false;
		found |= 1u << tlv.tag;
	}
	return !reader.broken && entry_fits(entry, found);
}
