/* SPDX-License-Identifier: Apache-2.0 */
/* agent_client.c - a client of the agent for one program (theory of operation: agent_client.h) */
#include "vmm/agent_client.h"

#include "agent/protocol.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"

#include <stdarg.h>
#include <string.h>

#define READ_SIZE (256u << 10) /* at once from the connection */
#define CONTROL_MAX 2048 /* payload of any frame that is no stream's */
#define SEND_BACKLOG (128u << 10) /* stdin is not read while more than this waits to be sent */
#define WINDOW_STEP (AGENT_WINDOW / 4) /* open the window in steps of this size */
#define FLUSH_ROUNDS 16 /* of reading from the connection per event */

/** stdout or stderr. */
struct output {
	struct agent_client *client;
	struct loop_watch watch;
	int fd; /* owned; -1: swallow */
	bool ended; /* the agent sent EOF */
	bool gone; /* nobody reads: the agent is told once, and what is under way is swallowed */
	bool told;
	struct buffer waiting;
	uint32_t window; /* what the agent may still send */
	uint32_t handed_on; /* since the window was last opened */
};

struct input {
	struct loop_watch watch;
	int fd; /* owned; -1: none now */
	bool to_end; /* its end is the end of the stream */
	bool ended;
	const uint8_t *bytes; /* instead of fd: `left` bytes of the caller's; NULL: none */
	size_t left;
	uint32_t window; /* what we may still send */
};

enum client_state { CLIENT_HELLO, CLIENT_EXEC, CLIENT_RUNNING, CLIENT_DRAINING, CLIENT_OVER };

struct agent_client {
	struct loop *loop;
	struct loop_watch watch;
	int fd; /* owned; -1 once the connection is over */
	enum client_state state;
	struct buffer in, out;
	struct input input;
	struct output output[2];
	uint64_t signals; /* kept until STARTED, bit number - 1 */
	uint32_t size; /* of the terminal, kept until STARTED */
	int write_error; /* why output was lost, other than that its reader went away; 0: none */
	struct vm_message outcome;
	struct agent_exit exit;
	uint32_t error; /* the agent's ERROR before STARTED */
	bool broken; /* the agent broke the protocol */
	const struct agent_client_handler *handler;
	void *data;
};

static void update(struct agent_client *c);

/** Note the outcome (the first one counts), end the connection, and go on until all output is written. */
__attribute__((format(printf, 4, 5))) static void conclude(
	struct agent_client *c, enum vm_end end, uint32_t value, const char *format, ...)
{
	va_list args;

	if (c->state >= CLIENT_DRAINING)
		return;
	c->outcome.kind = VM_MESSAGE_OUTCOME;
	c->outcome.end = end;
	c->outcome.value = value;
	va_start(args, format);
	vm_message_vtext(&c->outcome, format, args);
	va_end(args);
	c->state = CLIENT_DRAINING;
	loop_remove(c->loop, &c->watch);
	cleanup_fd(&c->fd);
	c->fd = -1;
	loop_remove(c->loop, &c->input.watch);
	cleanup_fd(&c->input.fd);
	c->input.fd = -1;
	c->handler->draining(c->data);
}

static void broke_protocol(struct agent_client *c, const char *how)
{
	c->broken = c->state < CLIENT_DRAINING;
	conclude(c, VM_END_FAILED, 0, "the guest's agent broke the protocol: %s", how);
}

/* ---- output: agent to descriptor ---- */

static void output_close(struct output *o)
{
	loop_remove(o->client->loop, &o->watch);
	cleanup_fd(&o->fd);
	o->fd = -1;
	buffer_free(&o->waiting);
}

/** Nothing can be written any more for @reason (an errno): the workload learns it as a write error, as from a pipe. */
static void output_abandon(struct output *o, int reason)
{
	size_t lost = o->waiting.size;
	if (reason != EPIPE && !o->client->write_error)
		o->client->write_error = reason;
	output_close(o);
	o->gone = true;
	o->handed_on += (uint32_t)lost;
}

static void output_tell_gone(struct output *o)
{
	struct agent_client *c = o->client;
	uint8_t stream = o == &c->output[0] ? AGENT_STREAM_STDOUT : AGENT_STREAM_STDERR;

	if (!o->gone || o->told || o->ended || c->state != CLIENT_RUNNING)
		return;
	o->told = agent_frame_put(&c->out, AGENT_EOF, stream, NULL, 0) == 0;
}

/** Open the window by what was handed on, once a step has come together and the agent reads what we send. */
static void output_open_window(struct output *o)
{
	struct agent_client *c = o->client;
	uint8_t stream = o == &c->output[0] ? AGENT_STREAM_STDOUT : AGENT_STREAM_STDERR;

	if (o->handed_on < WINDOW_STEP || c->state != CLIENT_RUNNING || o->ended || o->told ||
		c->out.size > SEND_BACKLOG)
		return;
	if (agent_u32_put(&c->out, AGENT_WINDOW_OPEN, stream, o->handed_on) < 0)
		return; /* update() tries again */
	o->window += o->handed_on;
	o->handed_on = 0;
}

/** @n bytes were written or swallowed. */
static void output_handed_on(struct output *o, size_t n)
{
	o->handed_on += (uint32_t)n;
	output_open_window(o);
}

/** write(2) from @bytes: what was taken, 0 when the descriptor takes nothing now; closes it when it never will again. */
static size_t output_write(struct output *o, const void *bytes, size_t size)
{
	ssize_t n = write(o->fd, bytes, size);
	if (n >= 0)
		return (size_t)n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	output_abandon(o, errno);
	return 0;
}

static void output_take(struct output *o, const struct agent_frame *frame)
{
	struct agent_client *c = o->client;
	size_t n = 0;

	if (frame->size == 0 || frame->size > o->window || o->ended) {
		broke_protocol(c, "more output than its window allows");
		return;
	}
	o->window -= frame->size;
	if (o->fd < 0 && !o->gone && c->handler->output)
		c->handler->output(c->data, o == &c->output[0] ? 1 : 2, frame->payload, frame->size);
	if (o->fd >= 0 && o->waiting.size == 0) {
		n = output_write(o, frame->payload, frame->size);
		output_handed_on(o, n);
	}
	if (o->fd < 0)
		output_handed_on(o, frame->size - n);
	else if (n < frame->size && buffer_append(&o->waiting, frame->payload + n, frame->size - n) < 0)
		conclude(c, VM_END_FAILED, 0, "out of memory for the workload's output");
}

static void on_output(struct loop_watch *watch, uint32_t events)
{
	struct output *o = CONTAINER_OF(watch, struct output, watch);

	if (o->waiting.size) {
		size_t n = output_write(o, buffer_bytes(&o->waiting), o->waiting.size);
		if (o->fd >= 0)
			buffer_consume(&o->waiting, n);
		output_handed_on(o, n);
	} else if (events & (EPOLLERR | EPOLLHUP)) {
		output_abandon(o, EPIPE);
	}
	update(o->client);
}

/* ---- input: descriptor to agent ---- */

/** The descriptor gives nothing more. */
static void input_end(struct agent_client *c)
{
	loop_remove(c->loop, &c->input.watch);
	cleanup_fd(&c->input.fd);
	c->input.fd = -1;
	c->input.ended = c->input.to_end;
	if (c->input.ended && agent_frame_put(&c->out, AGENT_EOF, AGENT_STREAM_STDIN, NULL, 0) < 0)
		conclude(c, VM_END_FAILED, 0, "out of memory");
}

static bool input_wanted(const struct agent_client *c)
{
	return c->state == CLIENT_RUNNING && c->input.fd >= 0 && c->input.window > 0 && c->out.size < SEND_BACKLOG;
}

/** Hand on the caller's bytes, as far as window and backlog go. */
static void input_feed(struct agent_client *c)
{
	while (c->input.bytes && c->state == CLIENT_RUNNING && c->input.window > 0 && c->out.size < SEND_BACKLOG) {
		size_t n = c->input.left < AGENT_CHUNK ? c->input.left : AGENT_CHUNK;
		n = n < c->input.window ? n : c->input.window;
		if (n == 0) {
			c->input.bytes = NULL;
			input_end(c);
		} else if (agent_frame_put(&c->out, AGENT_STDIN, AGENT_STREAM_STDIN, c->input.bytes, n) < 0) {
			conclude(c, VM_END_FAILED, 0, "out of memory");
		} else {
			c->input.window -= (uint32_t)n;
			c->input.bytes += n;
			c->input.left -= n;
		}
	}
}

static void on_input(struct loop_watch *watch, uint32_t events)
{
	struct agent_client *c = CONTAINER_OF(watch, struct agent_client, input.watch);
	uint8_t bytes[AGENT_CHUNK];

	(void)events;
	if (!input_wanted(c)) {
		/* Hang-up is reported unasked; there may be bytes left that the window has no room for yet. */
		loop_remove(c->loop, watch);
		return;
	}
	size_t room = c->input.window < sizeof(bytes) ? c->input.window : sizeof(bytes);
	ssize_t n = read(c->input.fd, bytes, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		input_end(c);
	} else {
		c->input.window -= (uint32_t)n;
		if (agent_frame_put(&c->out, AGENT_STDIN, AGENT_STREAM_STDIN, bytes, (size_t)n) < 0)
			conclude(c, VM_END_FAILED, 0, "out of memory");
	}
	update(c);
}

/* ---- frames from the agent ---- */

static void take_started(struct agent_client *c, const struct agent_frame *frame)
{
	uint32_t pid;

	if (!agent_u32_get(frame, &pid)) {
		broke_protocol(c, "malformed STARTED");
		return;
	}
	c->state = CLIENT_RUNNING;
	if (c->size)
		agent_client_resize(c, c->size >> 16, c->size & 0xffff);
	for (unsigned i = 0; i < 64; i++)
		if (c->signals >> i & 1)
			agent_client_signal(c, i + 1);
	c->handler->started(c->data);
}

static void take_exit(struct agent_client *c, const struct agent_frame *frame)
{
	struct agent_exit e;

	if (!agent_exit_get(frame, &e)) {
		broke_protocol(c, "malformed EXIT");
		return;
	}
	c->exit = e;
	c->outcome.duration_ns = e.duration_ns;
	c->outcome.peak_rss = e.peak_rss;
	c->outcome.number = e.flags & AGENT_EXIT_OOM ? VM_STATE_OOM : 0;
	conclude(c, e.kind == AGENT_EXITED ? VM_END_EXITED : VM_END_SIGNALED, e.value, "%s", "");
}

static void take_error(struct agent_client *c, const struct agent_frame *frame)
{
	char text[VM_MESSAGE_TEXT - 64];
	uint32_t code;

	if (!agent_error_get(frame, &code, text, sizeof(text))) {
		broke_protocol(c, "malformed ERROR");
	} else if (c->state < CLIENT_RUNNING) {
		c->error = code;
		conclude(c, VM_END_NOT_STARTED, code < AGENT_ERROR_ERRNO ? code : AGENT_ERROR_SYSTEM, "%s", text);
	} else {
		conclude(c, VM_END_FAILED, 0, "the guest's agent failed: %s", text);
	}
}

static void take_eof(struct agent_client *c, const struct agent_frame *frame)
{
	if (frame->size || frame->stream < AGENT_STREAM_STDOUT || frame->stream > AGENT_STREAM_STDERR)
		broke_protocol(c, "malformed EOF");
	else
		c->output[frame->stream - 1].ended = true;
}

static void take_window(struct agent_client *c, const struct agent_frame *frame)
{
	uint32_t n;

	if (!agent_u32_get(frame, &n) || frame->stream != AGENT_STREAM_STDIN || n > AGENT_WINDOW - c->input.window)
		broke_protocol(c, "malformed WINDOW");
	else
		c->input.window += n;
}

static void take_frame(struct agent_client *c, const struct agent_frame *frame)
{
	uint32_t version;

	if (c->state == CLIENT_HELLO) {
		if (frame->type == AGENT_ERROR)
			take_error(c, frame);
		else if (frame->type != AGENT_HELLO || !agent_u32_get(frame, &version) || version != AGENT_VERSION)
			broke_protocol(c, "another version, or no HELLO");
		else
			c->state = CLIENT_EXEC;
		return;
	}
	bool running = c->state == CLIENT_RUNNING;
	if (frame->type == AGENT_ERROR)
		take_error(c, frame);
	else if (frame->type == AGENT_STARTED && !running)
		take_started(c, frame);
	else if (frame->type == AGENT_STDOUT && running)
		output_take(&c->output[0], frame);
	else if (frame->type == AGENT_STDERR && running)
		output_take(&c->output[1], frame);
	else if (frame->type == AGENT_EOF && running)
		take_eof(c, frame);
	else if (frame->type == AGENT_WINDOW_OPEN && running)
		take_window(c, frame);
	else if (frame->type == AGENT_EXIT && running)
		take_exit(c, frame);
	else
		broke_protocol(c, "a frame out of place");
}

/** All whole frames in the buffer. The size in a header is judged before its bytes are waited for. */
static void take_frames(struct agent_client *c)
{
	while (c->state < CLIENT_DRAINING && c->in.size >= AGENT_HEADER_SIZE) {
		const uint8_t *bytes = buffer_bytes(&c->in);
		bool stream = bytes[4] == AGENT_STDOUT || bytes[4] == AGENT_STDERR;
		struct agent_frame frame;
		long n = agent_frame_decode(bytes, c->in.size, &frame);

		if (n < 0 || get_le32(bytes) > (stream ? AGENT_WINDOW : CONTROL_MAX)) {
			broke_protocol(c, "a malformed or oversized frame");
			return;
		}
		if (n == 0)
			return;
		take_frame(c, &frame);
		buffer_consume(&c->in, (size_t)n);
	}
}

static void lost(struct agent_client *c)
{
	conclude(c, VM_END_GUEST, 0, "the guest ended before its workload did");
}

static void on_connection(struct loop_watch *watch, uint32_t events)
{
	struct agent_client *c = CONTAINER_OF(watch, struct agent_client, watch);

	for (int i = 0; i < FLUSH_ROUNDS && c->state < CLIENT_DRAINING && events & (EPOLLIN | EPOLLHUP | EPOLLERR);
		i++) {
		ssize_t n = buffer_read(&c->in, c->fd, READ_SIZE);
		if (n == -EAGAIN || n == -EINTR)
			break;
		if (n <= 0)
			lost(c);
		else
			take_frames(c);
	}
	update(c);
}

/* ---- the whole ---- */

static void watch_for(struct agent_client *c, struct loop_watch *watch, int fd, uint32_t events, loop_fn *fn)
{
	if (watch->added)
		loop_modify(c->loop, watch, events);
	else if (loop_add(c->loop, watch, fd, events, fn, NULL) < 0)
		conclude(c, VM_END_FAILED, 0, "cannot watch one of the workload's streams");
}

/** A workload that ended well while its output was lost (a full disk) did not end well for who reads it. */
static void judge_output(struct agent_client *c)
{
	if (!c->write_error || c->outcome.end != VM_END_EXITED || c->outcome.value != 0)
		return;
	c->outcome.end = VM_END_FAILED;
	vm_message_text(&c->outcome, "write the workload's output: %s; some of it is lost", strerror(c->write_error));
}

/** Send what waits, watch what can go on now, and tell the outcome when nothing is left to do. The last thing that every
 *  handler does: the client may be gone afterwards. */
static void update(struct agent_client *c)
{
	bool done = true;

	input_feed(c);
	for (int i = 0; i < 2; i++) {
		output_tell_gone(&c->output[i]);
		output_open_window(&c->output[i]);
	}
	if (c->fd >= 0 && c->out.size) {
		ssize_t n = buffer_write(&c->out, c->fd);
		if (n < 0 && n != -EAGAIN && n != -EINTR)
			c->out.size = 0; /* what the agent said last may still be there to be read */
		input_feed(c); /* into the room that this made; it goes with the next event */
	}
	if (c->fd >= 0)
		loop_modify(c->loop, &c->watch, c->out.size ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (input_wanted(c))
		watch_for(c, &c->input.watch, c->input.fd, EPOLLIN, on_input);
	else if (c->input.watch.added)
		loop_modify(c->loop, &c->input.watch, 0);
	for (int i = 0; i < 2; i++) {
		struct output *o = &c->output[i];
		if (o->fd >= 0)
			watch_for(c, &o->watch, o->fd, o->waiting.size ? EPOLLOUT : 0, on_output);
		if (o->ended && o->waiting.size == 0 && o->fd >= 0)
			output_close(o);
		done &= o->waiting.size == 0;
	}
	if (c->state == CLIENT_DRAINING && done) {
		c->state = CLIENT_OVER;
		judge_output(c);
		c->handler->ended(c->data, &c->outcome);
	}
}

int agent_client_open(struct loop *loop, int fd, const void *exec, size_t exec_size, const int stdio[3],
	const struct agent_client_handler *handler, void *data, struct agent_client **out, struct husk_error *err)
{
	CLEANUP_FD int connection = fd;
	CLEANUP_FREE struct agent_client *c = calloc(1, sizeof(*c));

	if (!c || agent_hello_put(&c->out) < 0 || agent_frame_put(&c->out, AGENT_EXEC, 0, exec, exec_size) < 0) {
		if (c)
			buffer_free(&c->out);
		return error_set(err, -ENOMEM, "start the workload: out of memory");
	}
	int rc = loop_add(loop, &c->watch, connection, EPOLLIN | EPOLLOUT, on_connection, err);
	if (rc < 0) {
		buffer_free(&c->out);
		return rc;
	}
	c->loop = loop;
	c->fd = steal_fd(&connection);
	c->handler = handler;
	c->data = data;
	c->input = (struct input){.fd = stdio[0], .to_end = true, .window = AGENT_WINDOW};
	for (int i = 0; i < 2; i++)
		c->output[i] = (struct output){.client = c, .fd = stdio[i + 1], .window = AGENT_WINDOW};
	*out = steal_pointer(&c);
	return 0;
}

void agent_client_close(struct agent_client *c)
{
	if (!c)
		return;
	loop_remove(c->loop, &c->watch);
	loop_remove(c->loop, &c->input.watch);
	cleanup_fd(&c->fd);
	cleanup_fd(&c->input.fd);
	for (int i = 0; i < 2; i++)
		output_close(&c->output[i]);
	buffer_free(&c->in);
	buffer_free(&c->out);
	free(c);
}

void agent_client_input(struct agent_client *c, const void *bytes, size_t n)
{
	c->input.bytes = bytes ? bytes : (const void *)"";
	c->input.left = n;
}

const struct agent_exit *agent_client_exit(const struct agent_client *c)
{
	return &c->exit;
}

uint32_t agent_client_error(const struct agent_client *c)
{
	return c->error;
}

bool agent_client_broken(const struct agent_client *c)
{
	return c->broken;
}

bool agent_client_held_up(const struct agent_client *c)
{
	return c->output[0].waiting.size > 0 || c->output[1].waiting.size > 0;
}

int agent_client_feed(struct agent_client *c, int fd, bool to_end, struct husk_error *err)
{
	if (c->state >= CLIENT_DRAINING || c->input.ended)
		return error_set(err, -EPIPE, "the workload's stdin has ended");
	if (c->input.fd >= 0)
		return error_set(err, -EBUSY, "the workload's stdin comes from somewhere already");
	int rc = loop_add(c->loop, &c->input.watch, fd, 0, on_input, err); /* so that update() cannot fail at it */
	if (rc < 0)
		return rc;
	c->input.fd = fd;
	c->input.to_end = to_end;
	if (input_wanted(c))
		loop_modify(c->loop, &c->input.watch, EPOLLIN);
	return 0;
}

/** Signals and sizes are dropped while the agent does not read: a flood of them must not become memory. */
static bool can_tell(const struct agent_client *c)
{
	return c->state == CLIENT_RUNNING && c->out.size < 4 * SEND_BACKLOG;
}

void agent_client_signal(struct agent_client *c, unsigned number)
{
	if (number < 1 || number > 64)
		return;
	if (c->state < CLIENT_RUNNING) {
		c->signals |= 1ull << (number - 1);
	} else if (can_tell(c) && agent_u32_put(&c->out, AGENT_SIGNAL, 0, number) == 0) {
		loop_modify(c->loop, &c->watch, EPOLLIN | EPOLLOUT);
	}
}

void agent_client_leave(struct agent_client *c)
{
	if (c->state == CLIENT_RUNNING && agent_frame_put(&c->out, AGENT_LEAVE, 0, NULL, 0) == 0)
		loop_modify(c->loop, &c->watch, EPOLLIN | EPOLLOUT);
}

void agent_client_resize(struct agent_client *c, unsigned rows, unsigned columns)
{
	c->size = (rows & 0xffff) << 16 | (columns & 0xffff);
	if (can_tell(c) && agent_resize_put(&c->out, (uint16_t)rows, (uint16_t)columns) == 0)
		loop_modify(c->loop, &c->watch, EPOLLIN | EPOLLOUT);
}
