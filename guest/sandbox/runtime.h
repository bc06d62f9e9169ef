/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime.h - the insides of the runtime of sandbox programs, for its own files
 *
 * Theory of operation: the program is one thread that the host enters at its start and after each `out` instruction.
 * All state of the runtime is one struct, so that a snapshot of the sandbox's memory has it, too. The runtime
 * believes the host.
 */
#ifndef GUEST_SANDBOX_RUNTIME_H
#define GUEST_SANDBOX_RUNTIME_H

#include <husk/sandbox.h>

/** What the runtime remembers.
 *  input, output: where the buffers are
 *  reply:         where the host puts its answers: in the input buffer, behind the call under way
 *  failed:        husk_fail() was called; fail_code, fail_message: with what
 *  error_*:       of the last call of a function of the host's */
struct runtime {
	const struct sandbox_info *info;
	const struct sandbox_frame *input;
	struct sandbox_frame *output;
	uint64_t output_size;
	const struct sandbox_frame *reply;
	bool failed;
	int32_t fail_code;
	int32_t error_code;
	char fail_message[SANDBOX_MESSAGE_MAX + 1];
	char error_message[SANDBOX_MESSAGE_MAX + 1];
};

extern struct runtime husk_runtime;

/* The linker script's. */
extern const struct sandbox_export husk_exports[], husk_exports_end[];
extern const struct sandbox_import husk_imports[], husk_imports_end[];
typedef void constructor(void);
extern constructor *const husk_constructors[], *const husk_constructors_end[];

/** The program's own, or an empty one. */
void husk_init(void);

/** Tell the host; it has answered when this returns. */
static inline void runtime_signal(enum sandbox_signal signal)
{
	__asm__ volatile("outl %%eax, %%dx" : : "a"((uint32_t)signal), "d"((uint16_t)SANDBOX_PORT) : "memory");
}

/** Entered by start.S; never returns. */
void runtime_start(const struct sandbox_info *info) __attribute__((noreturn));
/** Write an error frame to the output buffer. */
void runtime_write_error(int32_t code, const char *message);
/** End the program, with @code and the message in fail_message. */
void runtime_abort(int32_t code) __attribute__((noreturn));
/** Write frame number @which with @n values to the output buffer; @types: of the values. -1: it has not the room, and
 *  nothing was written. */
int runtime_write(uint32_t which, uint32_t n, const uint8_t *types, const struct husk_value *values);

#endif
