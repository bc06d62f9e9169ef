/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - calls of the host's functions, and their errors
 *
 * Theory of operation: the call frame goes to the output buffer, the reply is in the input buffer behind the call
 * under way. It stays there, so the bytes of a result need no copy; the next reply overwrites it. A reply to print()
 * is a bare header, which touches the bytes of none before it.
 */
#include "runtime.h"

HUSK_TABLE("husk_imports.print")
static const struct sandbox_import import_print = {(uint64_t) "print", SANDBOX_VOID, 1, {SANDBOX_STRING}};

static void remember_error(int32_t code, const char *message, uint64_t n)
{
	struct runtime *rt = &husk_runtime;

	rt->error_code = code;
	if (n > SANDBOX_MESSAGE_MAX)
		n = SANDBOX_MESSAGE_MAX;
	memcpy(rt->error_message, message, n);
	rt->error_message[n] = 0;
}

struct husk_value husk_call_host(const struct sandbox_import *import, const struct husk_value *args)
{
	static const char too_big[] = "the arguments are larger than the output buffer";
	const struct husk_value none = {0, ""};
	const struct sandbox_frame *reply = husk_runtime.reply;

	if (runtime_write((uint32_t)(import - husk_imports), import->n_args, import->args, args) < 0) {
		remember_error(HUSK_ERROR_SIZE, too_big, sizeof(too_big) - 1);
		return none;
	}
	runtime_signal(SANDBOX_HOST_CALL);
	if (reply->which != SANDBOX_REPLY_OK) {
		remember_error((int32_t)reply->slots[0].value, (const char *)reply + reply->slots[1].offset,
			reply->slots[1].value);
		return none;
	}
	husk_runtime.error_code = 0;
	husk_runtime.error_message[0] = 0;
	return reply->n ? husk_argument(reply, 0) : none;
}

int32_t husk_error_code(void)
{
	return husk_runtime.error_code;
}

const char *husk_error_message(void)
{
	return husk_runtime.error_message;
}

/** The text of a print call is in the output buffer already, or goes there. It is a string: a NUL in it becomes a '?'. */
static void print_frame(const char *text, uint64_t size)
{
	struct sandbox_frame *frame = husk_runtime.output;
	const uint64_t at = sizeof(*frame) + sizeof(frame->slots[0]);
	char *to = (char *)frame + at;

	if (size > husk_runtime.output_size - at)
		size = husk_runtime.output_size - at;
	if (text)
		memcpy(to, text, size);
	for (char *nul = to; (nul = memchr(nul, 0, size - (uint64_t)(nul - to)));)
		*nul = '?';
	frame->which = (uint32_t)(&import_print - husk_imports);
	frame->n = 1;
	frame->size = at + size;
	frame->slots[0] = (struct sandbox_slot){.type = SANDBOX_STRING, .offset = (uint32_t)at, .value = size};
	runtime_signal(SANDBOX_HOST_CALL);
}

void husk_print(const char *text, size_t size)
{
	if (size)
		print_frame(text, size);
}

int husk_vprintf(const char *format, va_list args)
{
	struct sandbox_frame *frame = husk_runtime.output;
	const uint64_t at = sizeof(*frame) + sizeof(frame->slots[0]);
	int n = husk_vsnprintf((char *)frame + at, husk_runtime.output_size - at, format, args);

	if (n > 0)
		print_frame(NULL,
			(uint64_t)n < husk_runtime.output_size - at ? (uint64_t)n : husk_runtime.output_size - at - 1);
	return n;
}
