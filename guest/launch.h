/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - the last steps of a program's process: terminal, user, directory, environment, exec */
#ifndef GUEST_LAUNCH_H
#define GUEST_LAUNCH_H

#include "agent/protocol.h"
#include "guest/enter.h"
#include "guest/request.h"

/** Become the program. Descriptors 0 to 2 are its streams (to be replaced with a terminal), @status is the status socket.
 *  Inside the workload's root and namespaces already. */
_Noreturn void launch(const struct workload_setup *setup, const struct exec_request *request, int status);

/** Report on the status socket and end the process. */
_Noreturn __attribute__((format(printf, 3, 4))) void launch_fail(
	int status, enum agent_error code, const char *format, ...);

/** The program's environment: the agent's defaults with what the VM has to say, the request's, HOME of passwd; of a name that comes twice the later
 *  one. NULL without memory. Exported for its test. */
char **launch_environment(const struct exec_request *request, const struct workload_setup *setup, const char *home);

#endif
