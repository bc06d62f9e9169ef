/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record-log-test.c - logs of bounded size: writer and readers against a model
 *
 * The model is one function: byte number p of all output is content(p). So what a reader gets is right when each byte fits the
 * number at which it comes, with the bytes that GAPs tell of counted in, and nothing else needs to be kept.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/record_log.h"
#include "tests/tap.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define LIMIT RECORD_LOG_MIN

static struct husk_error err;
static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t roll(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static uint8_t content(uint64_t p)
{
	return (uint8_t)((p * 0x9e3779b97f4a7c15u) >> 56);
}

static void make_files(int fd[2])
{
	for (int i = 0; i < 2; i++)
		fd[i] = memfd_create("log", MFD_CLOEXEC);
}

static void close_files(int fd[2])
{
	close(fd[0]);
	close(fd[1]);
}

/** Write the next @n bytes of the model. */
static void put(struct record_log *log, enum record_stream stream, size_t n)
{
	CLEANUP_FREE uint8_t *bytes = malloc(n);

	for (size_t i = 0; i < n; i++)
		bytes[i] = content(log->position + i);
	record_log_write(log, stream, bytes, n);
}

/** What a reader found. */
struct found {
	uint64_t position; /* by what came, from the first byte on */
	uint64_t gaps, records, boots, last_ns;
	bool right;
};

static void take(struct found *f, const struct record *r)
{
	f->records++;
	f->boots += r->stream == RECORD_BOOT;
	f->right &= r->time_ns >= f->last_ns;
	f->last_ns = r->time_ns;
	if (r->stream == RECORD_GAP) {
		f->gaps += record_gap(r);
		f->position += record_gap(r);
	}
	for (size_t i = 0; r->stream <= RECORD_CONSOLE && i < r->size; i++)
		f->right &= r->bytes[i] == content(f->position++);
}

/** All that is there; at most @most records. */
static void drain(struct record_reader *reader, struct found *f, unsigned most)
{
	struct record record;

	while (most-- && record_reader_next(reader, &record, &err) == 1)
		take(f, &record);
}

static struct found read_all(const int fd[2])
{
	CLEANUP(record_reader_close) struct record_reader reader = {0};
	struct found f = {.right = record_reader_open(&reader, fd, &err) == 0};

	drain(&reader, &f, UINT32_MAX);
	return f;
}

static uint64_t size_of(int fd)
{
	struct stat st;
	fstat(fd, &st);
	return (uint64_t)st.st_size;
}

static void test_round_trip(void)
{
	CLEANUP(record_reader_close) struct record_reader reader = {0};
	struct record_log log;
	struct record r;
	int fd[2];

	make_files(fd);
	CHECK(record_reader_open(&reader, fd, &err) == 0 && record_reader_next(&reader, &r, &err) == 0,
		"files that are empty have no record");
	CHECK(record_log_open(&log, fd, LIMIT, &err) == 0, "a log begins in two empty files");
	record_log_write(&log, RECORD_BOOT, NULL, 0);
	record_log_write(&log, RECORD_STDOUT, "out\n", 4);
	record_log_write(&log, RECORD_STDERR, "no", 0);
	record_log_write(&log, RECORD_STDERR, "err", 3);
	CHECK(record_reader_next(&reader, &r, &err) == 1 && r.stream == RECORD_BOOT && r.size == 0, "BOOT comes first");
	CHECK(record_reader_next(&reader, &r, &err) == 1 && r.stream == RECORD_STDOUT && r.size == 4 &&
			memcmp(r.bytes, "out\n", 4) == 0 && r.time_ns > 1600000000000000000u,
		"then the bytes of stdout, with their time");
	CHECK(record_reader_next(&reader, &r, &err) == 1 && r.stream == RECORD_STDERR && r.size == 3 &&
			memcmp(r.bytes, "err", 3) == 0,
		"then those of stderr; nothing is no record");
	CHECK(record_reader_next(&reader, &r, &err) == 0 && record_reader_next(&reader, &r, &err) == 0,
		"then nothing, however often one asks");
	record_log_write(&log, RECORD_CONSOLE, "more", 4);
	CHECK(record_reader_next(&reader, &r, &err) == 1 && r.stream == RECORD_CONSOLE, "and what comes later");
	close_files(fd);
}

/** Random writes and restarts; a reader from the oldest, one that follows and one that sleeps at times see what the model says. */
static void test_model(void)
{
	CLEANUP(record_reader_close) struct record_reader follower = {0}, sleeper = {0};
	struct found follows = {.right = true}, sleeps = {.right = true};
	bool whole = true, bounded = true, found_all = true;
	struct record_log log;
	int fd[2];

	make_files(fd);
	record_log_open(&log, fd, LIMIT, &err);
	record_reader_open(&follower, fd, &err);
	record_reader_open(&sleeper, fd, &err);
	for (unsigned i = 0; i < 3000; i++) {
		size_t n = roll(8) == 0 ? roll(200000) : roll(600);
		put(&log, RECORD_STDOUT + (unsigned)roll(3), n);
		if (n < LIMIT - 4096) /* else it is more than a file by itself */
			drain(&follower, &follows, UINT32_MAX);
		if (roll(40) == 0)
			drain(&sleeper, &sleeps, (unsigned)roll(50));
		if (roll(20) == 0) {
			uint64_t position = log.position, at = log.at, sequence = log.sequence;
			whole &= record_log_open(&log, fd, LIMIT, &err) == 0 && log.position == position &&
				 log.at == at && log.sequence == sequence;
		}
		bounded &= size_of(fd[0]) <= LIMIT && size_of(fd[1]) <= LIMIT;
		if (roll(20) == 0) {
			struct found all = read_all(fd);
			found_all &= all.right && all.position == log.position;
		}
	}
	drain(&follower, &follows, UINT32_MAX);
	drain(&sleeper, &sleeps, UINT32_MAX);
	CHECK(whole, "a writer that begins again goes on exactly where it was");
	CHECK(bounded, "no file grows over the limit");
	CHECK(found_all, "a reader that comes finds what is there, and how much is not");
	CHECK(follows.right && follows.position == log.position, "one that follows sees every byte, or its number");
	CHECK(sleeps.right && sleeps.position == log.position && sleeps.gaps > follows.gaps,
		"one that is slower than two files is told what it missed");
	close_files(fd);
}

static void test_slow_reader(void)
{
	CLEANUP(record_reader_close) struct record_reader reader = {0}, late = {0};
	struct record_log log;
	struct record r;
	int fd[2];

	make_files(fd);
	record_log_open(&log, fd, LIMIT, &err);
	for (unsigned i = 0; i < 10; i++)
		put(&log, RECORD_STDOUT, 1000);
	record_reader_open(&reader, fd, &err);
	struct found f = {.right = true};
	drain(&reader, &f, 3);
	for (unsigned i = 0; i < 1000; i++) /* fifteen files */
		put(&log, RECORD_STDOUT, 1000);
	uint64_t sequence = log.sequence;
	drain(&reader, &f, UINT32_MAX);
	CHECK(sequence > 14 && f.right && f.position == log.position && f.gaps > 800000,
		"a reader that slept over many switches goes on with the oldest there is");
	CHECK(record_reader_open_at_end(&late, fd, &err) == 0 && record_reader_next(&late, &r, &err) == 0,
		"one that begins at the end finds nothing old");
	record_log_write(&log, RECORD_BOOT, NULL, 0);
	put(&log, RECORD_STDERR, 10);
	struct found new = {.right = true, .position = log.position - 10};
	drain(&late, &new, UINT32_MAX);
	CHECK(new.right &&new.records == 2 && new.boots == 1 && new.gaps == 0, "and all that is new");
	close_files(fd);
}

static void copy(int to, int from, uint64_t n)
{
	CLEANUP_FREE uint8_t *bytes = malloc(n + 1);

	(void)!pread(from, bytes, n, 0);
	(void)!ftruncate(to, 0);
	(void)fd_write_all_at(to, bytes, n, 0);
}

/** The writer is killed in mid-write, at each byte; another one goes on. */
static void test_cuts(unsigned cut_file)
{
	bool whole = true, on = true, most = true;
	struct record_log log;
	int fd[2], cut[2];

	make_files(fd);
	make_files(cut);
	record_log_open(&log, fd, LIMIT, &err);
	while (log.sequence < 2)
		put(&log, RECORD_STDOUT, 5000);
	for (unsigned i = 0; i < 40; i++)
		put(&log, RECORD_STDOUT, 1 + roll(100));
	unsigned file = cut_file ? log.current : !log.current;
	uint64_t size = size_of(fd[file]), step = cut_file ? 1 : 97;
	for (uint64_t at = 0; at <= size; at += step) {
		copy(cut[!file], fd[!file], size_of(fd[!file]));
		copy(cut[file], fd[file], at);
		struct found before = read_all(cut);
		struct record_log next;
		int rc = record_log_open(&next, cut, LIMIT, &err);
		whole &= rc == 0 && before.right && before.position == next.position;
		most &= at < size || next.position == log.position;
		record_log_write(&next, RECORD_BOOT, NULL, 0);
		put(&next, RECORD_STDERR, 1 + roll(100));
		struct found after = read_all(cut);
		on &= after.right && after.position == next.position && after.boots == 1;
	}
	CHECK(whole, cut_file ? "newer file cut anywhere: its whole records are there" : "older file cut: likewise");
	CHECK(most, "nothing is lost of one that was not cut");
	CHECK(on, "what is written next is found behind them, and nothing of the torn one");
	close_files(fd);
	close_files(cut);
}

/** The workload writes what looks like a record, and the writer is torn from just that. */
static void test_forged(void)
{
	static const uint8_t forged[200] = {'x', 4, 0, 0, 0, RECORD_CONSOLE};
	struct record_log log;
	int fd[2];

	make_files(fd);
	record_log_open(&log, fd, LIMIT, &err);
	record_log_write(&log, RECORD_STDOUT, forged, sizeof(forged));
	(void)!ftruncate(fd[log.current], (off_t)log.at - 1);
	record_log_open(&log, fd, LIMIT, &err);
	put(&log, RECORD_STDERR, 1); /* its end is where the forged record begins */
	struct found f = read_all(fd);
	CHECK(f.right && f.records == 1 && f.position == 1, "no part of a torn record becomes one of its own");
	close_files(fd);
}

/** A full disk is a file that may not grow: RLIMIT_FSIZE makes writes short and then fail. */
static void test_no_room(void)
{
	struct rlimit none = {.rlim_cur = 20000, .rlim_max = RLIM_INFINITY}, before;
	struct record_log log;
	int fd[2];

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	none.rlim_max = before.rlim_max;
	make_files(fd);
	record_log_open(&log, fd, LIMIT, &err);
	put(&log, RECORD_STDOUT, 15000);
	setrlimit(RLIMIT_FSIZE, &none);
	put(&log, RECORD_STDOUT, 7000);
	put(&log, RECORD_STDERR, 8000);
	struct found full = read_all(fd);
	setrlimit(RLIMIT_FSIZE, &before);
	CHECK(full.right && full.position == 15000 && log.gap == 15000, "a write without room leaves whole records");
	put(&log, RECORD_STDOUT, 100);
	struct found f = read_all(fd);
	CHECK(f.right && f.gaps == 15000 && f.position == 30100, "and is told as a gap in front of what comes next");
	put(&log, RECORD_STDOUT, 45000);
	none.rlim_cur = 10; /* not even for a header */
	setrlimit(RLIMIT_FSIZE, &none);
	for (unsigned i = 0; i < 50; i++)
		put(&log, RECORD_STDOUT, 6000);
	setrlimit(RLIMIT_FSIZE, &before);
	put(&log, RECORD_STDOUT, 40000);
	f = read_all(fd);
	CHECK(f.right && f.position == log.position && f.gaps == 315000 && log.sequence == 2, "the same over a switch that fails");
	close_files(fd);
}

/** Bytes of a captured worker: a reader ends, and reads nothing but what is there. */
static void test_hostile(void)
{
	bool ends = true;
	struct record_log log;
	int fd[2], bad[2];

	make_files(fd);
	make_files(bad);
	record_log_open(&log, fd, LIMIT, &err);
	while (log.sequence < 3)
		put(&log, RECORD_STDOUT, 1 + roll(4000));
	for (unsigned i = 0; i < 2000; i++) {
		for (unsigned file = 0; file < 2; file++)
			copy(bad[file], fd[file], size_of(fd[file]));
		for (unsigned n = 1 + (unsigned)roll(8); n; n--) {
			unsigned file = (unsigned)roll(2);
			uint8_t byte = roll(3) ? (uint8_t)roll(256) : roll(2) ? 0xff : 0;
			uint64_t at = roll(2) ? roll(64) : roll(size_of(bad[file]));
			(void)fd_write_all_at(bad[file], &byte, 1, at);
		}
		CLEANUP(record_reader_close) struct record_reader reader = {0};
		struct record r;
		uint64_t bytes = 0;
		if (record_reader_open(&reader, bad, &err) < 0)
			continue;
		while (bytes <= 2 * LIMIT && record_reader_next(&reader, &r, &err) == 1)
			for (size_t k = 0; k < r.size; k++)
				bytes += 1 | r.bytes[k] >> 7 >> 1;
		ends &= bytes <= 2 * LIMIT;
	}
	CHECK(ends, "whatever the files hold, a reader comes to their end");
	static const uint8_t newer[RECORD_LOG_HEADER] = {'H', 'K', 'L', 'G', 9, 0, 0, 0, 1};
	CLEANUP(record_reader_close) struct record_reader reader = {0};
	(void)fd_write_all_at(bad[1], newer, sizeof(newer), 0);
	CHECK(record_reader_open(&reader, bad, &err) == -ENOTSUP && strstr(err.message, "version 9"),
		"a log of another version is refused");
	CHECK(record_log_open(&log, bad, LIMIT, &err) == 0 && size_of(bad[0]) == 0 && size_of(bad[1]) == 0,
		"and begun anew by a writer");
	close_files(fd);
	close_files(bad);
}

/** Two processes at once, the writer as fast as it can. */
static void test_race(void)
{
	CLEANUP(record_reader_close) struct record_reader reader = {0};
	struct found f = {.right = true};
	uint64_t total = 0;
	int fd[2], status;

	make_files(fd);
	record_reader_open(&reader, fd, &err);
	for (unsigned i = 0; i < 20000; i++)
		total += 1 + i * 7919 % 3000;
	pid_t writer = fork();
	if (writer == 0) {
		struct record_log log;
		record_log_open(&log, fd, LIMIT, &err);
		for (unsigned i = 0; i < 20000; i++)
			put(&log, RECORD_STDOUT, 1 + i * 7919 % 3000);
		_exit(0);
	}
	while (f.right && f.position < total && waitpid(writer, &status, WNOHANG) == 0)
		drain(&reader, &f, UINT32_MAX);
	if (waitpid(writer, &status, 0) < 0)
		status = 0;
	drain(&reader, &f, UINT32_MAX);
	CHECK(status == 0 && f.right && f.position == total && f.gaps < total,
		"a reader beside a writer in a hurry misses nothing untold");
	printf("# %llu of %llu bytes came as gaps\n", (unsigned long long)f.gaps, (unsigned long long)total);
	close_files(fd);
}

int main(void)
{
	test_round_trip();
	test_model();
	test_slow_reader();
	test_cuts(1);
	test_cuts(0);
	test_forged();
	test_no_room();
	test_hostile();
	test_race();
	return tap_done();
}
