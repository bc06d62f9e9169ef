/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_file.h - the RAM of a snapshot, in a file of its own that is mapped and never read as a whole
 *
 * Theory of operation: one page of header, and the pages of memory behind it, as they are; pages of zeroes are holes. All
 * integers are little-endian.
 *
 *      0  u8[8]  magic "huskMEMO"
 *      8  u32    version: 1
 *     12  u32    size of the header: 4096
 *     16  u8[16] identity: random, and repeated in the state file, so that the two halves of different snapshots are told apart
 *     32  u64    size of the memory
 *     40  u8[4052] 0
 *   4092  u32    CRC-32 of the bytes before
 *
 * The memory has no checksum: that would cost reading all of it at each start. Its size is that of the file, so one that
 * was cut is seen. What its pages hold is a guest's, and no more to be believed than anything a guest writes.
 *
 * A snapshot is saved in two phases, the memory first and the state file last: until that is there, nothing finds the memory.
 */
#ifndef SNAPSHOT_MEMORY_FILE_H
#define SNAPSHOT_MEMORY_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define MEMORY_FILE_HEADER 4096ull
#define MEMORY_FILE_IDENTITY 16
#define MEMORY_FILE_SIZE_MAX (1ull << 46)

/** A new identity. */
int memory_file_identify(uint8_t identity[MEMORY_FILE_IDENTITY], struct husk_error *err);
/** Make the empty file @fd one of @size bytes (whole pages) of zeroes. */
int memory_file_begin(int fd, const uint8_t identity[MEMORY_FILE_IDENTITY], uint64_t size, struct husk_error *err);
/** Write @n bytes at @offset, both whole pages; zeroes stay holes, so the place must not have been written before. */
int memory_file_write(int fd, uint64_t offset, const void *bytes, size_t n, struct husk_error *err);
/** The same from @from_offset of another file, whose holes are skipped and whose position is not kept; @n has to be there. */
int memory_file_copy(int fd, uint64_t offset, int from, uint64_t from_offset, uint64_t n, struct husk_error *err);

/** Open and check the memory file @path: *@fd, for reading and mappings; the memory begins at MEMORY_FILE_HEADER. -EBADMSG
 *  (damaged, cut, or the memory of another snapshot), -ENOTSUP (of a newer husk), and the errors of open(2). */
int memory_file_open(
	const char *path, const uint8_t identity[MEMORY_FILE_IDENTITY], uint64_t size, int *fd, struct husk_error *err);

#endif
