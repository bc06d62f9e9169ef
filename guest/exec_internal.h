/* SPDX-License-Identifier: Apache-2.0 */
/* exec_internal.h - what the rooms of EXEC share: exec.c its life, streams.c its bytes */
#ifndef GUEST_EXEC_INTERNAL_H
#define GUEST_EXEC_INTERNAL_H

#include "guest/exec.h"
#include "guest/program.h"

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
	struct connection *connection; /* NULL: abandoned, detached or left; of a program that was left output is dropped */
	struct exec *next;
	struct exec_request request;
	struct program program; /* of the command that runs */
	size_t step; /* which that is */
	struct program_streams ends; /* of all its commands; the agent's are moved to `streams` */
	struct loop_watch status;
	struct loop_watch timer; /* ends the program, or the wait for its sync; not always opened */
	struct stream streams[3]; /* by enum agent_stream */
	struct buffer input;
	int terminal; /* the slave, held so that the terminal outlives the program's own descriptors; -1: none */
	uint32_t granted; /* input bytes handed on and not yet given back to the client */
	bool input_ended; /* the client's EOF */
	bool started, reaped;
	bool timed_out;
	pid_t sync; /* the process that syncs before EXIT; 0: none */
	uint64_t pending_signals; /* bit n - 1, until started */
	uint64_t started_ns;
	uint64_t oom_kills; /* in the workload when the exec began */
	uint64_t peak_rss; /* of the commands that are over */
	struct agent_exit exit;
};

static inline bool exec_is_main(const struct exec *exec)
{
	return exec->request.flags & AGENT_EXEC_FLAG_MAIN;
}

static inline bool exec_is_tty(const struct exec *exec)
{
	return exec->request.flags & AGENT_EXEC_FLAG_TTY;
}

/** Has everything that comes before EXIT been sent? True when the exec is gone. */
bool exec_check_end(struct exec *exec);

/** The client goes, and the program lives on. */
void exec_leave(struct exec *exec);

/* ---- streams.c ---- */

void stream_end(struct stream *stream);
/** Wait for what the program says, as far as the window allows. */
void output_arm(struct stream *stream);
/** One chunk per stream and round, so that streams share the connection fairly; after the program's end all of it. The
 *  exec may be gone afterwards. */
void exec_pump(struct exec *exec);
/** Hand on what waits; what nobody reads any more is dropped, as by a shell's pipe. */
void input_move(struct exec *exec);

#endif
