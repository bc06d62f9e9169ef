/* SPDX-License-Identifier: Apache-2.0 */
/* logs-test.c - what a VM has said is read in order, in part and to the end, while it is said and when the VM goes away */
#include "engine/logs.h"

#include "base/buffer.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/record_log.h"
#include "base/rfc3339.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#define S 1000000000ull

static struct husk_error err;
static struct husk husk;
static struct buffer got; /* pieces: "o:…", "e:…", "c:…", "l:N" and a bar */
static size_t pieces, limit;

static int on_piece(void *data, enum husk_stream stream, uint64_t time_ns, const void *bytes, size_t n)
{
	static const char letters[] = {
		[HUSK_STDOUT] = 'o', [HUSK_STDERR] = 'e', [HUSK_CONSOLE] = 'c', [HUSK_LOST] = 'l'};

	if (bytes)
		buffer_printf(&got, "%c:%.*s|", letters[stream], (int)n, (const char *)bytes);
	else
		buffer_printf(&got, "%c:%zu|", letters[stream], n);
	return ++pieces == limit ? 77 : 0;
}

/** What comes of the options: the pieces, or the error. */
static const char *read_with(const struct vm_record *r, struct husk_log_options o)
{
	static char text[65536];
	const struct husk_log_options d = logs_defaults();

	o.size = d.size;
	o.timeout_ms = o.timeout_ms ? o.timeout_ms : d.timeout_ms;
	o.cancel_fd = o.cancel_fd ? o.cancel_fd : d.cancel_fd;
	buffer_free(&got);
	pieces = 0;
	int rc = logs_read(&husk, r->id, &o, on_piece, NULL, &err);
	if (rc != 0)
		buffer_printf(&got, "%d", rc);
	snprintf(text, sizeof(text), "%.*s", (int)got.size, got.size ? (char *)buffer_bytes(&got) : "");
	return text;
}
#define READ(record, ...) read_with(record, (struct husk_log_options){.tail = -1, __VA_ARGS__})
#define TAIL(record, lines, ...) read_with(record, (struct husk_log_options){.tail = lines, __VA_ARGS__})

/** A log as the worker writes it. */
struct log {
	struct record_log log;
	int fd[2];
};

static void open_log(struct log *l, const struct vm_record *r, const char *name)
{
	for (int i = 0; i < 2; i++) {
		CLEANUP_FREE char *path = path_format("%s/%s.%d", r->directory, name, i);
		l->fd[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	CHECK(record_log_open(&l->log, l->fd, RECORD_LOG_MIN, &err) == 0, "a log");
}

static void close_log(struct log *l)
{
	close(l->fd[0]);
	close(l->fd[1]);
}

static void write_text(struct log *l, enum record_stream stream, const char *text)
{
	record_log_write(&l->log, stream, text, strlen(text));
}

static void write_state(const struct vm_record *r, enum vm_state state, uint32_t starts, uint64_t started_ns)
{
	struct vm_state_record s = {0};

	state_read(r->state_fd, &s, NULL);
	s.state = state;
	s.starts = starts;
	s.started_ns = started_ns;
	process_identify(getpid(), &s.supervisor);
	host_boot_id(s.boot_id);
	CHECK(state_write(r->state_fd, &s, &err) == 0, "a state");
}

static void make_vm(struct vm_record *r, const char *lifetime)
{
	CLEANUP_JSON json_t *json = json_pack("{s:s}", "lifetime", lifetime);

	*r = (struct vm_record)VM_RECORD_INIT;
	CHECK(vm_record_create(&husk, NULL, json, r, &err) == 0, "a record");
	vm_record_unlock(r);
}

static void test_output(void)
{
	struct vm_record r;
	struct log log;

	make_vm(&r, "detached");
	CHECK_STRING(READ(&r), "", "a VM that never ran has said nothing");
	CHECK_STRING(READ(&r, .follow = true), "", "and is not waited for");
	open_log(&log, &r, "output");
	record_log_write(&log.log, RECORD_BOOT, NULL, 0);
	write_text(&log, RECORD_STDOUT, "one\ntwo\n");
	write_text(&log, RECORD_STDERR, "three\n");
	write_text(&log, RECORD_STDOUT, "fo");
	uint64_t middle = clock_realtime_ns();
	write_text(&log, RECORD_STDOUT, "ur\nfive");
	CHECK_STRING(READ(&r), "o:one\ntwo\n|e:three\n|o:fo|o:ur\nfive|", "everything, in order");
	CHECK_STRING(TAIL(&r, 0), "", "no lines");
	CHECK_STRING(TAIL(&r, 1), "o:five|", "the last line, which has no end");
	CHECK_STRING(TAIL(&r, 2), "o:fo|o:ur\nfive|", "the last two, one of which came in two pieces");
	CHECK_STRING(TAIL(&r, 3), "e:three\n|o:fo|o:ur\nfive|", "the last three");
	CHECK_STRING(TAIL(&r, 4), "o:two\n|e:three\n|o:fo|o:ur\nfive|", "the last four");
	CHECK_STRING(TAIL(&r, 5), "o:one\ntwo\n|e:three\n|o:fo|o:ur\nfive|", "as many as there are");
	CHECK_STRING(TAIL(&r, 1000), "o:one\ntwo\n|e:three\n|o:fo|o:ur\nfive|", "and more");
	CHECK_STRING(READ(&r, .since_ns = middle), "o:ur\nfive|", "since a point in time");
	CHECK_STRING(READ(&r, .until_ns = middle), "o:one\ntwo\n|e:three\n|o:fo|", "until then");
	CHECK_STRING(TAIL(&r, 1, .until_ns = middle), "o:fo|", "and the last line before it");
	limit = 2;
	CHECK_STRING(READ(&r), "o:one\ntwo\n|e:three\n|77", "who has enough ends it");
	CHECK_STRING(TAIL(&r, 1000), "o:one\ntwo\n|e:three\n|77", "at the end, too");
	limit = 0;
	record_log_write(&log.log, RECORD_BOOT, NULL, 0);
	write_text(&log, RECORD_STDOUT, "again\n");
	CHECK_STRING(READ(&r, .last_start = true), "o:again\n|", "since the last start");
	CHECK_STRING(
		TAIL(&r, 2), "o:fo|o:ur\nfive|o:again\n|", "an earlier life is not forgotten, nor its last line ended");
	CHECK_STRING(READ(&r, .boot = true), "", "nothing of it is of the boot");
	CHECK(vm_record_remove(&husk, &r, &err) == 0, "it is removed");
	CHECK_STRING(READ(&r), "-2", "then there is no VM");
	close_log(&log);
	vm_record_close(&r);
}

static void test_gap(void)
{
	char line[1001];
	struct vm_record r;
	struct log log;

	make_vm(&r, "detached");
	open_log(&log, &r, "output");
	memset(line, 'x', sizeof(line) - 2);
	line[sizeof(line) - 2] = '\n';
	line[sizeof(line) - 1] = 0;
	for (int i = 0; i < 300; i++)
		write_text(&log, RECORD_STDOUT, line);
	const char *text = READ(&r);
	size_t lost = strtoul(text + 2, NULL, 10);
	CHECK(strncmp(text, "l:", 2) == 0 && lost > 0 && lost % 1000 == 0 && pieces == 1 + (300000 - lost) / 1000,
		"what was dropped is told, and nothing else is missing");
	CHECK(strlen(TAIL(&r, 3)) == 3 * (1000 + 3) && pieces == 3, "at the end it does not matter");
	vm_record_remove(&husk, &r, NULL);
	close_log(&log);
	vm_record_close(&r);
}

static void log_line(const struct vm_record *r, uint64_t ns, const char *text)
{
	char time[RFC3339_SIZE];

	rfc3339_format(ns, time);
	dprintf(r->log_fd, "%s %s\n", time, text);
}

static void test_boot(void)
{
	struct vm_record r;
	struct log log;

	make_vm(&r, "detached");
	open_log(&log, &r, "console");
	log_line(&r, clock_realtime_ns() - S, "husk-vmm worker: first");
	record_log_write(&log.log, RECORD_BOOT, NULL, 0);
	write_text(&log, RECORD_CONSOLE, "Linux\r\n");
	log_line(&r, clock_realtime_ns(), "husk-vmm supervisor: second");
	dprintf(r.log_fd, "no time\n");
	write_text(&log, RECORD_CONSOLE, "half");
	log_line(&r, clock_realtime_ns(), "third");
	write_text(&log, RECORD_CONSOLE, " line\n");
	dprintf(r.log_fd, "no end");
	CHECK_STRING(READ(&r, .boot = true),
		"c:husk-vmm worker: first\n|c:Linux\r\n|c:husk-vmm supervisor: second\n|c:no "
		"time\n|c:half|c:\n|c:third\n|"
		"c:no end|c: line\n|",
		"console and husk's words are put in order by their times, each on its line");
	CHECK_STRING(TAIL(&r, 1, .boot = true), "c:no end|c: line\n|", "also at the end");
	uint64_t again = clock_realtime_ns();
	write_state(&r, VM_STOPPED, 2, again);
	dprintf(r.log_fd, "\n");
	log_line(&r, again + 1, "fourth");
	record_log_write(&log.log, RECORD_BOOT, NULL, 0);
	write_text(&log, RECORD_CONSOLE, "Linux again\n");
	CHECK_STRING(
		READ(&r, .boot = true, .last_start = true), "c:fourth\n|c:Linux again\n|", "of the last start only");
	CHECK_STRING(READ(&r), "", "nothing of it is the workload's");
	vm_record_remove(&husk, &r, NULL);
	close_log(&log);
	vm_record_close(&r);

	make_vm(&r, "caller");
	dprintf(r.log_fd, "console\n");
	log_line(&r, 5 * S, "word");
	dprintf(r.log_fd, "prompt: ");
	CHECK_STRING(
		READ(&r, .boot = true), "c:console\n|c:word\n|c:prompt: |", "a foreground VM has one file for both");
	CHECK_STRING(READ(&r), "-95", "and no output");
	vm_record_remove(&husk, &r, NULL);
	vm_record_close(&r);
}

/** Do @what in another process once the reader waits; its pid. */
static pid_t meanwhile(void (*what)(struct vm_record *r, struct log *log), struct vm_record *r, struct log *log)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	if (!freopen("/dev/null", "w", stdout)) /* its checks are not in the parent's plan; its status tells */
		_exit(1);
	what(r, log);
	_exit(tap_failed ? 1 : 0);
}

/** Let the reader have taken in what was written: nothing tells from outside, so it is only given time; whatever the outcome, the
 *  same is expected of it. */
static void give_time(void)
{
	poll(NULL, 0, 20);
}

static void say_and_end(struct vm_record *r, struct log *log)
{
	give_time();
	write_text(log, RECORD_STDOUT, "b\n");
	give_time();
	write_text(log, RECORD_STDERR, "c\n");
	write_state(r, VM_STOPPED, 1, 0);
}

static void start_again(struct vm_record *r, struct log *log)
{
	give_time();
	write_text(log, RECORD_STDOUT, "d\n");
	write_state(r, VM_STARTING, 2, clock_realtime_ns());
	record_log_write(&log->log, RECORD_BOOT, NULL, 0);
	write_text(log, RECORD_STDOUT, "not this\n");
}

static void remove_it(struct vm_record *r, struct log *log)
{
	give_time();
	write_text(log, RECORD_STDOUT, "last\n");
	vm_record_remove(&husk, r, NULL);
}

/** More than both files take. */
static void say_much(struct vm_record *r, struct log *log)
{
	char line[1024];

	give_time();
	memset(line, 'y', sizeof(line));
	for (int i = 0; i < 1000; i++) {
		snprintf(line, sizeof(line), "%06d", i);
		line[6] = 'y';
		record_log_write(&log->log, RECORD_STDOUT, line, sizeof(line));
	}
	write_state(r, VM_STOPPED, 9, 0);
}

static void check_child(pid_t pid, const char *what)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid && status == 0, what);
}

/** Every byte is given or told to be lost. */
static bool all_accounted_for(void)
{
	const char *at = (const char *)buffer_bytes(&got), *end = at + got.size;
	size_t sum = 0;

	while (at < end) {
		const char *bar = memchr(at, '|', (size_t)(end - at));
		if (!bar)
			return false;
		sum += *at == 'l' ? strtoul(at + 2, NULL, 10) : (size_t)(bar - at - 2);
		at = bar + 1;
	}
	return sum == 1000 * 1024;
}

static void test_follow(void)
{
	struct vm_record r;
	struct log log;
	pid_t pid;

	make_vm(&r, "detached");
	open_log(&log, &r, "output");
	record_log_write(&log.log, RECORD_BOOT, NULL, 0);
	write_text(&log, RECORD_STDOUT, "0\na\n");
	write_state(&r, VM_RUNNING, 1, 1);
	CHECK_STRING(READ(&r, .follow = true, .timeout_ms = 1), "o:0\na\n|-110",
		"a VM that runs on is followed until the deadline");
	CHECK_STRING(READ(&r, .follow = true, .until_ns = clock_realtime_ns()), "o:0\na\n|", "or until then");
	int cancel[2];
	CHECK(pipe(cancel) == 0 && write(cancel[1], "", 1) == 1, "a pipe that says enough");
	CHECK_STRING(READ(&r, .follow = true, .cancel_fd = cancel[0]), "o:0\na\n|-125", "or until somebody says so");
	pid = meanwhile(say_and_end, &r, &log);
	CHECK_STRING(TAIL(&r, 1, .follow = true), "o:a\n|o:b\n|e:c\n|", "or until it has ended, and all is read");
	check_child(pid, "it has said that");
	close_log(&log);
	open_log(&log, &r, "output");
	write_state(&r, VM_RUNNING, 1, 1);
	pid = meanwhile(start_again, &r, &log);
	CHECK_STRING(TAIL(&r, 0, .follow = true), "o:d\n|", "its next life is not followed");
	check_child(pid, "it was started again");
	close_log(&log);
	open_log(&log, &r, "output");
	write_state(&r, VM_RUNNING, 9, 1);
	pid = meanwhile(say_much, &r, &log);
	READ(&r, .follow = true, .since_ns = clock_realtime_ns());
	CHECK(all_accounted_for(), "files that are emptied under the reader cost nothing, or what they cost is told");
	check_child(pid, "it has said much");
	close_log(&log);
	open_log(&log, &r, "output");
	write_state(&r, VM_RUNNING, 9, 1);
	pid = meanwhile(remove_it, &r, &log);
	CHECK_STRING(TAIL(&r, 0, .follow = true), "o:last\n|", "a VM that is removed is read to its end");
	check_child(pid, "it was removed");
	close_log(&log);
	vm_record_close(&r);
}

int main(void)
{
	char folder[] = "/tmp/husk-logs-XXXXXX";

	CHECK(mkdtemp(folder) != NULL, "a home");
	husk.home = folder;
	husk.runtime = path_join(folder, "run");
	test_output();
	test_gap();
	test_boot();
	test_follow();
	buffer_free(&got);
	free(husk.runtime);
	CHECK(path_remove_tree(folder, NULL) == 0, "clean up");
	return tap_done();
}
