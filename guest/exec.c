/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - the EXEC operation: its commands one behind the other, and its end
 *
 * Theory of operation: a program goes through starting (its status socket is open), running and exited. When it has exited
 * with 0 and the request has another command, that is started on the same streams. EXIT goes out when the last one has been
 * reaped and the output streams have ended: for the main workload that is end of file, since all that could hold a pipe died
 * with PID 1; for a joined program, whose background processes may hold one for ever, it is what lay in the pipe when it
 * died. With SYNC it also waits for a process that syncs, which runs while streams go on, and not for ever.
 *
 * A detached program keeps nothing but its struct here, until it is reaped.
 */
#include "guest/exec_internal.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/console.h"

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

#define SYNC_MAX_MS 30000u /* a disk that takes longer is the host's to judge */

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
	if (exec->timer.added)
		loop_timer_close(&exec->agent->loop, &exec->timer);
	cleanup_fd(&exec->terminal);
	program_streams_close(&exec->ends);
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
	bool was_main = exec_is_main(exec);

	agent_exit_put(&c->out, &exec->exit);
	c->state = CONNECTION_CLOSING;
	c->was_main = was_main;
	c->exec = NULL;
	exec_free(exec);
	if (was_main)
		agent_end_in(agent, "the workload has ended", 30000);
}

bool exec_check_end(struct exec *exec)
{
	if (!exec->reaped || !exec->started)
		return false;
	if (!exec->streams[AGENT_STREAM_STDOUT].ended || !exec->streams[AGENT_STREAM_STDERR].ended)
		return false;
	if (exec->connection && exec->sync)
		return false;
	if (exec->connection)
		exec_finish(exec);
	else
		exec_free(exec);
	return true;
}

/* ---- what the workload's cgroup has counted ---- */

/** The number behind @key in @file of the workload's cgroup, or the file's only one; 0 where the kernel does not count. */
static uint64_t cgroup_count(const struct agent *agent, const char *file, const char *key)
{
	char text[1024] = "";
	CLEANUP_FD int fd = agent->setup->cgroup < 0 ? -1 : openat(agent->setup->cgroup, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	size_t length = strlen(key);
	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (strncmp(line, key, length) == 0)
			return strtoull(line + length, NULL, 10);
	return 0;
}

static uint64_t oom_kills(const struct agent *agent)
{
	return cgroup_count(agent, "memory.events", "oom_kill ");
}

/** Peak memory of the main workload: of all its processes, where the kernel counts that. */
static uint64_t peak_rss(const struct exec *exec)
{
	uint64_t bytes = exec_is_main(exec) ? cgroup_count(exec->agent, "memory.peak", "") : 0;
	return bytes ? bytes : exec->peak_rss;
}

/* ---- start and end ---- */

int exec_pidfd(const struct exec *exec)
{
	return exec->started ? exec->program.pidfd : -1;
}

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

/** The client has been told all there is. The program's end is nobody's business but the reaper's. */
static void exec_detach(struct exec *exec)
{
	exec->connection->state = CONNECTION_CLOSING;
	exec->connection->exec = NULL;
	exec->connection = NULL;
}

void exec_leave(struct exec *exec)
{
	exec_detach(exec);
	for (int i = AGENT_STREAM_STDOUT; i <= AGENT_STREAM_STDERR; i++) {
		exec->streams[i].window = AGENT_WINDOW; /* nobody counts any more */
		output_arm(&exec->streams[i]);
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
	if (exec->request.flags & AGENT_EXEC_FLAG_DETACH)
		return exec_detach(exec);
	if (exec->request.timeout_ms)
		loop_timer_set(&exec->timer, exec->request.timeout_ms);
	for (int i = 1; i <= 64; i++)
		if (exec->pending_signals >> (i - 1) & 1)
			exec_signal(exec, (uint32_t)i);
	if (exec_is_tty(exec) && exec->streams[AGENT_STREAM_STDOUT].fd < 0)
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
		if (n == sizeof(report) && report.kind == PROGRAM_TTY && n_fds == 1 && exec_is_tty(exec) &&
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

/** Its process group, and the process itself, which may not have made that yet. */
static void exec_kill(struct exec *exec)
{
	kill(exec->program.pid, SIGKILL);
	kill(-exec->program.pid, SIGKILL);
}

/** The program's time is up, or that of the sync after its end. */
static void timer_ready(struct loop_watch *watch, uint32_t events)
{
	struct exec *exec = CONTAINER_OF(watch, struct exec, timer);
	struct connection *c = exec->connection;

	loop_timer_set(watch, 0);
	if (!exec->reaped) {
		exec->timed_out = true;
		return exec_kill(exec);
	}
	console_say("the sync at the workload's end takes more than %u s: not waited for", SYNC_MAX_MS / 1000);
	exec->sync = 0;
	exec_check_end(exec);
	if (c)
		connection_settle(c);
}

/** Start the command whose turn it is. */
static int start_command(struct exec *exec, struct husk_error *err)
{
	struct agent *agent = exec->agent;
	const struct exec *workload = agent->main;

	if (!workload && !exec_is_main(exec))
		return error_set(err, -ESRCH, "no workload runs");
	exec->request.base = workload ? &workload->request : NULL;
	int rc = program_start(agent->setup, &exec->request, exec->step, workload ? workload->program.pidfd : -1,
		&exec->ends, &exec->program, err);
	exec->request.base = NULL;
	if (exec->step + 1 < exec->request.n_commands)
		return rc;
	program_streams_release(&exec->ends);
	exec_request_shrink(&exec->request);
	return rc;
}

static enum agent_error start_error(int rc)
{
	return rc == -ESRCH ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM;
}

/** What an exec needs besides its program. */
static int exec_prepare(struct exec *exec, struct husk_error *err)
{
	int rc = program_streams_open(&exec->request, &exec->ends, err);
	if (rc == 0 && exec->request.timeout_ms)
		rc = loop_timer_open(&exec->agent->loop, &exec->timer, timer_ready, err);
	for (int i = 0; i < 3; i++)
		exec->streams[i].fd = steal_fd(&exec->ends.ours[i]);
	exec->oom_kills = oom_kills(exec->agent);
	return rc;
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
	if (!exec || wants_main == (agent->main != NULL) || (!wants_main && !agent->main->started)) {
		exec_request_free(&request);
		connection_error(c, exec ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM, "%s",
			!exec        ? "out of memory"
			: wants_main ? "a workload runs already"
				     : "no workload runs"); /* one that is starting has no root of its own yet */
		free(exec);
		return;
	}
	*exec = (struct exec){
		.agent = agent, .connection = c, .request = request, .terminal = -1, .next = agent->execs};
	exec->program = (struct program){.pidfd = -1, .status = -1};
	exec->ends = PROGRAM_NO_STREAMS;
	agent->execs = exec;
	for (int i = 0; i < 3; i++)
		exec->streams[i] = (struct stream){.exec = exec, .fd = -1, .window = AGENT_WINDOW};
	rc = exec_prepare(exec, &err);
	rc = rc < 0 ? rc : start_command(exec, &err);
	if (rc == 0)
		rc = loop_add(&agent->loop, &exec->status, exec->program.status, EPOLLIN, status_ready, &err);
	if (rc < 0)
		return exec_failed(exec, start_error(rc), err.message);
	/* A terminal has one output stream, a detached program none. */
	bool detached = request.flags & AGENT_EXEC_FLAG_DETACH;
	exec->streams[AGENT_STREAM_STDOUT].ended = detached;
	exec->streams[AGENT_STREAM_STDERR].ended = detached || exec_is_tty(exec);
	exec->streams[AGENT_STREAM_STDIN].ended = !(request.flags & AGENT_EXEC_FLAG_STDIN);
	c->state = CONNECTION_EXEC;
	c->exec = exec;
	if (wants_main)
		agent->main = exec;
}

void exec_abandon(struct exec *exec)
{
	exec->connection = NULL;
	if (!exec->reaped)
		exec_kill(exec);
	for (int i = 0; i < 3; i++)
		stream_end(&exec->streams[i]);
	exec_check_end(exec);
}

/** Was the command that has ended so the last of its exec? */
static bool was_last(struct exec *exec, int status)
{
	return !WIFEXITED(status) || WEXITSTATUS(status) || exec->timed_out || !exec->connection ||
	       exec->step + 1 == exec->request.n_commands;
}

/** The exec may be gone afterwards. */
static void exec_next(struct exec *exec)
{
	struct husk_error err = {0};

	program_close(&exec->program);
	exec->step++;
	int rc = start_command(exec, &err);
	if (rc < 0) {
		exec->reaped = true;
		return connection_error(exec->connection, start_error(rc), "%s", err.message);
	}
	/* What fails in it from now on it says on stderr. */
	cleanup_fd(&exec->program.status);
	exec->program.status = -1;
}

/** Start a process that syncs. Where that cannot be, the end is told without: the disk has a journal. */
static void sync_begin(struct exec *exec)
{
	struct husk_error err = {0};

	if (loop_timer_open(&exec->agent->loop, &exec->timer, timer_ready, &err) < 0)
		return console_say("sync at the workload's end: %s", err.message);
	exec->sync = fork();
	if (exec->sync < 0) {
		console_say("sync at the workload's end: %s", strerror(errno));
		exec->sync = 0;
		return;
	}
	if (exec->sync == 0) {
		sync();
		_exit(0);
	}
	loop_timer_set(&exec->timer, SYNC_MAX_MS);
}

/** The last command is over. */
static void exec_ended(struct exec *exec, int status)
{
	uint32_t flags = exec->timed_out ? AGENT_EXIT_TIMED_OUT : 0;

	exec->reaped = true;
	if (oom_kills(exec->agent) > exec->oom_kills)
		flags |= AGENT_EXIT_OOM;
	exec->exit = (struct agent_exit){
		.kind = WIFSIGNALED(status) ? AGENT_SIGNALED : AGENT_EXITED,
		.value = (uint32_t)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
		.duration_ns = exec->started ? clock_monotonic_ns() - exec->started_ns : 0,
		.peak_rss = peak_rss(exec),
		.flags = flags,
		.step = (uint32_t)exec->step,
	};
	program_streams_release(&exec->ends);
	for (int i = AGENT_STREAM_STDOUT; i <= AGENT_STREAM_STDERR; i++) {
		int waiting = 0;
		struct stream *stream = &exec->streams[i];
		if (stream->fd >= 0 && ioctl(stream->fd, FIONREAD, &waiting) == 0 && waiting > 0)
			stream->budget = (uint32_t)waiting;
		if (exec_is_tty(exec))
			stream->budget = AGENT_WINDOW; /* a terminal does not say what is still on its way */
	}
	if (exec->request.flags & AGENT_EXEC_FLAG_SYNC)
		sync_begin(exec);
	for (int i = 0; i < 3 && !exec->connection; i++)
		stream_end(&exec->streams[i]);
	if (exec->connection && exec->started)
		exec_pump(exec);
	else
		exec_check_end(exec);
}

static void exec_died(struct exec *exec, int status, const struct rusage *usage)
{
	struct connection *c = exec->connection;
	uint64_t peak = (uint64_t)usage->ru_maxrss * 1024;

	/* What it said before it died comes first: an error, or the end that means success. */
	if (exec->started || !exec_status(exec)) {
		exec->peak_rss = peak > exec->peak_rss ? peak : exec->peak_rss;
		if (was_last(exec, status))
			exec_ended(exec, status);
		else
			exec_next(exec);
	}
	if (c)
		connection_settle(c);
}

bool exec_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage)
{
	for (struct exec *exec = agent->execs; exec; exec = exec->next) {
		struct connection *c = exec->connection;
		if (exec->sync == pid) {
			exec->sync = 0;
			exec_check_end(exec);
			if (c)
				connection_settle(c);
			return true;
		}
		if (exec->program.pid != pid || exec->reaped)
			continue;
		exec_died(exec, status, usage);
		return true;
	}
	return false;
}
