/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-codec-fuzz.c - libFuzzer target: bytes as a frame that a guest has written
 *
 * Theory of operation: the input is what the host expects (a kind, a signature) and then the guest's buffer, byte by byte.
 * Whatever is read from that has to be of the signature, and its bytes the host's own. Values that were read are written as a
 * call and read again: they come back as they were, and the same frame is too large for a room of one byte less.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o sandbox-codec-fuzz \
 *     fuzz/sandbox-codec-fuzz.c sandbox/{codec,signature}.c base/error.c &&
 *     ./sandbox-codec-fuzz -max_len=1024 fuzz/corpus/sandbox-codec
 */
#include "base/cleanup.h"
#include "fuzz/fuzz.h"
#include "sandbox/codec.h"

#include <string.h>

enum kind { RESULT, ERROR, HOST_CALL, KINDS };

static void check_value(const struct husk_sandbox_value *value, enum husk_sandbox_type type)
{
	uint8_t truth;

	must(value->type == type, "a value is of its type");
	if (type == HUSK_SANDBOX_BOOL) {
		memcpy(&truth, &value->boolean, sizeof(truth));
		must(truth <= 1, "a bool is true or false");
	}
	if (type != HUSK_SANDBOX_STRING && type != HUSK_SANDBOX_BYTES)
		return;
	const char *bytes = value->bytes.data;
	must(bytes[value->bytes.size] == 0, "a NUL follows bytes");
	must(type == HUSK_SANDBOX_BYTES || strlen(bytes) == value->bytes.size, "a string has no NUL in it");
}

static bool same(const struct husk_sandbox_value *a, const struct husk_sandbox_value *b)
{
	switch (a->type) {
	case HUSK_SANDBOX_VOID:
		return true;
	case HUSK_SANDBOX_BOOL:
		return a->boolean == b->boolean;
	case HUSK_SANDBOX_STRING:
	case HUSK_SANDBOX_BYTES:
		return a->bytes.size == b->bytes.size && memcmp(a->bytes.data, b->bytes.data, a->bytes.size) == 0;
	case HUSK_SANDBOX_I64:
	case HUSK_SANDBOX_U64:
	case HUSK_SANDBOX_F64:
		return a->u64 == b->u64;
	default:
		return a->u32 == b->u32;
	}
}

/** What was read is written, into a room that is as large as it has to be, and read again. */
static void there_and_back(const struct signature *signature, const struct codec_values *values)
{
	struct codec_values again = {0};
	uint64_t size = 0, size_again = 0, room = 16 + 16 * values->n;

	for (unsigned i = 0; i < values->n; i++)
		if (values->values[i].type == HUSK_SANDBOX_STRING || values->values[i].type == HUSK_SANDBOX_BYTES)
			room += (values->values[i].bytes.size + (values->values[i].type == HUSK_SANDBOX_STRING) + 7) /
				8 * 8;
	CLEANUP_FREE uint8_t *frame = malloc(room);
	must(codec_write_call(frame, room - 1, 3, signature, values->values, values->n, &size, NULL) == -EMSGSIZE,
		"a frame needs its room");
	must(codec_write_call(frame, room, 3, signature, values->values, values->n, &size, NULL) == 0 && size == room,
		"what was read can be written");
	must(codec_read_call(frame, room, 3, signature, &again, &size_again, NULL) == 0 && size_again == size,
		"what was written can be read");
	for (unsigned i = 0; i < values->n; i++)
		must(same(&values->values[i], &again.values[i]), "a value comes back as it was");
	codec_values_clear(&again);
}

static void read_error(const uint8_t *buffer, size_t room)
{
	char message[SANDBOX_MESSAGE_MAX + 1];
	struct husk_error err = {0};
	int32_t code;
	int rc = codec_read_error(buffer, room, &code, message, &err);

	must(rc == 0 || (rc == -EPROTO && err.code == rc), "read, or told why not");
	for (size_t i = 0; rc == 0 && message[i]; i++)
		must(i < SANDBOX_MESSAGE_MAX && message[i] >= ' ' && message[i] < 0x7f, "a message is printable");
}

static void read_values(enum kind kind, const struct signature *signature, const uint8_t *buffer, size_t room)
{
	struct codec_values values = {0};
	struct husk_error err = {0};
	uint64_t size = 0;
	uint32_t which = 0;
	int rc = kind == HOST_CALL ? codec_read_which(buffer, room, &which, &err) : 0;

	if (rc == 0 && kind == HOST_CALL)
		rc = codec_read_call(buffer, room, which, signature, &values, &size, &err);
	else if (rc == 0)
		rc = codec_read_result(buffer, room, signature, &values, &size, &err);
	must(rc == 0 || (rc == -EPROTO && err.code == rc && !values.bytes), "read, or told why not");
	if (rc < 0)
		return;
	must(size <= room, "a frame is within its buffer");
	must(values.n == signature->n_args, "there are as many values as should be");
	uint64_t total = 0;
	for (unsigned i = 0; i < values.n; i++) {
		check_value(&values.values[i], signature->args[i]);
		if (values.values[i].type == HUSK_SANDBOX_STRING || values.values[i].type == HUSK_SANDBOX_BYTES)
			total += values.values[i].bytes.size;
	}
	must(total <= size, "no more is copied than the frame has");
	there_and_back(signature, &values);
	codec_values_clear(&values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program program = {.at = data, .end = data + size};
	struct signature signature = {.name = "fuzzed"};
	const enum kind kind = program_byte(&program) % KINDS;

	/* a result is its signature's only value; kept among the arguments, too, so that it can be written as a call */
	signature.n_args = program_byte(&program) % (kind == RESULT ? 2 : SANDBOX_ARGS_MAX + 1);
	for (unsigned i = 0; i < signature.n_args; i++)
		signature.args[i] = (enum husk_sandbox_type)(1 + program_byte(&program) % (SANDBOX_TYPES - 1));
	if (kind == RESULT && signature.n_args)
		signature.result = signature.args[0];
	const size_t room = (size_t)(program.end - program.at);
	CLEANUP_FREE uint8_t *buffer = malloc(room ? room : 1); /* exactly, so that a sanitizer sees its end */
	memcpy(buffer, program.at, room);
	if (kind == ERROR)
		read_error(buffer, room);
	else
		read_values(kind, &signature, buffer, room);
	return 0;
}
