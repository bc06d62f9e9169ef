/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_log.c - the writer of a log of bounded size (format and theory of operation: record_log.h)
 *
 * A record goes out in one pwritev(2), with a GAP in front of it when something was lost before. What did not fit on the disk is
 * cut off again, so that the file ends with a whole record whenever the writer is not at work.
 */
#include "base/record_log.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/rfc3339.h"

#include <sys/stat.h>
#include <sys/uio.h>

#define RESERVE 4096 /* of a file, beyond the largest record */
#define SEQUENCE_MAX (UINT64_MAX / 2)

/** Empty the other file and go on in it; false when that fails, and is to be tried again. */
static bool switch_files(struct record_log *log)
{
	unsigned other = !log->current;
	uint8_t header[RECORD_LOG_HEADER] = {0};

	put_le32(header, RECORD_LOG_MAGIC);
	put_le16(header + 4, RECORD_LOG_VERSION);
	put_le64(header + 8, log->sequence + 1);
	put_le64(header + 16, log->position - log->gap); /* a GAP in this file will tell of the rest */
	if (ftruncate(log->fd[other], 0) < 0)
		return false;
	if (pwrite(log->fd[other], header, sizeof(header), 0) != sizeof(header)) {
		(void)!ftruncate(log->fd[other], 0); /* half a header is none either */
		return false;
	}
	log->current = other;
	log->sequence++;
	log->at = sizeof(header);
	return true;
}

static void put_record(uint8_t header[RECORD_HEADER], enum record_stream stream, size_t n, uint64_t time_ns)
{
	memset(header, 0, RECORD_HEADER);
	put_le32(header, (uint32_t)n);
	header[4] = (uint8_t)stream;
	put_le64(header + 8, time_ns);
}

/** One record, behind a GAP when there is one to tell; false: it is not in the file. */
static bool write_record(struct record_log *log, enum record_stream stream, const void *bytes, size_t n)
{
	uint8_t gap[RECORD_HEADER + 8], header[RECORD_HEADER];
	uint64_t now = clock_realtime_ns();
	size_t size = sizeof(header) + n + (log->gap ? sizeof(gap) : 0);

	if (size > log->limit - log->at && !switch_files(log))
		return false;
	put_record(gap, RECORD_GAP, 8, now);
	put_le64(gap + RECORD_HEADER, log->gap);
	put_record(header, stream, n, now);
	const struct iovec iov[] = {{gap, log->gap ? sizeof(gap) : 0}, {header, sizeof(header)}, {(void *)bytes, n}};
	if (pwritev(log->fd[log->current], iov, ARRAY_SIZE(iov), (off_t)log->at) == (ssize_t)size) {
		log->at += size;
		log->gap = 0;
		return true;
	}
	/* A part of it may be there. If that cannot be cut off this file is over, and its readers stop where it is torn. */
	if (ftruncate(log->fd[log->current], (off_t)log->at) < 0)
		log->at = log->limit;
	return false;
}

void record_log_write(struct record_log *log, enum record_stream stream, const void *bytes, size_t n)
{
	size_t most = log->limit - RESERVE < RECORD_MAX ? (size_t)log->limit - RESERVE : RECORD_MAX;
	const uint8_t *at = bytes;

	if (stream == RECORD_BOOT)
		write_record(log, stream, NULL, 0);
	for (size_t chunk; n; at += chunk, n -= chunk) {
		chunk = n < most ? n : most;
		if (!write_record(log, stream, at, chunk))
			log->gap += chunk;
		log->position += chunk;
	}
}

int record_log_open(struct record_log *log, const int fd[2], uint64_t limit, struct husk_error *err)
{
	CLEANUP(record_reader_close) struct record_reader newest = {0};
	struct stat st;

	*log = (struct record_log){
		.fd = {fd[0], fd[1]}, .limit = limit > RECORD_LOG_MIN ? limit : RECORD_LOG_MIN, .current = 1};
	log->at = log->limit; /* so that the first record begins the first file */
	int rc = record_reader_open_at_end(&newest, fd, err);
	/* Of another husk: no reader would go past one of its headers. Or of a captured worker: nobody gets that far. */
	if (rc == -ENOTSUP || (rc == 0 && newest.sequence > SEQUENCE_MAX))
		return ftruncate(fd[0], 0) < 0 || ftruncate(fd[1], 0) < 0 ? error_errno(err, "empty a log") : 0;
	if (rc < 0 || newest.sequence == 0)
		return rc;
	log->current = newest.current;
	log->sequence = newest.sequence;
	log->position = newest.position;
	log->at = newest.at;
	if (fstat(fd[log->current], &st) < 0)
		return error_errno(err, "look at a log");
	if (((uint64_t)st.st_size > log->at && ftruncate(fd[log->current], (off_t)log->at) < 0) || log->at > log->limit)
		log->at = log->limit;
	return 0;
}
