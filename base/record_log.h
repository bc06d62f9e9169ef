/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_log.h - a log of bounded size: two files that are written in turn, as records with stream and time
 *
 * Theory of operation: each file begins with a header and holds records, one behind the other, none cut in two. When the next
 * record does not fit into the one, the other is emptied and written from its beginning with the next sequence number; what
 * was in it is dropped, and its bytes are added to `dropped` in the new header, so that a reader can say how much is missing
 * in front of what it finds. What could not be written (a full disk) is counted as well, and told by a GAP record as soon as there
 * is room. Writing needs nothing but the two descriptors, since the writer lives in a jail.
 *
 * Readers are other processes. They trust nothing in the files, which a captured worker may have written: sizes are checked
 * against the file, a malformed record ends the file. A reader that follows notices by the header's sequence number that its
 * file was emptied under it, and says what it missed.
 *
 * Header: u32 magic | u16 version | u16 0 | u64 sequence, from 1 | u64 dropped: bytes of output lost before this file's first
 * record, ever. Record: u32 size | u8 stream | u8[3] 0 | u64 CLOCK_REALTIME nanoseconds | bytes. Little-endian.
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
#define RECORD_LOG_MIN (64u << 10) /* smallest file: 4 KiB of room are kept over a record in any case */

enum record_stream {
	RECORD_STDOUT = 1,
	RECORD_STDERR = 2,
	RECORD_CONSOLE = 3,
	RECORD_GAP = 4, /* u64: bytes lost here */
	RECORD_BOOT = 5, /* empty: the VM was started anew */
};

/* ---- writing; one writer ---- */

struct record_log {
	int fd[2]; /* borrowed */
	uint64_t limit; /* bytes of each */
	unsigned current;
	uint64_t at, sequence, dropped;
	uint64_t written[2]; /* bytes of output in each, which are dropped with it */
	uint64_t gap; /* bytes lost since the last record */
};

/** Go on where the newest whole record in the two files ends, or begin. Errors of reading only. */
int record_log_open(struct record_log *log, const int fd[2], uint64_t limit, struct husk_error *err);
/** Append; never fails: what cannot be written is a gap. */
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
	uint64_t sequence, at;
	uint64_t dropped; /* as the header of the file under way says */
	uint8_t *bytes; /* owned */
};

/** Begin with the oldest record there is. */
int record_reader_open(struct record_reader *reader, const int fd[2], struct husk_error *err);
/** Begin behind the newest record there is now. */
int record_reader_open_at_end(struct record_reader *reader, const int fd[2], struct husk_error *err);
/** The next record: 1; 0 when there is none now; -errno. What was dropped before it, or under the reader, comes as a GAP. */
int record_reader_next(struct record_reader *reader, struct record *out, struct husk_error *err);
void record_reader_close(struct record_reader *reader);

#endif
