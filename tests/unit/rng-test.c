/* SPDX-License-Identifier: Apache-2.0 */
/* rng-test.c - virtio-rng: bytes where they belong, in bounds, and malformed requests */
#include "tests/unit/fake_driver.h"

#include "tests/tap.h"
#include "vmm/virtio/rng.h"

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE

static struct fake_driver d;
static struct fake_queue *q;
static struct rng *rng;

static void start(void)
{
	if (rng) {
		rng_destroy(rng);
		fake_destroy(&d);
	}
	if (rng_create(&rng, NULL) < 0)
		printf("Bail out! no device\n");
	fake_init(&d);
	fake_queue(&d, 0, 64);
	q = &d.queues[0];
	fake_attach(&d, rng_device(rng), 1, VIRTIO_QUEUE_FEATURES);
}

/** How many of the @n bytes at @gpa are not zero. */
static unsigned filled(uint64_t gpa, unsigned n)
{
	unsigned count = 0;
	for (unsigned i = 0; i < n; i++)
		count += d.ram[gpa + i] != 0;
	return count;
}

static void test_requests(void)
{
	uint32_t id, n;
	start();
	uint64_t data = fake_alloc(&d, 65536);
	fake_desc(q, 3, data, 64, WRITE, 0);
	fake_offer(q, 3);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &n) && id == 3 && n == 64, "a request is answered in full");
	CHECK(filled(data, 64) > 40 && filled(data + 64, 4096) == 0, "with random bytes, and none beyond it");
	CHECK(d.interrupts[0] == 1, "and the driver is told");

	memset(d.ram + data, 0, 65536);
	fake_desc(q, 0, data, 1000, NEXT | WRITE, 1);
	fake_desc(q, 1, data + 2000, 60000, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &n) && n == 4096, "a large one is answered in part");
	CHECK(filled(data + 900, 100) > 80 && !filled(data + 1000, 1000) && filled(data + 5000, 96) > 80 &&
			!filled(data + 5096, 50000),
		"exactly as far as was said");

	fake_desc(q, 0, data, 100, NEXT | WRITE, 1);
	fake_desc(q, 1, data + 50, 100, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &n) && n == 200 && !d.needs_reset, "buffers that overlap are the driver's business");
	uint8_t before[100];
	memcpy(before, d.ram + data, 100);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &n) && memcmp(before, d.ram + data, 100) != 0, "no two answers are the same");
}

static void test_turns(void)
{
	uint32_t id, n;
	unsigned served = 0;
	start();
	uint64_t data = fake_alloc(&d, 4096);
	for (uint16_t i = 0; i < 64; i++) {
		fake_desc(q, i, data, 4096, WRITE, 0);
		fake_offer(q, i);
	}
	fake_kick(&d, 0);
	while (fake_used(q, &id, &n))
		served += n == 4096;
	CHECK(served == 64 && d.agains >= 3, "a long queue is served in turns");
}

static void test_malformed(void)
{
	uint32_t id, n;
	for (unsigned kind = 0; kind < FAKE_MALFORMED; kind++) {
		start();
		const char *what = fake_malformed(&d, 0, kind);
		fake_kick(&d, 0);
		CHECK(d.needs_reset && !fake_used(q, &id, &n), what);
	}
	start();
	fake_desc(q, 0, 4096, 16, 0, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(d.needs_reset, "a request with nothing to write to breaks the device");
	virtio_reset(rng_device(rng));
	fake_queue(&d, 0, 64);
	fake_attach(&d, rng_device(rng), 1, VIRTIO_QUEUE_FEATURES);
	fake_desc(q, 0, 1 << 20, 16, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &n) && n == 16, "a reset mends it");
	uint64_t config[2] = {1, 1};
	rng_device(rng)->ops->config_read(rng_device(rng), 0, config, sizeof(config));
	CHECK(config[0] == 0 && config[1] == 0, "its configuration is empty");
}

int main(void)
{
	test_requests();
	test_turns();
	test_malformed();
	rng_destroy(rng);
	fake_destroy(&d);
	return tap_done();
}
