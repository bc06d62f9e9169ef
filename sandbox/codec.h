/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.h - frames: the host's values into them, and the guest's out of them
 *
 * Theory of operation: writing checks the caller's values against the signature and fills a range of the input buffer, from its
 * start or behind the call frame; bytes of values begin at multiples of 8. Reading is of what a hostile guest may still be
 * changing: the header and then the slots are copied out once each, checked, and only then the bytes that slots refer to are
 * copied, once, to memory of the host's. After that the frame in guest memory is not looked at again.
 *
 * A guest's frame is right when: which, number and types of values are those expected; a number's unused bits and its offset
 * are zero, a bool is 0 or 1; bytes lie within the frame, behind its slots (an empty value may have any offset within it),
 * and are not more in sum than the frame has; a string has no NUL among them.
 */
#ifndef SANDBOX_CODEC_H
#define SANDBOX_CODEC_H

#include "sandbox/signature.h"

#include <stdbool.h>

/** Write the frame of a call of function number @which into @room bytes at @to, which is aligned to 16. *@size: of the frame.
 *  -EINVAL (number, type, a string with a NUL), -EMSGSIZE. Nothing is written then. */
int codec_write_call(void *to, uint64_t room, uint32_t which, const struct signature *signature,
	const struct husk_sandbox_value *args, size_t n, uint64_t *size, struct husk_error *err);
/** No reply that is an error is larger: as many bytes of the input buffer are kept from calls, so that one can always be
 *  told. */
#define CODEC_ERROR_ROOM 512
/** Write the reply to a host call: @result of the type that @signature says, or the error @code with @message (cut to
 *  SANDBOX_MESSAGE_MAX) when @code is not 0. As above; -EINVAL: the host's function made a result of another type. */
int codec_write_reply(void *to, uint64_t room, const struct signature *signature,
	const struct husk_sandbox_value *result, int32_t code, const char *message, uint64_t *size,
	struct husk_error *err);

/** Values that were read, and the one allocation that their bytes lie in. */
struct codec_values {
	struct husk_sandbox_value
		values[SANDBOX_ARGS_MAX]; /* n of them; the others are not set: this is on every call's path */
	unsigned n;
	void *bytes; /* malloc'ed, or NULL */
};

void codec_values_clear(struct codec_values *values);

/** What a guest's frame has to be; -EPROTO otherwise, with the reason; -ENOMEM; then @out is untouched. @from: @room bytes of
 *  guest memory. *@size (may be NULL): of the frame. A NUL follows all bytes of values, and those of the first one are at
 *  out->bytes. */
int codec_read_result(const void *from, uint64_t room, const struct signature *signature, struct codec_values *out,
	uint64_t *size, struct husk_error *err);
/** @message: SANDBOX_MESSAGE_MAX + 1 bytes, made printable. */
int codec_read_error(const void *from, uint64_t room, int32_t *code, char *message, struct husk_error *err);
/** Which import a host call is for: the header alone, before its signature is known. */
int codec_read_which(const void *from, uint64_t room, uint32_t *which, struct husk_error *err);
int codec_read_call(const void *from, uint64_t room, uint32_t which, const struct signature *signature,
	struct codec_values *out, uint64_t *size, struct husk_error *err);

#endif
