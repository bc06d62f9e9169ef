/* SPDX-License-Identifier: Apache-2.0 */
/* tool.h - run a tool of the system to its end, its output collected */
#ifndef ENGINE_TOOL_H
#define ENGINE_TOOL_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>

/** Run @argv (looked up in PATH) in @directory (NULL: here), stdin from @stdin_fd (-1: /dev/null), stdout to @stdout_fd or,
 *  where that is -1, into @out (may be NULL); with @stderr_too also stderr goes to @stdout_fd. @fds become its 3, 4, …. While
 *  it runs @tick (may be NULL) is called after each @tick_ms without a word from it. -ENOENT with the @package to install when the tool is missing; -EIO with the
 *  last line it wrote to stderr when it fails. */
struct tool {
	const char *const *argv;
	const char *package;
	const char *directory;
	int stdin_fd, stdout_fd;
	bool stderr_too;
	const int *fds;
	size_t n_fds;
	void (*tick)(void *data);
	void *tick_data;
	int tick_ms;
};

int tool_run(const struct tool *tool, struct buffer *out, struct husk_error *err);

#endif
