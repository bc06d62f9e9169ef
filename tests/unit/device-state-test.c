/* SPDX-License-Identifier: Apache-2.0 */
/* device-state-test.c - every device saved and loaded, and envelopes that nobody saved: cut short, changed, of another device */
#include "tests/unit/fake_driver.h"

#include "base/cleanup.h"
#include "base/tlv.h"
#include "tests/tap.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/vconsole.h"
#include "vmm/virtio/vsock.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <sys/mman.h>

#define WRITE VRING_DESC_F_WRITE

static struct fake_driver d;
static struct loop loop;
static struct disk *disks[2]; /* the same, and another */
static struct blk *blk, *other_blk;
static struct rng *rng;
static struct virtio_console *console;
static struct balloon *balloon;
static struct vsock *vsock;

static int no_port(void *data, uint32_t port)
{
	return -ECONNREFUSED;
}

static void make_devices(void)
{
	for (unsigned i = 0; i < 2; i++) {
		int fd = memfd_create("disk", MFD_CLOEXEC);
		if (ftruncate(fd, (1 + i) << 20) < 0 || disk_open_file(fd, false, &disks[i], NULL) < 0)
			printf("Bail out! no disk\n");
	}
	if (loop_init(&loop, NULL) < 0 || blk_create(disks[0], "serial", 2, &blk, NULL) < 0 ||
		blk_create(disks[1], "serial", 2, &other_blk, NULL) < 0 || rng_create(&rng, NULL) < 0 ||
		vconsole_create(&console, NULL) < 0 || balloon_create(&d.memory, &balloon, NULL) < 0 ||
		vsock_create(&loop, 3, no_port, NULL, &vsock, NULL) < 0)
		printf("Bail out! no devices\n");
}

static void destroy_devices(void)
{
	blk_destroy(blk);
	blk_destroy(other_blk);
	rng_destroy(rng);
	vconsole_destroy(console);
	balloon_destroy(balloon);
	vsock_destroy(vsock);
	for (unsigned i = 0; i < 2; i++)
		disk_close(disks[i]);
	loop_destroy(&loop);
}

static uint64_t all_features(const struct virtio_device *device)
{
	return device->ops->features(device) | VIRTIO_QUEUE_FEATURES;
}

static void run(struct virtio_device *device)
{
	fake_destroy(&d);
	fake_init(&d);
	for (unsigned i = 0; i < device->n_queues; i++)
		fake_queue(&d, i, 64);
	fake_attach(&d, device, device->n_queues, all_features(device));
}

static bool same_queues(const struct virtio_device *device, const struct virtqueue *queues)
{
	for (unsigned i = 0; i < device->n_queues; i++) {
		const struct virtqueue *a = &device->queues[i], *b = &queues[i];
		if (a->ready != b->ready || a->size != b->size || a->next_avail != b->next_avail ||
			a->next_used != b->next_used || a->desc != b->desc || a->avail != b->avail ||
			a->used != b->used || a->event_idx != b->event_idx || a->indirect != b->indirect)
			return false;
	}
	return true;
}

static bool stopped(const struct virtio_device *device)
{
	for (unsigned i = 0; i < device->n_queues; i++)
		if (device->queues[i].ready)
			return false;
	return device->features == 0;
}

/** What is done to every device. */
static void test_device(struct virtio_device *device)
{
	CLEANUP_BUFFER struct buffer saved = {0}, again = {0};
	struct virtqueue queues[VIRTIO_QUEUES_MAX];
	struct husk_error err = {0};
	char text[sizeof(err.message) + 100];

	run(device);
	device->queues[0].next_avail = 7; /* three in work, and the guest's ring says nothing of it */
	device->queues[0].next_used = 4;
	memcpy(queues, device->queues, sizeof(queues));
	int rc = virtio_save(device, &saved);
	snprintf(text, sizeof(text), "%s: saved in %zu bytes", device->ops->name, saved.size);
	CHECK(rc == 0 && saved.size > TLV_HEADER_SIZE, text);
	virtio_reset(device);
	rc = virtio_load(device, &d.memory, buffer_bytes(&saved), saved.size, &err);
	snprintf(text, sizeof(text), "%s: loaded %s", device->ops->name, rc < 0 ? err.message : "");
	CHECK(rc == 0 && same_queues(device, queues) && device->features == all_features(device) && !device->broken,
		text);
	snprintf(text, sizeof(text), "%s: saved again, it is the same", device->ops->name);
	CHECK(virtio_save(device, &again) == 0 && again.size == saved.size &&
			!memcmp(buffer_bytes(&again), buffer_bytes(&saved), saved.size),
		text);

	unsigned taken = 0;
	for (size_t n = 0; n < saved.size; n++)
		taken += virtio_load(device, &d.memory, buffer_bytes(&saved), n, &err) == 0 || !stopped(device);
	snprintf(text, sizeof(text), "%s: no envelope that is cut short is taken", device->ops->name);
	CHECK(taken == 0, text);
	for (size_t bit = 0; bit < saved.size * 8; bit++) {
		buffer_bytes(&saved)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		taken +=
			virtio_load(device, &d.memory, buffer_bytes(&saved), saved.size, &err) == 0 || !stopped(device);
		buffer_bytes(&saved)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	snprintf(text, sizeof(text), "%s: none with a bit changed", device->ops->name);
	CHECK(taken == 0, text);

	device->ops->reset ? device->ops->reset(device) : (void)0;
	rc = virtio_load(device, &d.memory, buffer_bytes(&saved), saved.size, &err);
	virtio_broken(device, "broken");
	again.size = 0;
	rc = rc < 0 ? rc : virtio_save(device, &again);
	virtio_reset(device);
	rc = rc < 0 ? rc : virtio_load(device, &d.memory, buffer_bytes(&again), again.size, &err);
	snprintf(text, sizeof(text), "%s: a device that was broken is broken", device->ops->name);
	CHECK(rc == 0 && device->broken, text);
	virtio_reset(device);
}

/** Mutations under a right checksum: whatever they say, what is taken can be kicked, saved and reset. */
static void test_mutations(struct virtio_device *device)
{
	CLEANUP_BUFFER struct buffer saved = {0}, again = {0};
	unsigned taken = 0, refused = 0;
	uint32_t random = 12345;
	char text[200];
	run(device);
	if (virtio_save(device, &saved) < 0)
		return;
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t copy[4096];
		memcpy(copy, buffer_bytes(&saved), saved.size);
		for (unsigned n = 0; n < 1 + i % 3; n++) {
			random = random * 1664525 + 1013904223;
			copy[TLV_HEADER_SIZE + (random >> 8) % (saved.size - TLV_HEADER_SIZE)] ^=
				(uint8_t)(1u << random / 0x20000000);
		}
		uint32_t crc = crc32_ieee(0, copy + TLV_HEADER_SIZE, saved.size - TLV_HEADER_SIZE);
		memcpy(copy + 12, &crc, sizeof(crc));
		if (virtio_load(device, &d.memory, copy, saved.size, NULL) < 0) {
			refused += stopped(device);
			continue;
		}
		taken++;
		for (unsigned queue = 0; queue < device->n_queues; queue++)
			if (virtio_usable(device, queue))
				device->ops->kick(device, queue);
		again.size = again.start = 0;
		virtio_save(device, &again);
	}
	snprintf(text, sizeof(text), "%s: 20000 changes under a right checksum: %u taken, %u refused",
		device->ops->name, taken, refused);
	CHECK(taken + refused == 20000 && taken && refused, text);
	virtio_reset(device);
}

/* ---- envelopes made by hand ---- */

struct __attribute__((packed)) queue_entry {
	uint16_t index, size, next_avail, next_used;
	uint64_t desc, avail, used;
};

static struct buffer envelope(uint32_t id, uint64_t features)
{
	struct buffer b = {0};
	tlv_begin(&b, 0x4f495648, 1);
	tlv_put_u32(&b, 1, id);
	tlv_put_u64(&b, 2, features);
	return b;
}

static int load(struct virtio_device *device, struct buffer *b)
{
	tlv_seal(b);
	int rc = virtio_load(device, &d.memory, buffer_bytes(b), b->size, NULL);
	buffer_free(b);
	return rc;
}

static int load_queue(const struct queue_entry *entry, unsigned times)
{
	struct buffer b = envelope(4, VIRTIO_QUEUE_FEATURES);
	while (times--)
		tlv_put(&b, 4, entry, sizeof(*entry));
	return load(rng_device(rng), &b);
}

static void test_envelopes(void)
{
	struct virtio_device *device = rng_device(rng);
	struct buffer b;
	run(device);
	b = envelope(4, VIRTIO_QUEUE_FEATURES);
	CHECK(load(device, &b) == 0 && !device->queues[0].ready, "a device whose queue does not run");
	b = envelope(5, VIRTIO_QUEUE_FEATURES);
	CHECK(load(device, &b) == -EINVAL, "the state of another kind of device");
	b = envelope(4, VIRTIO_QUEUE_FEATURES | 1);
	CHECK(load(device, &b) == -EINVAL, "a feature that is not offered");
	b = envelope(4, 0);
	tlv_put_u32(&b, 1, 4);
	CHECK(load(device, &b) == -EINVAL, "an entry twice");
	b = envelope(4, 0);
	tlv_put_u32(&b, 99, 4);
	CHECK(load(device, &b) == -EINVAL, "an entry that nobody knows");
	b = envelope(4, 0);
	tlv_put_u32(&b, 3, 2);
	CHECK(load(device, &b) == -EINVAL, "broken, but not quite");
	b = envelope(4, 0);
	tlv_put(&b, 5, "x", 1);
	CHECK(load(device, &b) == -EINVAL, "a part of its own for a device that has none");
	b = envelope(2, 0);
	CHECK(load(blk_device(blk), &b) == -EINVAL, "none for one that has");
	b = (struct buffer){0};
	tlv_begin(&b, 0x4f495648, 1);
	tlv_put_u32(&b, 1, 4);
	CHECK(load(device, &b) == -EINVAL, "an envelope without features");
	b = envelope(4, 0);
	uint8_t filler[70000] = {0};
	tlv_put(&b, 5, filler, sizeof(filler));
	CHECK(load(device, &b) == -EFBIG, "an envelope that is too large");

	const struct virtqueue_setup s = fake_setup(&d, 0, 0);
	const struct queue_entry fine = {0, 64, 0, 0, s.desc, s.avail, s.used};
	CHECK(load_queue(&fine, 1) == 0 && device->queues[0].ready, "a queue");
	CHECK(load_queue(&fine, 2) == -EINVAL && stopped(device), "twice");
	struct queue_entry q = fine;
	q.index = 1;
	CHECK(load_queue(&q, 1) == -EINVAL && stopped(device), "a queue that the device does not have");
	q.index = 0xffff;
	CHECK(load_queue(&q, 1) == -EINVAL, "a queue that no device has");
	q = fine;
	q.size = 63;
	CHECK(load_queue(&q, 1) == -EINVAL && stopped(device), "63 entries");
	q = fine;
	q.desc = FAKE_RAM;
	CHECK(load_queue(&q, 1) == -EFAULT && stopped(device), "a ring outside of memory");
	q = fine;
	q.used = UINT64_MAX - 3;
	CHECK(load_queue(&q, 1) == -EFAULT, "a ring that wraps");
	q = fine;
	q.next_avail = 65;
	CHECK(load_queue(&q, 1) == -EINVAL && stopped(device), "more in work than the queue holds");
	q.next_avail = 3;
	q.next_used = 65535;
	CHECK(load_queue(&q, 1) == 0 && device->queues[0].next_used == 65535, "counts that wrap");
}

static void test_parts(void)
{
	CLEANUP_BUFFER struct buffer saved = {0};
	struct husk_error err;
	uint32_t id, n;
	run(blk_device(blk));
	CHECK(virtio_save(blk_device(blk), &saved) == 0 &&
			virtio_load(blk_device(other_blk), &d.memory, buffer_bytes(&saved), saved.size, &err) ==
				-EINVAL &&
			strstr(err.message, "of another disk"),
		"a disk of another size");

	/* the vsock's connections are gone, and the guest is told so */
	run(vsock_device(vsock));
	uint64_t event = fake_alloc(&d, 64);
	d.ram[event] = 0xff;
	fake_desc(&d.queues[2], 0, event, 4, WRITE, 0);
	fake_offer(&d.queues[2], 0);
	fake_kick(&d, 2);
	CHECK(!fake_used(&d.queues[2], &id, &n), "a vsock says nothing of itself");
	saved.size = 0;
	CHECK(virtio_save(vsock_device(vsock), &saved) == 0, "it is saved");
	CHECK(virtio_load(vsock_device(vsock), &d.memory, buffer_bytes(&saved), saved.size, NULL) == 0, "and loaded");
	fake_kick(&d, 2);
	CHECK(fake_used(&d.queues[2], &id, &n) && n == 4 && d.ram[event] == 0 && d.interrupts[2],
		"then the guest hears that its connections are gone");
	fake_offer(&d.queues[2], 0);
	fake_kick(&d, 2);
	CHECK(!fake_used(&d.queues[2], &id, &n), "once");

	run(vsock_device(vsock));
	saved.size = 0;
	virtio_save(vsock_device(vsock), &saved);
	virtio_load(vsock_device(vsock), &d.memory, buffer_bytes(&saved), saved.size, NULL);
	fake_desc(&d.queues[2], 0, event, 3, WRITE, 0);
	fake_offer(&d.queues[2], 0);
	fake_kick(&d, 2);
	CHECK(d.needs_reset && !fake_used(&d.queues[2], &id, &n), "a buffer too small for it breaks the device");
	virtio_reset(vsock_device(vsock));
}

/** A console whose chain had gone out in part goes on where it was. */
static size_t collected;
static char collection[64];

static size_t collect(void *room, const struct iovec *iov, unsigned n_iov)
{
	size_t n = iov_gather(iov, n_iov, collection + collected, *(size_t *)room);
	collected += n;
	*(size_t *)room -= n;
	return n;
}

static void test_console(void)
{
	static const struct vconsole_end end = {.output = collect};
	CLEANUP_BUFFER struct buffer saved = {0};
	struct virtio_device *device = vconsole_device(console);
	struct virtio_console *restored;
	size_t room = 6;
	uint32_t id, n;
	run(device);
	vconsole_resize(console, 100, 50);
	vconsole_set_end(console, 0, &end, &room);
	uint64_t text = fake_alloc(&d, 64);
	memcpy(d.ram + text, "before and after", 16);
	fake_desc(&d.queues[1], 0, text, 16, 0, 0);
	fake_offer(&d.queues[1], 0);
	fake_kick(&d, 1);
	CHECK(virtio_save(device, &saved) == 0, "a console that is held in a chain");
	if (vconsole_create(&restored, NULL) < 0)
		return;
	room = 100;
	vconsole_set_end(restored, 0, &end, &room);
	CHECK(virtio_load(vconsole_device(restored), &d.memory, buffer_bytes(&saved), saved.size, NULL) == 0,
		"another");
	fake_attach(&d, vconsole_device(restored), 0, vconsole_device(restored)->features);
	fake_kick(&d, 1);
	CHECK(collected == 16 && !memcmp(collection, "before and after", 16), "goes on with the next byte");
	CHECK(fake_used(&d.queues[1], &id, &n), "and gives the chain back");
	struct virtio_console_config config;
	vconsole_device(restored)->ops->config_read(vconsole_device(restored), 0, &config, sizeof(config));
	CHECK(config.cols == 100 && config.rows == 50, "it knows its size");
	vconsole_destroy(restored);
	vconsole_set_end(console, 0, NULL, NULL);
}

static void test_balloon(void)
{
	CLEANUP_BUFFER struct buffer saved = {0};
	struct virtio_device *device = balloon_device(balloon);
	uint32_t actual = 5;
	run(device);
	balloon_set_target(balloon, 9 * 4096);
	device->ops->config_write(device, 4, &actual, 4);
	virtio_save(device, &saved);
	virtio_reset(device);
	balloon_set_target(balloon, 0);
	CHECK(virtio_load(device, &d.memory, buffer_bytes(&saved), saved.size, NULL) == 0 &&
			balloon_target(balloon) == 9 * 4096 && balloon_actual(balloon) == 5 * 4096,
		"a balloon is as large as it was");
}

int main(void)
{
	fake_init(&d);
	make_devices();
	struct virtio_device *devices[] = {blk_device(blk), rng_device(rng), vconsole_device(console),
		balloon_device(balloon), vsock_device(vsock)};
	for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
		test_device(devices[i]);
		test_mutations(devices[i]);
	}
	test_envelopes();
	test_parts();
	test_console();
	test_balloon();
	destroy_devices();
	fake_destroy(&d);
	return tap_done();
}
