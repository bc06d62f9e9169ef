/* SPDX-License-Identifier: Apache-2.0 */
/* signature.c - types, values and signatures of functions */
#include "sandbox/signature.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)HUSK_SANDBOX_BYTES == SANDBOX_BYTES && (int)HUSK_SANDBOX_STRING == SANDBOX_STRING &&
		       (int)HUSK_SANDBOX_BOOL == SANDBOX_BOOL && (int)HUSK_SANDBOX_F64 == SANDBOX_F64 &&
		       (int)HUSK_SANDBOX_I32 == SANDBOX_I32 && HUSK_SANDBOX_ARGS_MAX == SANDBOX_ARGS_MAX &&
		       HUSK_SANDBOX_NAME_MAX == SANDBOX_NAME_MAX,
	"husk.h and the guest's protocol have the same types and limits");

static const char *const type_names[SANDBOX_TYPES] = {
	[SANDBOX_VOID] = "void",
	[SANDBOX_I32] = "i32",
	[SANDBOX_U32] = "u32",
	[SANDBOX_I64] = "i64",
	[SANDBOX_U64] = "u64",
	[SANDBOX_F32] = "f32",
	[SANDBOX_F64] = "f64",
	[SANDBOX_BOOL] = "bool",
	[SANDBOX_STRING] = "string",
	[SANDBOX_BYTES] = "bytes",
};

const char *signature_type_name(enum husk_sandbox_type type)
{
	return (unsigned)type < SANDBOX_TYPES ? type_names[type] : NULL;
}

static bool letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool signature_name_fits(const char *name, size_t room)
{
	size_t n = strnlen(name, room);

	if (n == 0 || n == room || n > SANDBOX_NAME_MAX || !letter(name[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!letter(name[i]) && !(name[i] >= '0' && name[i] <= '9'))
			return false;
	return true;
}

int signature_copy(struct signature *to, const struct husk_sandbox_signature *from, struct husk_error *err)
{
	struct signature copy = {.result = from->result};

	if (!from->name || !signature_name_fits(from->name, SANDBOX_NAME_MAX + 1))
		return error_set(err, -EINVAL,
			"'%.80s' is no name for a function: a C identifier of at most %d bytes is",
			from->name ? from->name : "", SANDBOX_NAME_MAX);
	if (!signature_type_name(from->result))
		return error_set(
			err, -EINVAL, "function '%s': %u is no type of a result", from->name, (unsigned)from->result);
	if (from->n_args > SANDBOX_ARGS_MAX)
		return error_set(err, -EINVAL, "function '%s': %zu arguments, %d are the most", from->name,
			from->n_args, SANDBOX_ARGS_MAX);
	if (from->n_args && !from->args)
		return error_set(err, -EINVAL, "function '%s': %zu arguments without types", from->name, from->n_args);
	for (size_t i = 0; i < from->n_args; i++) {
		if (from->args[i] == HUSK_SANDBOX_VOID || !signature_type_name(from->args[i]))
			return error_set(err, -EINVAL, "function '%s': %u is no type of an argument (number %zu)",
				from->name, (unsigned)from->args[i], i + 1);
		copy.args[i] = from->args[i];
	}
	copy.n_args = (unsigned)from->n_args;
	memcpy(copy.name, from->name, strlen(from->name));
	*to = copy;
	return 0;
}

void signature_show(const struct signature *from, struct husk_sandbox_signature *to)
{
	to->name = from->name;
	to->result = from->result;
	to->args = from->args;
	to->n_args = from->n_args;
}

bool signature_equal(const struct signature *a, const struct signature *b)
{
	return strcmp(a->name, b->name) == 0 && a->result == b->result && a->n_args == b->n_args &&
	       memcmp(a->args, b->args, a->n_args * sizeof(a->args[0])) == 0;
}

void signature_print(const struct signature *signature, char *text, size_t room)
{
	int n = snprintf(text, room, "%s %s(", type_names[signature->result], signature->name);

	for (unsigned i = 0; n > 0 && (size_t)n < room && i <= signature->n_args; i++)
		n += snprintf(text + n, room - (size_t)n, "%s%s", i && i < signature->n_args ? ", " : "",
			i < signature->n_args ? type_names[signature->args[i]] : ")");
}

void husk_sandbox_value_clear(struct husk_sandbox_value *value)
{
	if (value->type == HUSK_SANDBOX_STRING || value->type == HUSK_SANDBOX_BYTES)
		free((void *)value->bytes.data);
	*value = (struct husk_sandbox_value){0};
}
