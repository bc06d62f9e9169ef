/* SPDX-License-Identifier: Apache-2.0 */
/* exec.h - the EXEC operation: one program, its streams, its end */
#ifndef GUEST_EXEC_H
#define GUEST_EXEC_H

#include "guest/agent.h"

/** A descriptor of the process that an exec of the main workload has started; -1: it has not yet. */
int exec_pidfd(const struct exec *exec);
/** Start what the EXEC frame asks for on @c; an error is answered there. */
void exec_open(struct connection *c, const struct agent_frame *frame);
/** A further frame of the client. */
void exec_frame(struct connection *c, const struct agent_frame *frame);
/** Send signal @number to the program, once it runs. */
void exec_signal(struct exec *exec, uint32_t number);
/** The client has gone: kill a joined program's process group. The main workload is the caller's to judge. */
void exec_abandon(struct exec *exec);
/** The agent's child @pid has died; true when it was a program of ours. */
bool exec_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage);

#endif
