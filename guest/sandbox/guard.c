/* SPDX-License-Identifier: Apache-2.0 */
/* guard.c - what -fstack-protector calls for. The value is known to whoever has the program: it finds bugs and stops
 * no attack. */
#include "runtime.h"

uintptr_t __stack_chk_guard = 0x6b7375680a0d00ff;
void __stack_chk_fail(void) __attribute__((noreturn));

void __stack_chk_fail(void)
{
	husk_abort(-1, "a function wrote beyond its part of the stack");
}
