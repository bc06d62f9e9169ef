/* SPDX-License-Identifier: Apache-2.0 */
/*
 * credits_guest.c - the guest of credits.c: takes items from one region, leaves their results in another
 *
 * husk sandbox cc -o credits_guest.elf credits_guest.c
 */
#include <husk/sandbox.h>

/** Steps of Collatz's sequence from @n down to 1. */
static uint64_t steps(uint64_t n)
{
	uint64_t count = 0;

	for (; n > 1; count++)
		n = n % 2 ? 3 * n + 1 : n / 2;
	return count;
}

/** Work until @total items are done. What is in slot i of a region belongs to the guest from `produced` > i on, and to the host
 *  again from `consumed` > i on: the cells only grow, and each is written by one side. */
static uint64_t work(uint64_t total)
{
	size_t size;
	const volatile uint64_t *items = husk_region("items", &size);
	volatile uint64_t *results = husk_region("results", NULL);
	const volatile uint64_t *produced = husk_cell("produced");
	volatile uint64_t *consumed = husk_cell("consumed");
	uint64_t done = 0, polls = 0;

	if (!items || !results || !produced || !consumed) {
		husk_fail(1, "a region or a cell is missing");
		return 0;
	}
	const uint64_t slots = size / sizeof(*items);
	while (done < total) {
		const uint64_t until = husk_cell_load(produced);
		for (polls++; done < until; done++) {
			results[done % slots] = steps(items[done % slots]);
			husk_cell_store(consumed, done + 1);
		}
	}
	return polls;
}
HUSK_EXPORT(u64, work, u64);
