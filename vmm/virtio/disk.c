/* SPDX-License-Identifier: Apache-2.0 */
/* disk.c - segments behind a block device, and moving bytes between them and iovecs */
#include "vmm/virtio/disk.h"

#include "base/cleanup.h"
#include "vmm/virtio/gpt.h"
#include "vmm/virtio/queue.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static int file_size(int fd, uint64_t *size, struct husk_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_errno(err, "look at a disk image");
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, size) < 0 ? error_errno(err, "read the size of a block device") : 0;
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "a disk image is neither a file nor a block device");
	*size = (uint64_t)st.st_size;
	return 0;
}

void disk_close(struct disk *disk)
{
	if (!disk)
		return;
	for (size_t i = 0; i < disk->n_segments; i++)
		if (disk->segments[i].fd >= 0)
			close(disk->segments[i].fd);
	free(disk->segments);
	free(disk->tables);
	free(disk);
}

static void cleanup_disk(struct disk **disk)
{
	disk_close(*disk);
}

static struct disk *disk_new(size_t n_segments, bool read_only)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	if (!disk)
		return NULL;
	disk->read_only = read_only;
	disk->segments = calloc(n_segments, sizeof(*disk->segments));
	if (!disk->segments) {
		free(disk);
		return NULL;
	}
	return disk;
}

/** Append a segment of @size bytes; descriptors are filled in once nothing can fail any more. */
static struct disk_segment *add_segment(struct disk *disk, uint64_t size)
{
	struct disk_segment *s = &disk->segments[disk->n_segments++];
	*s = (struct disk_segment){.offset = disk->size, .size = size, .fd = -1};
	disk->size += size;
	return s;
}

int disk_open_file(int fd, bool read_only, struct disk **out, struct husk_error *err)
{
	uint64_t size = 0;
	int rc = file_size(fd, &size, err);
	if (rc < 0)
		return rc;
	if (!size || size % DISK_SECTOR)
		return error_set(err, -EINVAL, "a disk image of %" PRIu64 " bytes is not whole sectors", size);
	struct disk *disk = disk_new(1, read_only);
	if (!disk)
		return error_set(err, -ENOMEM, "no memory for a disk");
	add_segment(disk, size)->fd = fd;
	*out = disk;
	return 0;
}

/** A segment for each layer and, up to the next boundary, one of zeroes. */
static int lay_out(struct disk *disk, const int *fds, size_t n, struct gpt_partition *partitions, int *segment_fds,
	struct husk_error *err)
{
	add_segment(disk, DISK_ALIGN);
	segment_fds[0] = -1;
	for (size_t i = 0; i < n; i++) {
		uint64_t size = 0;
		int rc = file_size(fds[i], &size, err);
		if (rc < 0)
			return error_prefix(err, rc, "layer %zu", i + 1);
		if (!size || size > UINT64_MAX / 4 / DISK_LAYERS_MAX)
			return error_set(err, -EINVAL, "layer %zu has %" PRIu64 " bytes", i + 1, size);
		uint64_t whole = (size + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
		partitions[i] = (struct gpt_partition){
			.first = disk->size / DISK_SECTOR, .last = (disk->size + whole) / DISK_SECTOR - 1};
		segment_fds[disk->n_segments] = fds[i];
		add_segment(disk, size);
		uint64_t rest = (DISK_ALIGN - size % DISK_ALIGN) % DISK_ALIGN;
		if (rest) {
			segment_fds[disk->n_segments] = -1;
			add_segment(disk, rest);
		}
	}
	return 0;
}

int disk_open_layers(const int *fds, size_t n, struct disk **out, struct husk_error *err)
{
	struct gpt_partition partitions[DISK_LAYERS_MAX];
	int segment_fds[2 * DISK_LAYERS_MAX + 2];
	if (!n || n > DISK_LAYERS_MAX)
		return error_set(err, -EINVAL, "%zu layers do not make a disk: 1 to %d do", n, DISK_LAYERS_MAX);
	CLEANUP(cleanup_disk) struct disk *disk = disk_new(2 * n + 2, true);
	if (!disk)
		return error_set(err, -ENOMEM, "no memory for a disk");
	int rc = lay_out(disk, fds, n, partitions, segment_fds, err);
	if (rc < 0)
		return rc;
	segment_fds[disk->n_segments] = -1;
	add_segment(disk, DISK_ALIGN);
	disk->tables = calloc(2, DISK_ALIGN);
	if (!disk->tables)
		return error_set(err, -ENOMEM, "no memory for a partition table");
	gpt_write(partitions, n, disk->size / DISK_SECTOR, disk->tables, disk->tables + 2 * DISK_ALIGN);
	disk->segments[0].bytes = disk->tables;
	disk->segments[disk->n_segments - 1].bytes = disk->tables + DISK_ALIGN;
	for (size_t i = 0; i < disk->n_segments; i++)
		disk->segments[i].fd = segment_fds[i];
	*out = steal_pointer(&disk);
	return 0;
}

static const struct disk_segment *segment_at(const struct disk *disk, uint64_t offset)
{
	size_t low = 0, high = disk->n_segments;
	while (high - low > 1) {
		size_t middle = (low + high) / 2;
		if (disk->segments[middle].offset <= offset)
			low = middle;
		else
			high = middle;
	}
	return &disk->segments[low];
}

/** Drop the first @n bytes of *@iov. */
static void advance(struct iovec **iov, unsigned *n_iov, uint64_t n)
{
	while (*n_iov && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*n_iov)--;
	}
	if (n) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

/** One preadv or pwritev of at most @n bytes of @iov; what was moved or -errno. The iovec that crosses @n is shortened for
 *  the call only. */
static ssize_t move_file(
	const struct disk_segment *s, uint64_t at, struct iovec *iov, unsigned n_iov, uint64_t n, bool write)
{
	uint64_t sum = 0;
	unsigned count = 0;
	while (count < n_iov && sum < n)
		sum += iov[count++].iov_len;
	uint64_t over = sum > n ? sum - n : 0;
	iov[count - 1].iov_len -= over;
	off_t offset = (off_t)(s->file_offset + at);
	ssize_t done;
	do
		done = write ? pwritev(s->fd, iov, (int)count, offset) : preadv(s->fd, iov, (int)count, offset);
	while (done < 0 && errno == EINTR);
	iov[count - 1].iov_len += over;
	if (done < 0)
		return -errno;
	return done ? done : -EIO;
}

/** Constant bytes, or zeroes, into @iov. */
static void read_memory(const struct disk_segment *s, uint64_t at, const struct iovec *iov, unsigned n_iov, uint64_t n)
{
	for (unsigned i = 0; i < n_iov && n; i++) {
		size_t part = iov[i].iov_len < n ? iov[i].iov_len : n;
		if (s->bytes)
			memcpy(iov[i].iov_base, s->bytes + at, part);
		else
			memset(iov[i].iov_base, 0, part);
		at += part;
		n -= part;
	}
}

static int transfer(const struct disk *disk, uint64_t offset, struct iovec *iov, unsigned n_iov, bool write)
{
	uint64_t left = 0;
	for (unsigned i = 0; i < n_iov; i++)
		left += iov[i].iov_len; /* each is at most 4 GiB of guest memory */
	if (offset > disk->size || left > disk->size - offset)
		return -ERANGE;
	while (left) {
		const struct disk_segment *s = segment_at(disk, offset);
		uint64_t at = offset - s->offset;
		uint64_t n = s->size - at < left ? s->size - at : left;
		if (s->fd >= 0) {
			ssize_t done = move_file(s, at, iov, n_iov, n, write);
			if (done < 0)
				return (int)done;
			n = (uint64_t)done;
		} else if (write) {
			return -EROFS;
		} else {
			read_memory(s, at, iov, n_iov, n);
		}
		advance(&iov, &n_iov, n);
		offset += n;
		left -= n;
	}
	return 0;
}

int disk_read(const struct disk *disk, uint64_t offset, struct iovec *iov, unsigned n_iov)
{
	return transfer(disk, offset, iov, n_iov, false);
}

int disk_write(const struct disk *disk, uint64_t offset, struct iovec *iov, unsigned n_iov)
{
	return disk->read_only ? -EROFS : transfer(disk, offset, iov, n_iov, true);
}

int disk_flush(const struct disk *disk)
{
	if (disk->read_only)
		return 0;
	return fdatasync(disk->segments[0].fd) < 0 ? -errno : 0;
}

int disk_zero(const struct disk *disk, uint64_t offset, uint64_t n, bool punch)
{
	if (disk->read_only)
		return -EROFS;
	if (offset > disk->size || n > disk->size - offset)
		return -ERANGE;
	if (!n)
		return 0;
	int mode = (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	int fd = disk->segments[0].fd;
	if (fallocate(fd, mode, (off_t)offset, (off_t)n) == 0)
		return 0;
	if (errno != EOPNOTSUPP || punch)
		return -errno;
	/* tmpfs knows no ZERO_RANGE; a hole reads as zeroes too */
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n) < 0 ? -errno : 0;
}
