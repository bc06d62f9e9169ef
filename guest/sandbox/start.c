/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.c - where the host enters a program, and what the program says of itself
 *
 * Theory of operation: the host enters with the info page in rdi, the stack's end in rsp, a multiple of 16, and the
 * direction flag clear. The note is struct sandbox_program (protocol.h): distances from its own first byte, which the
 * linker knows, so that the host can read it in the file as it is.
 */
#include "runtime.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

_Static_assert(sizeof(struct sandbox_program) == 40, "the note below has this form");

/* clang-format off */
__asm__(".section .text.husk_start, \"ax\", @progbits\n"
	".globl husk_start\n"
	".hidden husk_start\n"
	".type husk_start, @function\n"
	"husk_start:\n"
	"	xorl %ebp, %ebp\n" /* the outermost frame, for debuggers */
	"	call runtime_start\n"
	"	ud2\n"
	".size husk_start, . - husk_start\n"
	".section .note.husk, \"a\", @note\n"
	".balign 4\n"
	"	.long 5\n" /* bytes of the name */
	"	.long 2f - 1f\n"
	"	.long " TEXT(SANDBOX_NOTE_TYPE) "\n"
	"	.asciz \"" SANDBOX_NOTE_NAME "\"\n"
	"	.balign 4\n"
	"1:	.long " TEXT(
							SANDBOX_PROTOCOL) "\n"
	"	.long 2f - 1b\n"
	"	.quad husk_exports - 1b\n"
	"	.quad husk_exports_end - 1b\n"
	"	.quad husk_imports - 1b\n"
	"	.quad husk_imports_end - 1b\n"
	"2:\n"
	".text\n");
