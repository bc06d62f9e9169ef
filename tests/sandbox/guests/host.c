/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - a sandbox program for the tests: calls of the host's functions
 *
 * Compiled with -mgeneral-regs-only. The functions that the host has to add are those of HUSK_IMPORT; those called
 * echo_ are for values of each type, the tests choose what they answer.
 */
#include <husk/sandbox.h>

HUSK_IMPORT(void, host_nothing);
HUSK_IMPORT(i32, host_i32, i32);
HUSK_IMPORT(u32, host_u32, u32);
HUSK_IMPORT(i64, host_i64, i64);
HUSK_IMPORT(u64, host_u64, u64);
HUSK_IMPORT(bool, host_bool, bool);
HUSK_IMPORT(string, host_string, string);
HUSK_IMPORT(bytes, host_bytes, bytes);
HUSK_IMPORT(i64, host_one_of_each, i32, u32, i64, u64, bool, string, bytes);
/** @what is for the test to decide: to sleep, to cancel, to call the sandbox again… */
HUSK_IMPORT(i32, host_misbehave, i32);

/* call_TYPE(value): host_TYPE(value), whatever it answers; on an error the function fails with the host's code and message. */
#define CALL(type)                                                                                                     \
	static HUSK_C_##type call_##type(HUSK_C_##type value)                                                          \
	{                                                                                                              \
		HUSK_C_##type answer = host_##type(value);                                                             \
		pass_error_on();                                                                                       \
		return answer;                                                                                         \
	}                                                                                                              \
	HUSK_EXPORT(type, call_##type, type)

static void pass_error_on(void)
{
	if (husk_error_code())
		husk_fail(husk_error_code(), "the host said: %s", husk_error_message());
}

CALL(i32);
CALL(u32);
CALL(i64);
CALL(u64);
CALL(string);
CALL(bytes);

static bool call_bool(bool value)
{
	bool answer = host_bool(value);

	pass_error_on();
	return answer;
}
HUSK_EXPORT(bool, call_bool, bool);

static void call_nothing(void)
{
	host_nothing();
	pass_error_on();
}
HUSK_EXPORT(void, call_nothing);

static int64_t call_one_of_each(
	int32_t a, uint32_t b, int64_t c, uint64_t d, bool e, const char *f, struct husk_bytes g)
{
	int64_t answer = host_one_of_each(a, b, c, d, e, f, g);

	pass_error_on();
	return answer;
}
HUSK_EXPORT(i64, call_one_of_each, i32, u32, i64, u64, bool, string, bytes);

static int32_t call_misbehave(int32_t what)
{
	int32_t answer = host_misbehave(what);

	pass_error_on();
	return answer;
}
HUSK_EXPORT(i32, call_misbehave, i32);

/** Call host_i32(i) for 1 to @n; the sum of the answers. */
static int64_t call_often(uint32_t n)
{
	int64_t sum = 0;

	for (uint32_t i = 1; i <= n; i++)
		sum += host_i32((int32_t)i);
	return sum;
}
HUSK_EXPORT(i64, call_often, u32);

/** Call host_i32(value) and return the code of its error, 0 when there was none: an error that the guest sees and
 *  lives on with. The code is gone after a call that succeeds (host_nothing has to): then 1000000 is added when it is
 *  not. */
static int32_t error_of(int32_t value)
{
	host_i32(value);
	int32_t code = husk_error_code();
	husk_printf("%s\n", husk_error_message());
	if (husk_error_code() != code) /* printing does not count */
		return -1;
	host_nothing();
	return code + (husk_error_code() || husk_error_message()[0] ? 1000000 : 0);
}
HUSK_EXPORT(i32, error_of, i32);

/** Do the arguments stay as they are during a call of the host's? 1: they do. */
static int32_t arguments_stay(const char *s, struct husk_bytes bytes)
{
	char before[64];
	unsigned sum = 0, again = 0;

	husk_snprintf(before, sizeof(before), "%s", s);
	for (size_t i = 0; i < bytes.size; i++)
		sum += ((const unsigned char *)bytes.data)[i];
	const char *answer = host_string("another text, to overwrite what is not behind the call");
	husk_printf("%s\n", answer);
	for (size_t i = 0; i < bytes.size; i++)
		again += ((const unsigned char *)bytes.data)[i];
	return strcmp(before, s) == 0 && sum == again;
}
HUSK_EXPORT(i32, arguments_stay, string, bytes);

/** Send the host @n bytes; returns how many it sent back, or the error's code. */
static int64_t send_bytes(uint64_t n)
{
	void *data = malloc(n);
	if (!data)
		return -12;
	memset(data, 0x5a, n);
	struct husk_bytes answer = host_bytes((struct husk_bytes){data, n});
	int32_t code = husk_error_code();
	free(data);
	return code ? code : (int64_t)answer.size;
}
HUSK_EXPORT(i64, send_bytes, u64);
