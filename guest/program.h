/* SPDX-License-Identifier: Apache-2.0 */
/* program.h - one program in the workload's namespaces: how it is started, up to its exec */
#ifndef GUEST_PROGRAM_H
#define GUEST_PROGRAM_H

#include "base/error.h"
#include "guest/enter.h"
#include "guest/request.h"

#include <sys/types.h>

#define PROGRAM_TEXT_MAX 1000

/** What the program's process says on its status socket before the exec; the socket's end means that it has succeeded. */
enum program_report_kind { PROGRAM_PID = 1, PROGRAM_TTY = 2, PROGRAM_ERROR = 3 };

/** One message. TTY carries the terminal's master as a descriptor. */
struct program_report {
	uint32_t kind;
	uint32_t code; /* ERROR: enum agent_error */
	int32_t pid; /* PID, in the agent's PID namespace */
	char text[PROGRAM_TEXT_MAX + 1];
};

/** A started program, from the agent's side. Descriptors are -1 where there is none, owned, non-blocking, CLOEXEC. */
struct program {
	pid_t pid;
	int pidfd; /* of the main workload's PID 1 */
	int status; /* SOCK_SEQPACKET, struct program_report */
};

/** The two ends of a program's streams: the agent's, non-blocking, and those that its processes get. -1: there is none, which
 *  is /dev/null for the program. With a terminal there are none yet. Owned, CLOEXEC. */
struct program_streams {
	int ours[3], theirs[3];
};
#define PROGRAM_NO_STREAMS ((struct program_streams){{-1, -1, -1}, {-1, -1, -1}})

int program_streams_open(const struct exec_request *request, struct program_streams *out, struct husk_error *err);
void program_streams_close(struct program_streams *streams);
/** Close the programs' ends, when the last one has been started: only then do the streams end with the programs. */
void program_streams_release(struct program_streams *streams);

/** Start command @step of @request. @main_pidfd: of the running main workload, to join; not used for the main workload itself.
 *  -ESRCH: there is none to join any more. */
int program_start(const struct workload_setup *setup, const struct exec_request *request, size_t step, int main_pidfd,
	const struct program_streams *streams, struct program *out, struct husk_error *err);
/** What a process in the workload's namespaces does: never returns. Its descriptors are 0 to 2 and the status socket. */
typedef void program_fn(const struct workload_setup *setup, const void *data, int status);
/** Start a process of ours that joins the main workload's namespaces and cgroup and runs @run. */
int program_join(const struct workload_setup *setup, int main_pidfd, const int stdio[3], program_fn *run,
	const void *data, struct program *out, struct husk_error *err);
void program_close(struct program *program);

#endif
