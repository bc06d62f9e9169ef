/* SPDX-License-Identifier: Apache-2.0 */
/* signature.h - types, values and signatures of functions, whichever side has them */
#ifndef SANDBOX_SIGNATURE_H
#define SANDBOX_SIGNATURE_H

#include "base/error.h"
#include "sandbox/protocol.h"

/** A function's name and signature, owned by whoever holds the struct. */
struct signature {
	char name[SANDBOX_NAME_MAX + 1];
	enum husk_sandbox_type result;
	unsigned n_args;
	enum husk_sandbox_type args[SANDBOX_ARGS_MAX];
};

/** "i32", "string"…, or NULL. */
const char *signature_type_name(enum husk_sandbox_type type);
/** Is @name, NUL-terminated within @room bytes, a C identifier of 1 to SANDBOX_NAME_MAX bytes? */
bool signature_name_fits(const char *name, size_t room);
/** Check what a caller gave and copy it: -EINVAL names what is wrong. */
int signature_copy(struct signature *to, const struct husk_sandbox_signature *from, struct husk_error *err);
/** The view of @from that husk.h gives out; its pointers lead into @from. */
void signature_show(const struct signature *from, struct husk_sandbox_signature *to);
bool signature_equal(const struct signature *a, const struct signature *b);
/** "i32 add(i32, i32)", cut at @room. */
void signature_print(const struct signature *signature, char *text, size_t room);

#endif
