/* SPDX-License-Identifier: Apache-2.0 */
/* agent-client-test.c - the worker's agent client moves every byte, keeps its bounds, and survives a hostile agent */
#include "vmm/agent_client.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

/** A client and the other ends of everything it holds. */
struct bench {
	struct loop loop;
	struct agent_client *client;
	int agent, in, out, error;
	int started, draining, ended;
	struct vm_message outcome;
	struct buffer said; /* by the client */
	struct buffer kept[2]; /* what output() brought */
};

static void on_started(void *data)
{
	((struct bench *)data)->started++;
}

static void on_draining(void *data)
{
	((struct bench *)data)->draining++;
}

static void on_ended(void *data, const struct vm_message *outcome)
{
	struct bench *b = data;
	b->ended++;
	b->outcome = *outcome;
	agent_client_close(steal_pointer(&b->client));
}

static void on_output(void *data, int stream, const void *bytes, size_t n)
{
	buffer_append(&((struct bench *)data)->kept[stream - 1], bytes, n);
}

static const struct agent_client_handler handler = {
	.started = on_started, .output = on_output, .draining = on_draining, .ended = on_ended};

/** A client; of a @detached one nothing is open but the connection. */
static void bench_make(struct bench *b, bool detached)
{
	int pair[2], in[2], out[2], error[2];

	*b = (struct bench){0};
	loop_init(&b->loop, NULL);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
		pipe2(in, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0 ||
		pipe2(error, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	const int stdio[3] = {detached ? -1 : in[0], detached ? -1 : out[1], detached ? -1 : error[1]};
	for (int i = 0; i < 3 && detached; i++)
		close(i == 0 ? in[0] : i == 1 ? out[1] : error[1]);
	b->agent = pair[1];
	b->in = in[1];
	b->out = out[0];
	b->error = error[0];
	if (agent_client_open(&b->loop, pair[0], "exec", 4, stdio, &handler, b, &b->client, NULL) < 0)
		abort();
}

static void bench_open(struct bench *b)
{
	bench_make(b, false);
}

static void bench_run(struct bench *b)
{
	for (int i = 0; i < 20; i++) {
		loop_round(&b->loop, 0, NULL);
		while (buffer_read(&b->said, b->agent, 65536) > 0)
			;
	}
}

static void bench_close(struct bench *b)
{
	agent_client_close(b->client);
	cleanup_fd(&b->agent);
	cleanup_fd(&b->in);
	cleanup_fd(&b->out);
	cleanup_fd(&b->error);
	buffer_free(&b->said);
	buffer_free(&b->kept[0]);
	buffer_free(&b->kept[1]);
	loop_destroy(&b->loop);
}

/** The agent says the frames in @frames, as far as the socket takes them. */
static void say(struct bench *b, struct buffer *frames)
{
	while (frames->size && b->client) {
		ssize_t n = send(b->agent, buffer_bytes(frames), frames->size, MSG_NOSIGNAL);
		if (n > 0)
			buffer_consume(frames, (size_t)n);
		else if (errno != EAGAIN)
			break;
		bench_run(b);
	}
	bench_run(b);
	buffer_free(frames);
}

static void say_started(struct bench *b)
{
	struct buffer f = {0};
	agent_hello_put(&f);
	agent_u32_put(&f, AGENT_STARTED, 0, 7);
	say(b, &f);
}

static void say_exit(struct bench *b, uint32_t status)
{
	struct buffer f = {0};
	struct agent_exit e = {.kind = AGENT_EXITED, .value = status, .duration_ns = 5, .peak_rss = 6};
	agent_exit_put(&f, &e);
	say(b, &f);
}

/** Take the next frame that the client said. */
static bool heard(struct bench *b, struct agent_frame *frame)
{
	long n = b->said.size ? agent_frame_decode(buffer_bytes(&b->said), b->said.size, frame) : 0;
	if (n > 0)
		buffer_consume(&b->said, (size_t)n); /* the bytes stay where they are */
	return n > 0;
}

static void test_run(void)
{
	struct bench b;
	struct buffer f = {0};
	struct agent_frame frame;
	char text[16] = {0};
	uint32_t number;

	bench_open(&b);
	agent_client_signal(b.client, SIGINT);
	bench_run(&b);
	CHECK(heard(&b, &frame) && frame.type == AGENT_HELLO && heard(&b, &frame) && frame.type == AGENT_EXEC &&
			frame.size == 4 && b.said.size == 0,
		"HELLO and EXEC are said at once, a signal is not");
	say_started(&b);
	CHECK(b.started == 1, "STARTED is told");
	CHECK(heard(&b, &frame) && frame.type == AGENT_SIGNAL && agent_u32_get(&frame, &number) && number == SIGINT,
		"then the signal goes");
	fd_write_all(b.in, "input", 5);
	bench_run(&b);
	CHECK(heard(&b, &frame) && frame.type == AGENT_STDIN && frame.size == 5, "stdin goes to the agent");
	close(steal_fd(&b.in));
	bench_run(&b);
	CHECK(heard(&b, &frame) && frame.type == AGENT_EOF && frame.stream == AGENT_STREAM_STDIN,
		"and so does its end");
	agent_frame_put(&f, AGENT_STDOUT, AGENT_STREAM_STDOUT, "out\0", 4);
	agent_frame_put(&f, AGENT_STDERR, AGENT_STREAM_STDERR, "err", 3);
	agent_frame_put(&f, AGENT_EOF, AGENT_STREAM_STDERR, NULL, 0);
	say(&b, &f);
	CHECK(read(b.out, text, 16) == 4 && memcmp(text, "out", 4) == 0, "stdout comes out, binary-safe");
	CHECK(read(b.error, text, 16) == 3 && read(b.error, text, 16) == 0, "stderr comes out apart, and ends");
	say_exit(&b, 42);
	CHECK(b.ended == 1 && b.outcome.end == VM_END_EXITED && b.outcome.value == 42 && b.outcome.duration_ns == 5 &&
			b.outcome.peak_rss == 6 && vm_message_check(&b.outcome),
		"EXIT is the outcome");
	bench_close(&b);
}

static void test_slow_reader(void)
{
	static uint8_t chunk[AGENT_CHUNK];
	struct bench b;
	struct buffer f = {0};
	size_t got = 0, windows = 0;
	struct agent_frame frame;
	ssize_t n;

	bench_open(&b);
	say_started(&b);
	for (size_t i = 0; i < AGENT_WINDOW / AGENT_CHUNK; i++) {
		memset(chunk, (int)i + 1, sizeof(chunk));
		agent_frame_put(&f, AGENT_STDOUT, AGENT_STREAM_STDOUT, chunk, sizeof(chunk));
	}
	say(&b, &f);
	agent_frame_put(&f, AGENT_STDERR, AGENT_STREAM_STDERR, "err", 3);
	say(&b, &f);
	CHECK(read(b.error, chunk, sizeof(chunk)) == 3, "a stream that nobody reads does not hold up another");
	say_exit(&b, 0);
	CHECK(b.draining == 1 && b.ended == 0, "the outcome waits for the output");
	bool right = true;
	while ((n = read(b.out, chunk, sizeof(chunk))) != 0) {
		for (ssize_t i = 0; i < n; i++, got++)
			right &= chunk[i] == got / AGENT_CHUNK + 1;
		bench_run(&b);
	}
	CHECK(got == AGENT_WINDOW && right, "every byte comes, in order");
	CHECK(b.ended == 1 && b.outcome.end == VM_END_EXITED, "then the outcome is told");
	while (heard(&b, &frame))
		windows += frame.type == AGENT_WINDOW_OPEN;
	CHECK(windows == 0, "the window of a stream that was not read is not opened");
	bench_close(&b);
}

static void test_gone_reader(void)
{
	static uint8_t chunk[AGENT_CHUNK];
	struct bench b;
	struct buffer f = {0};
	struct agent_frame frame;
	uint32_t ends = 0, windows = 0;

	bench_open(&b);
	say_started(&b);
	close(steal_fd(&b.out));
	for (size_t i = 0; i < AGENT_WINDOW / AGENT_CHUNK; i++)
		agent_frame_put(&f, AGENT_STDOUT, AGENT_STREAM_STDOUT, chunk, sizeof(chunk));
	say(&b, &f);
	while (heard(&b, &frame))
		if (frame.type == AGENT_EOF && frame.stream == AGENT_STREAM_STDOUT && frame.size == 0)
			ends++;
		else if (frame.type == AGENT_WINDOW_OPEN)
			windows++;
	CHECK(ends == 1 && windows == 0, "a stream whose reader is gone is ended towards the agent, once");
	say_exit(&b, 3);
	CHECK(b.ended == 1 && b.outcome.value == 3, "and the workload runs to its end");
	bench_close(&b);
}

static void test_stdin_window(void)
{
	static uint8_t chunk[AGENT_CHUNK];
	struct bench b;
	struct buffer f = {0};
	struct agent_frame frame;
	size_t sent = 0;

	bench_open(&b);
	say_started(&b);
	for (int i = 0; i < 64; i++) {
		(void)!write(b.in, chunk, sizeof(chunk));
		bench_run(&b);
	}
	while (heard(&b, &frame))
		sent += frame.type == AGENT_STDIN ? frame.size : 0;
	CHECK(sent == AGENT_WINDOW, "stdin stops at the agent's window");
	agent_u32_put(&f, AGENT_WINDOW_OPEN, AGENT_STREAM_STDIN, 1000);
	say(&b, &f);
	while (heard(&b, &frame))
		sent += frame.type == AGENT_STDIN ? frame.size : 0;
	CHECK(sent == AGENT_WINDOW + 1000, "and goes on by what the agent opens");
	bench_close(&b);
}

/** A pipe as stdin, with @text in it and its writing end in *@to; -errno of the feeding. */
static int feed(struct bench *b, const char *text, bool to_end, int *to)
{
	int ends[2];
	struct husk_error err;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 || fd_write_all(ends[1], text, strlen(text)) < 0)
		abort();
	int rc = agent_client_feed(b->client, ends[0], to_end, &err);
	if (rc < 0) {
		close(ends[0]);
		close(ends[1]);
	}
	*to = rc < 0 ? -1 : ends[1];
	return rc;
}

/** The next frame is the @n bytes @text of stdin; its end for NULL. */
static bool hears(struct bench *b, const char *text)
{
	struct agent_frame frame;

	bench_run(b);
	if (!heard(b, &frame))
		return false;
	return text ? frame.type == AGENT_STDIN && frame.size == strlen(text) &&
			       memcmp(frame.payload, text, frame.size) == 0
		    : frame.type == AGENT_EOF && frame.stream == AGENT_STREAM_STDIN;
}

static void test_feed(void)
{
	struct bench b;
	struct agent_frame frame;
	int to, other;

	bench_make(&b, true);
	CHECK(feed(&b, "early", false, &to) == 0, "stdin may come before the workload has started");
	CHECK(feed(&b, "", false, &other) == -EBUSY, "and a second one may not, while the first is there");
	bench_run(&b);
	CHECK(heard(&b, &frame) && heard(&b, &frame) && frame.type == AGENT_EXEC && b.said.size == 0,
		"nothing of it goes before STARTED");
	say_started(&b);
	CHECK(hears(&b, "early"), "then it does");
	close(to);
	bench_run(&b);
	CHECK(b.said.size == 0, "its end is not the end of stdin");
	CHECK(feed(&b, "late", true, &to) == 0 && hears(&b, "late"), "another one follows");
	fd_write_all(to, "more", 4);
	CHECK(hears(&b, "more"), "for as long as it is open");
	close(to);
	CHECK(hears(&b, NULL), "and the end of one that is to end stdin does");
	CHECK(feed(&b, "x", false, &to) == -EPIPE, "behind which nothing can follow");
	say_exit(&b, 0);
	CHECK(b.ended == 1, "the workload ends");
	bench_close(&b);

	bench_make(&b, true);
	CHECK(feed(&b, "", true, &to) == 0, "one that is at its end before the workload starts");
	close(to);
	bench_run(&b);
	CHECK(heard(&b, &frame) && heard(&b, &frame) && b.said.size == 0, "says nothing before STARTED");
	say_started(&b);
	CHECK(hears(&b, NULL), "and then ends stdin");
	bench_close(&b);
}

/** Without descriptors all output is handed on as it comes, and the window stays open. */
static void test_output(void)
{
	static uint8_t chunk[AGENT_CHUNK];
	struct bench b;
	struct buffer f = {0};
	size_t total = 0;
	bool right = true;

	bench_make(&b, true);
	say_started(&b);
	agent_frame_put(&f, AGENT_STDERR, AGENT_STREAM_STDERR, "a\0b", 3);
	for (unsigned i = 0; i < 32; i++, total += sizeof(chunk)) { /* four windows */
		memset(chunk, (int)i + 1, sizeof(chunk));
		agent_frame_put(&f, AGENT_STDOUT, AGENT_STREAM_STDOUT, chunk, sizeof(chunk));
		if (i % 4 == 3) /* as a window would let an agent */
			say(&b, &f);
	}
	CHECK(b.kept[1].size == 3 && memcmp(buffer_bytes(&b.kept[1]), "a\0b", 3) == 0, "stderr is handed on apart");
	for (size_t i = 0; i < b.kept[0].size; i++)
		right &= buffer_bytes(&b.kept[0])[i] == i / AGENT_CHUNK + 1;
	CHECK(b.kept[0].size == total && right, "all of stdout is, without anybody who reads");
	say_exit(&b, 4);
	CHECK(b.ended == 1 && b.outcome.value == 4, "and the outcome waits for nothing");
	bench_close(&b);
}

/** The agent says @n bytes (after STARTED when @started) and stays connected: what comes of it. */
static struct vm_message hostile(bool started, const void *bytes, size_t n)
{
	static char waste[AGENT_CHUNK];
	struct bench b;
	struct buffer f = {0};

	bench_open(&b);
	if (started)
		say_started(&b);
	buffer_append(&f, bytes, n);
	say(&b, &f);
	while (read(b.out, waste, sizeof(waste)) > 0) /* the outcome waits for what came before */
		bench_run(&b);
	struct vm_message outcome = b.outcome;
	bench_close(&b);
	return outcome;
}

static void refused(bool started, struct buffer *f, const char *what)
{
	struct vm_message m = hostile(started, buffer_bytes(f), f->size);
	CHECK(m.end == VM_END_FAILED && vm_message_check(&m), what);
	buffer_free(f);
}

static void test_hostile(void)
{
	static uint8_t big[AGENT_WINDOW + 1];
	struct buffer f = {0};
	struct bench b;

	refused(false, (buffer_append(&f, "\xff\xff\xff\xff\x01\0\0\0", 8), &f), "a frame of 4 GiB");
	refused(false, (buffer_append(&f, "\0\0\0\0\x02\0\1\0", 8), &f), "reserved bytes");
	refused(false, (agent_u32_put(&f, AGENT_HELLO, 0, AGENT_VERSION + 1), &f), "another version");
	refused(false, (agent_u32_put(&f, AGENT_STARTED, 0, 1), &f), "no HELLO");
	refused(true, (agent_u32_put(&f, AGENT_STARTED, 0, 1), &f), "a second STARTED");
	refused(true, (agent_frame_put(&f, AGENT_STDOUT, 1, big, sizeof(big)), &f),
		"more than the window in one frame");
	for (int i = 0; i < 9; i++)
		agent_frame_put(&f, AGENT_STDOUT, 1, big, AGENT_CHUNK);
	refused(true, &f, "more than the window in many");
	refused(true, (agent_frame_put(&f, AGENT_STDOUT, 1, big, 0), &f), "an empty stream frame");
	agent_frame_put(&f, AGENT_EOF, AGENT_STREAM_STDOUT, NULL, 0);
	refused(true, (agent_frame_put(&f, AGENT_STDOUT, 1, big, 1), &f), "output behind its end");
	refused(true, (agent_frame_put(&f, AGENT_EOF, 9, NULL, 0), &f), "the end of an unknown stream");
	refused(true, (agent_u32_put(&f, AGENT_WINDOW_OPEN, 0, 1), &f), "a window over its size");
	refused(true, (agent_u32_put(&f, AGENT_SIGNAL, 0, 9), &f), "a client's frame from the agent");
	refused(true, (agent_frame_put(&f, AGENT_EXIT, 0, big, AGENT_EXIT_SIZE), &f), "an EXIT of no kind");
	refused(true, (agent_frame_put(&f, AGENT_ERROR, 0, big, 4), &f), "an ERROR of no code");
	agent_hello_put(&f);
	agent_error_put(&f, AGENT_ERROR_NOT_FOUND, "%s", "x\033[2J");
	struct vm_message m = hostile(false, buffer_bytes(&f), f.size);
	CHECK(m.end == VM_END_NOT_STARTED && m.value == AGENT_ERROR_NOT_FOUND && vm_message_check(&m) &&
			!strchr(m.text, '\033'),
		"a refusal is told with its code and a printable text");
	buffer_free(&f);
	bench_open(&b);
	say_started(&b);
	close(steal_fd(&b.agent));
	bench_run(&b);
	CHECK(b.ended == 1 && b.outcome.end == VM_END_GUEST, "a connection that ends before EXIT is the guest's end");
	bench_close(&b);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_run();
	test_slow_reader();
	test_gone_reader();
	test_stdin_window();
	test_feed();
	test_output();
	test_hostile();
	return tap_done();
}
