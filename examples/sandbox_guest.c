/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_guest.c - the guest of sandbox.c: a program of four functions, one of which is broken
 *
 *	husk sandbox cc sandbox_guest.c -o sandbox_guest.elf
 *	husk sandbox run sandbox_guest.elf
 */
#include <husk/sandbox.h>

/* The host has to have this one: const char *capital_of(const char *). */
HUSK_IMPORT(string, capital_of, string);

static int32_t add(int32_t a, int32_t b)
{
	return a + b;
}
HUSK_EXPORT(i32, add, i32, i32);

/** A function that asks the host, and passes on its error. */
static const char *describe(const char *country)
{
	static char text[256];
	const char *capital = capital_of(country);

	if (husk_error_code())
		husk_fail(husk_error_code(), "nothing is known of %s: %s", country, husk_error_message());
	husk_snprintf(text, sizeof(text), "the capital of %s is %s", country, capital);
	return text;
}
HUSK_EXPORT(string, describe, string);

static uint32_t calls;

/** How often it was called: the program keeps its state from call to call. */
static uint32_t count(void)
{
	husk_printf("call number %u\n", ++calls);
	return calls;
}
HUSK_EXPORT(u32, count);

/** A mistake: what it is given is no address. */
static void crash(uint64_t at)
{
	*(volatile int *)at = 1;
}
HUSK_EXPORT(void, crash, u64);
