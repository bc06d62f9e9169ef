/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protocol.h - what the host and a sandbox's guest runtime say to each other; for both, so freestanding
 *
 * Theory of operation: the guest speaks by one instruction, `out %eax, SANDBOX_PORT` with a sandbox_signal in eax, which makes
 * KVM_RUN return; the host answers by entering the guest again. Everything else lies in two buffers of memory: the input buffer,
 * written by the host, and the output buffer, written by the guest; each message is one frame at a known place.
 *
 *   start      the guest runs its start code and says READY
 *   call       the host writes a call frame at the start of the input buffer and runs the guest, which says RETURN (a result
 *              frame at the start of the output buffer), FAIL or ABORT (an error frame there)
 *   host call  during a call or the start, the guest writes a call frame at the start of the output buffer and says HOST_CALL;
 *              the host writes the reply behind the call frame in the input buffer, at the next multiple of 16 (at its start
 *              when there is no call), and runs on; the reply's status is REPLY_OK with a result or REPLY_ERROR with an error.
 *              The next reply overwrites it
 *
 * A frame is a header, its slots, and the bytes that slots refer to by offset; all little-endian. Nothing in a frame
 * is a pointer. The host reads each byte of the guest's once, and believes none of it.
 */
#ifndef SANDBOX_PROTOCOL_H
#define SANDBOX_PROTOCOL_H

#include <stdint.h>

#define SANDBOX_PROTOCOL 1

#define SANDBOX_PORT 0x6873
#define SANDBOX_PORT_FAULT 0xf0 /* written by the stubs of the exception vectors, which are the library's own */

enum sandbox_signal {
	SANDBOX_READY = 1,
	SANDBOX_RETURN = 2,
	SANDBOX_FAIL = 3,
	SANDBOX_HOST_CALL = 4,
	SANDBOX_ABORT = 5,
};

/* Numbers of types are those of enum husk_sandbox_type (husk.h). */
enum sandbox_type {
	SANDBOX_VOID = 0,
	SANDBOX_I32 = 1,
	SANDBOX_U32 = 2,
	SANDBOX_I64 = 3,
	SANDBOX_U64 = 4,
	SANDBOX_F32 = 5,
	SANDBOX_F64 = 6,
	SANDBOX_BOOL = 7,
	SANDBOX_STRING = 8,
	SANDBOX_BYTES = 9,
	SANDBOX_TYPES = 10,
};

#define SANDBOX_ARGS_MAX 32

/** A value. Numbers: the bits, zero-extended, in value, and offset 0. STRING (without a NUL) and BYTES: value bytes at offset of
 *  the frame. The host puts a NUL behind a string, which is part of the frame and not of the value; the guest need not. */
struct sandbox_slot {
	uint32_t type;
	uint32_t offset;
	uint64_t value;
};

/** The head of a frame; n slots follow. */
struct sandbox_frame {
	uint32_t which; /* call: number of the function; host call: of the import; reply: sandbox_reply; else 0 */
	uint32_t n; /* of arguments; a result has 1, or 0 when it is void; an error has 2: I32 code, STRING message */
	uint64_t size; /* of the whole frame in bytes */
	struct sandbox_slot slots[];
};

enum sandbox_reply { SANDBOX_REPLY_OK = 0, SANDBOX_REPLY_ERROR = 1 };

#define SANDBOX_MESSAGE_MAX 400 /* bytes of an error's message; a longer one is refused by the host */

/* ---- what a program says of itself ----
 * A PT_NOTE with name "husk" and this type holds struct sandbox_program. Its members are distances from its own first byte, so
 * that it needs no relocation. Exports and imports lie in read-only memory after relocation; their numbers are their places in
 * the table. */

#define SANDBOX_NOTE_NAME "husk"
#define SANDBOX_NOTE_TYPE 1

struct sandbox_program {
	uint32_t protocol; /* SANDBOX_PROTOCOL */
	uint32_t size; /* of this struct */
	int64_t exports, exports_end;
	int64_t imports, imports_end;
};

#define SANDBOX_NAME_MAX 63
#define SANDBOX_FUNCTIONS_MAX 1024 /* exports, and imports */

struct sandbox_export {
	uint64_t name; /* address of a NUL-terminated C identifier */
	uint64_t thunk; /* address of the code; the guest's own affair */
	uint32_t result;
	uint32_t n_args;
	uint8_t args[SANDBOX_ARGS_MAX];
};

struct sandbox_import {
	uint64_t name;
	uint32_t result;
	uint32_t n_args;
	uint8_t args[SANDBOX_ARGS_MAX];
};

/* ---- what the host tells the guest: the info page, whose address is in rdi at the entry; read-only for the guest ---- */

#define SANDBOX_INFO_MAGIC 0x6f666e696b737568 /* "huskinfo" */

struct sandbox_range {
	uint64_t at; /* guest-physical and virtual: they are the same */
	uint64_t size;
};

/** A region, or a cell (8 bytes). rights: enum husk_sandbox_rights; of a cell as its page has them. */
struct sandbox_named {
	char name[SANDBOX_NAME_MAX + 1];
	uint64_t at, size;
	uint32_t rights;
	uint32_t cell; /* 1: a cell */
};

struct sandbox_info {
	uint64_t magic;
	uint32_t protocol;
	uint32_t size; /* of this struct, names not counted */
	struct sandbox_range program, data, heap, stack, input, output;
	uint32_t n_names;
	uint32_t reserved;
	struct sandbox_named names[];
};

#endif
