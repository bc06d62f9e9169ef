/* SPDX-License-Identifier: Apache-2.0 */
/* event-test.c - lines of events are JSON whatever is in them, and whole whoever else writes */
#include "base/event.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/rfc3339.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define WRITERS 8
#define LINES 3000 /* of about 500 bytes each: over two rotations */

static char folder[64], path[128], old_path[128];
static struct buffer b;

static const char *read_file(const char *from)
{
	CLEANUP_FD int fd = open(from, O_RDONLY | O_CLOEXEC);

	buffer_free(&b);
	b = (struct buffer){0};
	if (fd < 0 || fd_read_to_end(fd, &b, 1 << 30) < 0 || buffer_append(&b, "", 1) < 0)
		return "";
	return (const char *)buffer_bytes(&b);
}

static void begin(void)
{
	unlink(path);
	unlink(old_path);
}

/** What stands behind the time in the one line of the file. */
static const char *told(void)
{
	const char *line = read_file(path), *end = strstr(line, "Z\",");

	return end ? end + 3 : line;
}

static void test_line(void)
{
	const struct event_field fields[] = {{"end", "exited", 0}, {"exit_code", NULL, -42}};

	begin();
	event_tell(path, "stopped", "0123456789ab", "web", fields, 2);
	CHECK_STRING(told(),
		"\"event\":\"stopped\",\"id\":\"0123456789ab\",\"name\":\"web\",\"end\":\"exited\",\"exit_code\":-42}"
		"\n",
		"an event has what it is told with");
	CHECK(strncmp(read_file(path), "{\"time\":\"20", 11) == 0, "behind the time");
	begin();
	event_tell(path, "started", "0123456789ab", NULL, NULL, 0);
	CHECK_STRING(told(), "\"event\":\"started\",\"id\":\"0123456789ab\"}\n", "and no name where there is none");
	struct stat st;
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "nobody else may read it");
	event_tell(NULL, "started", "0", NULL, NULL, 0);
	event_tell("/nonexistent/events", "started", "0", NULL, NULL, 0);
	event_tell("/dev/null", "started", "0", NULL, NULL, 0);
	CHECK(access("/nonexistent", F_OK) < 0, "what cannot be told is not");
}

static void check_text(const char *text, const char *want, const char *what)
{
	const struct event_field field = {"x", text, 0};
	char line[256];

	begin();
	event_tell(path, "e", "i", NULL, &field, 1);
	snprintf(line, sizeof(line), "\"event\":\"e\",\"id\":\"i\",\"x\":\"%s\"}\n", want);
	CHECK_STRING(told(), line, what);
}

static void test_escapes(void)
{
	check_text("a\"b\\c", "a\\\"b\\\\c", "quotes and backslashes are escaped");
	check_text("\n\t\033[1m\177", "\\u000a\\u0009\\u001b[1m\\u007f", "so are controls");
	check_text("\xc2\x9b", "\\u009b", "and those that take two bytes");
	check_text("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xb0", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xb0", "UTF-8 is kept");
	check_text("\xff\xc3(", "\\ufffd\\ufffd(", "what is no UTF-8 is replaced");
	check_text("\xc0\xaf\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd", "overlong forms and surrogates too");
	check_text("\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd", "and what is beyond Unicode");
	check_text("\xe2\x82", "\\ufffd\\ufffd", "and a sequence that the end cuts");
}

static void test_bounds(void)
{
	static char large[EVENT_LINE_MAX];
	char room[EVENT_LINE_MAX - 200];
	const struct event_field fields[] = {{"large", large, 0}, {"room", room, 0}, {"n", NULL, 7}};

	memset(large, 'x', sizeof(large) - 1);
	memset(room, 'y', sizeof(room) - 1);
	room[sizeof(room) - 1] = 0;
	begin();
	event_tell(path, "e", "i", NULL, fields, 3);
	const char *line = read_file(path);
	size_t n = strlen(line);
	CHECK(n <= EVENT_LINE_MAX && !strstr(line, "large") && strstr(line, "yyy\",\"n\":7}\n"),
		"a member that does not fit is left out, and the next one is not");
	unsigned told_whole = 0, left_out = 0;
	for (size_t size = 900; size < 1100; size++) { /* about the limit: 4 bytes each on average with their escapes */
		for (size_t i = 0; i < size; i++)
			large[i] = (char)(i % 2 ? 1 : '"');
		large[size] = 0;
		begin();
		event_tell(path, "e", "i", NULL, fields, 1);
		line = read_file(path);
		const char *member = strstr(line, ",\"large\":\"");
		size_t whole = (size + 1) / 2 * 2 + size / 2 * 6;
		told_whole += member && strlen(member) == 10 + whole + 3 && strcmp(member + 10 + whole, "\"}\n") == 0;
		left_out += !member && strcmp(line + strlen(line) - 5, "\"i\"}\n") == 0;
	}
	CHECK(told_whole > 0 && left_out > 0 && told_whole + left_out == 200,
		"at every length a member is there whole or not at all");
}

static void write_lines(int writer)
{
	char text[400];
	const struct event_field fields[] = {{"writer", NULL, writer}, {"n", NULL, 0}, {"text", text, 0}};
	struct event_field mine[3];

	memset(text, 'a' + writer, sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	memcpy(mine, fields, sizeof(mine));
	for (int i = 0; i < LINES; i++) {
		mine[1].number = i;
		event_tell(path, "e", "0123456789ab", "web", mine, 3);
	}
}

/** Look at each line of a file; the numbers of every writer have to go on without a gap from where @next stands (-1: from
 *  anywhere). */
static bool lines_are_whole(const char *from, int next[WRITERS])
{
	const char *at = read_file(from);

	for (const char *end; (end = strchr(at, '\n')); at = end + 1) {
		int writer = -1, n = -1, used = 0;
		const char *members = strstr(at, "\"writer\":");
		if (strncmp(at, "{\"time\":\"", 9) != 0 || !members || members > end ||
			sscanf(members, "\"writer\":%d,\"n\":%d,\"text\":\"%n", &writer, &n, &used) != 2 || !used)
			return false;
		if (writer < 0 || writer >= WRITERS || (next[writer] >= 0 && n != next[writer]))
			return false;
		next[writer] = n + 1;
		for (int i = 0; i < 399; i++)
			if (members[used + i] != 'a' + writer)
				return false;
		if (strncmp(members + used + 399, "\"}\n", 3) != 0)
			return false;
	}
	return *at == 0;
}

static void test_many(void)
{
	int next[WRITERS], status, failed = 0;
	struct stat st;

	begin();
	for (int i = 0; i < WRITERS; i++) {
		next[i] = -1;
		if (fork() == 0) {
			write_lines(i);
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		failed += status != 0;
	CHECK(failed == 0, "eight processes have told 24,000 events at once");
	CHECK(stat(path, &st) == 0 && st.st_size <= (off_t)EVENTS_MAX + WRITERS * EVENT_LINE_MAX,
		"the file is bounded");
	CHECK(stat(old_path, &st) == 0 && st.st_size > (off_t)EVENTS_MAX - 2 * EVENT_LINE_MAX &&
			st.st_size <= (off_t)EVENTS_MAX + WRITERS * EVENT_LINE_MAX,
		"and so is the one before");
	CHECK(lines_are_whole(old_path, next) && lines_are_whole(path, next),
		"every line is whole, and none is missing behind the oldest ones");
	bool last = true;
	for (int i = 0; i < WRITERS; i++)
		last &= next[i] == LINES || next[i] == -1;
	CHECK(last, "down to the last one");
}

/** A process that was stopped with the lock in its hand. */
static void test_stuck(void)
{
	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;

	CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0 && fstat(fd, &st) == 0, "somebody keeps the file's lock");
	off_t before = st.st_size;
	event_tell(path, "e", "i", NULL, NULL, 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size > before, "an event is told all the same");
	CHECK(ftruncate(fd, (off_t)EVENTS_MAX * 2) == 0, "the file grows to twice its size");
	event_tell(path, "e", "i", NULL, NULL, 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size == (off_t)EVENTS_MAX * 2, "then no line is added");
	flock(fd, LOCK_UN);
	event_tell(path, "e", "i", NULL, NULL, 0);
	CHECK(stat(path, &st) == 0 && st.st_size < EVENT_LINE_MAX, "until it can be renamed");
}

static void test_full(void)
{
	struct rlimit limit;
	struct stat st;

	begin();
	event_tell(path, "e", "i", NULL, NULL, 0);
	CHECK(stat(path, &st) == 0 && getrlimit(RLIMIT_FSIZE, &limit) == 0, "a file of one line");
	off_t before = st.st_size;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)before + 10, limit.rlim_max});
	event_tell(path, "e", "i", NULL, NULL, 0);
	setrlimit(RLIMIT_FSIZE, &limit);
	CHECK(stat(path, &st) == 0 && st.st_size == before, "a line for which there is no room leaves no part behind");
	begin();
	CHECK(symlink(old_path, path) == 0, "a link in the place of the file");
	event_tell(path, "e", "i", NULL, NULL, 0);
	CHECK(access(old_path, F_OK) < 0, "is not followed");
	begin();
}

static void test_time(void)
{
	char text[RFC3339_SIZE];

	rfc3339_format(0, text);
	CHECK_STRING(text, "1970-01-01T00:00:00.000000000Z", "the beginning of time");
	rfc3339_format(1795905392123456789ull, text);
	CHECK_STRING(text, "2026-11-28T22:36:32.123456789Z", "a point in it");
	rfc3339_format(UINT64_MAX, text);
	CHECK_STRING(text, "2554-07-21T23:34:33.709551615Z", "and its end");
	/* Each day there is, against the C library's calendar. */
	bool right = true;
	for (uint64_t day = 0; day < UINT64_MAX / 1000000000 / 86400; day++) {
		time_t seconds = (time_t)(day * 86400 + day % 86400);
		char want[RFC3339_SIZE];
		struct tm t;
		gmtime_r(&seconds, &t);
		strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.000000000Z", &t);
		rfc3339_format((uint64_t)seconds * 1000000000, text);
		right &= strcmp(text, want) == 0;
	}
	CHECK(right, "every day until then has its date");
}

int main(void)
{
	snprintf(folder, sizeof(folder), "/tmp/husk-event-XXXXXX");
	CHECK(mkdtemp(folder) != NULL, "a folder");
	snprintf(path, sizeof(path), "%s/events", folder);
	snprintf(old_path, sizeof(old_path), "%s/events.1", folder);
	test_time();
	test_line();
	test_escapes();
	test_bounds();
	test_many();
	test_stuck();
	test_full();
	buffer_free(&b);
	CHECK(path_remove_tree(folder, NULL) == 0, "clean up");
	return tap_done();
}
