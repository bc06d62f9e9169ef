/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device-bench-test.c - the same cases for every device over both transports: ordinary requests, malformed chains, and a guest
 * that changes rings and buffers while the device works
 *
 * What is malformed must make the device need a reset wherever it reads the queue; where it does not, and with what is only
 * odd, it may do as it likes. In every case a reset and a new negotiation make it work again. Run it under ASan and UBSan:
 * that nothing else was touched is theirs to see, and the guard pages' around guest memory.
 */
#include "tests/unit/bench_driver.h"

#include "tests/tap.h"

#include <pthread.h>

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT
#define SCRIBBLE_ROUNDS 300

static struct bench b;

/* ---- chains ---- */

static void loop_of_one(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, NEXT, 0);
	fake_offer(q, 0);
}

static void loop_of_two(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, NEXT, 1);
	fake_desc(q, 1, b.page, 64, NEXT, 0);
	fake_offer(q, 0);
}

/** The index of a descriptor that is fine, but for where it lies: far behind all rings. */
static uint16_t beyond(struct fake_queue *q)
{
	uint64_t i = (b.d.allocated + BENCH_PAGE - q->desc_gpa) / sizeof(q->desc[0]);
	q->desc[i] = (struct vring_desc){.addr = b.page, .len = 64};
	return (uint16_t)i;
}

static void head_out_of_range(struct fake_queue *q)
{
	fake_offer(q, beyond(q));
}

static void head_next_to_the_last(struct fake_queue *q)
{
	fake_offer(q, q->size);
}

static void head_of_all_ones(struct fake_queue *q)
{
	fake_offer(q, UINT16_MAX);
}

static void next_out_of_range(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, NEXT, beyond(q));
	fake_offer(q, 0);
}

static void one(struct fake_queue *q, uint64_t gpa, uint32_t n, uint16_t flags)
{
	fake_desc(q, 0, gpa, n, flags, 0);
	fake_offer(q, 0);
}

static void no_bytes(struct fake_queue *q)
{
	one(q, b.page, 0, 0);
}

static void no_writable_bytes(struct fake_queue *q)
{
	one(q, b.page, 0, WRITE);
}

static void beyond_memory(struct fake_queue *q)
{
	one(q, FAKE_RAM, 64, 0);
}

static void across_the_end(struct fake_queue *q)
{
	one(q, FAKE_RAM - 32, 33, WRITE);
}

static void wraps_at_2_32(struct fake_queue *q)
{
	one(q, 0xfffffff0u, 32, WRITE);
}

static void wraps_at_2_64(struct fake_queue *q)
{
	one(q, UINT64_MAX - 15, 32, WRITE);
}

static void wraps_to_guest_memory(struct fake_queue *q)
{
	one(q, UINT64_MAX - 15, 16 + 4096, 0);
}

static void four_gigabytes(struct fake_queue *q)
{
	one(q, 0, UINT32_MAX, WRITE);
}

static void readable_behind_writable(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, NEXT | WRITE, 1);
	fake_desc(q, 1, b.page + 64, 64, 0, 0);
	fake_offer(q, 0);
}

/** Descriptor 0 leads to the indirect table at page 8, which is returned. */
static struct vring_desc *table(struct fake_queue *q, uint32_t n, uint16_t flags)
{
	struct vring_desc *descs = (void *)(b.d.ram + b.page + 8 * BENCH_PAGE);
	for (unsigned i = 0; i < 2 * BENCH_QUEUE_SIZE; i++)
		descs[i] = (struct vring_desc){
			.addr = b.page, .len = 1, .flags = NEXT, .next = (uint16_t)((i + 1) % (2 * BENCH_QUEUE_SIZE))};
	one(q, b.page + 8 * BENCH_PAGE, n, (uint16_t)(INDIRECT | flags));
	return descs;
}

static void table_in_table(struct fake_queue *q)
{
	table(q, 32, 0)[0].flags = INDIRECT;
}

static void table_and_next(struct fake_queue *q)
{
	table(q, 16, NEXT)[0].flags = 0;
}

static void table_of_no_bytes(struct fake_queue *q)
{
	table(q, 0, 0);
}

static void table_of_17_bytes(struct fake_queue *q)
{
	table(q, 17, 0);
}

static void table_of_4_gigabytes(struct fake_queue *q)
{
	table(q, UINT32_MAX - 15, 0);
}

static void table_beyond_memory(struct fake_queue *q)
{
	table(q, 32, 0);
	fake_desc(q, 0, FAKE_RAM - 16, 32, INDIRECT, 0);
}

static void table_is_a_loop(struct fake_queue *q)
{
	struct vring_desc *descs = table(q, 32, 0);
	descs[1].next = 0;
}

static void table_next_out_of_range(struct fake_queue *q)
{
	struct vring_desc *descs = table(q, 32, 0);
	descs[0].next = 2;
	descs[2].flags = 0;
}

static void table_longer_than_its_queue(struct fake_queue *q)
{
	table(q, 16 * (BENCH_QUEUE_SIZE + 1), 0)[BENCH_QUEUE_SIZE].flags = 0;
}

/** Behind the index lies what every device serves, so that only the jump is wrong. */
static void jump_by(struct fake_queue *q, unsigned n)
{
	fake_desc(q, 0, b.page, 64, NEXT, 1);
	fake_desc(q, 1, b.page + 64, 64, WRITE, 0);
	q->avail_idx = (uint16_t)(q->avail_idx + n);
	__atomic_store_n(&q->avail->idx, q->avail_idx, __ATOMIC_RELEASE);
}

static void index_jumps(struct fake_queue *q)
{
	jump_by(q, q->size + 1u);
}

static void index_jumps_far(struct fake_queue *q)
{
	jump_by(q, 0x8000);
}

static void index_goes_back(struct fake_queue *q)
{
	jump_by(q, 0xffff);
}

/* Odd, and no malformed chains. */

static void reads_what_it_writes(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 512, NEXT, 1);
	fake_desc(q, 1, b.page, 512, WRITE, 0);
	fake_offer(q, 0);
}

static void writes_over_the_descriptors(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, NEXT, 1);
	fake_desc(q, 1, q->desc_gpa, 16u * BENCH_QUEUE_SIZE, WRITE, 0);
	fake_offer(q, 0);
}

static void writes_over_the_available_ring(struct fake_queue *q)
{
	one(q, q->avail_gpa, 6 + 2u * BENCH_QUEUE_SIZE, WRITE);
}

static void writes_over_the_used_ring(struct fake_queue *q)
{
	one(q, q->used_gpa, 6 + 8u * BENCH_QUEUE_SIZE, WRITE);
}

static void table_writes_over_itself(struct fake_queue *q)
{
	struct vring_desc *descs = table(q, 32, 0);
	descs[1] = (struct vring_desc){.addr = b.page + 8 * BENCH_PAGE, .len = 32, .flags = WRITE};
}

static void all_heads_are_the_same(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, 0, 0);
	for (unsigned i = 0; i < BENCH_QUEUE_SIZE; i++)
		fake_offer(q, 0);
}

static void all_of_memory(struct fake_queue *q)
{
	one(q, 0, FAKE_RAM, 0);
}

static void all_of_memory_to_write(struct fake_queue *q)
{
	fake_desc(q, 0, b.page, 64, NEXT, 1);
	fake_desc(q, 1, b.page, FAKE_RAM - (uint32_t)b.page, WRITE, 0);
	fake_offer(q, 0);
}

static void one_byte(struct fake_queue *q)
{
	one(q, b.page, 1, 0);
}

static void one_writable_byte(struct fake_queue *q)
{
	one(q, b.page, 1, WRITE);
}

static const struct chain {
	const char *name;
	void (*make)(struct fake_queue *q);
	bool odd; /* not malformed as a chain */
} chains[] = {
	{"a loop of one", loop_of_one},
	{"a loop of two", loop_of_two},
	{"a head out of range", head_out_of_range},
	{"a head behind the last", head_next_to_the_last},
	{"a head of 0xffff", head_of_all_ones},
	{"a next out of range", next_out_of_range},
	{"a buffer of no bytes", no_bytes},
	{"a writable buffer of no bytes", no_writable_bytes},
	{"a buffer beyond memory", beyond_memory},
	{"a buffer across the end of memory", across_the_end},
	{"a buffer that wraps at 2^32", wraps_at_2_32},
	{"a buffer that wraps at 2^64", wraps_at_2_64},
	{"a buffer that wraps into memory", wraps_to_guest_memory},
	{"a buffer of 4 GiB", four_gigabytes},
	{"a readable buffer behind a writable one", readable_behind_writable},
	{"a table in a table", table_in_table},
	{"a table and a next", table_and_next},
	{"a table of no bytes", table_of_no_bytes},
	{"a table of 17 bytes", table_of_17_bytes},
	{"a table of 4 GiB", table_of_4_gigabytes},
	{"a table beyond memory", table_beyond_memory},
	{"a table that is a loop", table_is_a_loop},
	{"a next out of its table", table_next_out_of_range},
	{"a table longer than its queue", table_longer_than_its_queue},
	{"an available index that jumps", index_jumps},
	{"an available index that jumps far", index_jumps_far},
	{"an available index that goes back", index_goes_back},
	{"a buffer to read and to write", reads_what_it_writes, true},
	{"descriptors to be written", writes_over_the_descriptors, true},
	{"an available ring to be written", writes_over_the_available_ring, true},
	{"a used ring to be written", writes_over_the_used_ring, true},
	{"a table that is to be written", table_writes_over_itself, true},
	{"the same head as often as it goes", all_heads_are_the_same, true},
	{"all of memory", all_of_memory, true},
	{"all of memory to be written", all_of_memory_to_write, true},
	{"one byte", one_byte, true},
	{"one byte to be written", one_writable_byte, true},
};

static bool check(bool fine, const char *what)
{
	char line[256];
	snprintf(line, sizeof(line), "%s over %s: %s", b.kind->name, b.transport->name, what);
	return CHECK(fine, line);
}

/** Chain @c in queue @i. */
static bool try_chain(const struct chain *c, unsigned i)
{
	bool reset = !c->odd && (b.kind->eager >> i & 1);

	if (!bench_start(&b))
		return false;
	c->make(&b.d.queues[i]);
	bench_kick(&b, i);
	if (reset && (!b.transport->needs_reset(&b) || b.failures != 1))
		return false;
	bench_kick(&b, i); /* a device that stands still does so */
	if (reset && b.failures != 1)
		return false;
	return bench_start(&b) && !b.transport->needs_reset(&b) && b.kind->request(&b);
}

static void test_chains(void)
{
	for (unsigned k = 0; k < sizeof(chains) / sizeof(chains[0]); k++) {
		bool fine = true;
		for (unsigned i = 0; i < b.kind->n_queues; i++)
			if (!try_chain(&chains[k], i)) {
				printf("# in queue %u\n", i);
				fine = false;
			}
		check(fine, chains[k].name);
	}
}

/* ---- a guest that changes everything while the device works ---- */

static bool stop_scribbling;

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

/** Rings and requests lie between b.page and b.d.allocated. Small numbers look most like something. */
static void *scribble(void *arg)
{
	uint64_t random = 1;
	volatile uint16_t *words = (void *)(b.d.ram + b.page);
	uint64_t n = (b.d.allocated - b.page) / sizeof(*words);

	while (!__atomic_load_n(&stop_scribbling, __ATOMIC_ACQUIRE)) {
		uint16_t value = (uint16_t)next_random(&random);
		words[next_random(&random) % n] = next_random(&random) % 4 ? value % 8 : value;
	}
	return NULL;
}

static void random_chain(struct fake_queue *q, uint64_t *random)
{
	unsigned n = 1 + (unsigned)(next_random(random) % 4), writable = (unsigned)(next_random(random) % (n + 1));
	for (unsigned i = 0; i < n; i++)
		fake_desc(q, (uint16_t)i, b.page + next_random(random) % (BENCH_PAGE * 15),
			1 + (uint32_t)(next_random(random) % BENCH_PAGE),
			(uint16_t)((i + 1 < n ? NEXT : 0) | (i >= n - writable ? WRITE : 0)), (uint16_t)(i + 1));
	fake_offer(q, 0);
}

static void test_scribbling(void)
{
	pthread_t thread;
	uint64_t random = 7;
	unsigned resets = 0;
	bool fine = bench_start(&b);

	stop_scribbling = false;
	if (pthread_create(&thread, NULL, scribble, NULL))
		abort();
	for (unsigned n = 0; n < SCRIBBLE_ROUNDS && fine; n++) {
		unsigned i = (unsigned)next_random(&random) % b.kind->n_queues;
		random_chain(&b.d.queues[i], &random);
		bench_kick(&b, i);
		if (b.transport->needs_reset(&b)) {
			resets++;
			fine = bench_start(&b);
		}
	}
	__atomic_store_n(&stop_scribbling, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	printf("# %u resets in %u rounds\n", resets, SCRIBBLE_ROUNDS);
	check(fine && bench_start(&b) && b.kind->request(&b), "a guest that changes all of it at the same time");
}

static void test_life(void)
{
	bool fine = bench_start(&b);
	check(fine && b.kind->request(&b), "an ordinary request");
	check(b.transport->interrupted(&b), "the driver is interrupted");
	check(bench_start(&b) && b.kind->request(&b), "the same after a reset");
	check(!b.transport->needs_reset(&b) && !b.failures, "nothing is broken");
}

int main(void)
{
	static const struct bench_transport *const transports[] = {&bench_mmio, &bench_vhost_user};

	for (unsigned d = 0; d < bench_n_devices; d++)
		for (unsigned t = 0; t < 2; t++) {
			bench_create(&b, &bench_devices[d], transports[t]);
			test_life();
			test_chains();
			test_scribbling();
			bench_destroy(&b);
		}
	return tap_done();
}
