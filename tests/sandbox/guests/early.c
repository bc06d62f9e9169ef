/* SPDX-License-Identifier: Apache-2.0 */
/* early.c - sandbox programs for the tests that go wrong before they are ready; EARLY says how. Compiled with
 * -mgeneral-regs-only. */
#include <husk/sandbox.h>

static void nothing(void)
{
}
HUSK_EXPORT(void, nothing);

static void say(uint32_t signal)
{
	__asm__ volatile("outl %%eax, %%dx" : : "a"(signal), "d"((uint16_t)SANDBOX_PORT) : "memory");
}

enum { RETURN, FAIL, ABORT, FAULT, SPIN, HALT, CALL };

HUSK_IMPORT(i32, host_i32, i32);

void husk_init(void)
{
	switch (EARLY) {
	case RETURN: /* the result of a call that never was */
		say(SANDBOX_RETURN);
		break;
	case FAIL: /* what cannot fail softly aborts, with code 33 */
		husk_fail(33, "not today");
		break;
	case ABORT:
		husk_abort(34, "not tomorrow");
	case FAULT:
		__builtin_trap();
	case SPIN: /* never ready */
		for (;;)
			__asm__ volatile("pause");
	case HALT:
		__asm__ volatile("hlt");
		break;
	case CALL: /* a call of the host's during the start: fails with what it answers, unless that is 0 */
		if (host_i32(7))
			husk_fail(35, "the host said something");
		break;
	}
}
