/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - the last steps of a program's process: terminal, user, directory, environment, exec */
#ifndef GUEST_LAUNCH_H
#define GUEST_LAUNCH_H

#include "agent/protocol.h"
#include "guest/enter.h"
#include "guest/request.h"
#include "guest/user.h"

/** Become the program of command @step. Descriptors 0 to 2 are its streams (to be replaced with a terminal), @status is the
 *  status socket. Inside the workload's root and namespaces already. */
_Noreturn void launch(const struct workload_setup *setup, const struct exec_request *request, size_t step, int status);

/** Report on the status socket and end the process. Without one (-1), as the agent has been told already that the exec runs:
 *  say it on stderr and end as a shell does. */
_Noreturn __attribute__((format(printf, 3, 4))) void launch_fail(
	int status, enum agent_error code, const char *format, ...);

/** Give up root's rights for those of @user. */
void launch_become(const struct user *user, int status);

#endif
