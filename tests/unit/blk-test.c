/* SPDX-License-Identifier: Apache-2.0 */
/* blk-test.c - virtio-blk requests, right and wrong */
#include "tests/unit/fake_driver.h"

#include "tests/tap.h"
#include "vmm/virtio/blk.h"

#include <linux/virtio_blk.h>
#include <sys/mman.h>
#include <unistd.h>

#define FEATURES (VIRTIO_QUEUE_FEATURES | 1ULL << VIRTIO_BLK_F_FLUSH)
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define DISK_BYTES (1u << 20)

static struct fake_driver d;
static struct fake_queue *q;
static struct disk *disk;
static struct blk *blk;
static uint64_t header, data, status;
static struct block_meter meter;

static void start(bool read_only)
{
	if (blk) {
		blk_destroy(blk);
		disk_close(disk);
		fake_destroy(&d);
	}
	int fd = memfd_create("disk", MFD_CLOEXEC);
	if (ftruncate(fd, DISK_BYTES) < 0 || pwrite(fd, "hello", 5, 512) != 5 ||
		disk_open_file(fd, read_only, &disk, NULL) < 0 || blk_create(disk, "serial", 1, &blk, NULL) < 0)
		printf("Bail out! no disk\n");
	meter = (struct block_meter){0};
	blk_count(blk, &meter);
	fake_init(&d);
	fake_queue(&d, 0, 64);
	q = &d.queues[0];
	fake_attach(&d, blk_device(blk), 1, FEATURES);
	header = fake_alloc(&d, 16);
	data = fake_alloc(&d, 65536);
	status = fake_alloc(&d, 1);
}

/** One request with @n bytes of data; the status, or -1 when it was not answered. */
static int request(uint32_t type, uint64_t sector, uint32_t n, uint16_t direction, uint32_t *written)
{
	struct virtio_blk_outhdr h = {.type = type, .sector = sector};
	uint32_t id;
	memcpy(d.ram + header, &h, sizeof(h));
	d.ram[status] = 0xee;
	fake_desc(q, 0, header, 16, NEXT, n ? 1 : 2);
	fake_desc(q, 1, data, n, NEXT | direction, 2);
	fake_desc(q, 2, status, 1, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	return fake_used(q, &id, written) && id == 0 ? d.ram[status] : -1;
}

static void test_requests(void)
{
	uint32_t w;
	start(false);
	CHECK(request(VIRTIO_BLK_T_IN, 1, 512, WRITE, &w) == VIRTIO_BLK_S_OK && w == 513, "a sector is read");
	CHECK(!memcmp(d.ram + data, "hello", 5) && d.interrupts[0], "it is the right one, and the driver is told");
	memset(d.ram + data, 'x', 8192);
	CHECK(request(VIRTIO_BLK_T_OUT, 16, 8192, 0, &w) == VIRTIO_BLK_S_OK && w == 1, "sectors are written");
	memset(d.ram + data, 0, 8192);
	CHECK(request(VIRTIO_BLK_T_IN, 31, 512, WRITE, &w) == 0 && d.ram[data + 511] == 'x', "and read back");
	CHECK(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, &w) == VIRTIO_BLK_S_OK, "flush");
	CHECK(request(VIRTIO_BLK_T_GET_ID, 0, 20, WRITE, &w) == 0 && !strcmp((char *)d.ram + data, "serial"), "serial");
	CHECK(request(VIRTIO_BLK_T_GET_ID, 0, 19, WRITE, &w) == VIRTIO_BLK_S_IOERR, "no room for the serial");
	CHECK(request(VIRTIO_BLK_T_IN, 2047, 512, WRITE, &w) == VIRTIO_BLK_S_OK, "the last sector");
	CHECK(request(VIRTIO_BLK_T_IN, 2047, 1024, WRITE, &w) == VIRTIO_BLK_S_IOERR && w == 1, "beyond the end");
	CHECK(request(VIRTIO_BLK_T_IN, 2048, 512, WRITE, &w) == VIRTIO_BLK_S_IOERR, "behind the end");
	CHECK(request(VIRTIO_BLK_T_IN, UINT64_MAX, 512, WRITE, &w) == VIRTIO_BLK_S_IOERR, "the last sector there is");
	CHECK(request(VIRTIO_BLK_T_OUT, 1ULL << 55, 512, 0, &w) == VIRTIO_BLK_S_IOERR, "a sector whose byte wraps");
	CHECK(request(VIRTIO_BLK_T_IN, 0, 511, WRITE, &w) == VIRTIO_BLK_S_IOERR, "half a sector");
	CHECK(request(77, 0, 512, WRITE, &w) == VIRTIO_BLK_S_UNSUPP, "an unknown request");
	CHECK(request(VIRTIO_BLK_T_OUT, 0, 512, WRITE, &w) == VIRTIO_BLK_S_OK && w == 1, "a write of nothing readable");
	CHECK(meter.reads == 3 && meter.read_bytes == 1536 && meter.writes == 2 && meter.write_bytes == 8192 &&
			meter.flushes == 1 && meter.discards == 0 && meter.errors == 7,
		"and all of it is counted");
}

static int zero(uint32_t type, uint64_t sector, uint32_t n, uint32_t flags, uint32_t bytes)
{
	struct virtio_blk_discard_write_zeroes z = {.sector = sector, .num_sectors = n, .flags = flags};
	uint32_t w;
	for (unsigned i = 0; i < 32; i++)
		memcpy(d.ram + data + i * sizeof(z), &z, sizeof(z));
	return request(type, 0, bytes, 0, &w);
}

static void test_zeroes(void)
{
	uint32_t w;
	start(false);
	CHECK(zero(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 16) == VIRTIO_BLK_S_OK, "discard");
	CHECK(request(VIRTIO_BLK_T_IN, 1, 512, WRITE, &w) == 0 && d.ram[data] == 0, "what was there is gone");
	CHECK(zero(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 1, 16) == VIRTIO_BLK_S_OK, "write zeroes with unmap");
	CHECK(zero(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0, 256) == VIRTIO_BLK_S_OK, "sixteen ranges");
	CHECK(zero(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0, 272) == VIRTIO_BLK_S_UNSUPP, "seventeen ranges");
	CHECK(zero(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 2, 16) == VIRTIO_BLK_S_UNSUPP, "an unknown flag");
	CHECK(zero(VIRTIO_BLK_T_DISCARD, 8, 8, 1, 16) == VIRTIO_BLK_S_UNSUPP, "a flag that discard does not have");
	CHECK(zero(VIRTIO_BLK_T_DISCARD, 8, 8, 0, 15) == VIRTIO_BLK_S_UNSUPP, "a part of a range");
	CHECK(zero(VIRTIO_BLK_T_DISCARD, 2047, 2, 0, 16) == VIRTIO_BLK_S_IOERR, "a range beyond the end");
	CHECK(zero(VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0, 16) == VIRTIO_BLK_S_IOERR, "a range that wraps");
	CHECK(zero(VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0, 16) == VIRTIO_BLK_S_IOERR, "2^32 - 1 sectors");
}

static void test_read_only(void)
{
	uint32_t w;
	char bytes[5];
	start(true);
	CHECK(blk_device(blk)->ops->features(blk_device(blk)) & 1ULL << VIRTIO_BLK_F_RO, "read-only is said");
	CHECK(request(VIRTIO_BLK_T_OUT, 1, 512, 0, &w) == VIRTIO_BLK_S_IOERR, "a write is refused all the same");
	CHECK(zero(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 16) == VIRTIO_BLK_S_IOERR, "so is a discard");
	CHECK(zero(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0, 16) == VIRTIO_BLK_S_IOERR, "and a write of zeroes");
	CHECK(pread(disk->segments[0].fd, bytes, 5, 512) == 5 && !memcmp(bytes, "hello", 5), "nothing has changed");
}

static void test_framing(void)
{
	uint32_t id, w;
	start(false);
	struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_IN, .sector = 1};
	memcpy(d.ram + header, &h, sizeof(h));
	fake_desc(q, 0, header, 7, NEXT, 1);
	fake_desc(q, 1, header + 7, 9, NEXT, 2);
	fake_desc(q, 2, data, 100, NEXT | WRITE, 3);
	fake_desc(q, 3, data + 1000, 413, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &w) && w == 513 && d.ram[data + 1412] == VIRTIO_BLK_S_OK &&
			!memcmp(d.ram + data, "hello", 5),
		"header, data and status framed oddly");

	fake_desc(q, 0, header, 15, NEXT, 1);
	fake_desc(q, 1, data, 513, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(d.needs_reset && !fake_used(q, &id, &w), "a header cut short breaks the device");
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(!fake_used(q, &id, &w), "which then stands still");
	start(false);
	fake_desc(q, 0, header, 16, 0, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(d.needs_reset, "no place for the status breaks the device");
	start(false);
	fake_desc(q, 0, header, 16, NEXT, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(d.needs_reset, "a loop breaks the device");
	start(false);
	CHECK(request(VIRTIO_BLK_T_IN, 1, 512, WRITE, &w) == VIRTIO_BLK_S_OK, "a fresh start works");
	for (unsigned i = 0; i < 300; i++) {
		if (request(VIRTIO_BLK_T_IN, i, 512, WRITE, &w) != 0)
			break;
		if (i == 299)
			CHECK(true, "300 requests in a row");
	}
	struct husk_error err;
	struct blk *none;
	CHECK(blk_create(disk, "123456789012345678901", 1, &none, &err) == -EINVAL, "a serial of 21 bytes");
	CHECK(blk_create(disk, "", 0, &none, &err) == -EINVAL, "no queues");
	uint64_t capacity[2] = {1, 1};
	blk_device(blk)->ops->config_read(blk_device(blk), 0, capacity, 8);
	CHECK(capacity[0] == 2048 && capacity[1] == 1, "the capacity in sectors");
	blk_device(blk)->ops->config_read(blk_device(blk), 240, capacity, 16);
	CHECK(capacity[0] == 0 && capacity[1] == 0, "zeroes behind the configuration");
}

/** Every queue of several, and what the device says of itself. */
static void test_queues(void)
{
	struct virtio_blk_config config;
	uint32_t id, w;
	blk_destroy(blk);
	if (blk_create(disk, "serial", 4, &blk, NULL) < 0)
		return;
	struct virtio_device *device = blk_device(blk);
	for (unsigned i = 0; i < 4; i++)
		fake_queue(&d, i, 64);
	fake_attach(&d, device, 4, FEATURES | 1ULL << VIRTIO_BLK_F_MQ);
	device->ops->config_read(device, 0, &config, sizeof(config));
	CHECK(device->ops->features(device) & 1ULL << VIRTIO_BLK_F_MQ && config.num_queues == 4,
		"four queues are said");
	CHECK(config.seg_max == 126 && config.blk_size == 512 && config.max_discard_seg == 16 &&
			config.max_write_zeroes_seg == 16 && config.write_zeroes_may_unmap == 1,
		"so are the limits");
	memset(d.interrupts, 0, sizeof(d.interrupts));
	struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_IN, .sector = 1};
	memcpy(d.ram + header, &h, sizeof(h));
	unsigned fine = 0;
	for (unsigned i = 4; i-- > 0;) {
		struct fake_queue *queue = &d.queues[i];
		memset(d.ram + data, 0, 512);
		fake_desc(queue, 0, header, 16, NEXT, 1);
		fake_desc(queue, 1, data, 512, NEXT | WRITE, 2);
		fake_desc(queue, 2, status, 1, WRITE, 0);
		fake_offer(queue, 0);
		fake_kick(&d, i);
		fine += fake_used(queue, &id, &w) && w == 513 && !memcmp(d.ram + data, "hello", 5) &&
			d.interrupts[i] == 1;
	}
	CHECK(fine == 4, "each is served, and told, on its own");
	for (unsigned kind = 0; kind < FAKE_MALFORMED; kind++) {
		virtio_reset(device);
		for (unsigned i = 0; i < 4; i++)
			fake_queue(&d, i, 64);
		fake_attach(&d, device, 4, FEATURES | 1ULL << VIRTIO_BLK_F_MQ);
		const char *what = fake_malformed(&d, kind % 4, kind);
		fake_kick(&d, kind % 4);
		CHECK(d.needs_reset && !fake_used(&d.queues[kind % 4], &id, &w), what);
	}
}

/** Buffers that overlap: the same page as header, data and status. */
static void test_overlap(void)
{
	uint32_t id, w;
	start(false);
	struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_IN, .sector = 1};
	memcpy(d.ram + data, &h, sizeof(h));
	fake_desc(q, 0, data, 16, NEXT, 1);
	fake_desc(q, 1, data, 512, NEXT | WRITE, 2);
	fake_desc(q, 2, data, 1, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &w) && w == 513 && d.ram[data] == VIRTIO_BLK_S_OK &&
			!memcmp(d.ram + data + 1, "ello", 4),
		"a header that the answer overwrites was read before");
	fake_desc(q, 0, header, 16, NEXT, 1);
	memcpy(d.ram + header, &h, sizeof(h));
	for (uint16_t i = 1; i < 9; i++) /* the same 16 MiB again and again, the rings among them */
		fake_desc(q, i, 4096, 16u << 20, NEXT | WRITE, (uint16_t)(i + 1));
	fake_desc(q, 9, status, 1, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, 0);
	CHECK(fake_used(q, &id, &w) && w == 1 && d.ram[status] == VIRTIO_BLK_S_IOERR, "more bytes than the disk has");
}

int main(void)
{
	test_requests();
	test_zeroes();
	test_read_only();
	test_framing();
	test_queues();
	test_overlap();
	blk_destroy(blk);
	disk_close(disk);
	fake_destroy(&d);
	return tap_done();
}
