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
	int stdio[3]; /* stdin's writing end, stdout's and stderr's reading ends; with a terminal none yet */
};

/** Start @request. @main is the pidfd of the running main workload, to join; not used for the main workload itself.
 *  -ESRCH: there is none to join any more. */
int program_start(const struct workload_setup *setup, const struct exec_request *request, int main_pidfd,
	struct program *out, struct husk_error *err);
void program_close(struct program *program);

#endif
