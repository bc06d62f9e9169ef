/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core.c - a sandbox program that faults some calls deep, for core files
 *
 * crash() calls middle(), which calls inner(), which writes to a null pointer; none is inlined, and all have something left to
 * do, so that a debugger finds three frames.
 */
#include <husk/sandbox.h>

__attribute__((noinline, noclone)) static uint64_t inner(uint64_t value)
{
	volatile uint64_t *nowhere = (uint64_t *)8;

	__asm__ volatile("" : "+r"(nowhere));
	*nowhere = value;
	return value + 1;
}

__attribute__((noinline, noclone)) static uint64_t middle(uint64_t value)
{
	return inner(value * 2) + 1;
}

/** Fault. */
static uint64_t crash(uint64_t value)
{
	return middle(value + 1) * 3;
}
HUSK_EXPORT(u64, crash, u64);
