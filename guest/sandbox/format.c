/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.c - printf's formats, into memory
 *
 * Theory of operation: each specification is parsed into a struct spec and handed to its conversion, found in a table
 * by its letter, which makes a prefix ("-", "0x") and a body; emit() puts both into the field. Text is counted beyond
 * the end of the room and written up to it. Nothing here uses floating point: %f takes the bits of its double from
 * where the caller's registers were saved.
 */
#include "format.h"

struct sink {
	char *to;
	size_t room; /* without the NUL */
	size_t n;
};

enum { MINUS = 1, PLUS = 2, SPACE = 4, ALTERNATE = 8, ZERO = 16 };

struct spec {
	unsigned flags;
	int width;
	int precision; /* -1: none */
	unsigned size; /* bytes of an integer */
	char letter;
};

/** va_list as a pointer, in a struct: an array type that a function gets is one already, and va_arg() must not have
 *  it by copy. */
struct args {
	va_list *list;
};

static void put(struct sink *sink, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++, sink->n++)
		if (sink->n < sink->room)
			sink->to[sink->n] = text[i];
}

static void pad(struct sink *sink, char c, int n)
{
	for (; n > 0; n--)
		put(sink, &c, 1);
}

/** The field: @prefix, @zeros of the precision, @body; filled up to the width. */
static void emit(struct sink *sink, const struct spec *spec, const char *prefix, int zeros, const char *body, size_t n)
{
	size_t length = strlen(prefix) + n + (size_t)zeros;
	int fill = length < (size_t)spec->width ? spec->width - (int)length : 0;
	bool zero = spec->flags & ZERO && !(spec->flags & MINUS);

	if (!zero && !(spec->flags & MINUS))
		pad(sink, ' ', fill);
	put(sink, prefix, strlen(prefix));
	if (zero)
		pad(sink, '0', fill);
	pad(sink, '0', zeros);
	put(sink, body, n);
	if (spec->flags & MINUS)
		pad(sink, ' ', fill);
}

static uint64_t integer(const struct spec *spec, struct args args, bool is_signed)
{
	uint64_t value = spec->size == 8 ? va_arg(*args.list, uint64_t) : va_arg(*args.list, unsigned);
	unsigned shift = 64 - 8 * spec->size;

	return is_signed ? (uint64_t)((int64_t)(value << shift) >> shift) : value << shift >> shift;
}

static void convert_number(
	struct sink *sink, struct spec *spec, const char *prefix, uint64_t value, unsigned base, const char *digits)
{
	char body[24], *at = body + sizeof(body);
	int zeros = 0, n;

	for (uint64_t rest = value; rest; rest /= base)
		*--at = digits[rest % base];
	n = (int)(body + sizeof(body) - at);
	if (spec->precision >= 0) {
		spec->flags &= ~(unsigned)ZERO;
		zeros = n < spec->precision ? spec->precision - n : 0;
	} else {
		zeros = n == 0; /* 0 is one digit, unless the precision says none */
	}
	if (base == 8 && spec->flags & ALTERNATE && zeros == 0)
		zeros = 1;
	emit(sink, spec, prefix, zeros, at, (size_t)n);
}

static const char *sign_prefix(const struct spec *spec, bool negative)
{
	return negative ? "-" : spec->flags & PLUS ? "+" : spec->flags & SPACE ? " " : "";
}

static void convert_signed(struct sink *sink, struct spec *spec, struct args args)
{
	int64_t value = (int64_t)integer(spec, args, true);

	convert_number(sink, spec, sign_prefix(spec, value < 0), value < 0 ? -(uint64_t)value : (uint64_t)value, 10,
		"0123456789");
}

static void convert_unsigned(struct sink *sink, struct spec *spec, struct args args)
{
	static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
	uint64_t value = integer(spec, args, false);
	bool hex = (spec->letter | 32) == 'x';
	const char *prefix = hex && spec->flags & ALTERNATE && value ? spec->letter == 'x' ? "0x" : "0X" : "";

	convert_number(sink, spec, prefix, value,
		hex                   ? 16
		: spec->letter == 'o' ? 8
				      : 10,
		spec->letter == 'X' ? upper : lower);
}

static void convert_pointer(struct sink *sink, struct spec *spec, struct args args)
{
	spec->precision = -1;
	convert_number(sink, spec, "0x", (uint64_t)va_arg(*args.list, void *), 16, "0123456789abcdef");
}

static void convert_char(struct sink *sink, struct spec *spec, struct args args)
{
	char c = (char)va_arg(*args.list, int);

	spec->flags &= ~(unsigned)ZERO;
	emit(sink, spec, "", 0, &c, 1);
}

static void convert_string(struct sink *sink, struct spec *spec, struct args args)
{
	const char *s = va_arg(*args.list, const char *);

	s = s ? s : "(null)";
	spec->flags &= ~(unsigned)ZERO;
	emit(sink, spec, "", 0, s, spec->precision < 0 ? strlen(s) : strnlen(s, (size_t)spec->precision));
}

static void convert_percent(struct sink *sink, struct spec *spec, struct args args)
{
	(void)spec;
	(void)args;
	put(sink, "%", 1);
}

/** The bits of the next double: AMD64 ABI, 3.5.7, figure 3.34: the vector registers' save area, 16 bytes each, then
 *  the stack. */
static uint64_t next_double(struct args args)
{
	struct tag {
		unsigned gp, fp;
		char *stack, *saved;
	} *tag = (struct tag *)*args.list;
	const unsigned fp_end = 6 * 8 + 8 * 16;
	char **from = tag->fp < fp_end ? &tag->saved : &tag->stack;
	uint64_t bits;

	memcpy(&bits, *from + (tag->fp < fp_end ? tag->fp : 0), sizeof(bits));
	if (tag->fp < fp_end)
		tag->fp += 16;
	else
		tag->stack += 8;
	return bits;
}

static void convert_double(struct sink *sink, struct spec *spec, struct args args)
{
	uint64_t bits = next_double(args);
	char body[FORMAT_DOUBLE_MAX];
	unsigned precision = spec->precision < 0 ? 6 : (unsigned)spec->precision;
	size_t n = format_double(body, bits, precision, spec->letter == 'F', spec->flags & ALTERNATE);

	if (body[0] > '9') /* inf, nan */
		spec->flags &= ~(unsigned)ZERO;
	emit(sink, spec, sign_prefix(spec, bits >> 63), 0, body, n);
}

static const struct {
	char letter;
	void (*convert)(struct sink *sink, struct spec *spec, struct args args);
} conversions[] = {
	{'d', convert_signed},
	{'i', convert_signed},
	{'u', convert_unsigned},
	{'x', convert_unsigned},
	{'X', convert_unsigned},
	{'o', convert_unsigned},
	{'c', convert_char},
	{'s', convert_string},
	{'p', convert_pointer},
	{'f', convert_double},
	{'F', convert_double},
	{'%', convert_percent},
};

static const char *parse_flags(const char *at, struct spec *spec)
{
	static const char letters[] = "-+ #0";

	for (;; at++) {
		unsigned i = 0;
		while (letters[i] && letters[i] != *at)
			i++;
		if (!letters[i])
			return at;
		spec->flags |= 1u << i;
	}
}

/** A number, or * for an argument. Above @max it is that. */
static const char *parse_number(const char *at, struct args args, int max, int *number)
{
	if (*at == '*') {
		*number = va_arg(*args.list, int);
		return at + 1;
	}
	for (*number = 0; *at >= '0' && *at <= '9'; at++)
		*number = *number < max ? *number * 10 + (*at - '0') : max;
	return at;
}

static const char *parse_size(const char *at, unsigned *size)
{
	*size = sizeof(int);
	if (*at == 'h') {
		*size = at[1] == 'h' ? sizeof(char) : sizeof(short);
		return at + (at[1] == 'h' ? 2 : 1);
	}
	for (; *at == 'l' || *at == 'z' || *at == 't' || *at == 'j'; at++)
		*size = sizeof(long);
	return at;
}

/** What stands behind a %; returns where it ends. */
static const char *parse(const char *at, struct args args, struct spec *spec)
{
	const int max = 1 << 20;

	*spec = (struct spec){.precision = -1};
	at = parse_flags(at, spec);
	at = parse_number(at, args, max, &spec->width);
	if (spec->width < 0) {
		spec->flags |= MINUS;
		spec->width = spec->width > -max ? -spec->width : max;
	}
	if (*at == '.') {
		at = parse_number(at + 1, args, max, &spec->precision);
		if (spec->precision < 0)
			spec->precision = -1;
	}
	at = parse_size(at, &spec->size);
	spec->letter = *at;
	return *at ? at + 1 : at;
}

int husk_vsnprintf(char *to, size_t size, const char *format, va_list list)
{
	struct sink sink = {to, size ? size - 1 : 0, 0};
	va_list copy;
	const char *next;

	va_copy(copy, list);
	for (const char *at = format; *at; at = next) {
		struct args args = {&copy};
		struct spec spec;
		next = at + 1;
		if (*at != '%') {
			put(&sink, at, 1);
			continue;
		}
		next = parse(at + 1, args, &spec);
		size_t i = 0, n = sizeof(conversions) / sizeof(conversions[0]);
		while (i < n && conversions[i].letter != spec.letter)
			i++;
		if (i < n)
			conversions[i].convert(&sink, &spec, args);
		else
			put(&sink, at, (size_t)(next - at));
	}
	va_end(copy);
	if (size)
		to[sink.n < sink.room ? sink.n : sink.room] = 0;
	return sink.n <= INT32_MAX ? (int)sink.n : INT32_MAX;
}
