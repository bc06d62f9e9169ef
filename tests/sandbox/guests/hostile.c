/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile.c - a sandbox program for the tests that breaks the protocol, in a way that the caller chooses
 *
 * Theory of operation: the exports are ordinary; in the middle of a call they write a frame of their own to the
 * output buffer and speak to the host past the runtime. Each lie is a row of a table: what to say, and the frame.
 * After a lie that the host takes for good the function returns as if nothing had been. It needs no function of the
 * host's but print. Compiled with -mgeneral-regs-only.
 */
#include <husk/sandbox.h>

#define ALL ((uint64_t)-1) /* as a size: that of the output buffer */

struct lie {
	const char *name;
	uint32_t signal;
	uint32_t which, n;
	uint64_t size;
	struct sandbox_slot slots[2];
	const char *text; /* written at TEXT of the frame; its NULs are written, too: text_size bytes */
	uint32_t text_size;
};

/* Where text goes. The slots of the largest frame end before it. */
#define TEXT 1024u
#define TEXT_ROOM 2048u

#define NUMBER(bits)                                                                                                   \
	{                                                                                                              \
		.type = SANDBOX_I32, .value = (bits)                                                                   \
	}
#define STRING(at, length)                                                                                             \
	{                                                                                                              \
		.type = SANDBOX_STRING, .offset = (at), .value = (length)                                              \
	}
#define WORDS(s) .text = (s), .text_size = sizeof(s) - 1

/** The first print: import number 0, the only one. */
static const struct lie lies[] = {
	/* signals */
	{"a signal 0", 0, 0, 0, 16},
	{"an unknown signal", 6, 0, 0, 16},
	{"a signal of all ones", 0xffffffff, 0, 0, 16},
	{"ready, in the middle of a call", SANDBOX_READY, 0, 0, 16},
	/* results; the function's is an i32 */
	{"no result", SANDBOX_RETURN, 0, 0, 16},
	{"two results", SANDBOX_RETURN, 0, 2, 48, {NUMBER(1), NUMBER(2)}},
	{"33 results", SANDBOX_RETURN, 0, 33, 16 + 33 * 16, {NUMBER(1)}},
	{"four billion results", SANDBOX_RETURN, 0, 0xffffffff, ALL, {NUMBER(1)}},
	{"a result for a call number", SANDBOX_RETURN, 7, 1, 32, {NUMBER(1)}},
	{"a frame of no bytes", SANDBOX_RETURN, 0, 1, 0, {NUMBER(1)}},
	{"a frame without its slot", SANDBOX_RETURN, 0, 1, 16, {NUMBER(1)}},
	{"a frame that is one byte short", SANDBOX_RETURN, 0, 1, 31, {NUMBER(1)}},
	{"a frame of 2^64 - 2 bytes", SANDBOX_RETURN, 0, 1, (uint64_t)-2, {NUMBER(1)}},
	{"a frame of 2^40 bytes", SANDBOX_RETURN, 0, 1, 1ull << 40, {NUMBER(1)}},
	{"a result of another type", SANDBOX_RETURN, 0, 1, 32, {{.type = SANDBOX_U32, .value = 1}}},
	{"a result of type void", SANDBOX_RETURN, 0, 1, 32, {{.type = SANDBOX_VOID, .value = 1}}},
	{"a result of an unknown type", SANDBOX_RETURN, 0, 1, 32, {{.type = 10, .value = 1}}},
	{"a result of type 2^32 - 1", SANDBOX_RETURN, 0, 1, 32, {{.type = 0xffffffff, .value = 1}}},
	{"a string instead of a number", SANDBOX_RETURN, 0, 1, TEXT + 4, {STRING(TEXT, 4)}, WORDS("text")},
	{"an i32 of 33 bits", SANDBOX_RETURN, 0, 1, 32, {NUMBER(1ull << 32)}},
	{"an i32 that was sign-extended", SANDBOX_RETURN, 0, 1, 32, {NUMBER((uint64_t)-1)}},
	{"a number with an offset", SANDBOX_RETURN, 0, 1, 32, {{.type = SANDBOX_I32, .offset = 16, .value = 1}}},
	/* errors */
	{"an error of one value", SANDBOX_FAIL, 0, 1, 32, {NUMBER(1)}},
	{"an error with its values in another order", SANDBOX_FAIL, 0, 2, TEXT + 4, {STRING(TEXT, 4), NUMBER(1)},
		WORDS("text")},
	{"an error with a message that is too long", SANDBOX_FAIL, 0, 2, ALL, {NUMBER(1), STRING(TEXT, 401)}},
	{"an error with a message of the whole buffer", SANDBOX_FAIL, 0, 2, ALL, {NUMBER(1), STRING(48, 4096 - 48)}},
	{"an error with a message of 2^64 - 1 bytes", SANDBOX_FAIL, 0, 2, ALL, {NUMBER(1), STRING(TEXT, (uint64_t)-1)}},
	{"an error with a message outside of the frame", SANDBOX_FAIL, 0, 2, 48, {NUMBER(1), STRING(TEXT, 4)}},
	{"an error with a message in its slots", SANDBOX_FAIL, 0, 2, TEXT, {NUMBER(1), STRING(16, 8)}},
	{"an error with a NUL in its message", SANDBOX_FAIL, 0, 2, TEXT + 7, {NUMBER(1), STRING(TEXT, 7)},
		WORDS("abc\0def")},
	{"an abort without a frame", SANDBOX_ABORT, 0, 0, 0},
	/* calls of the host's functions */
	{"a call of function number 1000", SANDBOX_HOST_CALL, 1000, 1, 32, {STRING(32, 0)}},
	{"a call of function number 2^32 - 1", SANDBOX_HOST_CALL, 0xffffffff, 1, 32, {STRING(32, 0)}},
	{"a call with too few arguments", SANDBOX_HOST_CALL, 0, 0, 16},
	{"a call with too many arguments", SANDBOX_HOST_CALL, 0, 2, 48, {STRING(48, 0), NUMBER(1)}},
	{"a call with 33 arguments", SANDBOX_HOST_CALL, 0, 33, 16 + 33 * 16, {STRING(32, 0)}},
	{"a call with an argument of another type", SANDBOX_HOST_CALL, 0, 1, 32, {NUMBER(1)}},
	{"a call with bytes for a string", SANDBOX_HOST_CALL, 0, 1, 32, {{.type = SANDBOX_BYTES, .offset = 32}}},
	{"a call with a string outside of the frame", SANDBOX_HOST_CALL, 0, 1, 32, {STRING(TEXT, 4)}},
	{"a call with a string over the end of the frame", SANDBOX_HOST_CALL, 0, 1, TEXT + 3, {STRING(TEXT, 4)},
		WORDS("text")},
	{"a call with a string over the end of numbers", SANDBOX_HOST_CALL, 0, 1, ALL,
		{STRING(0xffffffff, (uint64_t)-0xfffffffe)}},
	{"a call with a string in the slots", SANDBOX_HOST_CALL, 0, 1, TEXT, {STRING(0, 16)}},
	{"a call with a string that has a NUL", SANDBOX_HOST_CALL, 0, 1, TEXT + 4, {STRING(TEXT, 4)}, WORDS("te\0t")},
};

static void say(uint32_t signal)
{
	__asm__ volatile("outl %%eax, %%dx" : : "a"(signal), "d"((uint16_t)SANDBOX_PORT) : "memory");
}

/** How many lies there are. */
static uint32_t lies_count(void)
{
	return sizeof(lies) / sizeof(lies[0]);
}
HUSK_EXPORT(u32, lies_count);

/** What lie number @i is. */
static const char *lie_name(uint32_t i)
{
	return i < lies_count() ? lies[i].name : "";
}
HUSK_EXPORT(string, lie_name, u32);

/** Tell lie number @i. */
static int32_t lie(uint32_t i)
{
	struct sandbox_frame *frame = (struct sandbox_frame *)husk_info()->output.at;
	const struct lie *l = &lies[i < lies_count() ? i : 0];

	memset(frame, 0, 4096);
	frame->which = l->which;
	frame->n = l->n;
	frame->size = l->size == ALL ? husk_info()->output.size : l->size;
	memcpy(frame->slots, l->slots, sizeof(l->slots));
	memset((char *)frame + TEXT, 'x', TEXT_ROOM);
	if (l->text)
		memcpy((char *)frame + TEXT, l->text, l->text_size);
	say(l->signal);
	return 0;
}
HUSK_EXPORT(i32, lie, u32);

/** Return a frame with a string of @size bytes at @offset of a frame of @frame_size bytes: the host knows what of
 *  that is true. */
static const char *lie_string(uint64_t frame_size, uint64_t offset, uint64_t size)
{
	struct sandbox_frame *frame = (struct sandbox_frame *)husk_info()->output.at;

	memset(frame, 'x', 4096);
	frame->which = 0;
	frame->n = 1;
	frame->size = frame_size;
	frame->slots[0] = (struct sandbox_slot){.type = SANDBOX_STRING, .offset = (uint32_t)offset, .value = size};
	say(SANDBOX_RETURN);
	return "";
}
HUSK_EXPORT(string, lie_string, u64, u64, u64);

/** An error whose message has bytes that are no text, and no frame that is wrong: not poisoned, the message made printable. */
static void fail_unprintable(void)
{
	husk_fail(5, "a\n\033[31mb\377"
		     "c");
}
HUSK_EXPORT(void, fail_unprintable);

/** Speak the right word by the wrong instruction: 0 one byte, 1 two bytes, 2 read four bytes, 3 four words by one
 *  string instruction, 4 none of them by a string instruction. */
static void speak_otherwise(uint32_t how)
{
	static const uint32_t words[4] = {SANDBOX_RETURN, SANDBOX_RETURN, SANDBOX_RETURN, SANDBOX_RETURN};
	const void *from = words;
	const uint16_t port = SANDBOX_PORT;
	uint32_t word = SANDBOX_RETURN;
	uint64_t n = how == 3 ? 4 : 0;

	if (how == 0)
		__asm__ volatile("outb %b0, %w1" : : "a"(word), "d"(port) : "memory");
	else if (how == 1)
		__asm__ volatile("outw %w0, %w1" : : "a"(word), "d"(port) : "memory");
	else if (how == 2)
		__asm__ volatile("inl %w1, %0" : "=a"(word) : "d"(port) : "memory");
	else
		__asm__ volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}
HUSK_EXPORT(void, speak_otherwise, u32);

/** Change what the host wrote for this call, and what it wrote about the guest, then return 1: the buffers are the
 *  guest's to write, the info page is not (a fault). 0: the input buffer, 1: the info page. */
static int32_t overwrite(uint32_t what)
{
	const struct sandbox_range input = husk_info()->input;

	if (what == 0)
		memset((void *)input.at, 0xff, input.size);
	else
		*(volatile uint64_t *)husk_info() = 0;
	return 1;
}
HUSK_EXPORT(i32, overwrite, u32);

/** So that there is an import, number 0. */
static void print(const char *text)
{
	husk_print(text, strlen(text));
}
HUSK_EXPORT(void, print, string);
