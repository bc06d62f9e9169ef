/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_values.c - values of sandbox functions as words: one row per type says how it is called, read and printed */
#include "cli/sandbox_values.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1ull << 30) /* the largest input buffer */

/** A row. below, above: limits of whole numbers as magnitudes of negative and positive ones. */
struct type {
	const char *name;
	int (*parse)(const char *text, const struct type *type, struct husk_sandbox_value *value, void **owned,
		struct husk_error *err);
	void (*print)(FILE *out, const struct husk_sandbox_value *value, bool terminal);
	uint64_t below, above;
};

static int parse_integer(const char *text, const struct type *type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err)
{
	const bool negative = text[0] == '-';
	const char *digits = text + negative;
	const unsigned base = digits[0] == '0' && (digits[1] | 32) == 'x' ? 16 : 10;
	uint64_t n = 0;

	(void)owned;
	digits += base == 16 ? 2 : 0;
	if (!*digits || digits[strspn(digits, base == 16 ? "0123456789abcdefABCDEF" : "0123456789")])
		return error_set(err, -EINVAL, "'%s' is not a whole number", text);
	for (; *digits; digits++) {
		unsigned digit = *digits <= '9' ? (unsigned)(*digits - '0') : (unsigned)((*digits | 32) - 'a' + 10);
		if (__builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, digit, &n))
			return error_set(err, -ERANGE, "%s is out of range for %s", text, type->name);
	}
	if (n > (negative ? type->below : type->above))
		return error_set(err, -ERANGE, "%s is out of range for %s", text, type->name);
	value->u64 = negative ? -n : n; /* the 32 bits of an i32 or a u32 are its lower ones */
	return 0;
}

static int parse_float(const char *text, const struct type *type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err)
{
	const bool single = value->type == HUSK_SANDBOX_F32;
	char *end;

	(void)owned;
	errno = 0;
	float narrow = single ? strtof(text, &end) : 0;
	double wide = single ? (double)narrow : strtod(text, &end);
	if (end == text || *end || text[0] == ' ')
		return error_set(err, -EINVAL, "'%s' is not a number", text);
	if (errno == ERANGE && isinf(wide))
		return error_set(err, -ERANGE, "%s is out of range for %s", text, type->name);
	if (single)
		value->f32 = narrow;
	else
		value->f64 = wide;
	return 0;
}

static int parse_bool(const char *text, const struct type *type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err)
{
	(void)type;
	(void)owned;
	value->boolean = strcmp(text, "true") == 0;
	if (!value->boolean && strcmp(text, "false") != 0)
		return error_set(err, -EINVAL, "'%s' is neither true nor false", text);
	return 0;
}

static int parse_string(const char *text, const struct type *type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err)
{
	(void)type;
	(void)owned;
	(void)err;
	value->bytes.data = text;
	value->bytes.size = strlen(text);
	return 0;
}

static int parse_bytes(const char *text, const struct type *type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err)
{
	struct buffer content = {0};

	if (text[0] != '@')
		return parse_string(text, type, value, owned, err);
	CLEANUP_FD int fd = open(text + 1, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "open %s", text + 1);
	int rc = fd_read_to_end(fd, &content, FILE_MAX_BYTES);
	if (rc < 0) {
		buffer_free(&content);
		return error_set(err, rc, "read %s: %s", text + 1, strerror(-rc));
	}
	value->bytes.data = buffer_bytes(&content);
	value->bytes.size = content.size;
	*owned = content.data;
	return 0;
}

static void print_void(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
}

static void print_i32(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	fprintf(out, "%" PRId32 "\n", value->i32);
}

static void print_u32(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	fprintf(out, "%" PRIu32 "\n", value->u32);
}

static void print_i64(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	fprintf(out, "%" PRId64 "\n", value->i64);
}

static void print_u64(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	fprintf(out, "%" PRIu64 "\n", value->u64);
}

/** With as few digits as give the same number again. */
static void print_f32(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	char text[64];

	for (int digits = 6; digits <= 9; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, (double)value->f32);
		if (strtof(text, NULL) == value->f32)
			break;
	}
	fprintf(out, "%s\n", text);
}

static void print_f64(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	char text[64];

	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value->f64);
		if (strtod(text, NULL) == value->f64)
			break;
	}
	fprintf(out, "%s\n", text);
}

static void print_bool(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	fputs(value->boolean ? "true\n" : "false\n", out);
}

static void print_bytes(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	sandbox_text_print(out, value->bytes.data, value->bytes.size, terminal);
}

static void print_string(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	print_bytes(out, value, terminal);
	fputc('\n', out);
}

static const struct type types[] = {
	[HUSK_SANDBOX_VOID] = {"void", NULL, print_void},
	[HUSK_SANDBOX_I32] = {"i32", parse_integer, print_i32, 1ull << 31, INT32_MAX},
	[HUSK_SANDBOX_U32] = {"u32", parse_integer, print_u32, 0, UINT32_MAX},
	[HUSK_SANDBOX_I64] = {"i64", parse_integer, print_i64, 1ull << 63, INT64_MAX},
	[HUSK_SANDBOX_U64] = {"u64", parse_integer, print_u64, 0, UINT64_MAX},
	[HUSK_SANDBOX_F32] = {"f32", parse_float, print_f32},
	[HUSK_SANDBOX_F64] = {"f64", parse_float, print_f64},
	[HUSK_SANDBOX_BOOL] = {"bool", parse_bool, print_bool},
	[HUSK_SANDBOX_STRING] = {"string", parse_string, print_string},
	[HUSK_SANDBOX_BYTES] = {"bytes", parse_bytes, print_bytes},
};

int sandbox_value_parse(const char *text, enum husk_sandbox_type type, struct husk_sandbox_value *value, void **owned,
	struct husk_error *err)
{
	*value = (struct husk_sandbox_value){.type = type};
	*owned = NULL;
	if ((unsigned)type >= ARRAY_SIZE(types) || !types[type].parse)
		return error_set(err, -EINVAL, "no value can be of type %u", (unsigned)type);
	return types[type].parse(text, &types[type], value, owned, err);
}

void sandbox_value_print(FILE *out, const struct husk_sandbox_value *value, bool terminal)
{
	if ((unsigned)value->type < ARRAY_SIZE(types))
		types[value->type].print(out, value, terminal);
}

/** Does a terminal obey what begins at @at, before @end? ASCII's control characters but tabs and line ends, and those
 *  of Latin-1 as UTF-8. */
static bool is_control(const char *at, const char *end)
{
	const unsigned char c = (unsigned char)at[0], next = at + 1 < end ? (unsigned char)at[1] : 0;

	return (c < ' ' && c != '\n' && c != '\t') || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0);
}

void sandbox_text_print(FILE *out, const char *text, size_t n, bool terminal)
{
	const char *end = text + n;

	while (text < end) { /* stretches as they are, as stderr has no buffer */
		const char *from = text;
		while (text < end && !(terminal && is_control(text, end)))
			text++;
		fwrite(from, 1, (size_t)(text - from), out);
		if (text < end) {
			fputc('?', out);
			text += (unsigned char)*text == 0xc2 ? 2 : 1;
		}
	}
}

void sandbox_signature_print(FILE *out, const struct husk_sandbox_signature *signature)
{
	fprintf(out, "%s %s(", types[signature->result].name, signature->name);
	for (size_t i = 0; i < signature->n_args; i++)
		fprintf(out, "%s%s", i ? ", " : "", types[signature->args[i]].name);
	fputc(')', out);
}
