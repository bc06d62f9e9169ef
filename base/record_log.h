/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_log.h - a log of bounded size: two files that are written in turn, as records with stream and time
 *
 * Theory of operation: each file begins with a header and holds records, one behind the other, none cut in two. When the next
 * record does not fit into the one, the other is emptied and written from its beginning with the next sequence number; what
 * was in it is dropped. Bytes of output are numbered from the first one ever, and a header tells the number of its file's
 * first: so a reader knows how much is missing in front of what it finds, and what it missed. What could not be written (a full
 * disk) counts as well, and is told by a GAP record as soon as there is room. Writing needs nothing but the two descriptors,
 * since the writer lives in a jail.
 *
 * A file only grows until it is emptied, and is given its new header behind that. So what a reader has read belongs to the
 * sequence number that it finds in the header afterwards, and a record that is not all there yet is the end for now. One that
 * was torn by the writer's death is cut off by the next writer. A kill in mid-switch leaves a file without header, which counts
 * as empty.
 *
 * Readers are other processes. They trust nothing in the files, which a captured worker may have written: sizes are checked
 * against the file, a malformed record ends the file. A reader that follows notices by the header's sequence number that its
 * file was emptied under it, and says what it missed.
 *
 * Header: u32 magic | u16 version | u16 0 | u64 sequence, from 1 | u64 position: bytes of output, kept or lost, before this
 * file's first record, ever. Record: u32 size | u8 stream | u8[3] 0 | u64 CLOCK_REALTIME nanoseconds | bytes. Little-endian.
 */
#ifndef BASE_RECORD_LOG_H
#define BASE_RECORD_LOG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_LOG_MAGIC 0x474c4b48u /* "HKLG" */
#define RECORD_LOG_VERSION 1
#define RECORD_LOG_HEADER 24
#define RECORD_HEADER 16
#define RECORD_MAX (64u << 10) /* bytes of one record; longer writes become several */
#define RECORD_LOG_MIN (64u << 10) /* smallest file; the largest record leaves 4 KiB of it in any case */

enum record_stream {
	RECORD_STDOUT = 1,
	RECORD_STDERR = 2,
	RECORD_CONSOLE = 3,
	RECORD_GAP = 4, /* u64: bytes lost here */
	RECORD_BOOT = 5, /* empty: the VM was started anew */
};

/* ---- writing; one writer ---- */

struct record_log {
	int fd[2]; /* borrowed; for reading and writing, and not O_APPEND, with which pwrite(2) ignores its offset */
	uint64_t limit; /* bytes of each */
	unsigned current;
	uint64_t at, sequence; /* of the current file: where the next record goes; sequence 0: there is none yet */
	uint64_t position; /* bytes of output before the next record, ever */
	uint64_t gap; /* of them, lost since the last record */
};

/** Go on where the newest whole record in the two files ends, or begin. Errors of reading only. */
int record_log_open(struct record_log *log, const int fd[2], uint64_t limit, struct husk_error *err);
/** Append; never fails: what cannot be written is a gap. BOOT has no bytes, and of other streams nothing is no record. */
void record_log_write(struct record_log *log, enum record_stream stream, const void *bytes, size_t n);

/* ---- reading; any number of readers ---- */

struct record {
	enum record_stream stream;
	uint64_t time_ns;
	size_t size;
	const uint8_t *bytes; /* valid until the next call */
};

/** Where a reader is: the file by its sequence number, and the offset of the next record in it. */
struct record_reader {
	int fd[2]; /* borrowed, opened for reading */
	unsigned current;
	uint64_t sequence, at; /* sequence 0: in front of the oldest */
	uint64_t position; /* bytes of output before the next record, ever */
	uint64_t missing; /* of them, to be told as a GAP */
	uint8_t gap[8]; /* its bytes */
	uint8_t *bytes; /* owned; what is in the file from `at` on, as far as it was read */
	size_t first, n; /* bytes[first, first + n) is that */
};

/** Begin with the oldest record there is. Files that are empty have none; -ENOTSUP: another husk's. */
int record_reader_open(struct record_reader *reader, const int fd[2], struct husk_error *err);
/** Begin behind the newest record there is now. */
int record_reader_open_at_end(struct record_reader *reader, const int fd[2], struct husk_error *err);
/** The next record: 1; 0 when there is none now; -errno. What was dropped before it, or under the reader, comes as a GAP. */
int record_reader_next(struct record_reader *reader, struct record *out, struct husk_error *err);
/** The bytes that a GAP tells of. */
uint64_t record_gap(const struct record *record);
/** Go back to where @mark, a copy of it that was made earlier, stands. */
void record_reader_go_back(struct record_reader *reader, const struct record_reader *mark);
void record_reader_close(struct record_reader *reader);

#endif
