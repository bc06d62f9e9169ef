/* SPDX-License-Identifier: Apache-2.0 */
/*
 * double.c - a double in decimal
 *
 * Theory of operation: a double is mantissa * 2^exponent. What is before the point is an integer of at most 1024
 * bits, which is divided by ten to the ninth until nothing is left; what is behind it a fraction of at most 1074
 * bits, multiplied by the same: each step gives nine exact digits. Then what remains of the fraction decides the
 * rounding.
 */
#include "format.h"

#define WORDS 36 /* of 32 bits: 1152 bits hold either part */
#define BILLION 1000000000u

/** A number of WORDS words, the least one first. As a fraction: the point is above the last word. */
struct big {
	uint32_t words[WORDS];
};

/** |= @mantissa << @shift */
static void place(struct big *big, uint64_t mantissa, unsigned shift)
{
	unsigned word = shift / 32, bit = shift % 32;
	uint64_t low = mantissa << bit, high = bit ? mantissa >> (64 - bit) : 0;

	for (unsigned i = 0; i < 2 && word + i < WORDS; i++)
		big->words[word + i] |= (uint32_t)(low >> (32 * i));
	for (unsigned i = 0; i < 2 && word + 2 + i < WORDS; i++)
		big->words[word + 2 + i] |= (uint32_t)(high >> (32 * i));
}

/** Divide by a billion; returns the remainder. */
static uint32_t divide(struct big *big)
{
	uint64_t rest = 0;

	for (unsigned i = WORDS; i-- > 0;) {
		uint64_t part = rest << 32 | big->words[i];
		big->words[i] = (uint32_t)(part / BILLION);
		rest = part % BILLION;
	}
	return (uint32_t)rest;
}

/** Multiply a fraction by @by; returns what went over the point. */
static uint32_t multiply(struct big *big, uint32_t by)
{
	uint64_t carry = 0;

	for (unsigned i = 0; i < WORDS; i++) {
		carry += (uint64_t)big->words[i] * by;
		big->words[i] = (uint32_t)carry;
		carry >>= 32;
	}
	return (uint32_t)carry;
}

static bool is_zero(const struct big *big)
{
	uint32_t any = 0;

	for (unsigned i = 0; i < WORDS; i++)
		any |= big->words[i];
	return any == 0;
}

static size_t write_integer(char *text, struct big *whole)
{
	char digits[36 * 9];
	size_t n = sizeof(digits);

	do {
		uint32_t nine = divide(whole);
		for (unsigned i = 0; i < 9; i++, nine /= 10)
			digits[--n] = (char)('0' + nine % 10);
	} while (!is_zero(whole));
	while (n < sizeof(digits) - 1 && digits[n] == '0')
		n++;
	memcpy(text, digits + n, sizeof(digits) - n);
	return sizeof(digits) - n;
}

/** Does the rest of the fraction round up behind @last, a digit? */
static bool rounds_up(struct big *rest, char last)
{
	uint32_t half = multiply(rest, 2);

	return half && (!is_zero(rest) || (last & 1));
}

/** Add one to the last of @n characters, digits and a point; one more digit in front when all are nines. */
static size_t increment(char *text, size_t n)
{
	size_t i = n;

	while (i-- > 0) {
		if (text[i] == '.')
			continue;
		if (text[i] != '9') {
			text[i]++;
			return n;
		}
		text[i] = '0';
	}
	memmove(text + 1, text, n);
	text[0] = '1';
	return n + 1;
}

size_t format_double(char *text, uint64_t bits, unsigned precision, bool upper, bool point)
{
	const unsigned exponent = bits >> 52 & 0x7ff;
	const uint64_t fraction_bits = bits & ((1ull << 52) - 1);
	const uint64_t mantissa = fraction_bits | (exponent ? 1ull << 52 : 0);
	/* value = mantissa * 2^(at - 1074) */
	const unsigned at = exponent ? exponent - 1 : 0;
	struct big whole = {{0}}, fraction = {{0}};

	if (exponent == 0x7ff) {
		memcpy(text, fraction_bits ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"), 3);
		return 3;
	}
	if (at >= 1074) {
		place(&whole, mantissa, at - 1074);
	} else {
		unsigned below = 1074 - at; /* bits behind the point */
		place(&whole, below < 64 ? mantissa >> below : 0, 0);
		place(&fraction, below < 64 ? mantissa & ((1ull << below) - 1) : mantissa, WORDS * 32 - below);
	}
	precision = precision < FORMAT_PRECISION_MAX ? precision : FORMAT_PRECISION_MAX;
	size_t n = write_integer(text, &whole);
	char last = text[n - 1];
	if (precision || point)
		text[n++] = '.';
	for (unsigned i = 0; i < precision; i++)
		last = text[n++] = (char)('0' + multiply(&fraction, 10));
	return rounds_up(&fraction, last) ? increment(text, n) : n;
}
