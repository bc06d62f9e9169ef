/* SPDX-License-Identifier: Apache-2.0 */
/* format-test.c - the printf of sandbox programs, compared with the C library's */
#include "tests/tap.h"

#include <husk/sandbox.h>
#include <math.h>
#include <stdlib.h>

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"

static unsigned compared, differences;

/** Both print with the same arguments into @room bytes: text, length and the byte behind the room have to be the same. */
static void compare(size_t room, const char *format, ...)
{
	char ours[1200], theirs[1200];
	va_list args, again;

	memset(ours, '#', sizeof(ours));
	memset(theirs, '#', sizeof(theirs));
	va_start(args, format);
	va_copy(again, args);
	int n = husk_vsnprintf(ours, room, format, args);
	int want = vsnprintf(theirs, room, format, again);
	va_end(args);
	va_end(again);
	compared++;
	if (n == want && memcmp(ours, theirs, sizeof(ours)) == 0)
		return;
	if (differences++ < 10)
		printf("# '%s' in %zu: '%.*s' (%d), not '%.*s' (%d)\n", format, room, 100, room ? ours : "", n, 100,
			room ? theirs : "", want);
}

static void expect(const char *what)
{
	printf("# %u comparisons\n", compared);
	CHECK(compared > 0 && differences == 0, what);
	compared = differences = 0;
}

static const char *const flags[] = {"", "-", "0", "+", " ", "#", "-0", "+0", "- ", "#0", "-#", "+ ", "-+ #0"};
static const char *const widths[] = {"", "1", "7", "25"};
static const char *const precisions[] = {"", ".", ".0", ".1", ".6", ".20"};

/** "%" with each combination in front of @tail; @use prints it. */
static void each_format(const char *tail, void (*use)(const char *format))
{
	char format[64];

	for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++)
		for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++)
			for (size_t p = 0; p < sizeof(precisions) / sizeof(precisions[0]); p++) {
				snprintf(format, sizeof(format), "<%%%s%s%s%s>", flags[f], widths[w], precisions[p],
					tail);
				use(format);
			}
}

static const uint64_t numbers[] = {0, 1, 9, 10, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2147483647, 2147483648,
	4294967295, 4294967296, INT64_MAX, 1ull << 63, UINT64_MAX, 0x0123456789abcdef};

static void use_int(const char *format)
{
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		compare(1000, format, (int)numbers[i]);
}

static void use_long(const char *format)
{
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		compare(1000, format, numbers[i]);
}

static void test_integers(void)
{
	static const char *const letters[] = {"d", "i", "u", "x", "X", "o"}, *const small[] = {"", "h", "hh"},
				 *const large[] = {"l", "ll", "z", "j", "t"};
	char tail[8];

	for (size_t l = 0; l < 6; l++) {
		for (size_t s = 0; s < 3; s++) {
			snprintf(tail, sizeof(tail), "%s%s", small[s], letters[l]);
			each_format(tail, use_int);
		}
		for (size_t s = 0; s < 5; s++) {
			snprintf(tail, sizeof(tail), "%s%s", large[s], letters[l]);
			each_format(tail, use_long);
		}
	}
	expect("whole numbers of every size");
}

static void use_string(const char *format)
{
	compare(1000, format, "");
	compare(1000, format, "a");
	compare(1000, format, "a longer text than most fields");
}

static void test_text(void)
{
	static const char *const char_formats[] = {"%c", "%5c", "%-5c|"};

	for (size_t f = 0; f < 3; f++)
		for (int c = 0; c < 256; c++)
			compare(1000, char_formats[f], c);
	for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++) {
		if (strpbrk(flags[f], "0+ #")) /* which C does not define for strings */
			continue;
		for (size_t w = 0; w < 4; w++)
			for (size_t p = 0; p < 6; p++) {
				char format[64];
				snprintf(format, sizeof(format), "<%%%s%s%ss>", flags[f], widths[w], precisions[p]);
				use_string(format);
			}
	}
	compare(1000, "%s", (char *)NULL);
	compare(1000, "100%%, %d%%", 5);
	compare(1000, "%p %p", (void *)&compared, (void *)0x10);
	compare(1000, "");
	expect("strings, characters, pointers, percent signs");
	static const char no_end[3] = {'a', 'b', 'c'};
	compare(1000, "%.3s|%.*s", no_end, 2, no_end);
	expect("a string with a precision needs no end");
}

static void test_stars(void)
{
	for (int width = -12; width <= 12; width += 3)
		for (int precision = -2; precision <= 12; precision += 2) {
			compare(1000, "<%*d>", width, 1234);
			compare(1000, "<%.*d>", precision, 1234);
			compare(1000, "<%*.*s>", width, precision, "some text");
			compare(1000, "<%0*.*x>", width, precision, 0xabc);
		}
	expect("width and precision as arguments");
}

static void test_room(void)
{
	for (size_t room = 0; room < 30; room++) {
		compare(room, "%s", "twelve bytes");
		compare(room, "%d and %20s", 42, "more");
		compare(room, "%08x%-6d|", 0xbeef, -3);
	}
	compare(10, "%1000d", 5);
	expect("at most as much as there is room for, and the length of all");
}

static void use_double(const char *format)
{
	static const double doubles[] = {0, -0.0, 1, -1, 0.5, 1.5, 2.5, 0.1, 0.25, 9.5, 99.95, 999999.5, 0.000001,
		123456789.987654321, 1e15, 1e16, 9007199254740993.0, 1e22, 1e23, 1e100, 4.9e-324,
		2.2250738585072014e-308, 1.7976931348623157e308, INFINITY, -INFINITY};

	for (size_t i = 0; i < sizeof(doubles) / sizeof(doubles[0]); i++)
		compare(1000, format, doubles[i]);
}

static void test_doubles(void)
{
	uint64_t seed = 1;

	each_format("f", use_double);
	each_format("F", use_double);
	compare(1000, "%f %F %5f %-7f|", NAN, NAN, NAN, NAN);
	expect("floating point");
	for (int i = 0; i < 20000; i++) {
		double d;
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(&d, &seed, sizeof(d));
		compare(1000, i % 2 ? "%.17f" : "%.0f", i % 4 < 2 ? d : (double)(int64_t)seed / 1048576);
	}
	expect("any bits as a double");
	for (int p = 0; p <= 64; p++)
		compare(1000, "%.*f", p, 1.0 / 3);
	expect("up to 64 digits behind the point");
	compare(1000, "%f %f %f %f %f %f %f %f %f %f %d %f", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11,
		12.0);
	compare(1000, "%d %f %s %f %d %d %d %d %d %f", 1, 2.0, "3", 4.0, 5, 6, 7, 8, 9, 10.0);
	expect("more arguments than registers, in any order");
}

static int print(char *to, size_t room, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = husk_vsnprintf(to, room, format, args);
	va_end(args);
	return n;
}

static void test_unknown(void)
{
	char text[64];

	CHECK(print(text, sizeof(text), "%y %d", 5) == 4, "a format that is not known");
	CHECK_STRING(text, "%y 5", "is printed as it is, and takes no argument");
	print(text, sizeof(text), "end %");
	CHECK_STRING(text, "end %", "a lone percent sign at the end, too");
	print(text, sizeof(text), "%n", NULL);
	CHECK_STRING(text, "%n", "there is no %n");
}

int main(void)
{
	test_integers();
	test_text();
	test_stars();
	test_room();
	test_doubles();
	test_unknown();
	return tap_done();
}
