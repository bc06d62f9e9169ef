/* SPDX-License-Identifier: Apache-2.0 */
/* memory_file.c - the RAM of a snapshot; its layout is in memory_file.h */
#include "snapshot/memory_file.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/tlv.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define VERSION 1
#define PAGE 4096u
#define HEADER_CRC 4092
#define CHUNK (256u << 10)

static const uint8_t magic[8] = {'h', 'u', 's', 'k', 'M', 'E', 'M', 'O'};
static const uint8_t zero_page[PAGE];

int memory_file_identify(uint8_t identity[MEMORY_FILE_IDENTITY], struct husk_error *err)
{
	ssize_t n;

	do {
		n = getrandom(identity, MEMORY_FILE_IDENTITY, 0);
	} while (n < 0 && errno == EINTR);
	return n == MEMORY_FILE_IDENTITY ? 0 : error_errno(err, "random bytes for a snapshot");
}

/** 0, or -1 with errno. */
static int write_at(int fd, uint64_t at, const void *bytes, size_t n)
{
	int rc = fd_write_all_at(fd, bytes, n, at);

	if (rc == 0)
		return 0;
	errno = -rc;
	return -1;
}

int memory_file_begin(int fd, const uint8_t identity[MEMORY_FILE_IDENTITY], uint64_t size, struct husk_error *err)
{
	uint8_t header[MEMORY_FILE_HEADER] = {0};

	if (size % PAGE || size > MEMORY_FILE_SIZE_MAX)
		return error_set(err, -EINVAL, "a snapshot's memory of %llu bytes: not whole pages, or too many",
			(unsigned long long)size);
	memcpy(header, magic, sizeof(magic));
	put_le32(header + 8, VERSION);
	put_le32(header + 12, MEMORY_FILE_HEADER);
	memcpy(header + 16, identity, MEMORY_FILE_IDENTITY);
	put_le64(header + 32, size);
	put_le32(header + HEADER_CRC, crc32_ieee(0, header, HEADER_CRC));
	if (ftruncate(fd, (off_t)(MEMORY_FILE_HEADER + size)) < 0 || write_at(fd, 0, header, sizeof(header)) < 0)
		return error_errno(err, "write the memory of a snapshot");
	return 0;
}

int memory_file_write(int fd, uint64_t offset, const void *bytes, size_t n, struct husk_error *err)
{
	const uint8_t *from = bytes;

	/* A run of pages that are not zero is one write. */
	for (size_t at = 0; at < n;) {
		size_t end = at;
		while (end < n && memcmp(from + end, zero_page, PAGE) != 0)
			end += PAGE;
		if (end > at && write_at(fd, MEMORY_FILE_HEADER + offset + at, from + at, end - at) < 0)
			return error_errno(err, "write the memory of a snapshot");
		at = end > at ? end : at + PAGE;
	}
	return 0;
}

/** Where the data at or behind @at begins and ends, in whole pages and not beyond @end; begin is @end when there is none. */
static int next_data(int fd, uint64_t at, uint64_t end, uint64_t *begin, uint64_t *stop)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);

	*begin = at;
	*stop = end;
	if (data < 0 && errno == ENXIO) {
		*begin = end;
		return 0;
	}
	if (data < 0)
		return errno == EINVAL ? 0 : -1; /* a file system that knows no holes */
	off_t hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -1;
	/* Pages are counted from where the copy began, not from the file's beginning. */
	*begin = (uint64_t)data < end ? (uint64_t)data - ((uint64_t)data - at) % PAGE : end;
	if ((uint64_t)hole < end)
		*stop = at + (((uint64_t)hole - at + PAGE - 1) & ~(uint64_t)(PAGE - 1));
	return 0;
}

/** @n bytes, at most CHUNK and whole pages. */
static int copy_chunk(int fd, uint64_t offset, int from, uint64_t at, size_t n, uint8_t *room, struct husk_error *err)
{
	for (size_t have = 0; have < n;) {
		ssize_t got = pread(from, room + have, n - have, (off_t)(at + have));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(err, "read the memory of a snapshot");
		if (got == 0)
			return error_set(err, -ENODATA, "read the memory of a snapshot: it ends at %llu",
				(unsigned long long)(at + have));
		have += (size_t)got;
	}
	return memory_file_write(fd, offset, room, n, err);
}

int memory_file_copy(int fd, uint64_t offset, int from, uint64_t from_offset, uint64_t n, struct husk_error *err)
{
	CLEANUP_FREE uint8_t *room = malloc(CHUNK);
	uint64_t end = from_offset + n;
	struct stat st;

	if (!room)
		return error_set(err, -ENOMEM, "write the memory of a snapshot: out of memory");
	if (fstat(from, &st) < 0 || (uint64_t)st.st_size < end)
		return error_set(err, -ENODATA, "read the memory of a snapshot: it is not as long as it has to be");
	for (uint64_t at = from_offset; at < end;) {
		uint64_t begin, stop;
		if (next_data(from, at, end, &begin, &stop) < 0)
			return error_errno(err, "read the memory of a snapshot");
		for (at = begin; at < stop;) {
			size_t step = stop - at < CHUNK ? (size_t)(stop - at) : CHUNK;
			int rc = copy_chunk(fd, offset + (at - from_offset), from, at, step, room, err);
			if (rc < 0)
				return rc;
			at += step;
		}
	}
	return 0;
}

static int check_header(const uint8_t *header, const uint8_t identity[MEMORY_FILE_IDENTITY], uint64_t size,
	uint64_t file_size, struct husk_error *err)
{
	if (memcmp(header, magic, sizeof(magic)) != 0)
		return error_set(err, -EBADMSG, "it is no memory of a snapshot");
	if (get_le32(header + HEADER_CRC) != crc32_ieee(0, header, HEADER_CRC))
		return error_set(err, -EBADMSG, "its header is damaged (checksum)");
	if (get_le32(header + 8) != VERSION)
		return error_set(err, -ENOTSUP, "it is of a newer husk: version %u, this one reads %u",
			get_le32(header + 8), VERSION);
	if (get_le32(header + 12) != MEMORY_FILE_HEADER || memcmp(header + 40, zero_page, HEADER_CRC - 40) != 0)
		return error_set(err, -EBADMSG, "its header is malformed");
	if (memcmp(header + 16, identity, MEMORY_FILE_IDENTITY) != 0)
		return error_set(err, -EBADMSG, "it is the memory of another snapshot");
	if (get_le64(header + 32) != size)
		return error_set(err, -EBADMSG, "it has %llu bytes, and %llu belong to the snapshot",
			(unsigned long long)get_le64(header + 32), (unsigned long long)size);
	if (file_size != MEMORY_FILE_HEADER + size)
		return error_set(err, -EBADMSG, "it is %s: %llu bytes of %llu",
			file_size < MEMORY_FILE_HEADER + size ? "truncated" : "damaged", (unsigned long long)file_size,
			(unsigned long long)(MEMORY_FILE_HEADER + size));
	return 0;
}

int memory_file_open(
	const char *path, const uint8_t identity[MEMORY_FILE_IDENTITY], uint64_t size, int *out, struct husk_error *err)
{
	/* O_NONBLOCK: a FIFO must not hold us up; for files it means nothing. */
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint8_t header[MEMORY_FILE_HEADER];
	struct husk_error why = {0};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "memory of a snapshot, %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EBADMSG, "memory of a snapshot, %s: it is no regular file", path);
	ssize_t n = pread(fd, header, sizeof(header), 0);
	if (n < 0)
		return error_errno(err, "memory of a snapshot, %s", path);
	if (n != sizeof(header))
		return error_set(err, -EBADMSG, "memory of a snapshot, %s: it is truncated: %zd bytes", path, n);
	int rc = check_header(header, identity, size, (uint64_t)st.st_size, &why);
	if (rc < 0)
		return error_set(err, rc, "memory of a snapshot, %s: %s", path, why.message);
	*out = steal_fd(&fd);
	return 0;
}
