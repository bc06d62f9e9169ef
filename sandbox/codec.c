/* SPDX-License-Identifier: Apache-2.0 */
/* codec.c - frames: the host's values into them, and the guest's out of them (theory of operation: codec.h) */
#include "sandbox/codec.h"

#include "base/cleanup.h"
#include "memory/memory.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little-endian, and numbers are copied into them as they are"
#endif

#define BYTES_ALIGNMENT 8u /* of what slots refer to, so that a guest can use it as an array of any type */

static bool has_bytes(enum husk_sandbox_type type)
{
	return type == HUSK_SANDBOX_STRING || type == HUSK_SANDBOX_BYTES;
}

static uint64_t head_size(size_t n)
{
	return sizeof(struct sandbox_frame) + n * sizeof(struct sandbox_slot);
}

/* ---- writing ---- */

/** The bits of a number. */
static uint64_t value_bits(const struct husk_sandbox_value *value)
{
	uint32_t word;
	uint64_t bits = 0;

	switch (value->type) {
	case HUSK_SANDBOX_BOOL:
		return value->boolean ? 1 : 0;
	case HUSK_SANDBOX_I64:
	case HUSK_SANDBOX_U64:
	case HUSK_SANDBOX_F64:
		memcpy(&bits, &value->u64, sizeof(bits));
		return bits;
	default:
		memcpy(&word, &value->u32, sizeof(word));
		return word;
	}
}

/** Bytes that @value takes behind the slots, padding included; a string's NUL is one of them. */
static uint64_t value_room(const struct husk_sandbox_value *value)
{
	uint64_t size = value->bytes.size + (value->type == HUSK_SANDBOX_STRING);

	return (size + BYTES_ALIGNMENT - 1) & ~(uint64_t)(BYTES_ALIGNMENT - 1);
}

/** Size of the frame of values whose types are right. */
static int measure(
	const struct husk_sandbox_value *values, size_t n, uint64_t room, uint64_t *size, struct husk_error *err)
{
	if (room > UINT32_MAX)
		room = UINT32_MAX; /* what a slot's offset can say */
	*size = head_size(n);
	for (size_t i = 0; i < n; i++) {
		const struct husk_sandbox_value *value = &values[i];
		if (!has_bytes(value->type))
			continue;
		if (value->bytes.size && !value->bytes.data)
			return error_set(
				err, -EINVAL, "value %zu has %zu bytes at no address", i + 1, value->bytes.size);
		if (value->bytes.size > room || value_room(value) > room - (*size < room ? *size : room))
			return error_set(err, -EMSGSIZE,
				"value %zu has %zu bytes, too many for the %" PRIu64 " of the input buffer", i + 1,
				value->bytes.size, room);
		if (value->type == HUSK_SANDBOX_STRING && value->bytes.size &&
			memchr(value->bytes.data, 0, value->bytes.size))
			return error_set(
				err, -EINVAL, "value %zu is a string with a NUL in it: bytes may have that", i + 1);
		*size += value_room(value);
	}
	if (*size > room)
		return error_set(err, -EMSGSIZE,
			"%zu values need %" PRIu64 " bytes, more than the %" PRIu64 " of the input buffer", n, *size,
			room);
	return 0;
}

/** Write a frame that was measured. */
static void put_frame(uint8_t *to, uint32_t which, const struct husk_sandbox_value *values, size_t n, uint64_t size)
{
	const struct sandbox_frame header = {.which = which, .n = (uint32_t)n, .size = size};
	uint64_t offset = head_size(n);

	memcpy(to, &header, sizeof(header));
	for (size_t i = 0; i < n; i++) {
		const struct husk_sandbox_value *value = &values[i];
		struct sandbox_slot slot = {.type = value->type};
		if (has_bytes(value->type)) {
			slot.offset = (uint32_t)offset;
			slot.value = value->bytes.size;
			if (value->bytes.size)
				memcpy(to + offset, value->bytes.data, value->bytes.size);
			memset(to + offset + value->bytes.size, 0, value_room(value) - value->bytes.size);
			offset += value_room(value);
		} else {
			slot.value = value_bits(value);
		}
		memcpy(to + head_size(i), &slot, sizeof(slot));
	}
}

int codec_write_call(void *to, uint64_t room, uint32_t which, const struct signature *signature,
	const struct husk_sandbox_value *args, size_t n, uint64_t *size, struct husk_error *err)
{
	uint64_t total;

	if (n != signature->n_args)
		return error_set(err, -EINVAL, "function '%s' takes %u arguments, not %zu", signature->name,
			signature->n_args, n);
	if (n && !args)
		return error_set(err, -EINVAL, "function '%s': %zu arguments at no address", signature->name, n);
	for (size_t i = 0; i < n; i++) {
		const char *type = signature_type_name(args[i].type);
		if (args[i].type != signature->args[i])
			return error_set(err, -EINVAL, "argument %zu of '%s' is of type %s, not %s", i + 1,
				signature->name, type ? type : "unknown", signature_type_name(signature->args[i]));
	}
	int rc = measure(args, n, room, &total, err);
	if (rc < 0)
		return error_prefix(err, rc, "call '%s'", signature->name);
	put_frame(to, which, args, n, total);
	*size = total;
	return 0;
}

_Static_assert(sizeof(struct sandbox_frame) + 2 * sizeof(struct sandbox_slot) + SANDBOX_MESSAGE_MAX + BYTES_ALIGNMENT <=
		       CODEC_ERROR_ROOM,
	"every error has room");

static int write_error(
	void *to, uint64_t room, int32_t code, const char *message, uint64_t *size, struct husk_error *err)
{
	const struct husk_sandbox_value values[2] = {
		{.type = HUSK_SANDBOX_I32, .i32 = code},
		{.type = HUSK_SANDBOX_STRING,
			.bytes = {.data = message, .size = message ? strnlen(message, SANDBOX_MESSAGE_MAX) : 0}},
	};
	uint64_t total;
	int rc = measure(values, 2, room, &total, err);

	if (rc < 0)
		return rc;
	put_frame(to, SANDBOX_REPLY_ERROR, values, 2, total);
	*size = total;
	return 0;
}

int codec_write_reply(void *to, uint64_t room, const struct signature *signature,
	const struct husk_sandbox_value *result, int32_t code, const char *message, uint64_t *size,
	struct husk_error *err)
{
	const enum husk_sandbox_type type = result ? result->type : HUSK_SANDBOX_VOID;
	const size_t n = signature->result != HUSK_SANDBOX_VOID;
	uint64_t total;
	int rc;

	if (code != 0) {
		rc = write_error(to, room, code, message, size, err);
	} else if (type != signature->result) {
		const char *name = signature_type_name(type);
		return error_set(err, -EINVAL, "the host's function '%s' has made a result of type %s, not %s",
			signature->name, name ? name : "unknown", signature_type_name(signature->result));
	} else {
		rc = measure(result, n, room, &total, err);
		if (rc == 0) {
			put_frame(to, SANDBOX_REPLY_OK, result, n, total);
			*size = total;
		}
	}
	if (rc < 0)
		error_prefix(err, rc, "reply for the host's function '%s'", signature->name);
	return rc;
}

/* ---- reading ---- */

/** Header and slots as they were when they were copied. */
struct head {
	struct sandbox_slot slots[SANDBOX_ARGS_MAX];
	struct sandbox_frame frame; /* the header alone, so it has to come last */
};

/** How the numbers of a type may look: bits that have to be zero. */
static const uint64_t unused_bits[SANDBOX_TYPES] = {
	[SANDBOX_I32] = 0xffffffff00000000,
	[SANDBOX_U32] = 0xffffffff00000000,
	[SANDBOX_F32] = 0xffffffff00000000,
	[SANDBOX_BOOL] = ~1ull,
};

static int read_frame(const void *from, uint64_t room, struct sandbox_frame *frame, struct husk_error *err)
{
	if (room < sizeof(*frame))
		return error_set(err, -EPROTO, "no room for a frame in %" PRIu64 " bytes", room);
	memory_copy(frame, from, sizeof(*frame));
	if (frame->n > SANDBOX_ARGS_MAX)
		return error_set(err, -EPROTO, "a frame of %u values; %d are the most", frame->n, SANDBOX_ARGS_MAX);
	if (frame->size > room || frame->size < head_size(frame->n))
		return error_set(err, -EPROTO, "a frame of %" PRIu64 " bytes for %u values in a buffer of %" PRIu64,
			frame->size, frame->n, room);
	return 0;
}

/** Does slot number @i have this type, and a possible value? */
static int check_slot(const struct head *head, unsigned i, enum husk_sandbox_type type, struct husk_error *err)
{
	const struct sandbox_slot *slot = &head->slots[i];
	const uint64_t size = head->frame.size;

	if (slot->type != (uint32_t)type) {
		const char *name = signature_type_name((enum husk_sandbox_type)slot->type);
		return error_set(err, -EPROTO, "value %u is of type %s (%u), not %s", i + 1, name ? name : "unknown",
			slot->type, signature_type_name(type));
	}
	if (!has_bytes(type)) {
		if (slot->offset || slot->value & unused_bits[type])
			return error_set(err, -EPROTO, "value %u is no %s (%#" PRIx64 ", offset %u)", i + 1,
				signature_type_name(type), slot->value, slot->offset);
		return 0;
	}
	if (slot->offset > size || slot->value > size - slot->offset)
		return error_set(err, -EPROTO,
			"value %u (%" PRIu64 " bytes at %u) ends outside of its frame of %" PRIu64 " bytes", i + 1,
			slot->value, slot->offset, size);
	if (slot->value && slot->offset < head_size(head->frame.n))
		return error_set(err, -EPROTO, "value %u (at %u) lies in the frame's own slots", i + 1, slot->offset);
	return 0;
}

/** Copy and check header and slots, which have to be @n values of @types, for @which. *@bytes: what the slots refer to; never
 *  more than the frame has, so that slots that share bytes cannot make the host copy more than the guest has written. */
static int read_head(const void *from, uint64_t room, uint32_t which, const enum husk_sandbox_type *types, unsigned n,
	struct head *head, uint64_t *bytes, struct husk_error *err)
{
	int rc = read_frame(from, room, &head->frame, err);

	if (rc < 0)
		return rc;
	if (head->frame.which != which || head->frame.n != n)
		return error_set(err, -EPROTO, "a frame for number %u with %u values; number %u with %u is right",
			head->frame.which, head->frame.n, which, n);
	memory_copy(head->slots, (const uint8_t *)from + sizeof(head->frame), n * sizeof(head->slots[0]));
	*bytes = 0;
	for (unsigned i = 0; i < n; i++) {
		rc = check_slot(head, i, types[i], err);
		if (rc < 0)
			return rc;
		*bytes += has_bytes(types[i]) ? head->slots[i].value : 0; /* 32 times 2^32 at most */
	}
	if (*bytes > head->frame.size - head_size(n))
		return error_set(err, -EPROTO, "%" PRIu64 " bytes of values in a frame of %" PRIu64 ": they overlap",
			*bytes, head->frame.size);
	return 0;
}

static void take_number(const struct sandbox_slot *slot, struct husk_sandbox_value *value)
{
	const uint32_t word = (uint32_t)slot->value;

	if (value->type == HUSK_SANDBOX_BOOL)
		value->boolean = slot->value;
	else if (value->type == HUSK_SANDBOX_I64 || value->type == HUSK_SANDBOX_U64 || value->type == HUSK_SANDBOX_F64)
		memcpy(&value->u64, &slot->value, sizeof(slot->value));
	else
		memcpy(&value->u32, &word, sizeof(word));
}

/** Make values of a checked head, copying bytes to one allocation; each gets a NUL behind it. */
static int take_values(
	const void *from, const struct head *head, uint64_t bytes, struct codec_values *out, struct husk_error *err)
{
	const unsigned n = head->frame.n;
	unsigned nuls = 0;
	CLEANUP_FREE uint8_t *copy = NULL;
	uint64_t at = 0;

	for (unsigned i = 0; i < n; i++)
		nuls += has_bytes((enum husk_sandbox_type)head->slots[i].type);
	if (nuls && !(copy = malloc(bytes + nuls)))
		return error_set(err, -ENOMEM, "no memory for %" PRIu64 " bytes from the guest", bytes);
	struct husk_sandbox_value *values = out->values;
	for (unsigned i = 0; i < n; i++) {
		const struct sandbox_slot *slot = &head->slots[i];
		values[i] = (struct husk_sandbox_value){.type = (enum husk_sandbox_type)slot->type};
		if (!has_bytes(values[i].type)) {
			take_number(slot, &values[i]);
			continue;
		}
		memory_copy(copy + at, (const uint8_t *)from + slot->offset, slot->value);
		if (values[i].type == HUSK_SANDBOX_STRING && memchr(copy + at, 0, slot->value))
			return error_set(err, -EPROTO, "value %u is a string with a NUL in it", i + 1);
		copy[at + slot->value] = 0;
		values[i].bytes.data = copy + at;
		values[i].bytes.size = slot->value;
		at += slot->value + 1;
	}
	out->n = n;
	out->bytes = steal_pointer(&copy);
	return 0;
}

void codec_values_clear(struct codec_values *values)
{
	free(values->bytes);
	values->bytes = NULL;
	values->n = 0;
}

/** Read a frame of @n values of @types. */
static int read_values(const void *from, uint64_t room, uint32_t which, const enum husk_sandbox_type *types, unsigned n,
	struct codec_values *out, uint64_t *size, struct husk_error *err)
{
	struct head head;
	uint64_t bytes;
	int rc = read_head(from, room, which, types, n, &head, &bytes, err);

	if (rc == 0)
		rc = take_values(from, &head, bytes, out, err);
	if (rc == 0 && size)
		*size = head.frame.size;
	return rc;
}

int codec_read_result(const void *from, uint64_t room, const struct signature *signature, struct codec_values *out,
	uint64_t *size, struct husk_error *err)
{
	const unsigned n = signature->result != HUSK_SANDBOX_VOID;
	int rc = read_values(from, room, 0, &signature->result, n, out, size, err);

	if (rc < 0)
		error_prefix(err, rc, "read the result of '%s'", signature->name);
	return rc;
}

int codec_read_error(const void *from, uint64_t room, int32_t *code, char *message, struct husk_error *err)
{
	static const enum husk_sandbox_type types[2] = {HUSK_SANDBOX_I32, HUSK_SANDBOX_STRING};
	struct codec_values values;
	struct head head;
	uint64_t bytes;
	int rc = read_head(from, room, 0, types, 2, &head, &bytes, err);

	if (rc == 0 && bytes > SANDBOX_MESSAGE_MAX)
		rc = error_set(
			err, -EPROTO, "its message has %" PRIu64 " bytes; %d are the most", bytes, SANDBOX_MESSAGE_MAX);
	if (rc == 0)
		rc = take_values(from, &head, bytes, &values, err);
	if (rc < 0)
		return error_prefix(err, rc, "read the guest's error");
	const char *text = values.values[1].bytes.data;
	for (size_t i = 0; i <= bytes; i++)
		message[i] = (text[i] >= ' ' && text[i] < 0x7f) || !text[i] ? text[i] : '?';
	*code = values.values[0].i32;
	codec_values_clear(&values);
	return 0;
}

int codec_read_which(const void *from, uint64_t room, uint32_t *which, struct husk_error *err)
{
	struct sandbox_frame frame;
	int rc = read_frame(from, room, &frame, err);

	if (rc < 0)
		error_prefix(err, rc, "read a call of the host's functions");
	else
		*which = frame.which;
	return rc;
}

int codec_read_call(const void *from, uint64_t room, uint32_t which, const struct signature *signature,
	struct codec_values *out, uint64_t *size, struct husk_error *err)
{
	int rc = read_values(from, room, which, signature->args, signature->n_args, out, size, err);

	if (rc < 0)
		error_prefix(err, rc, "read the arguments for the host's function '%s'", signature->name);
	return rc;
}
