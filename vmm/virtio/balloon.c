/* SPDX-License-Identifier: Apache-2.0 */
/* balloon.c - virtio-balloon (theory of operation: balloon.h) */
#include "vmm/virtio/balloon.h"

#include "base/loop.h"

#include <endian.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#define QUEUES 5
#define INFLATE_QUEUE 0
#define DEFLATE_QUEUE 1
#define STATS_QUEUE 2
#define PAGE_SIZE (1u << VIRTIO_BALLOON_PFN_SHIFT)
#define PAGES_PER_CHAIN 16384 /* Linux names 256 at once */
#define PAGES_PER_KICK 4096 /* each may be a system call; then the other devices get their turn */
#define CHAINS_PER_KICK 64
#define STATS_ENTRIES_MAX 64
#define SAVED_VERSION 1

struct balloon {
	struct virtio_device device;
	struct memory *memory;
	struct virtio_balloon_config config;
	bool stats_wait; /* the guest's statistics have been read, its buffer is still in the queue */
	struct balloon_stats stats;
	struct balloon_counts counts;
	struct virtqueue_chain chain;
	uint32_t pfns[PAGES_PER_CHAIN];
};

static struct balloon *from_device(const struct virtio_device *device)
{
	return (struct balloon *)device;
}

static uint64_t balloon_features(const struct virtio_device *device)
{
	return 1ULL << VIRTIO_BALLOON_F_STATS_VQ | 1ULL << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
	       1ULL << VIRTIO_BALLOON_F_REPORTING;
}

static uint32_t ram_pages(const struct balloon *b)
{
	uint64_t bytes = 0;
	for (unsigned i = 0; i < b->memory->n_regions; i++)
		bytes += b->memory->regions[i].size;
	return bytes / PAGE_SIZE < UINT32_MAX ? (uint32_t)(bytes / PAGE_SIZE) : UINT32_MAX;
}

static void balloon_config_read(const struct virtio_device *device, uint32_t offset, void *bytes, uint32_t n)
{
	virtio_config_copy(&from_device(device)->config, sizeof(struct virtio_balloon_config), offset, bytes, n);
}

/** `actual` is the driver's (§5.5.6.2), whole or byte by byte. */
static void balloon_config_write(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t n)
{
	struct balloon *b = from_device(device);
	const uint32_t first = offsetof(struct virtio_balloon_config, actual);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)offset + i;
		if (at >= first && at < first + sizeof(b->config.actual))
			((uint8_t *)&b->config.actual)[at - first] = ((const uint8_t *)bytes)[i];
	}
}

/** The next chain of @queue in b->chain: true, or false when there is none, or the device is broken. */
static bool next(struct balloon *b, struct virtqueue *q)
{
	int rc;
	while ((rc = virtqueue_pop(q, &b->chain)) == 0)
		if (!virtqueue_enable_kicks(q))
			return false;
	if (rc < 0)
		virtio_broken(&b->device, q->broken);
	return rc > 0;
}

/* ---- inflate ---- */

/** Give back @n pages from @pfn on. A run that is not all guest memory is tried page by page. */
static void discard_pages(struct balloon *b, uint64_t pfn, uint32_t n)
{
	if (n && memory_discard(b->memory, pfn * PAGE_SIZE, (uint64_t)n * PAGE_SIZE, NULL) == 0) {
		b->counts.inflated += (uint64_t)n * PAGE_SIZE;
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		if (n > 1)
			discard_pages(b, pfn + i, 1);
		else
			b->counts.refused++;
}

/** Give back the pages that b->pfns names, @n of them, neighbours together. Guests name them in either direction. */
static void inflate_pages(struct balloon *b, size_t n)
{
	uint64_t first = 0;
	uint32_t run = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t pfn = le32toh(b->pfns[i]);
		if (run && pfn == first + run) {
			run++;
		} else if (run && pfn + 1 == first) {
			first--;
			run++;
		} else {
			discard_pages(b, first, run);
			first = pfn;
			run = 1;
		}
	}
	discard_pages(b, first, run);
}

static void inflate(struct balloon *b, unsigned queue)
{
	struct virtqueue *q = &b->device.queues[queue];
	size_t pages = 0;
	virtqueue_disable_kicks(q);
	while (pages < PAGES_PER_KICK && next(b, q)) {
		uint64_t n = b->chain.read_bytes / sizeof(b->pfns[0]);
		if (!n || n > PAGES_PER_CHAIN || b->chain.read_bytes % sizeof(b->pfns[0])) {
			virtio_broken(&b->device, "a list of pages for the balloon of a wrong size");
			break;
		}
		iov_gather(b->chain.iov, b->chain.n_read, b->pfns, b->chain.read_bytes);
		inflate_pages(b, n);
		virtqueue_push(q, b->chain.head, 0);
		pages += n;
	}
	if (pages >= PAGES_PER_KICK)
		b->device.transport->again(b->device.transport_data, queue);
	virtio_notify(&b->device, queue);
}

/** Nothing is to be done for a page that the guest takes out again. */
static void deflate(struct balloon *b, unsigned queue)
{
	struct virtqueue *q = &b->device.queues[queue];
	unsigned n = 0;
	virtqueue_disable_kicks(q);
	while (n++ < CHAINS_PER_KICK && next(b, q))
		virtqueue_push(q, b->chain.head, 0);
	if (n > CHAINS_PER_KICK)
		b->device.transport->again(b->device.transport_data, queue);
	virtio_notify(&b->device, queue);
}

/* ---- free page reporting (§5.5.6.7) ---- */

/** The ranges are the writable buffers of the chain themselves. */
static void report_chain(struct balloon *b)
{
	const struct iovec *iov = &b->chain.iov[b->chain.n_read];
	for (unsigned i = 0; i < b->chain.n_write; i++) {
		uint64_t gpa = 0;
		if (memory_gpa(b->memory, iov[i].iov_base, &gpa) &&
			memory_discard(b->memory, gpa, iov[i].iov_len, NULL) == 0)
			b->counts.reported += iov[i].iov_len;
		else
			b->counts.refused++;
	}
}

static void report(struct balloon *b, unsigned queue)
{
	struct virtqueue *q = &b->device.queues[queue];
	unsigned ranges = 0, chains = 0;
	virtqueue_disable_kicks(q);
	while (ranges < PAGES_PER_KICK && chains++ < CHAINS_PER_KICK && next(b, q)) {
		report_chain(b);
		ranges += b->chain.n_write;
		virtqueue_push(q, b->chain.head, 0);
	}
	if (ranges >= PAGES_PER_KICK || chains > CHAINS_PER_KICK)
		b->device.transport->again(b->device.transport_data, queue);
	virtio_notify(&b->device, queue);
}

/* ---- statistics (§5.5.6.3) ---- */

static void read_stats(struct balloon *b)
{
	struct virtio_balloon_stat entries[STATS_ENTRIES_MAX];
	size_t n = iov_gather(b->chain.iov, b->chain.n_read, entries, sizeof(entries)) / sizeof(entries[0]);
	b->stats = (struct balloon_stats){.taken_ns = clock_monotonic_ns()};
	for (size_t i = 0; i < n; i++) {
		uint16_t tag = le16toh(entries[i].tag);
		if (tag >= VIRTIO_BALLOON_S_NR)
			continue;
		b->stats.value[tag] = le64toh(entries[i].val);
		b->stats.known |= 1u << tag;
	}
}

/** Read the guest's buffer, if there is one, and leave it where it is until the next statistics are wanted. */
static void take_stats(struct balloon *b, unsigned queue)
{
	struct virtqueue *q = &b->device.queues[queue];
	if (b->stats_wait || !next(b, q))
		return;
	read_stats(b);
	virtqueue_unpop(q, 1);
	b->stats_wait = true;
}

int balloon_ask_stats(struct balloon *b)
{
	struct virtqueue *q = &b->device.queues[STATS_QUEUE];
	if (!(b->device.features & 1ULL << VIRTIO_BALLOON_F_STATS_VQ) || !virtio_usable(&b->device, STATS_QUEUE))
		return -ENOTSUP;
	if (!b->stats_wait || !next(b, q))
		return -EAGAIN;
	b->stats_wait = false;
	virtqueue_push(q, b->chain.head, 0);
	take_stats(b, STATS_QUEUE); /* asks for the kick that the new buffer brings */
	virtio_notify(&b->device, STATS_QUEUE);
	return 0;
}

/* ---- the device ---- */

/** Who works on @queue. The standard gives each queue a fixed number (§5.5.2), Linux leaves those out that were not
 *  negotiated: a driver without STATS_VQ has its reports at 2, one with it at 3, and one that goes by the book at 4. */
static void balloon_kick(struct virtio_device *device, unsigned queue)
{
	struct balloon *b = from_device(device);
	bool stats = device->features & 1ULL << VIRTIO_BALLOON_F_STATS_VQ;
	bool reporting = device->features & 1ULL << VIRTIO_BALLOON_F_REPORTING;
	if (queue == INFLATE_QUEUE)
		inflate(b, queue);
	else if (queue == DEFLATE_QUEUE)
		deflate(b, queue);
	else if (queue == STATS_QUEUE && stats)
		take_stats(b, queue);
	else if (reporting)
		report(b, queue);
}

static void balloon_reset(struct virtio_device *device)
{
	struct balloon *b = from_device(device);
	b->config.actual = 0;
	b->stats_wait = false;
}

/** Little-endian, at the end of a byte that names the version. */
struct __attribute__((packed)) state {
	uint8_t version;
	uint32_t num_pages, actual;
};

static int balloon_save(const struct virtio_device *device, struct buffer *out)
{
	const struct balloon *b = from_device(device);
	struct state state = {.version = SAVED_VERSION, .num_pages = b->config.num_pages, .actual = b->config.actual};
	return buffer_append(out, &state, sizeof(state));
}

static int balloon_load(struct virtio_device *device, const void *bytes, size_t n, struct husk_error *err)
{
	struct balloon *b = from_device(device);
	struct state state;
	if (n != sizeof(state))
		return error_set(err, -EINVAL, "the state of a balloon is %zu bytes, not %zu", sizeof(state), n);
	memcpy(&state, bytes, n);
	if (state.version != SAVED_VERSION || le32toh(state.num_pages) > ram_pages(b))
		return error_set(err, -EINVAL, "the state of a balloon holds what no balloon is in");
	b->config.num_pages = state.num_pages;
	b->config.actual = state.actual; /* the guest's word, which balloon_actual() does not take */
	return 0;
}

static const struct virtio_ops balloon_ops = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.features = balloon_features,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.kick = balloon_kick,
	.reset = balloon_reset,
	.save = balloon_save,
	.load = balloon_load,
};

int balloon_create(struct memory *memory, struct balloon **out, struct husk_error *err)
{
	struct balloon *b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, -ENOMEM, "no memory for a balloon device");
	b->device.ops = &balloon_ops;
	b->device.n_queues = QUEUES;
	b->memory = memory;
	*out = b;
	return 0;
}

void balloon_destroy(struct balloon *b)
{
	free(b);
}

struct virtio_device *balloon_device(struct balloon *b)
{
	return &b->device;
}

void balloon_set_target(struct balloon *b, uint64_t bytes)
{
	struct virtio_device *device = &b->device;
	uint32_t most = ram_pages(b);
	uint32_t pages = bytes / PAGE_SIZE < most ? (uint32_t)(bytes / PAGE_SIZE) : most;
	if (b->config.num_pages == htole32(pages))
		return;
	b->config.num_pages = htole32(pages);
	if (device->transport && device->transport->config_changed)
		device->transport->config_changed(device->transport_data);
}

uint64_t balloon_target(const struct balloon *b)
{
	return (uint64_t)le32toh(b->config.num_pages) * PAGE_SIZE;
}

uint64_t balloon_actual(const struct balloon *b)
{
	uint32_t actual = le32toh(b->config.actual), most = ram_pages(b);
	return (uint64_t)(actual < most ? actual : most) * PAGE_SIZE;
}

const struct balloon_stats *balloon_stats(const struct balloon *b)
{
	return &b->stats;
}

struct balloon_counts balloon_counts(const struct balloon *b)
{
	return b->counts;
}
