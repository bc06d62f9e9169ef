/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record-log-fuzz.c - libFuzzer target: bytes as the two files of a log of bounded size
 *
 * Theory of operation: the first two bytes say where the second file begins. A reader goes through what a captured worker
 * may have left there: it has to come to an end, with records of the sizes there are and no more bytes than the files hold.
 * Then a writer goes on in them, and what it writes is the last that a reader finds.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o record-log-fuzz fuzz/record-log-fuzz.c \
 *     base/{error,record_log,record_reader,rfc3339}.c && ./record-log-fuzz -max_len=8192 fuzz/corpus/record-log
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/record_log.h"
#include "fuzz/fuzz.h"

#include <sys/mman.h>

/** Read all of both files, of @size bytes in all; the last record's first byte, 0 when it has none. */
static uint8_t read_all(struct record_reader *reader, size_t size)
{
	struct record record;
	size_t seen = 0;
	uint8_t last = 0;

	while (record_reader_next(reader, &record, NULL) == 1) {
		must(record.stream >= RECORD_STDOUT && record.stream <= RECORD_BOOT && record.size <= RECORD_MAX,
			"a record is of a form that there is");
		if (record.stream == RECORD_GAP)
			(void)record_gap(&record);
		else /* a gap may be the reader's own */
			seen += RECORD_HEADER + record.size;
		must(seen <= size, "no more is read than there was");
		last = record.size ? record.bytes[0] : 0;
	}
	return last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP_FD int first = memfd_create("1", MFD_CLOEXEC);
	CLEANUP_FD int second = memfd_create("2", MFD_CLOEXEC);
	CLEANUP(record_reader_close) struct record_reader reader = {0}, again = {0};
	const int fd[2] = {first, second};
	static const uint8_t fill[60000];
	struct record_log log;

	if (size < 2)
		return 0;
	size_t n = get_le16(data) < size - 2 ? get_le16(data) : size - 2;
	must(pwrite(first, data + 2, n, 0) == (ssize_t)n, "the first file");
	must(pwrite(second, data + 2 + n, size - 2 - n, 0) == (ssize_t)(size - 2 - n), "the second");
	if (record_reader_open(&reader, fd, NULL) == 0)
		read_all(&reader, size);
	must(record_log_open(&log, fd, RECORD_LOG_MIN, NULL) == 0, "a writer takes whatever it finds");
	record_log_write(&log, RECORD_BOOT, NULL, 0);
	for (unsigned i = 0; i < 2; i++) /* each fills most of a file */
		record_log_write(&log, RECORD_STDERR, fill, sizeof(fill));
	record_log_write(&log, RECORD_STDOUT, "!", 1);
	must(record_reader_open(&again, fd, NULL) == 0, "a reader follows");
	must(read_all(&again, 2 * RECORD_LOG_MIN) == '!', "what was written last is found last");
	return 0;
}
