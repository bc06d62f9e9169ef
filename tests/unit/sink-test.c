/* SPDX-License-Identifier: Apache-2.0 */
/* sink-test.c - a guest's console on the caller's descriptors: whole, bounded, both ways, and told when it is empty */
#include "vmm/sink.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

static struct husk_error err;

/** A sink between a guest's stream and a caller's pipes. */
struct rig {
	struct loop loop;
	struct sink sink;
	struct console console;
	int guest; /* what the guest writes and reads */
	int out, in; /* the caller's ends */
	int log;
	unsigned idle;
};

static void rig_make(struct rig *r, bool logged)
{
	int stream[2], out[2], in[2];
	*r = (struct rig){0};
	loop_init(&r->loop, &err);
	r->log = memfd_create("log", 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, stream) == 0 && pipe2(out, O_NONBLOCK) == 0 &&
			pipe2(in, O_NONBLOCK) == 0 && console_open(&r->console, &r->loop, -1, r->log, &err) == 0,
		"a rig");
	r->guest = stream[0];
	r->out = out[0];
	r->in = in[1];
	CHECK(sink_open(&r->sink, &r->loop, out[1], in[0], logged ? &r->console : NULL, &err) == 0 &&
			sink_tie_stream(&r->sink, stream[1], &err) == 0,
		"a sink");
}

static void rig_free(struct rig *r)
{
	sink_close(&r->sink);
	cleanup_fd(&r->guest);
	cleanup_fd(&r->out);
	cleanup_fd(&r->in);
	cleanup_fd(&r->log);
	loop_destroy(&r->loop);
}

static void rounds(struct rig *r, unsigned n)
{
	while (n--)
		loop_round(&r->loop, 0, &err);
}

static void on_idle(void *data)
{
	((struct rig *)data)->idle++;
}

static void test_capture(void)
{
	struct rig r;
	uint8_t all[256], got[512];
	for (size_t i = 0; i < sizeof(all); i++)
		all[i] = (uint8_t)i;
	rig_make(&r, false);
	CHECK(write(r.guest, all, sizeof(all)) == sizeof(all), "the guest says every byte");
	rounds(&r, 2);
	CHECK(read(r.out, got, sizeof(got)) == sizeof(all) && memcmp(got, all, sizeof(all)) == 0,
		"which arrive as they are");
	CHECK(lseek(r.log, 0, SEEK_END) == 0, "and not in the log");
	CHECK(write(r.in, all, sizeof(all)) == sizeof(all), "the caller answers");
	rounds(&r, 2);
	CHECK(read(r.guest, got, sizeof(got)) == sizeof(all) && memcmp(got, all, sizeof(all)) == 0,
		"the guest hears it");
	CHECK(sink_settle(&r.sink, on_idle, &r), "nothing waits");
	rig_free(&r);
}

static void test_slow_caller(void)
{
	static uint8_t chunk[65536], got[65536];
	struct rig r;
	size_t said = 0, heard = 0;
	bool same = true;
	rig_make(&r, false);
	for (unsigned i = 0; i < 200; i++) {
		for (size_t k = 0; k < sizeof(chunk); k++)
			chunk[k] = (uint8_t)((said + k) * 31 >> 3);
		ssize_t n = write(r.guest, chunk, sizeof(chunk));
		said += n > 0 ? (size_t)n : 0;
		rounds(&r, 3);
	}
	CHECK(said < 4 << 20, "a caller who does not read holds up the guest");
	CHECK(!sink_settle(&r.sink, on_idle, &r) && r.idle == 0, "something waits");
	for (unsigned i = 0; i < 1000 && heard < said; i++) {
		ssize_t n = read(r.out, got, sizeof(got));
		for (ssize_t k = 0; k < n; k++)
			same &= got[k] == (uint8_t)((heard + (size_t)k) * 31 >> 3);
		heard += n > 0 ? (size_t)n : 0;
		rounds(&r, 2);
	}
	CHECK(heard == said && same, "and gets every byte in order once he does");
	CHECK(r.idle > 0, "the end of the waiting is told");
	rig_free(&r);
}

static void test_caller_gone(void)
{
	static uint8_t chunk[65536];
	struct rig r;
	size_t said = 0;
	rig_make(&r, false);
	close(r.out);
	r.out = -1;
	for (unsigned i = 0; i < 100; i++) {
		ssize_t n = write(r.guest, chunk, sizeof(chunk));
		said += n > 0 ? (size_t)n : 0;
		rounds(&r, 20);
	}
	CHECK(said > 4 << 20, "a caller that is gone does not hold up the guest");
	CHECK(sink_settle(&r.sink, on_idle, &r), "nothing waits for him");
	rig_free(&r);
}

static void test_inherit(void)
{
	struct rig r;
	char got[100] = "";
	rig_make(&r, true);
	CHECK(write(r.guest, "one\nKernel panic - not syncing: x\n", 34) == 34, "the guest says two lines");
	rounds(&r, 2);
	CHECK(read(r.out, got, sizeof(got)) == 34, "the caller has them");
	CHECK(pread(r.log, got, sizeof(got), 0) == 34 && strncmp(got, "one\n", 4) == 0, "the log has them");
	CHECK_STRING(r.console.panic, "Kernel panic - not syncing: x", "and last words are found");
	sink_early(&r.sink, "early\n", 6);
	CHECK(read(r.out, got, sizeof(got)) == 6, "what comes early, too");
	rig_free(&r);
}

/** A terminal at which nobody is. */
static void test_lossy(void)
{
	static uint8_t chunk[65536];
	struct rig r;
	size_t said = 0, heard = 0;
	rig_make(&r, true);
	r.sink.lossy = true;
	memset(chunk, 'x', sizeof(chunk));
	for (unsigned i = 0; i < 100; i++) {
		ssize_t n = write(r.guest, chunk, sizeof(chunk));
		said += n > 0 ? (size_t)n : 0;
		rounds(&r, 20);
	}
	CHECK(said > CONSOLE_MAX, "a terminal that takes nothing does not hold up the guest");
	CHECK(sink_settle(&r.sink, on_idle, &r) && r.idle == 0, "nothing waits for it");
	CHECK(lseek(r.log, 0, SEEK_END) > CONSOLE_MAX, "what it did not take is in the log");
	for (ssize_t n; (n = read(r.out, chunk, sizeof(chunk))) > 0;)
		heard += (size_t)n;
	CHECK(heard > 0 && heard < said, "it has what it had room for");
	CHECK(write(r.guest, "now", 3) == 3, "when somebody is there");
	rounds(&r, 2);
	CHECK(read(r.out, chunk, sizeof(chunk)) == 3 && memcmp(chunk, "now", 3) == 0,
		"he sees what comes from then on");
	CHECK(write(r.in, "typed", 5) == 5, "and what he types");
	rounds(&r, 2);
	CHECK(read(r.guest, chunk, sizeof(chunk)) == 5 && memcmp(chunk, "typed", 5) == 0, "the guest hears");
	rig_free(&r);
}

/** What the log of bounded size has got: records, and the bytes of all. */
static unsigned records(const int fd[2], char *text, size_t room)
{
	CLEANUP(record_reader_close) struct record_reader reader = {0};
	struct record record;
	unsigned n = 0;
	size_t at = 0;
	record_reader_open(&reader, fd, &err);
	for (; record_reader_next(&reader, &record, &err) == 1; n++)
		for (size_t i = 0; i < record.size && at < room - 1; i++)
			text[at++] = (char)record.bytes[i];
	text[at] = 0;
	return n;
}

static void test_records(void)
{
	struct rig r;
	struct record_log log;
	char text[4096];
	const int fd[2] = {memfd_create("1", 0), memfd_create("2", 0)};
	rig_make(&r, true);
	CHECK(record_log_open(&log, fd, RECORD_LOG_MIN, &err) == 0 && console_record(&r.console, &log, &err) == 0,
		"a console with a log of bounded size");
	for (const char *at = "one by one\n"; *at; at++)
		console_write(&r.console, at, 1);
	CHECK(records(fd, text, sizeof(text)) == 1, "a line that comes byte by byte is one record");
	CHECK_STRING(text, "one by one\n", "with all of it");
	console_write(&r.console, "login: ", 7);
	CHECK(records(fd, text, sizeof(text)) == 1, "what is no line waits");
	loop_round(&r.loop, 10 * CONSOLE_FLUSH_MS, &err);
	CHECK(records(fd, text, sizeof(text)) == 2, "but not long");
	console_write(&r.console, "last", 4);
	console_drain(&r.console);
	CHECK(records(fd, text, sizeof(text)) == 3, "nor over the end");
	CHECK_STRING(text, "one by one\nlogin: last", "and nothing is missing");
	for (unsigned i = 0; i < 3 * CONSOLE_HELD; i++)
		console_write(&r.console, "y", 1);
	CHECK(records(fd, text, sizeof(text)) == 6 && strlen(text) == 22 + 3 * CONSOLE_HELD,
		"a line without end is cut into records");
	console_write(&r.console, "\nKernel panic - not syncing: y\n", 32);
	CHECK_STRING(r.console.panic, "Kernel panic - not syncing: y", "last words are found all the same");
	CHECK(lseek(r.log, 0, SEEK_END) == 0, "the other log has nothing");
	loop_timer_close(&r.loop, &r.console.flush);
	close(fd[0]);
	close(fd[1]);
	rig_free(&r);
}

static void test_ends(void)
{
	struct rig r;
	char got[10];
	rig_make(&r, false);
	close(r.in);
	r.in = -1;
	rounds(&r, 2);
	CHECK(r.sink.in < 0 && write(r.guest, "more", 4) == 4, "a caller who says no more");
	rounds(&r, 2);
	CHECK(read(r.out, got, sizeof(got)) == 4, "still hears");
	CHECK(write(r.guest, "last", 4) == 4, "last words");
	close(r.guest);
	r.guest = -1;
	CHECK(sink_settle(&r.sink, on_idle, &r) && read(r.out, got, sizeof(got)) == 4,
		"of a guest that is gone arrive");
	rig_free(&r);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_capture();
	test_slow_caller();
	test_caller_gone();
	test_inherit();
	test_lossy();
	test_records();
	test_ends();
	return tap_done();
}
