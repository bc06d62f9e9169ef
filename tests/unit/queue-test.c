/* SPDX-License-Identifier: Apache-2.0 */
/* queue-test.c - virtqueues: what a driver may do, and everything it may not */
#include "tests/unit/fake_driver.h"

#include "tests/tap.h"

#define SIZE 8
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE

static struct fake_driver d;
static struct virtqueue q;
static struct fake_queue *f;
static struct virtqueue_chain chain;

static void start(uint64_t features)
{
	fake_destroy(&d);
	fake_init(&d);
	fake_queue(&d, 0, SIZE);
	f = &d.queues[0];
	struct virtqueue_setup setup = fake_setup(&d, 0, features);
	virtqueue_start(&q, &d.memory, &setup, NULL);
}

static void test_good(void)
{
	start(0);
	CHECK(virtqueue_pop(&q, &chain) == 0, "an empty queue gives nothing");
	uint64_t a = fake_alloc(&d, 100), b = fake_alloc(&d, 200);
	fake_desc(f, 3, a, 100, NEXT, 5);
	fake_desc(f, 5, b, 200, WRITE, 0);
	fake_offer(f, 3);
	CHECK(virtqueue_pop(&q, &chain) == 1 && chain.head == 3 && chain.n_read == 1 && chain.n_write == 1 &&
			chain.read_bytes == 100 && chain.write_bytes == 200 && chain.iov[1].iov_base == d.ram + b,
		"a chain of two");
	fake_desc(f, 3, UINT64_MAX, 0, 0, 0);
	CHECK(chain.iov[0].iov_base == d.ram + a, "what was popped does not change with the descriptor");
	virtqueue_unpop(&q, 1);
	fake_desc(f, 3, a, 100, NEXT, 5);
	CHECK(virtqueue_pop(&q, &chain) == 1 && chain.head == 3, "a chain given back comes again");
	virtqueue_push(&q, chain.head, 77);
	uint32_t id, size;
	CHECK(fake_used(f, &id, &size) && id == 3 && size == 77 && !fake_used(f, &id, &size), "and is used once");

	start(INDIRECT);
	uint64_t table = fake_alloc(&d, 32);
	struct vring_desc *t = (void *)(d.ram + table);
	t[0] = (struct vring_desc){.addr = a, .len = 4, .flags = NEXT, .next = 1};
	t[1] = (struct vring_desc){.addr = b, .len = 8, .flags = WRITE};
	fake_desc(f, 0, table, 32, VRING_DESC_F_INDIRECT, 0);
	fake_offer(f, 0);
	CHECK(virtqueue_pop(&q, &chain) == 1 && chain.read_bytes == 4 && chain.write_bytes == 8, "an indirect table");

	start(0);
	f->avail_idx = 0xfffe;
	struct virtqueue_setup setup = fake_setup(&d, 0, 0);
	setup.base = 0xfffe;
	f->avail->idx = f->used->idx = f->used_idx = 0xfffe;
	virtqueue_start(&q, &d.memory, &setup, NULL);
	int popped = 0;
	for (int i = 0; i < 5; i++) {
		fake_desc(f, (uint16_t)i, a, 1, 0, 0);
		fake_offer(f, (uint16_t)i);
	}
	while (virtqueue_pop(&q, &chain) == 1 && chain.head == popped) {
		virtqueue_push(&q, chain.head, 0);
		popped++;
	}
	CHECK(popped == 5 && f->used->idx == 3, "indices wrap at 2^16");
	CHECK(virtqueue_stop(&q) == 3 && !q.ready, "stop tells where to go on");
}

/** Offer descriptor 0 and expect a broken queue. */
static void expect_broken(const char *what)
{
	fake_offer(f, 0);
	bool broken = virtqueue_pop(&q, &chain) == -EPROTO && q.broken;
	fake_desc(f, 0, 4096, 1, 0, 0);
	CHECK(broken && virtqueue_pop(&q, &chain) == -EPROTO, what);
	start(INDIRECT);
}

static void test_bad_chains(void)
{
	start(INDIRECT);
	fake_desc(f, 0, 4096, 1, NEXT, 0);
	expect_broken("a descriptor that follows itself");
	fake_desc(f, 0, 4096, 1, NEXT, 1);
	fake_desc(f, 1, 4096, 1, NEXT, 0);
	expect_broken("a loop of two");
	fake_desc(f, 0, 4096, 1, NEXT, SIZE);
	expect_broken("next beyond the table");
	fake_desc(f, 0, 4096, 1, NEXT, 0xffff);
	expect_broken("next far beyond the table");
	fake_desc(f, 0, 4096, 0, 0, 0);
	expect_broken("no bytes");
	fake_desc(f, 0, FAKE_RAM, 1, 0, 0);
	expect_broken("an address behind memory");
	fake_desc(f, 0, FAKE_RAM - 1, 2, 0, 0);
	expect_broken("a buffer across the end of memory");
	fake_desc(f, 0, UINT64_MAX, 2, 0, 0);
	expect_broken("a buffer that wraps at 2^64");
	fake_desc(f, 0, 4096, UINT32_MAX, 0, 0);
	expect_broken("a buffer of 2^32 - 1 bytes");
	fake_desc(f, 0, UINT32_MAX, UINT32_MAX, WRITE, 0);
	expect_broken("address and length that wrap at 2^32");
	fake_desc(f, 0, 4096, 1, WRITE | NEXT, 1);
	fake_desc(f, 1, 4096, 1, 0, 0);
	expect_broken("readable after writable");
	fake_offer(f, SIZE);
	CHECK(virtqueue_pop(&q, &chain) == -EPROTO, "a head beyond the table");
	start(0);
	fake_desc(f, 0, 4096, 1, 0, 0);
	f->avail->idx = SIZE + 1;
	CHECK(virtqueue_pop(&q, &chain) == -EPROTO, "an index that runs ahead by more than the queue");
	start(0);
	f->avail->idx = SIZE;
	fake_desc(f, 0, 4096, 1, 0, 0);
	CHECK(virtqueue_pop(&q, &chain) == 1, "a full queue is fine");
	f->avail->idx = 0;
	virtqueue_pop(&q, &chain);
	q.next_avail = q.seen_avail;
	CHECK(virtqueue_pop(&q, &chain) == -EPROTO, "an index that runs backwards");
}

static void test_bad_tables(void)
{
	start(INDIRECT);
	uint64_t table = fake_alloc(&d, 16 * 64);
	struct vring_desc *t = (void *)(d.ram + table);
	t[0] = (struct vring_desc){.addr = 4096, .len = 1};
	fake_desc(f, 0, table, 16, VRING_DESC_F_INDIRECT | NEXT, 1);
	expect_broken("an indirect table with next");
	fake_desc(f, 0, table, 0, VRING_DESC_F_INDIRECT, 0);
	expect_broken("an empty table");
	fake_desc(f, 0, table, 17, VRING_DESC_F_INDIRECT, 0);
	expect_broken("a table of 17 bytes");
	fake_desc(f, 0, FAKE_RAM - 16, 32, VRING_DESC_F_INDIRECT, 0);
	expect_broken("a table across the end of memory");
	fake_desc(f, 0, table, 0xfffffff0, VRING_DESC_F_INDIRECT, 0);
	expect_broken("a table of 4 GiB");
	t = (void *)(d.ram + table);
	t[0] = (struct vring_desc){.addr = table, .len = 16, .flags = VRING_DESC_F_INDIRECT};
	fake_desc(f, 0, table, 16, VRING_DESC_F_INDIRECT, 0);
	expect_broken("a table in a table");
	t = (void *)(d.ram + table);
	t[0] = (struct vring_desc){.addr = 4096, .len = 1, .flags = NEXT, .next = 1};
	fake_desc(f, 0, table, 16, VRING_DESC_F_INDIRECT, 0);
	expect_broken("next beyond an indirect table");
	t = (void *)(d.ram + table);
	for (uint16_t i = 0; i < 64; i++)
		t[i] = (struct vring_desc){.addr = 4096, .len = 1, .flags = i < SIZE ? NEXT : 0, .next = i + 1};
	fake_desc(f, 0, table, 16 * 64, VRING_DESC_F_INDIRECT, 0);
	expect_broken("an indirect chain longer than the queue");
	start(0);
	fake_desc(f, 0, table, 16, VRING_DESC_F_INDIRECT, 0);
	fake_offer(f, 0);
	CHECK(virtqueue_pop(&q, &chain) == -EPROTO, "an indirect table that was not negotiated");
}

static int start_with(uint32_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	struct virtqueue_setup setup = {.size = size, .desc = desc, .avail = avail, .used = used};
	return virtqueue_start(&q, &d.memory, &setup, NULL);
}

static void test_start(void)
{
	CHECK(start_with(0, 4096, 8192, 12288) == -EINVAL, "a queue of none");
	CHECK(start_with(3, 4096, 8192, 12288) == -EINVAL, "a size that is no power of two");
	CHECK(start_with(2048, 4096, 8192, 12288) == -EINVAL, "a queue too large");
	CHECK(start_with(8, 4097, 8192, 12288) == -EINVAL, "descriptors not aligned");
	CHECK(start_with(8, 4096, 8193, 12288) == -EINVAL, "available ring not aligned");
	CHECK(start_with(8, 4096, 8192, 12290) == -EINVAL, "used ring not aligned");
	CHECK(start_with(8, FAKE_RAM - 127 + 15, 8192, 12288) < 0, "descriptors across the end");
	CHECK(start_with(8, FAKE_RAM - 112, 8192, 12288) == -EFAULT, "the last descriptor outside");
	CHECK(start_with(8, 4096, FAKE_RAM - 20, 12288) == -EFAULT, "used_event outside");
	CHECK(start_with(8, 4096, FAKE_RAM - 22, 12288) == 0, "used_event just inside");
	CHECK(start_with(8, 4096, 8192, FAKE_RAM - 68) == -EFAULT, "avail_event outside");
	CHECK(start_with(8, 1ULL << 63, 8192, 12288) == -EFAULT, "far outside");
}

static void push_one(void)
{
	fake_desc(f, 0, 4096, 1, 0, 0);
	fake_offer(f, 0);
	virtqueue_pop(&q, &chain);
	virtqueue_push(&q, chain.head, 0);
}

static void test_events(void)
{
	start(0);
	push_one();
	CHECK(virtqueue_interrupt(&q), "an interrupt for a used buffer");
	CHECK(!virtqueue_interrupt(&q), "and no second one");
	f->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	push_one();
	CHECK(!virtqueue_interrupt(&q), "none when the driver does not want any");
	virtqueue_disable_kicks(&q);
	CHECK(f->used->flags == VRING_USED_F_NO_NOTIFY, "kicks can be spared");
	fake_offer(f, 0);
	CHECK(virtqueue_enable_kicks(&q) && f->used->flags == 0, "enabling them sees what came meanwhile");

	start(EVENT_IDX);
	uint16_t *used_event = &f->avail->ring[SIZE];
	*used_event = 0;
	push_one();
	CHECK(virtqueue_interrupt(&q), "EVENT_IDX: the awaited buffer interrupts");
	*used_event = 2;
	push_one();
	CHECK(!virtqueue_interrupt(&q), "one before it does not");
	push_one();
	push_one();
	CHECK(virtqueue_interrupt(&q), "passing it does");
	CHECK(!virtqueue_enable_kicks(&q) && (uint16_t)f->used->ring[SIZE].id == 4, "avail_event is where we stand");
}

static void test_iov(void)
{
	char a[3] = "abc", b[4] = "defg", out[8] = "";
	struct iovec iov[2] = {{a, 3}, {b, 4}}, part[2];
	CHECK(iov_gather(iov, 2, out, 8) == 7 && !strcmp(out, "abcdefg"), "gather");
	CHECK(iov_slice(iov, 2, 2, 3, part) == 2 && part[0].iov_len == 1 && part[1].iov_len == 2 &&
			part[1].iov_base == b,
		"a slice across two");
	CHECK(iov_slice(iov, 2, 7, 1, part) == 0, "a slice behind the end");
	CHECK(iov_scatter(iov, 2, "123456789", 9) == 7 && b[3] == '7', "scatter");
}

int main(void)
{
	fake_init(&d);
	test_good();
	test_bad_chains();
	test_bad_tables();
	test_start();
	test_events();
	test_iov();
	fake_destroy(&d);
	return tap_done();
}
