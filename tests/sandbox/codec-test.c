/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec-test.c - frames: every type there and back, and every lie that a guest can tell
 *
 * Theory of operation: a frame is made by hand in a buffer with canaries around it, so that what the codec reads and writes
 * is held against protocol.h and not against itself. A lie is a good frame with one field changed.
 */
#include "sandbox/codec.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>

#define ROOM 512u
#define CANARY 0xc5

static struct {
	uint8_t before[64];
	_Alignas(16) uint8_t frame[ROOM];
	uint8_t after[64];
} b;

static void wipe(void)
{
	memset(&b, CANARY, sizeof(b));
}

static bool untouched(const uint8_t *at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (at[i] != CANARY)
			return false;
	return true;
}

static bool canaries(void)
{
	return untouched(b.before, sizeof(b.before)) && untouched(b.after, sizeof(b.after));
}

static struct sandbox_frame *frame(void)
{
	return (struct sandbox_frame *)(void *)b.frame;
}

/* ---- writing ---- */

static const struct signature everything = {.name = "everything",
	.result = HUSK_SANDBOX_VOID,
	.n_args = 9,
	.args = {HUSK_SANDBOX_I32, HUSK_SANDBOX_U32, HUSK_SANDBOX_I64, HUSK_SANDBOX_U64, HUSK_SANDBOX_F32,
		HUSK_SANDBOX_F64, HUSK_SANDBOX_BOOL, HUSK_SANDBOX_STRING, HUSK_SANDBOX_BYTES}};

static void fill_everything(struct husk_sandbox_value *v)
{
	v[0] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_I32, .i32 = -2};
	v[1] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_U32, .u32 = 0xfffffffe};
	v[2] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_I64, .i64 = INT64_MIN};
	v[3] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_U64, .u64 = UINT64_MAX};
	v[4] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_F32, .f32 = -0.5f};
	v[5] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_F64, .f64 = 1e300};
	v[6] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_BOOL, .boolean = true};
	v[7] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_STRING, .bytes = {"grüße", 7}};
	v[8] = (struct husk_sandbox_value){.type = HUSK_SANDBOX_BYTES, .bytes = {"\0\1\2", 3}};
}

static void test_write_call(void)
{
	struct husk_sandbox_value v[9];
	struct husk_error err = {0};
	uint64_t size = 0;
	const uint64_t bits[7] = {
		0xfffffffe, 0xfffffffe, 0x8000000000000000, UINT64_MAX, 0xbf000000, 0x7e37e43c8800759c, 1};

	wipe();
	fill_everything(v);
	CHECK(codec_write_call(b.frame, ROOM, 7, &everything, v, 9, &size, &err) == 0,
		"a call of every type is written");
	const struct sandbox_slot *slots = frame()->slots;
	CHECK(frame()->which == 7 && frame()->n == 9 && frame()->size == size, "its header is right");
	CHECK(size == 16 + 9 * 16 + 8 + 8, "its size is that of its parts");
	bool fine = true;
	for (unsigned i = 0; i < 7; i++)
		fine &= slots[i].type == (uint32_t)v[i].type && slots[i].offset == 0 && slots[i].value == bits[i];
	CHECK(fine, "numbers are their bits, zero-extended");
	CHECK(slots[7].type == SANDBOX_STRING && slots[7].value == 7 && slots[7].offset == 160 &&
			memcmp(b.frame + 160, "grüße\0", 8) == 0,
		"a string is its bytes, and a NUL");
	CHECK(slots[8].type == SANDBOX_BYTES && slots[8].value == 3 && slots[8].offset == 168 &&
			memcmp(b.frame + 168, "\0\1\2\0\0\0\0\0", 8) == 0,
		"bytes are bytes, and begin at a multiple of 8");
	CHECK(untouched(b.frame + size, ROOM - size) && canaries(), "nothing behind it is written");
	CHECK(codec_write_call(b.frame, size, 7, &everything, v, 9, &size, &err) == 0, "it may fill its room");
	wipe();
	CHECK(codec_write_call(b.frame, size - 1, 7, &everything, v, 9, &size, &err) == -EMSGSIZE &&
			err.code == -EMSGSIZE,
		"a byte less is too little room");
	CHECK(untouched(b.frame, ROOM) && canaries(), "and nothing is written");
}

static void refused_call(const struct husk_sandbox_value *v, size_t n, int code, const char *reason, const char *what)
{
	struct husk_error err = {0};
	uint64_t size = 12345;

	wipe();
	int rc = codec_write_call(b.frame, ROOM, 7, &everything, v, n, &size, &err);
	if (!CHECK(rc == code && err.code == code && strstr(err.message, reason) && size == 12345 &&
			    untouched(b.frame, ROOM),
		    what))
		printf("# %d: %s\n", rc, err.message);
}

static void test_refused_calls(void)
{
	struct husk_sandbox_value v[33];

	fill_everything(v);
	refused_call(v, 8, -EINVAL, "takes 9 arguments, not 8", "an argument too few");
	refused_call(v, 10, -EINVAL, "takes 9 arguments, not 10", "an argument too many");
	refused_call(v, 33, -EINVAL, "not 33", "33 arguments");
	refused_call(v, 0, -EINVAL, "not 0", "no arguments");
	refused_call(NULL, 9, -EINVAL, "no address", "arguments that are nowhere");
	v[1].type = HUSK_SANDBOX_I32;
	refused_call(
		v, 9, -EINVAL, "argument 2 of 'everything' is of type i32, not u32", "an argument of another type");
	v[1].type = (enum husk_sandbox_type)77;
	refused_call(v, 9, -EINVAL, "of type unknown", "an argument of no type");
	fill_everything(v);
	v[7].bytes.data = "a\0b";
	v[7].bytes.size = 3;
	refused_call(v, 9, -EINVAL, "string with a NUL", "a string with a NUL in it");
	fill_everything(v);
	v[8].bytes.data = NULL;
	refused_call(v, 9, -EINVAL, "at no address", "bytes that are nowhere");
	fill_everything(v);
	v[8].bytes.size = ROOM;
	refused_call(v, 9, -EMSGSIZE, "too many", "more bytes than there is room");
	v[8].bytes.size = SIZE_MAX;
	refused_call(v, 9, -EMSGSIZE, "too many", "as many bytes as a size can say");
	v[8].bytes.size = SIZE_MAX - 6;
	refused_call(v, 9, -EMSGSIZE, "too many", "as many bytes as can be rounded up");
}

static void test_small_rooms(void)
{
	const struct signature none = {.name = "none"};
	const struct signature two = {.name = "two", .n_args = 2, .args = {HUSK_SANDBOX_STRING, HUSK_SANDBOX_BYTES}};
	const struct husk_sandbox_value empty[2] = {{.type = HUSK_SANDBOX_STRING}, {.type = HUSK_SANDBOX_BYTES}};
	uint64_t size = 0;

	wipe();
	CHECK(codec_write_call(b.frame, 16, 3, &none, NULL, 0, &size, NULL) == 0 && size == 16,
		"a call without arguments is a header");
	CHECK(codec_write_call(b.frame, 15, 3, &none, NULL, 0, &size, NULL) == -EMSGSIZE, "which needs its room");
	CHECK(codec_write_call(b.frame, 0, 3, &none, NULL, 0, &size, NULL) == -EMSGSIZE, "no room is too little");
	CHECK(codec_write_call(b.frame, 40, 3, &two, empty, 2, &size, NULL) == -EMSGSIZE, "slots need their room");
	CHECK(codec_write_call(b.frame, 56, 3, &two, empty, 2, &size, NULL) == 0 && size == 56 && b.frame[48] == 0,
		"empty values take no room but a string's NUL");
	CHECK(untouched(b.frame + 56, ROOM - 56) && canaries(), "and nothing else is written");
}

static void test_write_reply(void)
{
	const struct signature length = {.name = "length", .result = HUSK_SANDBOX_BYTES};
	const struct signature none = {.name = "none", .result = HUSK_SANDBOX_VOID};
	struct husk_sandbox_value value = {.type = HUSK_SANDBOX_BYTES, .bytes = {"abc", 3}};
	struct husk_error err = {0};
	uint64_t size = 0;
	char longer[600];

	wipe();
	CHECK(codec_write_reply(b.frame, ROOM, &length, &value, 0, NULL, &size, &err) == 0 &&
			frame()->which == SANDBOX_REPLY_OK && frame()->n == 1 && size == 40 &&
			frame()->slots[0].value == 3 && memcmp(b.frame + 32, "abc", 3) == 0,
		"a reply with a result");
	value.type = HUSK_SANDBOX_STRING;
	CHECK(codec_write_reply(b.frame, ROOM, &length, &value, 0, NULL, &size, &err) == -EINVAL &&
			strstr(err.message, "'length' has made a result of type string, not bytes"),
		"a result of another type is refused");
	CHECK(codec_write_reply(b.frame, ROOM, &length, NULL, 0, NULL, &size, &err) == -EINVAL, "so is none");
	CHECK(codec_write_reply(b.frame, ROOM, &none, &value, 0, NULL, &size, &err) == -EINVAL,
		"so is one where there should be none");
	CHECK(codec_write_reply(b.frame, ROOM, &none, NULL, 0, NULL, &size, &err) == 0 && size == 16 && frame()->n == 0,
		"no result");
	value = (struct husk_sandbox_value){.type = HUSK_SANDBOX_BYTES, .bytes = {"abc", ROOM}};
	CHECK(codec_write_reply(b.frame, ROOM, &length, &value, 0, NULL, &size, &err) == -EMSGSIZE,
		"a result that is too long");
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	CHECK(codec_write_reply(b.frame, ROOM, &length, NULL, -ENOENT, longer, &size, &err) == 0 &&
			frame()->which == SANDBOX_REPLY_ERROR && frame()->n == 2 &&
			frame()->slots[0].value == (uint32_t)-ENOENT &&
			frame()->slots[1].value == SANDBOX_MESSAGE_MAX &&
			b.frame[frame()->slots[1].offset + SANDBOX_MESSAGE_MAX] == 0,
		"an error, its message cut");
	CHECK(codec_write_reply(b.frame, ROOM, &length, NULL, -ENOENT, NULL, &size, &err) == 0 &&
			frame()->slots[1].value == 0,
		"an error without a message");
	CHECK(codec_write_reply(b.frame, 55, &length, NULL, -ENOENT, NULL, &size, &err) == -EMSGSIZE,
		"an error without room");
	CHECK(canaries(), "nothing around is written");
}

/* ---- reading ---- */

/** A frame of @n slots by hand. */
static struct sandbox_slot *make(uint32_t which, uint32_t n, uint64_t size)
{
	wipe();
	*frame() = (struct sandbox_frame){.which = which, .n = n, .size = size};
	return frame()->slots;
}

static void make_everything(void)
{
	struct sandbox_slot *slots = make(4, 9, 200);
	const uint64_t bits[7] = {
		0xfffffffe, 0xfffffffe, 0x8000000000000000, UINT64_MAX, 0xbf000000, 0x7e37e43c8800759c, 1};

	for (unsigned i = 0; i < 7; i++)
		slots[i] = (struct sandbox_slot){.type = everything.args[i], .value = bits[i]};
	slots[7] = (struct sandbox_slot){.type = SANDBOX_STRING, .offset = 193, .value = 7};
	memcpy(b.frame + 193, "grüße", 7);
	slots[8] = (struct sandbox_slot){.type = SANDBOX_BYTES, .offset = 160, .value = 3};
	memcpy(b.frame + 160, "\0\1\2", 3);
}

static void test_read_call(void)
{
	struct codec_values out = {0};
	struct husk_sandbox_value v[9];
	struct husk_error err = {0};
	uint64_t size = 0;
	uint32_t which = 0;

	fill_everything(v);
	make_everything();
	CHECK(codec_read_which(b.frame, ROOM, &which, &err) == 0 && which == 4, "what a call is for");
	if (!CHECK(codec_read_call(b.frame, 200, 4, &everything, &out, &size, &err) == 0,
		    "a call of every type is read")) {
		printf("# %s\n", err.message);
		return;
	}
	memset(b.frame, 0xff, ROOM);
	CHECK(size == 200 && out.n == 9, "its size and number of values");
	bool fine = true;
	for (unsigned i = 0; i < 9; i++)
		fine &= out.values[i].type == v[i].type;
	CHECK(fine, "its types");
	CHECK(out.values[0].i32 == -2 && out.values[1].u32 == 0xfffffffe && out.values[2].i64 == INT64_MIN &&
			out.values[3].u64 == UINT64_MAX,
		"integers");
	CHECK(out.values[4].f32 == -0.5f && out.values[5].f64 == 1e300 && out.values[6].boolean, "other numbers");
	CHECK(out.values[7].bytes.size == 7 && strcmp(out.values[7].bytes.data, "grüße") == 0,
		"a string, with a NUL behind it");
	CHECK(out.values[8].bytes.size == 3 && memcmp(out.values[8].bytes.data, "\0\1\2", 3) == 0,
		"bytes, which are the host's own");
	codec_values_clear(&out);
	CHECK(!out.bytes && out.n == 0, "and cleared");
}

static void test_read_results(void)
{
	const struct signature none = {.name = "none"}, text = {.name = "text", .result = HUSK_SANDBOX_STRING};
	const struct signature real = {.name = "real", .result = HUSK_SANDBOX_F64};
	struct codec_values out = {0};
	struct husk_error err = {0};

	make(0, 0, 16);
	CHECK(codec_read_result(b.frame, 16, &none, &out, NULL, &err) == 0 && out.n == 0 && !out.bytes &&
			out.values[0].type == HUSK_SANDBOX_VOID,
		"no result");
	CHECK(codec_read_result(b.frame, 15, &none, &out, NULL, &err) == -EPROTO, "a buffer smaller than a header");
	make(0, 1, 35)[0] = (struct sandbox_slot){.type = SANDBOX_STRING, .offset = 32, .value = 3};
	memcpy(b.frame + 32, "abc", 3);
	CHECK(codec_read_result(b.frame, ROOM, &text, &out, NULL, &err) == 0 &&
			strcmp(out.values[0].bytes.data, "abc") == 0 && out.values[0].bytes.data == out.bytes,
		"a string, which husk_sandbox_value_clear() can free");
	husk_sandbox_value_clear(&out.values[0]);
	CHECK(out.values[0].type == HUSK_SANDBOX_VOID, "and does");
	make(0, 1, 32)[0] = (struct sandbox_slot){.type = SANDBOX_STRING, .offset = 0, .value = 0};
	CHECK(codec_read_result(b.frame, ROOM, &text, &out, NULL, &err) == 0 &&
			strcmp(out.values[0].bytes.data, "") == 0,
		"an empty string");
	codec_values_clear(&out);
	make(0, 1, 32)[0] = (struct sandbox_slot){.type = SANDBOX_F64, .value = 0x7ff8000000000001};
	CHECK(codec_read_result(b.frame, ROOM, &real, &out, NULL, &err) == 0 && isnan(out.values[0].f64) && !out.bytes,
		"a number that is none keeps its bits");
}

static void test_read_error(void)
{
	struct husk_error err = {0};
	char message[SANDBOX_MESSAGE_MAX + 1];
	int32_t code = 0;

	struct sandbox_slot *slots = make(0, 2, ROOM);
	slots[0] = (struct sandbox_slot){.type = SANDBOX_I32, .value = (uint32_t)-5};
	slots[1] = (struct sandbox_slot){.type = SANDBOX_STRING, .offset = 48, .value = 6};
	memcpy(b.frame + 48, "a\033[\x80\nb", 6);
	CHECK(codec_read_error(b.frame, ROOM, &code, message, &err) == 0 && code == -5, "an error's code");
	CHECK_STRING(message, "a?[??b", "its message, made printable");
	memset(b.frame + 48, 'm', ROOM - 48);
	slots[1].value = SANDBOX_MESSAGE_MAX;
	CHECK(codec_read_error(b.frame, ROOM, &code, message, &err) == 0 && strlen(message) == SANDBOX_MESSAGE_MAX,
		"the longest message");
	slots[1].value++;
	CHECK(codec_read_error(b.frame, ROOM, &code, message, &err) == -EPROTO && strstr(err.message, "401 bytes"),
		"a longer one");
	slots[1].value = 0;
	CHECK(codec_read_error(b.frame, ROOM, &code, message, &err) == 0 && message[0] == 0, "none");
	slots[0].value = (uint64_t)-5;
	CHECK(codec_read_error(b.frame, ROOM, &code, message, &err) == -EPROTO, "a code of 64 bits");
}

/** One field of make_everything()'s frame, changed. */
static const struct {
	const char *what;
	size_t at, size;
	uint64_t value;
	const char *reason;
} lies[] = {
#define HEAD(field, new, reason_, what_)                                                                               \
	{                                                                                                              \
		what_, offsetof(struct sandbox_frame, field), sizeof(frame()->field), new, reason_                     \
	}
#define SLOT(i, field, new, reason_, what_)                                                                            \
	{                                                                                                              \
		what_, 16 + 16 * (i) + offsetof(struct sandbox_slot, field), sizeof(frame()->slots[0].field), new,     \
			reason_                                                                                        \
	}
	HEAD(which, 5, "for number 5", "another function"),
	HEAD(n, 8, "with 8 values", "a value too few"),
	HEAD(n, 10, "with 10 values", "a value too many"),
	HEAD(n, 33, "33 values", "33 values"),
	HEAD(n, 0xffffffff, "4294967295 values", "as many values as a number can say"),
	HEAD(size, 159, "159 bytes for 9", "a size that cuts the slots"),
	HEAD(size, 0, "0 bytes for 9", "a size of 0"),
	HEAD(size, ROOM + 1, "513 bytes for 9", "a size beyond the buffer"),
	HEAD(size, UINT64_MAX, "bytes for 9", "a size that is huge"),
	HEAD(size, 199, "value 8 (7 bytes at 193) ends outside", "a size that cuts a string"),
	SLOT(0, type, SANDBOX_U32, "of type u32 (2), not i32", "another type"),
	SLOT(0, type, SANDBOX_VOID, "of type void (0), not i32", "no type"),
	SLOT(0, type, 0xffffffff, "of type unknown (4294967295)", "a type that there is not"),
	SLOT(8, type, SANDBOX_STRING, "of type string (8), not bytes", "a string for bytes"),
	SLOT(0, value, 0x100000000, "value 1 is no i32", "an i32 of 33 bits"),
	SLOT(0, value, 0xfffffffffffffffe, "value 1 is no i32", "an i32 with its sign extended"),
	SLOT(1, value, 0x100000000, "value 2 is no u32", "a u32 of 33 bits"),
	SLOT(4, value, 0x8000000000000000, "value 5 is no f32", "an f32 with a higher bit"),
	SLOT(6, value, 2, "value 7 is no bool", "a bool of 2"),
	SLOT(6, value, 0x100, "value 7 is no bool", "a bool of 256"),
	SLOT(6, value, 0x8000000000000001, "value 7 is no bool", "a bool with its highest bit"),
	SLOT(3, offset, 160, "value 4 is no u64", "a number with an offset"),
	SLOT(7, offset, 194, "ends outside", "a string that ends behind the frame"),
	SLOT(7, offset, 201, "ends outside", "a string behind the frame"),
	SLOT(7, offset, 0xffffffff, "ends outside", "a string far behind the frame"),
	SLOT(7, value, 8, "ends outside", "a string with a byte too many"),
	SLOT(7, value, UINT64_MAX, "ends outside", "a string of 2^64 - 1 bytes"),
	SLOT(7, value, UINT64_MAX - 192, "ends outside", "a string whose end wraps to 0"),
	SLOT(7, value, (uint64_t)INT64_MIN, "ends outside", "a string of half of everything"),
	SLOT(7, offset, 159, "own slots", "a string that begins in the slots"),
	SLOT(7, offset, 0, "own slots", "a string that begins in the header"),
	SLOT(8, value, 34, "they overlap", "values that overlap, more than the frame has"),
#undef HEAD
#undef SLOT
};

static void test_lies(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct codec_values out = {0};
		struct husk_error err = {0};
		uint64_t size = 12345;
		make_everything();
		memcpy(b.frame + lies[i].at, &lies[i].value, lies[i].size);
		int rc = codec_read_call(b.frame, ROOM, 4, &everything, &out, &size, &err);
		if (!CHECK(rc == -EPROTO && err.code == -EPROTO && strstr(err.message, lies[i].reason) && !out.bytes &&
				    out.n == 0 && size == 12345,
			    lies[i].what))
			printf("# %d: %s\n", rc, err.message);
		codec_values_clear(&out);
	}
	struct codec_values out = {0};
	make_everything();
	b.frame[195] = 0;
	CHECK(codec_read_call(b.frame, ROOM, 4, &everything, &out, NULL, NULL) == -EPROTO && !out.bytes,
		"a string with a NUL in it");
	make_everything();
	CHECK(codec_read_call(b.frame, 199, 4, &everything, &out, NULL, NULL) == -EPROTO,
		"a frame larger than the buffer");
}

/* ---- a guest that changes a frame while it is read ---- */

static bool stop;

static void *change(void *arg)
{
	volatile uint64_t *size = &frame()->slots[7].value;
	volatile uint8_t *text = b.frame + 196;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		*size = UINT64_MAX;
		*text = 0;
		*size = 7;
		*text = 'x';
		for (unsigned i = 0; i < 500; i++) /* right for a while */
			*text = 'x';
	}
	return NULL;
}

static void test_changing(void)
{
	pthread_t thread;
	unsigned taken = 0, refused = 0;
	bool fine = true;

	make_everything();
	if (!CHECK(pthread_create(&thread, NULL, change, NULL) == 0, "a thread changes the frame"))
		return;
	for (unsigned i = 0; i < 200000 || ((!taken || !refused) && i < 20000000); i++) {
		struct codec_values out = {0};
		if (codec_read_call(b.frame, ROOM, 4, &everything, &out, NULL, NULL) < 0) {
			refused++;
			continue;
		}
		taken++;
		fine &= out.values[7].bytes.size == 7 && strlen(out.values[7].bytes.data) == 7;
		codec_values_clear(&out);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(fine && taken && refused, "what is read is right by itself, whatever the frame says a moment later");
	printf("# %u taken, %u refused\n", taken, refused);
}

int main(void)
{
	test_write_call();
	test_refused_calls();
	test_small_rooms();
	test_write_reply();
	test_read_call();
	test_read_results();
	test_read_error();
	test_lies();
	test_changing();
	return tap_done();
}
