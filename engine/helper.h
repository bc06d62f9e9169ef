/* SPDX-License-Identifier: Apache-2.0 */
/* helper.h - run one of husk's helper programs or another tool to its end, with its output and its error in hand */
#ifndef ENGINE_HELPER_H
#define ENGINE_HELPER_H

#include "base/buffer.h"
#include "engine/engine.h"

#define HELPER_OUTPUT_MAX (64u << 20)

/** A program to run to its end.
 *  path:        absolute
 *  argv:        NULL-terminated, argv[0] included
 *  directory:   where it runs, NULL: here
 *  stdin_fd:    the child's stdin, -1: /dev/null
 *  stdout_fd:   the child's stdout, -1: it is collected
 *  stderr_fd:   where its progress goes, -1: it is kept, and its last line is the error's text when it tells no other
 *  cancel_fd:   readable: the child gets SIGTERM and the run ends with -ECANCELED; -1: none
 *  error_fd:    the child speaks HUSK_ERROR_FD: "CODE MESSAGE" on descriptor 3
 *  fds:         become the child's 3, 4, … (-1: /dev/null); not together with error_fd
 *  tick:        called with tick_data after each tick_ms in which nothing came from the child; NULL: none */
struct helper {
	const char *path;
	const char *const *argv;
	const char *directory;
	int stdin_fd, stdout_fd, stderr_fd, cancel_fd;
	bool error_fd;
	const int *fds;
	size_t n_fds;
	void (*tick)(void *data);
	void *tick_data;
	int tick_ms;
};

/** Run it; its stdout is appended to @out (may be NULL: /dev/null). 0 when it exited with 0; else its own error, or -EIO. */
int helper_run(const struct helper *how, struct buffer *out, struct husk_error *err);

#endif
