/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.h - what fuzz targets share: their entry, how inputs are changed, and a program of bytes, read a value at a time */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/**
 * For replay.c, not for libFuzzer: change @size (2 or more) bytes in place; returns their new size, which is no larger. A target
 * that knows which changes are worth making (fields, edges, with a right checksum) defines it; replay.c has one for the others.
 */
size_t fuzz_mutate(uint8_t *data, size_t size, uint64_t *random);

/** The next of 2^31 numbers; @state: any number to begin with. */
static inline uint64_t fuzz_random(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

/** What is left of a program; zeroes behind its end. */
struct program {
	const uint8_t *at, *end;
};

static inline uint64_t program_take(struct program *p, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes && p->at < p->end; i++)
		value |= (uint64_t)*p->at++ << 8 * i;
	return value;
}

static inline uint8_t program_byte(struct program *p)
{
	return (uint8_t)program_take(p, 1);
}

/** An invariant; the fuzzer sees the abort. */
static inline void must(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

#endif
