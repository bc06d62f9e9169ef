/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - histograms of durations
 *
 * Theory of operation: a bucket is HISTOGRAM_STEPS-th part of a power of two, found from the highest bit and the two bits
 * below it. The writer is one thread and readers look through another mapping, so plain 64-bit stores are enough.
 */
#include "base/stats.h"

/** The bucket of @ns; the last one takes what is longer than all. */
static unsigned bucket_of(uint64_t ns)
{
	if (ns < 1ull << HISTOGRAM_FIRST)
		return 0;
	unsigned top = 63 - (unsigned)__builtin_clzll(ns);
	unsigned step = (unsigned)(ns >> (top - 2)) & (HISTOGRAM_STEPS - 1);
	unsigned at = 1 + (top - HISTOGRAM_FIRST) * HISTOGRAM_STEPS + step;
	return at < HISTOGRAM_BUCKETS ? at : HISTOGRAM_BUCKETS - 1;
}

/** The first duration that lies above bucket @at. */
static uint64_t bucket_end(unsigned at)
{
	if (at == 0)
		return 1ull << HISTOGRAM_FIRST;
	unsigned top = HISTOGRAM_FIRST + (at - 1) / HISTOGRAM_STEPS, step = (at - 1) % HISTOGRAM_STEPS;
	return (1ull << top) + ((step + 1ull) << (top - 2));
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	h->count++;
	h->sum_ns += ns;
	h->bucket[bucket_of(ns)]++;
}

uint64_t histogram_quantile(const struct histogram *h, unsigned per_mille)
{
	uint64_t total = 0, seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += h->bucket[i];
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && total; i++) {
		seen += h->bucket[i];
		if (seen * 1000 >= total * per_mille)
			return bucket_end(i);
	}
	return 0;
}
