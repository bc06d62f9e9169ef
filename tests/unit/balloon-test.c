/* SPDX-License-Identifier: Apache-2.0 */
/* balloon-test.c - virtio-balloon: pages that go, pages that must not, reports, statistics, malformed chains */
#include "tests/unit/fake_driver.h"

#include "tests/tap.h"
#include "vmm/virtio/balloon.h"

#include <sys/stat.h>

#define FEATURES                                                                                                       \
	(VIRTIO_QUEUE_FEATURES | 1ULL << VIRTIO_BALLOON_F_STATS_VQ | 1ULL << VIRTIO_BALLOON_F_REPORTING |              \
		1ULL << VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define QUEUES 5
#define PAGES (FAKE_RAM / 4096)
#define FIRST 1024 /* pages from here on are not the rings */
enum { INFLATE, DEFLATE, STATS, REPORTS, REPORTS_BY_THE_BOOK };

static struct fake_driver d;
static struct balloon *balloon;
static uint64_t list;

static void attach(uint64_t features)
{
	for (unsigned i = 0; i < QUEUES; i++)
		fake_queue(&d, i, 64);
	fake_attach(&d, balloon_device(balloon), QUEUES, features);
}

/** A fresh guest; its memory is not filled. */
static void start_bare(uint64_t features)
{
	if (balloon) {
		balloon_destroy(balloon);
		fake_destroy(&d);
	}
	fake_init(&d);
	if (balloon_create(&d.memory, &balloon, NULL) < 0)
		printf("Bail out! no device\n");
	attach(features);
	list = fake_alloc(&d, 128 << 10);
}

static void start(uint64_t features)
{
	start_bare(features);
	for (unsigned i = 0; i < FIRST; i++)
		*(volatile uint8_t *)&d.ram[i * 4096] = d.ram[i * 4096]; /* every page is there */
	memset(d.ram + FIRST * 4096, 'x', FAKE_RAM - FIRST * 4096);
}

/** How many pages of RAM from FIRST on are zero. */
static unsigned zeroed(void)
{
	static const uint8_t zeroes[4096];
	unsigned n = 0;
	for (unsigned i = FIRST; i < PAGES; i++)
		n += !memcmp(d.ram + i * 4096, zeroes, 4096);
	return n;
}

static bool is_zero(unsigned page)
{
	return d.ram[page * 4096] == 0 && d.ram[page * 4096 + 4095] == 0;
}

static uint64_t blocks(void)
{
	struct stat st;
	return fstat(d.memory.fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/** Name @n pages on @queue; true when the buffer came back. */
static bool name(unsigned queue, const uint32_t *pfns, uint32_t n)
{
	uint32_t id, size;
	memcpy(d.ram + list, pfns, n * sizeof(*pfns));
	fake_desc(&d.queues[queue], 0, list, n * 4, 0, 0);
	fake_offer(&d.queues[queue], 0);
	fake_kick(&d, queue);
	return fake_used(&d.queues[queue], &id, &size) && size == 0;
}

static void test_inflate(void)
{
	start(FEATURES);
	uint64_t before = blocks();
	const uint32_t up[] = {2000, 2001, 2002, 3000, 2003}, down[] = {4003, 4002, 4001, 4000};
	CHECK(name(INFLATE, up, 5) && before - blocks() == 5 * 4096, "pages that are named go back to the host");
	CHECK(zeroed() == 5 && is_zero(2000) && is_zero(2003) && is_zero(3000), "these and no others");
	CHECK(name(INFLATE, down, 4) && zeroed() == 9 && is_zero(4000) && is_zero(4003), "named downwards as well");
	CHECK(balloon_counts(balloon).inflated == 9 * 4096 && balloon_counts(balloon).refused == 0, "and counted");
	CHECK(d.interrupts[INFLATE] == 1, "the driver is told, as it asked to be");
	CHECK(name(DEFLATE, down, 4), "pages taken out again");
	memset(d.ram + 4000 * 4096, 'y', 4096);
	CHECK(zeroed() == 8 && d.ram[4000 * 4096] == 'y', "can be written");
}

static void test_hostile_pages(void)
{
	start(FEATURES);
	const uint32_t twice[] = {2000, 2000, 2001, 2000};
	CHECK(name(INFLATE, twice, 4) && zeroed() == 2, "a page that is named again and again goes once");
	const uint32_t outside[] = {PAGES, UINT32_MAX, UINT32_MAX - 1, 1u << 31, 1u << 20};
	CHECK(name(INFLATE, outside, 5) && zeroed() == 2 && balloon_counts(balloon).refused == 5,
		"pages that are none");
	const uint32_t across[] = {PAGES - 2, PAGES - 1, PAGES, PAGES + 1};
	CHECK(name(INFLATE, across, 4) && zeroed() == 4 && balloon_counts(balloon).refused == 7,
		"a run across the end of memory goes as far as there is memory");
	CHECK(!d.needs_reset, "none of it breaks the device");
}

/** A guest that gives away its own rings and lists. */
static void test_own_rings(void)
{
	static uint32_t all[4096];
	uint32_t id, n;
	start(FEATURES);
	for (uint32_t i = 0; i < 4096; i++)
		all[i] = i;
	name(INFLATE, all, 4096);
	CHECK(zeroed() == 4096 - FIRST && balloon_counts(balloon).inflated == 4096 * 4096, "its own rings can go");
	for (unsigned queue = 0; queue < QUEUES; queue++)
		fake_kick(&d, queue);
	CHECK(!fake_used(&d.queues[DEFLATE], &id, &n), "which stops it");
	virtio_reset(balloon_device(balloon));
	attach(FEATURES);
	const uint32_t page = 5000;
	CHECK(name(INFLATE, &page, 1) && is_zero(5000), "until its driver begins anew");
}

static void test_lists(void)
{
	static uint32_t pages[16384];
	start(FEATURES);
	for (uint32_t i = 0; i < 16384; i++)
		pages[i] = i % 2 ? FIRST + i % 1000 : UINT32_MAX;
	CHECK(name(INFLATE, pages, 16384) && d.agains, "the longest list, and others have their turn");
	fake_desc(&d.queues[INFLATE], 0, list, 16385 * 4, 0, 0);
	fake_offer(&d.queues[INFLATE], 0);
	fake_kick(&d, INFLATE);
	CHECK(d.needs_reset, "a longer one breaks the device");
	start(FEATURES);
	fake_desc(&d.queues[INFLATE], 0, list, 7, 0, 0);
	fake_offer(&d.queues[INFLATE], 0);
	fake_kick(&d, INFLATE);
	CHECK(d.needs_reset && zeroed() == 0, "so does a part of a page number");
	start(FEATURES);
	fake_desc(&d.queues[INFLATE], 0, list, 8, WRITE, 0);
	fake_offer(&d.queues[INFLATE], 0);
	fake_kick(&d, INFLATE);
	CHECK(d.needs_reset, "so does a list to be written");
	start(FEATURES);
	const uint32_t split[] = {2000, 2001};
	memcpy(d.ram + list, split, 8);
	fake_desc(&d.queues[INFLATE], 0, list, 3, NEXT, 1);
	fake_desc(&d.queues[INFLATE], 1, list + 3, 5, 0, 0);
	fake_offer(&d.queues[INFLATE], 0);
	fake_kick(&d, INFLATE);
	CHECK(!d.needs_reset && zeroed() == 2 && is_zero(2000) && is_zero(2001), "a list framed oddly is read right");
}

/** Report two ranges on @queue; true when the buffer came back. */
static bool report(unsigned queue, uint64_t a, uint32_t a_size, uint64_t b, uint32_t b_size)
{
	uint32_t id, n;
	fake_desc(&d.queues[queue], 0, a, a_size, WRITE | NEXT, 1);
	fake_desc(&d.queues[queue], 1, b, b_size, WRITE, 0);
	fake_offer(&d.queues[queue], 0);
	fake_kick(&d, queue);
	return fake_used(&d.queues[queue], &id, &n) && n == 0;
}

static void test_reports(void)
{
	start(FEATURES);
	uint64_t before = blocks();
	CHECK(report(REPORTS, 8 << 20, 2 << 20, 16 << 20, 4096) && before - blocks() == 513 * 4096,
		"free ranges go back to the host");
	CHECK(zeroed() == 513 && is_zero(2048) && is_zero(4096) && balloon_counts(balloon).reported == 513 * 4096,
		"these and no others");
	CHECK(report(REPORTS, (20 << 20) + 1, 4096, (24 << 20), 4095) && zeroed() == 513 &&
			balloon_counts(balloon).refused == 2,
		"ranges that are not whole pages stay");
	CHECK(report(REPORTS, 28 << 20, 8192, (28 << 20) + 4096, 8192) && zeroed() == 516,
		"ranges that overlap go once");
	CHECK(report(REPORTS_BY_THE_BOOK, 30 << 20, 4096, (30 << 20) + 4096, 4096) && zeroed() == 518,
		"the queue that the standard names works as well");
	CHECK(d.ram[(30 << 20) + 8192] == 'x' && !d.needs_reset, "and nothing else went");
	start(FEATURES & ~(1ULL << VIRTIO_BALLOON_F_STATS_VQ));
	CHECK(report(STATS, 8 << 20, 4096, 9 << 20, 4096) && zeroed() == 2,
		"Linux without statistics reports where they were");
	start(FEATURES & ~(1ULL << VIRTIO_BALLOON_F_REPORTING));
	CHECK(!report(REPORTS, 8 << 20, 4096, 9 << 20, 4096) && zeroed() == 0, "without the feature nothing is taken");
}

static void offer_stats(const struct virtio_balloon_stat *stats, unsigned n)
{
	memcpy(d.ram + list, stats, n * sizeof(*stats));
	fake_desc(&d.queues[STATS], 0, list, n * sizeof(*stats), 0, 0);
	fake_offer(&d.queues[STATS], 0);
	fake_kick(&d, STATS);
}

static void test_stats(void)
{
	const struct virtio_balloon_stat one[] = {{VIRTIO_BALLOON_S_MEMFREE, 1000}, {VIRTIO_BALLOON_S_MEMTOT, 5000},
		{VIRTIO_BALLOON_S_NR, 1}, {UINT16_MAX, 2}},
					 two[] = {{VIRTIO_BALLOON_S_MEMFREE, 2000}};
	uint32_t id, n;
	start(FEATURES);
	CHECK(balloon_stats(balloon)->taken_ns == 0 && balloon_ask_stats(balloon) == -EAGAIN, "no statistics yet");
	offer_stats(one, 4);
	const struct balloon_stats *s = balloon_stats(balloon);
	CHECK(s->taken_ns && s->known == (1u << VIRTIO_BALLOON_S_MEMFREE | 1u << VIRTIO_BALLOON_S_MEMTOT) &&
			s->value[VIRTIO_BALLOON_S_MEMFREE] == 1000 && s->value[VIRTIO_BALLOON_S_MEMTOT] == 5000,
		"the first come by themselves; what is unknown is passed over");
	CHECK(!fake_used(&d.queues[STATS], &id, &n), "the guest's buffer stays");
	memset(d.ram + list, 0, sizeof(one));
	fake_kick(&d, STATS);
	CHECK(!fake_used(&d.queues[STATS], &id, &n) && s->value[VIRTIO_BALLOON_S_MEMFREE] == 1000,
		"however often it kicks, and is read once");
	CHECK(balloon_ask_stats(balloon) == 0 && fake_used(&d.queues[STATS], &id, &n) && d.interrupts[STATS] == 1,
		"asking gives it back");
	CHECK(balloon_ask_stats(balloon) == -EAGAIN && s->value[VIRTIO_BALLOON_S_MEMFREE] == 1000,
		"until an answer comes");
	offer_stats(two, 1);
	CHECK(s->known == 1u << VIRTIO_BALLOON_S_MEMFREE && s->value[VIRTIO_BALLOON_S_MEMFREE] == 2000,
		"which is taken");
	start(FEATURES & ~(1ULL << VIRTIO_BALLOON_F_STATS_VQ));
	CHECK(balloon_ask_stats(balloon) == -ENOTSUP, "a driver without statistics");
}

static void write_actual(uint32_t offset, uint32_t value, uint32_t n)
{
	balloon_device(balloon)->ops->config_write(balloon_device(balloon), offset, &value, n);
}

static void test_target(void)
{
	struct virtio_balloon_config config;
	struct virtio_device *device;
	start(FEATURES);
	device = balloon_device(balloon);
	CHECK(device->ops->features(device) == (FEATURES & ~VIRTIO_QUEUE_FEATURES), "what is offered");
	balloon_set_target(balloon, 3 * 4096 + 1);
	device->ops->config_read(device, 0, &config, sizeof(config));
	CHECK(config.num_pages == 3 && config.actual == 0 && d.config_changes == 1, "a target, and the driver is told");
	balloon_set_target(balloon, 3 * 4096);
	CHECK(d.config_changes == 1, "the same is no news");
	balloon_set_target(balloon, UINT64_MAX);
	CHECK(balloon_target(balloon) == FAKE_RAM, "no more than there is");
	write_actual(4, 2, 4);
	CHECK(balloon_actual(balloon) == 2 * 4096, "the driver says how far it is");
	write_actual(5, 1, 1);
	CHECK(balloon_actual(balloon) == 258 * 4096, "byte by byte if it likes");
	write_actual(4, UINT32_MAX, 4);
	CHECK(balloon_actual(balloon) == FAKE_RAM, "more than there is is not believed");
	for (uint32_t at = 0; at < 32; at++)
		if (at + 4 <= 4 || at >= 8)
			write_actual(at, 7, 4);
	write_actual(UINT32_MAX, 7, 4);
	device->ops->config_read(device, 0, &config, sizeof(config));
	CHECK(config.num_pages == PAGES && config.actual == UINT32_MAX && config.poison_val == 0,
		"the rest is not its to write");
	virtio_reset(device);
	CHECK(balloon_actual(balloon) == 0 && balloon_target(balloon) == FAKE_RAM,
		"a reset empties it, the target stays");
}

static void test_malformed(void)
{
	char text[100];
	for (unsigned queue = 0; queue < QUEUES; queue++)
		for (unsigned kind = 0; kind < FAKE_MALFORMED; kind++) {
			start_bare(FEATURES);
			const char *what = fake_malformed(&d, queue, kind);
			fake_kick(&d, queue);
			snprintf(text, sizeof(text), "queue %u: %s", queue, what);
			struct balloon_counts counts = balloon_counts(balloon);
			CHECK(d.needs_reset && !counts.inflated && !counts.reported, text);
		}
}

int main(void)
{
	test_inflate();
	test_hostile_pages();
	test_own_rings();
	test_lists();
	test_reports();
	test_stats();
	test_target();
	test_malformed();
	balloon_destroy(balloon);
	fake_destroy(&d);
	return tap_done();
}
