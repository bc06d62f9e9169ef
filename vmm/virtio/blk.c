/* SPDX-License-Identifier: Apache-2.0 */
/* blk.c - virtio-blk (virtio 1.2 §5.2) */
#include "vmm/virtio/blk.h"

#include <endian.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENTS_MAX 126 /* data descriptors of a request: QEMU's queue of 128 less header and status */
#define ZERO_SECTORS_MAX (1u << 22) /* one discard or write-zeroes segment: 2 GiB */
#define ZERO_SEGMENTS_MAX 16
#define SAVED_VERSION 1
#define REQUESTS_PER_KICK 256 /* then the other devices get their turn */

struct blk {
	struct virtio_device device;
	struct disk *disk;
	struct block_meter *meter; /* NULL: none counts */
	char serial[VIRTIO_BLK_ID_BYTES];
	struct virtio_blk_config config;
	struct virtqueue_chain chain;
	struct iovec data[VIRTQUEUE_SIZE_MAX];
};

/** One request in work: its data part lies in blk->data. */
struct request {
	uint32_t type;
	uint64_t sector;
	unsigned n_data;
	uint64_t bytes; /* of the data part */
};

static struct blk *from_device(const struct virtio_device *device)
{
	return (struct blk *)device;
}

static uint64_t blk_features(const struct virtio_device *device)
{
	const struct blk *blk = from_device(device);
	uint64_t features = 1ULL << VIRTIO_BLK_F_SEG_MAX | 1ULL << VIRTIO_BLK_F_BLK_SIZE;
	if (device->n_queues > 1)
		features |= 1ULL << VIRTIO_BLK_F_MQ;
	if (blk->disk->read_only)
		return features | 1ULL << VIRTIO_BLK_F_RO;
	return features | 1ULL << VIRTIO_BLK_F_FLUSH | 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void blk_config_read(const struct virtio_device *device, uint32_t offset, void *bytes, uint32_t n)
{
	const struct blk *blk = from_device(device);
	virtio_config_copy(&blk->config, sizeof(blk->config), offset, bytes, n);
}

static uint8_t status_of(int rc)
{
	return rc == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

/** Byte offset of @sector when @bytes from there lie on the disk; false otherwise. */
static bool locate(const struct blk *blk, uint64_t sector, uint64_t bytes, uint64_t *offset)
{
	if (bytes % DISK_SECTOR || sector > blk->disk->size / DISK_SECTOR)
		return false;
	*offset = sector * DISK_SECTOR;
	return bytes <= blk->disk->size - *offset;
}

static uint8_t do_in(struct blk *blk, struct request *r, uint32_t *written)
{
	uint64_t offset;
	if (!locate(blk, r->sector, r->bytes, &offset))
		return VIRTIO_BLK_S_IOERR;
	uint8_t status = status_of(disk_read(blk->disk, offset, blk->data, r->n_data));
	if (status == VIRTIO_BLK_S_OK)
		*written += (uint32_t)r->bytes;
	return status;
}

static uint8_t do_out(struct blk *blk, struct request *r, uint32_t *written)
{
	uint64_t offset;
	if (!locate(blk, r->sector, r->bytes, &offset))
		return VIRTIO_BLK_S_IOERR;
	int rc = disk_write(blk->disk, offset, blk->data, r->n_data);
	/* A driver that did not negotiate FLUSH believes in a write-through cache (§5.2.6.2). */
	if (rc == 0 && !(blk->device.features & 1ULL << VIRTIO_BLK_F_FLUSH))
		rc = disk_flush(blk->disk);
	return status_of(rc);
}

static uint8_t do_flush(struct blk *blk, struct request *r, uint32_t *written)
{
	return status_of(disk_flush(blk->disk));
}

static uint8_t do_get_id(struct blk *blk, struct request *r, uint32_t *written)
{
	if (r->bytes < VIRTIO_BLK_ID_BYTES)
		return VIRTIO_BLK_S_IOERR;
	*written += (uint32_t)iov_scatter(blk->data, r->n_data, blk->serial, VIRTIO_BLK_ID_BYTES);
	return VIRTIO_BLK_S_OK;
}

/** DISCARD and WRITE_ZEROES: segments of 16 bytes, all checked before the first is carried out (§5.2.6.2). */
static uint8_t do_zero(struct blk *blk, struct request *r, uint32_t *written)
{
	struct virtio_blk_discard_write_zeroes segments[ZERO_SEGMENTS_MAX];
	bool discard = r->type == VIRTIO_BLK_T_DISCARD;
	size_t n = r->bytes / sizeof(segments[0]);
	uint64_t offset;
	if (blk->disk->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (!n || n > ZERO_SEGMENTS_MAX || r->bytes % sizeof(segments[0]))
		return VIRTIO_BLK_S_UNSUPP;
	iov_gather(blk->data, r->n_data, segments, r->bytes);
	for (size_t i = 0; i < n; i++) {
		uint32_t flags = le32toh(segments[i].flags), count = le32toh(segments[i].num_sectors);
		if (flags & ~(uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP || (discard && flags))
			return VIRTIO_BLK_S_UNSUPP;
		if (count > ZERO_SECTORS_MAX ||
			!locate(blk, le64toh(segments[i].sector), (uint64_t)count * DISK_SECTOR, &offset))
			return VIRTIO_BLK_S_IOERR;
	}
	for (size_t i = 0; i < n; i++) {
		bool punch = discard || (le32toh(segments[i].flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
		int rc = disk_zero(blk->disk, le64toh(segments[i].sector) * DISK_SECTOR,
			(uint64_t)le32toh(segments[i].num_sectors) * DISK_SECTOR, punch);
		if (rc == -EOPNOTSUPP && discard) /* a hint only */
			rc = 0;
		if (rc < 0)
			return rc == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

/** What a request's data part is for, and who carries it out. */
static const struct operation {
	uint32_t type;
	bool to_guest;
	uint8_t (*run)(struct blk *blk, struct request *r, uint32_t *written);
} operations[] = {
	{VIRTIO_BLK_T_IN, true, do_in},
	{VIRTIO_BLK_T_OUT, false, do_out},
	{VIRTIO_BLK_T_FLUSH, false, do_flush},
	{VIRTIO_BLK_T_GET_ID, true, do_get_id},
	{VIRTIO_BLK_T_DISCARD, false, do_zero},
	{VIRTIO_BLK_T_WRITE_ZEROES, false, do_zero},
};

static const struct operation *find_operation(uint32_t type)
{
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (operations[i].type == type)
			return &operations[i];
	return NULL;
}

/** One request more. What GET_ID and an unknown type are worth only their errors tell. */
static void count(struct blk *blk, const struct request *r, uint8_t status)
{
	struct block_meter *m = blk->meter;

	if (status != VIRTIO_BLK_S_OK) {
		stats_add(&m->errors, 1);
	} else if (r->type == VIRTIO_BLK_T_IN) {
		stats_add(&m->reads, 1);
		stats_add(&m->read_bytes, r->bytes);
	} else if (r->type == VIRTIO_BLK_T_OUT) {
		stats_add(&m->writes, 1);
		stats_add(&m->write_bytes, r->bytes);
	} else if (r->type == VIRTIO_BLK_T_FLUSH) {
		stats_add(&m->flushes, 1);
	} else if (r->type != VIRTIO_BLK_T_GET_ID) {
		stats_add(&m->discards, 1);
	}
}

/** Carry out the request in blk->chain: a 16-byte header, data, one status byte, framed as the driver likes (§2.7.4).
 *  False when there is no place for header or status. */
static bool serve(struct blk *blk, uint32_t *written)
{
	struct virtqueue_chain *c = &blk->chain;
	struct virtio_blk_outhdr header;
	const struct iovec *writable = c->iov + c->n_read;
	if (c->read_bytes < sizeof(header) || !c->write_bytes)
		return false;
	iov_gather(c->iov, c->n_read, &header, sizeof(header));
	struct request r = {.type = le32toh(header.type), .sector = le64toh(header.sector)};
	const struct operation *operation = find_operation(r.type);
	uint8_t status = VIRTIO_BLK_S_UNSUPP;
	*written = 1;
	if (operation && operation->to_guest) {
		r.bytes = c->write_bytes - 1;
		r.n_data = iov_slice(writable, c->n_write, 0, r.bytes, blk->data);
	} else if (operation) {
		r.bytes = c->read_bytes - sizeof(header);
		r.n_data = iov_slice(c->iov, c->n_read, sizeof(header), r.bytes, blk->data);
	}
	if (operation)
		status = r.bytes < UINT32_MAX ? operation->run(blk, &r, written) : VIRTIO_BLK_S_IOERR;
	if (blk->meter)
		count(blk, &r, status);
	const struct iovec *last = &writable[c->n_write - 1];
	((uint8_t *)last->iov_base)[last->iov_len - 1] = status;
	return true;
}

static void blk_kick(struct virtio_device *device, unsigned queue)
{
	struct blk *blk = from_device(device);
	struct virtqueue *q = &device->queues[queue];
	virtqueue_disable_kicks(q);
	for (unsigned n = 0;; n++) {
		int rc = 0;
		if (n == REQUESTS_PER_KICK) {
			device->transport->again(device->transport_data, queue);
			break;
		}
		while ((rc = virtqueue_pop(q, &blk->chain)) == 0)
			if (!virtqueue_enable_kicks(q))
				break;
		if (rc <= 0) {
			if (rc < 0)
				virtio_broken(device, q->broken);
			break;
		}
		uint32_t written = 0;
		if (!serve(blk, &written)) {
			virtio_broken(device, "a block request without header or status");
			break;
		}
		virtqueue_push(q, blk->chain.head, written);
	}
	virtio_notify(device, queue);
}

/** Nothing is in work between two kicks: this only tells the disk it was. Little-endian. */
struct __attribute__((packed)) state {
	uint8_t version, read_only;
	uint64_t sectors;
	char serial[VIRTIO_BLK_ID_BYTES];
};

static struct state describe(const struct blk *blk)
{
	struct state state = {
		.version = SAVED_VERSION, .read_only = blk->disk->read_only, .sectors = blk->config.capacity};
	memcpy(state.serial, blk->serial, sizeof(state.serial));
	return state;
}

static int blk_save(const struct virtio_device *device, struct buffer *out)
{
	struct state state = describe(from_device(device));
	return buffer_append(out, &state, sizeof(state));
}

static int blk_load(struct virtio_device *device, const void *bytes, size_t n, struct husk_error *err)
{
	struct state state = describe(from_device(device));
	if (n != sizeof(state) || memcmp(bytes, &state, sizeof(state)) != 0)
		return error_set(err, -EINVAL, "it is of another disk");
	return 0;
}

static const struct virtio_ops blk_ops = {
	.name = "blk",
	.id = VIRTIO_ID_BLOCK,
	.features = blk_features,
	.config_read = blk_config_read,
	.kick = blk_kick,
	.save = blk_save,
	.load = blk_load,
};

int blk_create(struct disk *disk, const char *serial, unsigned n_queues, struct blk **out, struct husk_error *err)
{
	if (!n_queues || n_queues > VIRTIO_QUEUES_MAX)
		return error_set(err, -EINVAL, "a block device with %u queues", n_queues);
	size_t length = strlen(serial);
	if (length > VIRTIO_BLK_ID_BYTES)
		return error_set(err, -EINVAL, "the serial number %s is longer than 20 bytes", serial);
	struct blk *blk = calloc(1, sizeof(*blk));
	if (!blk)
		return error_set(err, -ENOMEM, "no memory for a block device");
	blk->device.ops = &blk_ops;
	blk->device.n_queues = n_queues;
	blk->disk = disk;
	memcpy(blk->serial, serial, length);
	blk->config = (struct virtio_blk_config){
		.capacity = htole64(disk->size / DISK_SECTOR),
		.seg_max = htole32(SEGMENTS_MAX),
		.blk_size = htole32(DISK_SECTOR),
		.num_queues = htole16((uint16_t)n_queues),
	};
	if (!disk->read_only) {
		blk->config.max_discard_sectors = blk->config.max_write_zeroes_sectors = htole32(ZERO_SECTORS_MAX);
		blk->config.max_discard_seg = blk->config.max_write_zeroes_seg = htole32(ZERO_SEGMENTS_MAX);
		blk->config.discard_sector_alignment = htole32(4096 / DISK_SECTOR);
		blk->config.write_zeroes_may_unmap = 1;
	}
	*out = blk;
	return 0;
}

void blk_destroy(struct blk *blk)
{
	free(blk);
}

void blk_count(struct blk *blk, struct block_meter *meter)
{
	blk->meter = meter;
}

struct virtio_device *blk_device(struct blk *blk)
{
	return &blk->device;
}
