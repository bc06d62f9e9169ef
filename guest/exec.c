/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - the EXEC operation: one program, its streams, its end
 *
 * Theory of operation: a program goes through starting (its status socket is open), running and exited. Output is read
 * from its pipes straight into frames in the connection's buffer, never more than the stream's window, so the windows bound
 * that buffer; input waits in a buffer that the window bounds as well. EXIT goes out when the program has been reaped and
 * its output streams have ended: for the main workload that is end of file, since all that could hold a pipe died with PID
 * 1; for a joined program, whose background processes may hold one for ever, it is what lay in the pipe when it died.
 *
 * A watch with nothing to wait for is removed rather than idled: epoll reports hang-up always.
 */
#include "guest/exec.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/program.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define GRANT_MIN (64u << 10) /* window bytes are given back in pieces of this, or when all was handed on */

/** One direction of one stream. */
struct stream {
	struct exec *exec;
	struct loop_watch watch;
	int fd; /* -1: not there or ended */
	uint32_t window; /* output: may be sent; input: may yet come */
	uint32_t budget; /* output, after the end of a joined program: bytes that still count */
	bool ended;
};

struct exec {
	struct agent *agent;
	struct connection *connection; /* NULL: abandoned */
	struct exec *next;
	struct exec_request request;
	struct program program;
	struct loop_watch status;
	struct stream streams[3]; /* by enum agent_stream */
	struct buffer input;
	int terminal; /* the slave, held so that the terminal outlives the program's own descriptors; -1: none */
	uint32_t granted; /* input bytes handed on and not yet given back to the client */
	bool input_ended; /* the client's EOF */
	bool started, reaped;
	uint64_t pending_signals; /* bit n - 1, until started */
	uint64_t started_ns;
	struct agent_exit exit;
};

static void output_ready(struct loop_watch *watch, uint32_t events);
static void input_ready(struct loop_watch *watch, uint32_t events);

static bool is_main(const struct exec *exec)
{
	return exec->request.flags & AGENT_EXEC_FLAG_MAIN;
}

static bool is_tty(const struct exec *exec)
{
	return exec->request.flags & AGENT_EXEC_FLAG_TTY;
}

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

static void stream_end(struct stream *stream)
{
	loop_remove(&stream->exec->agent->loop, &stream->watch);
	cleanup_fd(&stream->fd);
	stream->fd = -1;
	stream->ended = true;
}

static void exec_free(struct exec *exec)
{
	struct exec **at = &exec->agent->execs;
	while (*at != exec)
		at = &(*at)->next;
	*at = exec->next;
	if (exec->agent->main == exec)
		exec->agent->main = NULL;
	for (int i = 0; i < 3; i++)
		stream_end(&exec->streams[i]);
	loop_remove(&exec->agent->loop, &exec->status);
	cleanup_fd(&exec->terminal);
	program_close(&exec->program);
	exec_request_free(&exec->request);
	buffer_free(&exec->input);
	free(exec);
}

/** All is said: EXIT is the last frame. The exec is gone afterwards. */
static void exec_finish(struct exec *exec)
{
	struct connection *c = exec->connection;
	struct agent *agent = exec->agent;
	bool was_main = is_main(exec);

	agent_exit_put(&c->out, &exec->exit);
	c->state = CONNECTION_CLOSING;
	c->was_main = was_main;
	c->exec = NULL;
	exec_free(exec);
	if (was_main)
		agent_end_in(agent, "the workload has ended", 30000);
}

/** Has everything that comes before EXIT been sent? True when the exec is gone. */
static bool exec_check_end(struct exec *exec)
{
	if (!exec->reaped || !exec->started)
		return false;
	if (!exec->streams[AGENT_STREAM_STDOUT].ended || !exec->streams[AGENT_STREAM_STDERR].ended)
		return false;
	if (exec->connection)
		exec_finish(exec);
	else
		exec_free(exec);
	return true;
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

static void output_arm(struct stream *stream)
{
	if (!stream->ended && stream->fd >= 0)
		watch_for(stream->exec->agent, &stream->watch, stream->fd, stream->window ? EPOLLIN : 0, output_ready);
}

/** Move one chunk from the program to the connection; false when there is nothing more now. */
static bool output_move(struct stream *stream)
{
	struct exec *exec = stream->exec;
	struct buffer *out = &exec->connection->out;
	uint32_t max = stream->window < AGENT_CHUNK ? stream->window : AGENT_CHUNK;

	bool limited = exec->reaped && !is_main(exec);
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
		if (n < 0 && errno == EAGAIN && is_main(exec) && !is_tty(exec))
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

/** One chunk per stream and round, so that streams share the connection fairly; after the program's end all of it. The
 *  exec may be gone afterwards. */
static void exec_pump(struct exec *exec)
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
	if (is_tty(exec) && in->fd >= 0 && tcgetattr(in->fd, &modes) == 0 && (modes.c_lflag & ICANON)) {
		if (write(in->fd, &modes.c_cc[VEOF], 1) < 0)
			return stream_end(in);
	}
	stream_end(in);
}

static void input_grant(struct exec *exec, size_t bytes)
{
	struct stream *in = &exec->streams[AGENT_STREAM_STDIN];
	exec->granted += (uint32_t)bytes;
	if (!exec->granted || exec->input_ended || (exec->granted < GRANT_MIN && exec->input.size))
		return;
	agent_u32_put(&exec->connection->out, AGENT_WINDOW_OPEN, AGENT_STREAM_STDIN, exec->granted);
	in->window += exec->granted;
	exec->granted = 0;
}

/** Hand on what waits; what nobody reads any more is dropped, as by a shell's pipe. */
static void input_move(struct exec *exec)
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
	case AGENT_SIGNAL:
		if (!agent_u32_get(frame, &value) || value < 1 || value > 64)
			return connection_error(c, AGENT_ERROR_PROTOCOL, "SIGNAL without a signal number");
		return exec_signal(exec, value);
	case AGENT_RESIZE:
		if (!is_tty(exec) || !agent_resize_get(frame, &size.ws_row, &size.ws_col))
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

/* ---- start and end ---- */

/** The terminal's master has come: it is stdin and stdout; the input side gets a descriptor of its own for its watch. */
static void use_terminal(struct exec *exec, int master)
{
	struct winsize size = {.ws_row = exec->request.rows, .ws_col = exec->request.columns};
	exec->streams[AGENT_STREAM_STDOUT].fd = master;
	exec->terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (size.ws_row && size.ws_col)
		ioctl(master, TIOCSWINSZ, &size);
	if (exec->request.flags & AGENT_EXEC_FLAG_STDIN) {
		exec->streams[AGENT_STREAM_STDIN].fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
		exec->streams[AGENT_STREAM_STDIN].ended = exec->streams[AGENT_STREAM_STDIN].fd < 0;
	}
}

static void exec_begin(struct exec *exec)
{
	struct connection *c = exec->connection;
	loop_remove(&exec->agent->loop, &exec->status);
	cleanup_fd(&exec->program.status);
	exec->program.status = -1;
	exec->started = true;
	exec->started_ns = clock_monotonic_ns();
	if (!c)
		return;
	agent_u32_put(&c->out, AGENT_STARTED, 0, (uint32_t)exec->program.pid);
	for (int i = 1; i <= 64; i++)
		if (exec->pending_signals >> (i - 1) & 1)
			exec_signal(exec, (uint32_t)i);
	if (is_tty(exec) && exec->streams[AGENT_STREAM_STDOUT].fd < 0)
		exec->streams[AGENT_STREAM_STDOUT].ended = true;
	for (int i = AGENT_STREAM_STDOUT; i <= AGENT_STREAM_STDERR; i++)
		output_arm(&exec->streams[i]);
	if (exec->request.flags & AGENT_EXEC_FLAG_STDIN)
		input_move(exec);
}

/** The program could not be started; its process ends by itself and is reaped as nobody's. The exec is gone afterwards. */
static void exec_failed(struct exec *exec, enum agent_error code, const char *text)
{
	struct connection *c = exec->connection;
	if (c) {
		c->exec = NULL;
		connection_error(c, code, "%s", text);
	}
	exec_free(exec);
}

/** Read the status socket; true when the exec is gone. */
static bool exec_status(struct exec *exec)
{
	for (;;) {
		struct program_report report;
		int fd = -1;
		size_t n_fds = 1;
		ssize_t n = fd_receive(exec->program.status, &report, sizeof(report), &fd, &n_fds);
		if (n == -EAGAIN)
			return false;
		if (n == 0) {
			exec_begin(exec);
			return false;
		}
		if (n == sizeof(report) && report.kind == PROGRAM_TTY && n_fds == 1 && is_tty(exec) &&
			exec->streams[AGENT_STREAM_STDOUT].fd < 0) {
			use_terminal(exec, fd);
			continue;
		}
		if (n_fds)
			close(fd);
		if (n == sizeof(report) && report.kind == PROGRAM_ERROR) {
			report.text[PROGRAM_TEXT_MAX] = 0;
			exec_failed(exec, report.code, report.text);
		} else {
			kill(exec->program.pid, SIGKILL);
			exec_failed(exec, AGENT_ERROR_SYSTEM, "the program's process said something odd");
		}
		return true;
	}
}

static void status_ready(struct loop_watch *watch, uint32_t events)
{
	struct exec *exec = CONTAINER_OF(watch, struct exec, status);
	struct connection *c = exec->connection;
	if (!exec_status(exec) && exec->started && exec->reaped) {
		if (c)
			exec_pump(exec);
		else
			exec_check_end(exec);
	}
	if (c)
		connection_settle(c);
}

void exec_open(struct connection *c, const struct agent_frame *frame)
{
	struct agent *agent = c->agent;
	struct husk_error err = {0};
	struct exec_request request;

	int rc = exec_request_parse(frame->payload, frame->size, &request, &err);
	if (rc < 0)
		return connection_error(
			c, rc == -EPROTO ? AGENT_ERROR_PROTOCOL : AGENT_ERROR_SYSTEM, "%s", err.message);
	bool wants_main = request.flags & AGENT_EXEC_FLAG_MAIN;
	struct exec *exec = calloc(1, sizeof(*exec));
	if (!exec || wants_main == (agent->main != NULL)) {
		exec_request_free(&request);
		connection_error(c, exec ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM, "%s",
			!exec        ? "out of memory"
			: wants_main ? "a workload runs already"
				     : "no workload runs");
		free(exec);
		return;
	}
	*exec = (struct exec){
		.agent = agent, .connection = c, .request = request, .terminal = -1, .next = agent->execs};
	exec->program = (struct program){.pidfd = -1, .status = -1, .stdio = {-1, -1, -1}};
	agent->execs = exec;
	for (int i = 0; i < 3; i++)
		exec->streams[i] = (struct stream){.exec = exec, .fd = -1, .window = AGENT_WINDOW};
	rc = program_start(
		agent->setup, &exec->request, agent->main ? agent->main->program.pidfd : -1, &exec->program, &err);
	if (rc == 0)
		rc = loop_add(&agent->loop, &exec->status, exec->program.status, EPOLLIN, status_ready, &err);
	if (rc < 0)
		return exec_failed(exec, rc == -ESRCH ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM, err.message);
	for (int i = 0; i < 3; i++)
		exec->streams[i].fd = steal_fd(&exec->program.stdio[i]);
	/* A terminal has one output stream. */
	exec->streams[AGENT_STREAM_STDERR].ended = is_tty(exec);
	exec->streams[AGENT_STREAM_STDIN].ended = !(request.flags & AGENT_EXEC_FLAG_STDIN);
	c->state = CONNECTION_EXEC;
	c->exec = exec;
	if (wants_main)
		agent->main = exec;
}

void exec_abandon(struct exec *exec)
{
	exec->connection = NULL;
	if (!exec->reaped) {
		kill(exec->program.pid, SIGKILL);
		kill(-exec->program.pid, SIGKILL);
	}
	for (int i = 0; i < 3; i++)
		stream_end(&exec->streams[i]);
	exec_check_end(exec);
}

/** Peak memory of the main workload: of all its processes, where the kernel counts that. */
static uint64_t peak_rss(const struct exec *exec, const struct rusage *usage)
{
	char text[32] = "";
	uint64_t bytes = (uint64_t)usage->ru_maxrss * 1024;
	if (!is_main(exec) || exec->agent->setup->cgroup < 0)
		return bytes;
	CLEANUP_FD int fd = openat(exec->agent->setup->cgroup, "memory.peak", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		bytes = strtoull(text, NULL, 10);
	return bytes;
}

static void exec_died(struct exec *exec, int status, const struct rusage *usage)
{
	struct connection *c = exec->connection;

	/* What it said before it died comes first: an error, or the end that means success. */
	if (!exec->started && exec_status(exec)) {
		if (c)
			connection_settle(c);
		return;
	}
	exec->reaped = true;
	exec->exit = (struct agent_exit){
		.kind = WIFSIGNALED(status) ? AGENT_SIGNALED : AGENT_EXITED,
		.value = (uint32_t)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
		.duration_ns = exec->started ? clock_monotonic_ns() - exec->started_ns : 0,
		.peak_rss = peak_rss(exec, usage),
	};
	for (int i = AGENT_STREAM_STDOUT; i <= AGENT_STREAM_STDERR; i++) {
		int waiting = 0;
		struct stream *stream = &exec->streams[i];
		if (stream->fd >= 0 && ioctl(stream->fd, FIONREAD, &waiting) == 0 && waiting > 0)
			stream->budget = (uint32_t)waiting;
		if (is_tty(exec))
			stream->budget = AGENT_WINDOW; /* a terminal does not say what is still on its way */
	}
	if (c && exec->started)
		exec_pump(exec);
	else
		exec_check_end(exec);
	if (c)
		connection_settle(c);
}

bool exec_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage)
{
	for (struct exec *exec = agent->execs; exec; exec = exec->next) {
		if (exec->program.pid != pid || exec->reaped)
			continue;
		exec_died(exec, status, usage);
		return true;
	}
	return false;
}
