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
	test_ends();
	return tap_done();
}
