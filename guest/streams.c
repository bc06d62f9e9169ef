/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams.c - the bytes of EXEC: a program's streams and the client's frames
 *
 * Theory of operation: output is read from the program's pipes straight into frames in the connection's buffer, never more
 * than the stream's window, so the windows bound that buffer; input waits in a buffer that the window bounds as well. Streams
 * are those of all commands of an exec: while one is yet to be started the agent holds the programs' ends as well, so that
 * none ends before its time.
 *
 * A watch with nothing to wait for is removed rather than idled: epoll reports hang-up always.
 */
#include "guest/exec_internal.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define GRANT_MIN (64u << 10) /* window bytes are given back in pieces of this, or when all was handed on */

static void output_ready(struct loop_watch *watch, uint32_t events);
static void input_ready(struct loop_watch *watch, uint32_t events);

/** Watch for @events, or for nothing at all when they are 0. */
static void watch_for(struct agent *agent, struct loop_watch *watch, int fd, uint32_t events, loop_fn *fn)
{
	if (!events)
		loop_remove(&agent->loop, watch);
	else if (watch->added)
		loop_modify(&agent->loop, watch, events);
	else
		loop_add(&agent->loop, watch, fd, events, fn, NULL);
}

void stream_end(struct stream *stream)
{
	loop_remove(&stream->exec->agent->loop, &stream->watch);
	cleanup_fd(&stream->fd);
	stream->fd = -1;
	stream->ended = true;
}

/* ---- output ---- */

static void output_end(struct stream *stream)
{
	struct exec *exec = stream->exec;
	uint8_t number = (uint8_t)(stream - exec->streams);
	stream_end(stream);
	if (exec->connection)
		agent_frame_put(&exec->connection->out, AGENT_EOF, number, NULL, 0);
}

void output_arm(struct stream *stream)
{
	if (!stream->ended && stream->fd >= 0)
		watch_for(stream->exec->agent, &stream->watch, stream->fd, stream->window ? EPOLLIN : 0, output_ready);
}

/** The client has left: what the program says goes nowhere. */
static void output_drop(struct stream *stream)
{
	static char bytes[AGENT_CHUNK];
	ssize_t n = read(stream->fd, bytes, sizeof(bytes));
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		stream_end(stream);
}

/** Move one chunk from the program to the connection; false when there is nothing more now. */
static bool output_move(struct stream *stream)
{
	struct exec *exec = stream->exec;
	struct buffer *out = &exec->connection->out;
	uint32_t max = stream->window < AGENT_CHUNK ? stream->window : AGENT_CHUNK;

	bool limited = exec->reaped && !exec_is_main(exec);
	if (limited && max > stream->budget)
		max = stream->budget;
	if (limited && !stream->budget) {
		output_end(stream);
		return false;
	}
	if (!max)
		return false;
	uint8_t *to = buffer_reserve(out, AGENT_HEADER_SIZE + max);
	if (!to)
		return false;
	ssize_t n = read(stream->fd, to + AGENT_HEADER_SIZE, max);
	if (n < 0 && (errno == EINTR || (errno == EAGAIN && !exec->reaped)))
		return false;
	/* A terminal's end is EIO; after the program's death what is not there now does not come any more. */
	if (n <= 0) {
		if (n < 0 && errno == EAGAIN && exec_is_main(exec) && !exec_is_tty(exec))
			return false;
		output_end(stream);
		return false;
	}
	enum agent_type type = stream == &exec->streams[AGENT_STREAM_STDERR] ? AGENT_STDERR : AGENT_STDOUT;
	put_le32(to, (uint32_t)n);
	to[4] = (uint8_t)type;
	to[5] = (uint8_t)(stream - exec->streams);
	put_le16(to + 6, 0);
	buffer_commit(out, AGENT_HEADER_SIZE + (size_t)n);
	stream->window -= (uint32_t)n;
	if (limited)
		stream->budget -= (uint32_t)n;
	return true;
}

void exec_pump(struct exec *exec)
{
	for (int i = AGENT_STREAM_STDOUT; i <= AGENT_STREAM_STDERR; i++) {
		struct stream *stream = &exec->streams[i];
		if (stream->ended || stream->fd < 0)
			continue;
		while (output_move(stream) && exec->reaped)
			;
		output_arm(stream);
	}
	exec_check_end(exec);
}

static void output_ready(struct loop_watch *watch, uint32_t events)
{
	struct stream *stream = CONTAINER_OF(watch, struct stream, watch);
	struct exec *exec = stream->exec;
	struct connection *c = exec->connection;

	if (!c)
		return output_drop(stream);
	output_move(stream);
	output_arm(stream);
	exec_check_end(exec);
	connection_settle(c);
}

/* ---- input ---- */

/** Close stdin, or say its end on a terminal as a user would. */
static void input_close(struct exec *exec)
{
	struct stream *in = &exec->streams[AGENT_STREAM_STDIN];
	struct termios modes;
	if (exec_is_tty(exec) && in->fd >= 0 && tcgetattr(in->fd, &modes) == 0 && (modes.c_lflag & ICANON)) {
		if (write(in->fd, &modes.c_cc[VEOF], 1) < 0)
			return stream_end(in);
	}
	stream_end(in);
}

static void input_grant(struct exec *exec, size_t bytes)
{
	struct stream *in = &exec->streams[AGENT_STREAM_STDIN];
	exec->granted += (uint32_t)bytes;
	if (!exec->connection || !exec->granted || exec->input_ended || (exec->granted < GRANT_MIN && exec->input.size))
		return;
	agent_u32_put(&exec->connection->out, AGENT_WINDOW_OPEN, AGENT_STREAM_STDIN, exec->granted);
	in->window += exec->granted;
	exec->granted = 0;
}

void input_move(struct exec *exec)
{
	struct stream *in = &exec->streams[AGENT_STREAM_STDIN];
	while (exec->input.size) {
		ssize_t n = in->ended ? (ssize_t)exec->input.size : buffer_write(&exec->input, in->fd);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN || n == 0)
			break;
		if (in->ended)
			buffer_consume(&exec->input, (size_t)n);
		if (n < 0)
			stream_end(in);
		else
			input_grant(exec, (size_t)n);
	}
	if (exec->input_ended && !exec->input.size && !in->ended)
		input_close(exec);
	if (!in->ended && in->fd >= 0)
		watch_for(exec->agent, &in->watch, in->fd, exec->input.size ? EPOLLOUT : 0, input_ready);
}

static void input_ready(struct loop_watch *watch, uint32_t events)
{
	struct stream *stream = CONTAINER_OF(watch, struct stream, watch);
	struct connection *c = stream->exec->connection;
	if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLOUT))
		stream_end(&stream->exec->streams[AGENT_STREAM_STDIN]);
	input_move(stream->exec);
	if (c)
		connection_settle(c);
}

/* ---- the client's frames ---- */

void exec_signal(struct exec *exec, uint32_t number)
{
	if (exec->reaped)
		return;
	if (!exec->started)
		exec->pending_signals |= 1ull << (number - 1);
	else
		kill(exec->program.pid, (int)number);
}

static void frame_input(struct connection *c, const struct agent_frame *frame)
{
	struct exec *exec = c->exec;
	struct stream *in = &exec->streams[AGENT_STREAM_STDIN];
	bool end = frame->type == AGENT_EOF;
	if (!(exec->request.flags & AGENT_EXEC_FLAG_STDIN) || exec->input_ended ||
		frame->stream != AGENT_STREAM_STDIN || (end ? frame->size != 0 : frame->size == 0))
		return connection_error(c, AGENT_ERROR_PROTOCOL, "input out of place");
	if (frame->size > in->window)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "more input than the window allows");
	in->window -= frame->size;
	exec->input_ended = end;
	if (buffer_append(&exec->input, frame->payload, frame->size) < 0)
		return connection_error(c, AGENT_ERROR_SYSTEM, "out of memory");
	if (in->fd >= 0 || in->ended)
		input_move(exec);
}

static void frame_window(struct connection *c, const struct agent_frame *frame)
{
	struct exec *exec = c->exec;
	uint32_t bytes;
	if (frame->stream != AGENT_STREAM_STDOUT && frame->stream != AGENT_STREAM_STDERR)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "WINDOW of no output stream");
	struct stream *stream = &exec->streams[frame->stream];
	if (!agent_u32_get(frame, &bytes) || bytes > AGENT_WINDOW - stream->window)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "WINDOW beyond its limit");
	stream->window += bytes;
	if (exec->reaped)
		exec_pump(exec);
	else
		output_arm(stream);
}

static void frame_leave(struct connection *c, const struct agent_frame *frame)
{
	struct exec *exec = c->exec;
	if (frame->size || !exec->started || exec_is_main(exec) || exec->step + 1 < exec->request.n_commands)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "LEAVE out of place");
	exec_leave(exec);
}

/** EOF of an output stream: the client takes no more of it, and the program finds its pipe closed. The exec may be gone
 *  afterwards. */
static void frame_output_end(struct connection *c, const struct agent_frame *frame)
{
	struct stream *stream = &c->exec->streams[frame->stream];
	if (frame->size)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "malformed EOF");
	if (!stream->ended)
		stream_end(stream);
	exec_check_end(c->exec);
}

void exec_frame(struct connection *c, const struct agent_frame *frame)
{
	struct exec *exec = c->exec;
	struct winsize size = {0};
	uint32_t value;

	switch (frame->type) {
	case AGENT_EOF:
		if (frame->stream == AGENT_STREAM_STDOUT || frame->stream == AGENT_STREAM_STDERR)
			return frame_output_end(c, frame);
		return frame_input(c, frame);
	case AGENT_STDIN:
		return frame_input(c, frame);
	case AGENT_WINDOW_OPEN:
		return frame_window(c, frame);
	case AGENT_LEAVE:
		return frame_leave(c, frame);
	case AGENT_SIGNAL:
		if (!agent_u32_get(frame, &value) || value < 1 || value > 64)
			return connection_error(c, AGENT_ERROR_PROTOCOL, "SIGNAL without a signal number");
		return exec_signal(exec, value);
	case AGENT_RESIZE:
		if (!exec_is_tty(exec) || !agent_resize_get(frame, &size.ws_row, &size.ws_col))
			return connection_error(c, AGENT_ERROR_PROTOCOL, "RESIZE without a terminal or malformed");
		exec->request.rows = size.ws_row; /* for a terminal that is yet to come */
		exec->request.columns = size.ws_col;
		if (exec->streams[AGENT_STREAM_STDOUT].fd >= 0)
			ioctl(exec->streams[AGENT_STREAM_STDOUT].fd, TIOCSWINSZ, &size);
		return;
	default:
		return connection_error(c, AGENT_ERROR_PROTOCOL, "frame of type %#x within EXEC", frame->type);
	}
}
