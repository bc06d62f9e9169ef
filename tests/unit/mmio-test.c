/* SPDX-License-Identifier: Apache-2.0 */
/* mmio-test.c - the virtio-mmio transport: a driver that goes by the book, every other order, and what is saved and loaded */
#include "tests/unit/bench_driver.h"

#include "base/tlv.h"
#include "tests/tap.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/rng.h"

#include <endian.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <unistd.h>

#define ACK VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define VERSION_1 (1ULL << VIRTIO_F_VERSION_1)

static struct bench b;

static void create(const char *device)
{
	for (unsigned i = 0; i < bench_n_devices; i++)
		if (strcmp(bench_devices[i].name, device) == 0)
			bench_create(&b, &bench_devices[i], &bench_mmio);
}

/** The status after @features were offered with FEATURES_OK. */
static uint32_t negotiate(uint64_t features)
{
	bench_write(&b, VIRTIO_MMIO_STATUS, 0);
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK | DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		bench_write(&b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		bench_write(&b, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * i));
	}
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	return bench_read(&b, VIRTIO_MMIO_STATUS);
}

static uint64_t offered(void)
{
	uint64_t features = 0;
	for (uint32_t i = 0; i < 2; i++) {
		bench_write(&b, VIRTIO_MMIO_DEVICE_FEATURES_SEL, i);
		features |= (uint64_t)bench_read(&b, VIRTIO_MMIO_DEVICE_FEATURES) << 32 * i;
	}
	return features;
}

static void test_negotiation(void)
{
	create("blk");
	CHECK(bench_read(&b, VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976 && bench_read(&b, VIRTIO_MMIO_VERSION) == 2 &&
			bench_read(&b, VIRTIO_MMIO_DEVICE_ID) == 2,
		"magic, version 2, a block device");
	CHECK(offered() & VERSION_1 && offered() & 1ULL << VIRTIO_BLK_F_FLUSH, "features of queue and device");
	bench_write(&b, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	CHECK(bench_read(&b, VIRTIO_MMIO_DEVICE_FEATURES) == 0, "no features above 64");
	CHECK(negotiate(offered()) & FEATURES_OK, "all of them together are fine");
	CHECK(!(negotiate(offered() & ~VERSION_1) & FEATURES_OK), "without VERSION_1 they are not");
	CHECK(!(negotiate(offered() | 1ULL << 63) & FEATURES_OK), "an unknown feature is not");
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	CHECK(bench_read(&b, VIRTIO_MMIO_STATUS) == (ACK | DRIVER), "and brings no DRIVER_OK either");
	negotiate(VERSION_1);
	bench_write(&b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	bench_write(&b, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	CHECK(b.device->features == VERSION_1, "features do not change after FEATURES_OK");
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK);
	CHECK(bench_read(&b, VIRTIO_MMIO_STATUS) == (ACK | DRIVER | FEATURES_OK | DRIVER_OK),
		"status does not go back");
	bench_write(&b, VIRTIO_MMIO_STATUS, NEEDS_RESET | 0xffffff00);
	CHECK(!(bench_read(&b, VIRTIO_MMIO_STATUS) & ~0xfu), "a driver does not set NEEDS_RESET, or bits above");
	bench_write(&b, VIRTIO_MMIO_STATUS, 0);
	CHECK(bench_read(&b, VIRTIO_MMIO_STATUS) == 0 && b.device->features == 0, "but to 0, which is a reset");
	for (uint32_t at = VIRTIO_MMIO_SHM_LEN_LOW; at <= VIRTIO_MMIO_SHM_BASE_HIGH; at += 4)
		CHECK(bench_read(&b, at) == UINT32_MAX, "there is no shared memory");
	bench_destroy(&b);
}

/** What queue 0 comes to when the driver says that it lies there. */
static bool queue_refused(uint32_t num, uint64_t desc, uint64_t avail, uint64_t used)
{
	negotiate(VERSION_1);
	b.raised = b.failures = 0;
	bench_write(&b, VIRTIO_MMIO_QUEUE_SEL, 0);
	bench_write(&b, VIRTIO_MMIO_QUEUE_NUM, num);
	const uint64_t places[] = {desc, avail, used};
	for (uint32_t i = 0; i < 3; i++) {
		bench_write(&b, VIRTIO_MMIO_QUEUE_DESC_LOW + 0x10 * i, (uint32_t)places[i]);
		bench_write(&b, VIRTIO_MMIO_QUEUE_DESC_LOW + 0x10 * i + 4, (uint32_t)(places[i] >> 32));
	}
	bench_write(&b, VIRTIO_MMIO_QUEUE_READY, 1);
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	return (bench_read(&b, VIRTIO_MMIO_STATUS) & NEEDS_RESET) && b.raised && b.failures == 1 &&
	       (bench_read(&b, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG) && !b.device->queues[0].ready;
}

static void test_queues(void)
{
	static const uint32_t sizes[] = {0, 3, 512, 1024, 1u << 31, UINT32_MAX};
	create("blk");
	CHECK(bench_start(&b), "a start");
	const struct fake_queue q = b.d.queues[0];
	CHECK(!queue_refused(64, q.desc_gpa, q.avail_gpa, q.used_gpa), "a queue in its place");
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		CHECK(queue_refused(sizes[i], q.desc_gpa, q.avail_gpa, q.used_gpa), "a queue of a wrong size");
	CHECK(queue_refused(64, q.desc_gpa + 8, q.avail_gpa, q.used_gpa), "descriptors that are not aligned");
	CHECK(queue_refused(64, q.desc_gpa, q.avail_gpa + 1, q.used_gpa), "an available ring that is not aligned");
	CHECK(queue_refused(64, q.desc_gpa, q.avail_gpa, q.used_gpa + 2), "a used ring that is not aligned");
	CHECK(queue_refused(64, FAKE_RAM - 16, q.avail_gpa, q.used_gpa), "descriptors across the end of memory");
	CHECK(queue_refused(64, q.desc_gpa, UINT64_MAX - 1, q.used_gpa), "an available ring at 2^64");
	CHECK(queue_refused(64, q.desc_gpa, q.avail_gpa, q.used_gpa | 1ULL << 32), "a used ring above 4 GiB");
	CHECK(bench_start(&b) && b.kind->request(&b), "a reset cures it");

	bench_write(&b, VIRTIO_MMIO_QUEUE_SEL, 1);
	CHECK(bench_read(&b, VIRTIO_MMIO_QUEUE_NUM_MAX) == 256 && bench_read(&b, VIRTIO_MMIO_QUEUE_READY) == 1,
		"the second queue");
	for (uint32_t sel = 2; sel; sel *= 2) {
		bench_write(&b, VIRTIO_MMIO_QUEUE_SEL, sel);
		bench_write(&b, VIRTIO_MMIO_QUEUE_NUM, 8);
		bench_write(&b, VIRTIO_MMIO_QUEUE_READY, 1);
		if (bench_read(&b, VIRTIO_MMIO_QUEUE_NUM_MAX) || bench_read(&b, VIRTIO_MMIO_QUEUE_READY))
			CHECK(false, "queues that do not exist");
	}
	bench_write(&b, VIRTIO_MMIO_QUEUE_SEL, 0);
	bench_write(&b, VIRTIO_MMIO_QUEUE_NUM, 3);
	bench_write(&b, VIRTIO_MMIO_QUEUE_DESC_LOW, 1);
	bench_write(&b, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	CHECK(b.kind->request(&b) && !b.failures, "a queue that runs does not move, and DRIVER_OK again is nothing");
	bench_write(&b, VIRTIO_MMIO_QUEUE_READY, 0);
	CHECK(!b.device->queues[0].ready && bench_read(&b, VIRTIO_MMIO_QUEUE_READY) == 0, "a queue stops");
	bench_buffer(&b, 0, 0, 16, false);
	CHECK(!b.failures, "and is not read then");
	bench_destroy(&b);
}

static void test_doorbell(void)
{
	uint64_t one = 1;
	uint32_t n;
	create("rng");
	bench_start(&b);
	fake_desc(&b.d.queues[0], 0, b.page, 64, VRING_DESC_F_WRITE, 0);
	fake_offer(&b.d.queues[0], 0);
	bench_write(&b, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	CHECK(!bench_used(&b, 0, &n), "a doorbell's write runs nothing");
	bench_settle(&b);
	CHECK(bench_used(&b, 0, &n) && n == 64, "the loop does");
	fake_offer(&b.d.queues[0], 0);
	CHECK(write(virtio_mmio_kick_fd(b.mmio), &one, sizeof(one)) == sizeof(one), "the eventfd is rung");
	bench_settle(&b);
	CHECK(bench_used(&b, 0, &n), "which is the same doorbell");
	bench_write(&b, VIRTIO_MMIO_QUEUE_NOTIFY, UINT32_MAX);
	bench_settle(&b);
	CHECK(!b.failures, "a doorbell of a queue that does not exist");
	fake_offer(&b.d.queues[0], 0);
	bench_write(&b, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	bench_write(&b, VIRTIO_MMIO_STATUS, 0);
	bench_settle(&b);
	CHECK(!bench_used(&b, 0, &n), "a reset is before what the doorbell was rung for");
	bench_destroy(&b);
}

/** A used ring that is not zeroed before the queue starts. */
static void test_old_ring(void)
{
	CLEANUP_BUFFER struct buffer state = {0};
	struct husk_error err;
	create("rng");
	bench_start(&b);
	b.d.queues[0].used->idx = 0x1234;
	CHECK(bench_mmio.start(&b, VIRTIO_QUEUE_FEATURES), "a start over an old used ring");
	bench_buffer(&b, 0, 0, 64, true);
	CHECK(b.d.queues[0].used->idx == 1, "begins at index 0");
	CHECK(virtio_mmio_save(b.mmio, &state) == 0 &&
			virtio_mmio_load(b.mmio, buffer_bytes(&state), state.size, &err) == 0,
		"and can be saved and loaded");
	bench_destroy(&b);
}

/** What the driver sees when its line is raised. */
static uint32_t seen;

static void look(void *data)
{
	seen = bench_read(&b, VIRTIO_MMIO_INTERRUPT_STATUS);
	b.raised++;
}

static void ignore(void *data, const char *why)
{
}

static void test_interrupts(void)
{
	const struct virtio_mmio_setup setup = {
		.loop = &b.loop, .memory = &b.d.memory, .interrupt = look, .failed = ignore};
	create("balloon");
	virtio_mmio_destroy(b.mmio);
	CHECK(virtio_mmio_create(&setup, b.device, &b.mmio, NULL) == 0, "a slot with another line");
	balloon_set_target(b.parts[0], 4096);
	CHECK(b.raised == 0, "no interrupt before DRIVER_OK");
	bench_start(&b);
	uint32_t generation = bench_read(&b, VIRTIO_MMIO_CONFIG_GENERATION);
	balloon_set_target(b.parts[0], 8192);
	CHECK(b.raised == 1 && seen == VIRTIO_MMIO_INT_CONFIG, "InterruptStatus is there when the line rises");
	CHECK(bench_read(&b, VIRTIO_MMIO_CONFIG_GENERATION) != generation, "with another generation");
	CHECK(b.kind->request(&b) && b.raised >= 2 && seen == (VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING),
		"a line that was not acknowledged rises again");
	bench_write(&b, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING | 0xfffffff0);
	CHECK(bench_read(&b, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_CONFIG,
		"each cause is acknowledged alone");
	bench_write(&b, VIRTIO_MMIO_STATUS, 0);
	CHECK(bench_read(&b, VIRTIO_MMIO_INTERRUPT_STATUS) == 0, "a reset clears them");
	bench_destroy(&b);
}

static void test_config(void)
{
	uint64_t capacity = 0, wide = UINT64_MAX;
	uint8_t byte = 0xff;
	create("blk");
	for (unsigned n = 1; n <= 8; n *= 2)
		for (unsigned at = 0; at < 8; at += n)
			virtio_mmio_read(b.mmio, VIRTIO_MMIO_CONFIG + at, (uint8_t *)&capacity + at, n);
	CHECK(capacity == (1 << 20) / 512, "configuration in any width");
	virtio_mmio_read(b.mmio, VIRTIO_MMIO_CONFIG + 1, &byte, 1);
	CHECK(byte == 8, "at any place");
	virtio_mmio_read(b.mmio, VIRTIO_MMIO_CONFIG + 4096, &wide, 8);
	CHECK(wide == 0, "and zeroes behind it");
	virtio_mmio_write(b.mmio, VIRTIO_MMIO_CONFIG, &byte, 1);
	virtio_mmio_read(b.mmio, VIRTIO_MMIO_CONFIG, &byte, 1);
	CHECK(byte == 0, "what is not the driver's does not change");
	bench_destroy(&b);
}

/** Every offset, every width, some values; only whole aligned registers count. */
static void test_all_accesses(void)
{
	static const uint64_t values[] = {0, 1, 2, 0xff, 0x8000, 0xffffffff, UINT64_MAX};
	bool quiet = true;
	create("blk");
	for (unsigned v = 0; v < sizeof(values) / sizeof(values[0]); v++)
		for (uint32_t at = 0; at < 0x200; at++)
			for (unsigned n = 1; n <= 8; n++) {
				uint64_t value = 0;
				virtio_mmio_write(b.mmio, at, &values[v], n);
				virtio_mmio_read(b.mmio, at, &value, n);
				if (at < VIRTIO_MMIO_CONFIG && (n != 4 || at % 4) && value)
					quiet = false;
			}
	bench_settle(&b);
	CHECK(quiet, "accesses of a wrong width or place read zeroes");
	CHECK(bench_start(&b), "after all of them it starts");
	virtio_mmio_write(b.mmio, VIRTIO_MMIO_STATUS, &(uint64_t){0}, 8);
	virtio_mmio_write(b.mmio, VIRTIO_MMIO_STATUS, &(uint64_t){0}, 1);
	CHECK(bench_read(&b, VIRTIO_MMIO_STATUS) & DRIVER_OK, "and a wide or a narrow write writes nothing");
	CHECK(b.kind->request(&b), "and works");
	bench_destroy(&b);
}

static void test_spare(void)
{
	const struct virtio_mmio_setup setup = {
		.loop = &b.loop, .memory = &b.d.memory, .interrupt = look, .failed = ignore};
	struct husk_error err;
	create("rng");
	virtio_mmio_destroy(b.mmio);
	CHECK(virtio_mmio_create(&setup, NULL, &b.mmio, NULL) == 0, "a spare slot");
	CHECK(bench_read(&b, VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976 && bench_read(&b, VIRTIO_MMIO_DEVICE_ID) == 0,
		"has DeviceID 0");
	for (uint32_t at = 0x10; at < 0x200; at += 4) {
		bench_write(&b, at, UINT32_MAX);
		if (bench_read(&b, at))
			CHECK(false, "and nothing else");
	}
	bench_settle(&b);
	CHECK(virtio_mmio_fill(b.mmio, b.device, &err) == 0 && bench_read(&b, VIRTIO_MMIO_DEVICE_ID) == 4,
		"it gets its device");
	CHECK(virtio_mmio_fill(b.mmio, b.device, &err) == -EBUSY, "once");
	CHECK(bench_start(&b) && b.kind->request(&b), "which works");
	bench_destroy(&b);
}

/* ---- saved and loaded ---- */

/* mmio_state.c's */
#define TAG_DEVICE 3
#define AT_STATUS (TLV_HEADER_SIZE + TLV_ENTRY_SIZE)
#define AT_QUEUE (AT_STATUS + 32 + TLV_ENTRY_SIZE)

/** Make the checksums of an envelope, and of the one in it, right again. */
static void seal(uint8_t *bytes, size_t n, bool outer)
{
	uint32_t crc, size;
	uint16_t tag;
	for (size_t at = TLV_HEADER_SIZE; outer && at + TLV_ENTRY_SIZE <= n; at += TLV_ENTRY_SIZE + size) {
		memcpy(&tag, bytes + at, sizeof(tag));
		memcpy(&size, bytes + at + 4, sizeof(size));
		if (size > n - at - TLV_ENTRY_SIZE)
			break;
		if (tag == TAG_DEVICE && size >= TLV_HEADER_SIZE)
			seal(bytes + at + TLV_ENTRY_SIZE, size, false);
	}
	crc = htole32(crc32_ieee(0, bytes + TLV_HEADER_SIZE, n - TLV_HEADER_SIZE));
	memcpy(bytes + 12, &crc, sizeof(crc));
}

/** Load @bytes; when that is allowed all of it has to make sense still. */
static bool load(const void *bytes, size_t n)
{
	struct husk_error err;
	if (virtio_mmio_load(b.mmio, bytes, n, &err) == 0) {
		for (unsigned i = 0; i < b.kind->n_queues; i++)
			bench_kick(&b, i);
		return true;
	}
	return false;
}

static void test_state_of(const char *device)
{
	CLEANUP_BUFFER struct buffer saved = {0}, again = {0};
	char line[128];
	create(device);
	CHECK(bench_start(&b) && b.kind->request(&b), device);
	CHECK(virtio_mmio_save(b.mmio, &saved) == 0, "is saved");
	bench_write(&b, VIRTIO_MMIO_STATUS, 0);
	b.raised = 0;
	CHECK(load(buffer_bytes(&saved), saved.size), "and loaded");
	CHECK(b.raised, "what was not acknowledged is raised again");
	CHECK(virtio_mmio_save(b.mmio, &again) == 0 && again.size == saved.size &&
			memcmp(buffer_bytes(&again), buffer_bytes(&saved), saved.size) == 0,
		"into the same state");
	CHECK(bench_read(&b, VIRTIO_MMIO_STATUS) & DRIVER_OK && b.kind->request(&b), "the driver goes on");

	bool fine = true;
	unsigned taken = 0;
	for (size_t n = 0; n < saved.size; n++)
		fine = fine && !load(buffer_bytes(&saved), n);
	CHECK(fine, "cut short it is refused");
	CHECK(bench_read(&b, VIRTIO_MMIO_STATUS) == 0 && !b.device->queues[0].ready,
		"which leaves a device that is reset");
	uint8_t *changed = malloc(saved.size);
	for (size_t at = 0; at < saved.size; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(changed, buffer_bytes(&saved), saved.size);
			changed[at] ^= (uint8_t)(1u << bit);
			fine = fine && !load(changed, saved.size);
			seal(changed, saved.size, true);
			taken += load(changed, saved.size);
		}
	CHECK(fine, "changed in a bit it is refused");
	snprintf(line, sizeof(line), "changed with its checksum it is refused, or makes sense (%u of %zu)", taken,
		saved.size * 8);
	CHECK(taken < saved.size * 4, line);
	static const struct {
		size_t at;
		uint32_t flip;
		const char *what;
	} lies[] = {
		{AT_STATUS, DRIVER_OK, "a device that runs without DRIVER_OK"},
		{AT_STATUS, NEEDS_RESET, "a device that needs a reset and is not broken"},
		{AT_QUEUE + 4, 1, "a queue that runs and is not ready"},
		{AT_QUEUE, 0x60, "a queue of another size"},
		{AT_QUEUE + 8, 0x40, "a queue in another place"},
	};
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint32_t value;
		memcpy(changed, buffer_bytes(&saved), saved.size);
		memcpy(&value, changed + lies[i].at, sizeof(value));
		value ^= htole32(lies[i].flip);
		memcpy(changed + lies[i].at, &value, sizeof(value));
		seal(changed, saved.size, true);
		CHECK(!load(changed, saved.size), lies[i].what);
	}
	free(changed);
	CHECK(bench_start(&b) && b.kind->request(&b), "and the device lives");
	bench_destroy(&b);
}

static void test_state(void)
{
	CLEANUP_BUFFER struct buffer spare = {0}, broken = {0};
	const struct virtio_mmio_setup setup = {
		.loop = &b.loop, .memory = &b.d.memory, .interrupt = look, .failed = ignore};
	struct virtio_mmio *slot;
	struct husk_error err;

	for (unsigned i = 0; i < bench_n_devices; i++)
		test_state_of(bench_devices[i].name);
	create("rng");
	CHECK(virtio_mmio_create(&setup, NULL, &slot, NULL) == 0 && virtio_mmio_save(slot, &spare) == 0,
		"a spare slot");
	CHECK(virtio_mmio_load(slot, buffer_bytes(&spare), spare.size, &err) == 0, "is loaded into one");
	CHECK(virtio_mmio_load(b.mmio, buffer_bytes(&spare), spare.size, &err) == -EINVAL, "and into no other");
	bench_start(&b);
	fake_offer(&b.d.queues[0], 999);
	bench_kick(&b, 0);
	CHECK(virtio_mmio_save(b.mmio, &broken) == 0 && load(buffer_bytes(&broken), broken.size), "a broken device");
	CHECK(bench_mmio.needs_reset(&b), "stays so");
	CHECK(virtio_mmio_load(slot, buffer_bytes(&broken), broken.size, &err) == -EINVAL,
		"a spare slot takes no device");
	CHECK(bench_start(&b) && b.kind->request(&b), "until it is reset");
	virtio_mmio_destroy(slot);
	bench_destroy(&b);
}

int main(void)
{
	test_negotiation();
	test_queues();
	test_doorbell();
	test_old_ring();
	test_interrupts();
	test_config();
	test_all_accesses();
	test_spare();
	test_state();
	return tap_done();
}
