/* SPDX-License-Identifier: Apache-2.0 */
/* tool.c - run a tool of the system to its end */
#include "engine/tool.h"

#include "engine/helper.h"

int tool_run(const struct tool *tool, struct buffer *out, struct husk_error *err)
{
	const char *name = tool->argv[0];
	CLEANUP_FREE char *path = engine_find_program(name);
	if (!path)
		return error_set(err, -ENOENT, "%s is not installed; install the package %s (apt-get install %s)", name,
			tool->package, tool->package);
	struct helper helper = {
		.path = path,
		.argv = tool->argv,
		.directory = tool->directory,
		.stdin_fd = tool->stdin_fd,
		.stdout_fd = tool->stdout_fd,
		.stderr_fd = tool->stderr_too ? tool->stdout_fd : -1,
		.cancel_fd = -1,
		.fds = tool->fds,
		.n_fds = tool->n_fds,
		.tick = tool->tick,
		.tick_data = tool->tick_data,
		.tick_ms = tool->tick_ms,
	};
	return helper_run(&helper, out, err);
}
