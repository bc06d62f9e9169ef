/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wide.c - what compilers call for when the CPU has no one instruction for it: division of 128 bits, and counts of bits
 *
 * Theory of operation: these are the names that gcc and clang know (GCC internals, "Integer library routines"); their
 * own library is not linked, as where it is differs from compiler to compiler. A divisor of 64 bits is two steps of
 * the CPU's division; a larger one leaves a quotient of less than 64 bits, which is found bit by bit.
 */
#include "runtime.h"

typedef unsigned __int128 u128;
typedef __int128 i128;

u128 __udivmodti4(u128 n, u128 d, u128 *rest);
u128 __udivti3(u128 n, u128 d);
u128 __umodti3(u128 n, u128 d);
i128 __divmodti4(i128 n, i128 d, i128 *rest);
i128 __divti3(i128 n, i128 d);
i128 __modti3(i128 n, i128 d);
int __popcountdi2(uint64_t n);
int __popcountsi2(uint32_t n);
int __popcountti2(u128 n);

/** (@high * 2^64 + @low) / @d, with @high < @d. */
static uint64_t divide(uint64_t high, uint64_t low, uint64_t d, uint64_t *rest)
{
	uint64_t quotient;

	__asm__("divq %4" : "=a"(quotient), "=d"(*rest) : "0"(low), "1"(high), "rm"(d) : "cc");
	return quotient;
}

u128 __udivmodti4(u128 n, u128 d, u128 *rest)
{
	uint64_t high, low, left;
	u128 quotient = 0;

	if (d >> 64 == 0) { /* 0 faults, as it does for smaller numbers */
		high = divide(0, (uint64_t)(n >> 64), (uint64_t)d, &left);
		low = divide(left, (uint64_t)n, (uint64_t)d, &left);
		*rest = left;
		return (u128)high << 64 | low;
	}
	for (int shift = __builtin_clzll((uint64_t)(d >> 64)); shift >= 0; shift--) {
		quotient <<= 1;
		if (n >= d << shift) {
			n -= d << shift;
			quotient |= 1;
		}
	}
	*rest = n;
	return quotient;
}

u128 __udivti3(u128 n, u128 d)
{
	u128 rest;

	return __udivmodti4(n, d, &rest);
}

u128 __umodti3(u128 n, u128 d)
{
	u128 rest;

	__udivmodti4(n, d, &rest);
	return rest;
}

static u128 magnitude(i128 n)
{
	return n < 0 ? -(u128)n : (u128)n;
}

/** The quotient is rounded to zero; the rest has the sign of @n. */
i128 __divmodti4(i128 n, i128 d, i128 *rest)
{
	u128 left, quotient = __udivmodti4(magnitude(n), magnitude(d), &left);

	*rest = (i128)(n < 0 ? -left : left);
	return (i128)((n < 0) != (d < 0) ? -quotient : quotient);
}

i128 __divti3(i128 n, i128 d)
{
	i128 rest;

	return __divmodti4(n, d, &rest);
}

i128 __modti3(i128 n, i128 d)
{
	i128 rest;

	__divmodti4(n, d, &rest);
	return rest;
}

/* The popcnt instruction came later than x86-64. */
int __popcountdi2(uint64_t n)
{
	n -= n >> 1 & 0x5555555555555555;
	n = (n & 0x3333333333333333) + (n >> 2 & 0x3333333333333333);
	n = (n + (n >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return (int)(n * 0x0101010101010101 >> 56);
}

int __popcountsi2(uint32_t n)
{
	return __popcountdi2(n);
}

int __popcountti2(u128 n)
{
	return __popcountdi2((uint64_t)n) + __popcountdi2((uint64_t)(n >> 64));
}
