/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.h - what lies behind a block device: one file, or the composite root disk
 *
 * Theory of operation: a disk is a sorted list of segments that cover it without gaps: a part of a file, constant bytes, or
 * zeroes. A plain disk is one segment. The root disk is the concatenation of the image's layers, each a partition of a
 * generated GPT (UEFI 2.10 §5.3) that begins on a MiB boundary; the tables live in memory, the gaps are zeroes, the layers
 * stay shared files. Reads and writes go straight between file and the guest's iovecs. The same layers give the same
 * disk, byte for byte: all GUIDs are derived.
 */
#ifndef VMM_VIRTIO_DISK_H
#define VMM_VIRTIO_DISK_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define DISK_SECTOR 512
#define DISK_LAYERS_MAX 128 /* entries of a GPT of the usual size */
#define DISK_ALIGN (1u << 20)

/** [offset, offset + size) of the disk: at file_offset in fd, or in bytes, or (fd -1, bytes NULL) zeroes. */
struct disk_segment {
	uint64_t offset, size;
	int fd; /* owned */
	uint64_t file_offset;
	const uint8_t *bytes;
};

struct disk {
	uint64_t size; /* bytes, a multiple of DISK_SECTOR */
	bool read_only;
	size_t n_segments;
	struct disk_segment *segments;
	uint8_t *tables; /* the GPT's two copies */
};

/** One file or block device; @fd is taken on success. A size that is no multiple of 512 bytes is refused. */
int disk_open_file(int fd, bool read_only, struct disk **out, struct husk_error *err);
/** The composite, read-only: @fds[0] becomes partition 1, and so on. All are taken on success. */
int disk_open_layers(const int *fds, size_t n, struct disk **out, struct husk_error *err);
void disk_close(struct disk *disk);

/** Move exactly the bytes of @iov (at most 1024 iovecs, whose content is changed) at @offset. 0 or -errno; -EROFS for a
 *  write to a read-only disk, -ERANGE beyond the end, -EIO when the file is shorter than it was. */
int disk_read(const struct disk *disk, uint64_t offset, struct iovec *iov, unsigned n_iov);
int disk_write(const struct disk *disk, uint64_t offset, struct iovec *iov, unsigned n_iov);
int disk_flush(const struct disk *disk);
/** Make [@offset, @offset + @n) read as zeroes; @punch: and give the blocks back. */
int disk_zero(const struct disk *disk, uint64_t offset, uint64_t n, bool punch);

#endif
