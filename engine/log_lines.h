/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_lines.h - husk's own words about a VM: the file `log` of its record, line by line
 *
 * Theory of operation: supervisor and worker append lines that begin with their time (vmm/log.h). What else is in the file, the
 * guest's console of a VM that belongs to its caller and what QEMU says, has no time of its own and takes that of the line before.
 * Nothing in it is believed: a line without end is cut at LOG_LINE_MAX, a file that became shorter is read from its beginning.
 */
#ifndef ENGINE_LOG_LINES_H
#define ENGINE_LOG_LINES_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>

#define LOG_LINE_MAX (64u << 10)

struct log_lines {
	int fd; /* borrowed; -1: there is none */
	uint64_t at; /* of the file: what is behind `text` */
	struct buffer text; /* owned; what was read and not given yet */
	uint64_t time_ns; /* of the line before */
};

struct log_line {
	const char *bytes; /* with its newline, without its time; valid until the next call */
	size_t n;
	uint64_t time_ns; /* 0: no line had one yet */
};

/** The next line: 1; 0 when there is no whole one now, or with @rest not even a part of one; -errno. */
int log_lines_next(struct log_lines *lines, bool rest, struct log_line *out, struct husk_error *err);
void log_lines_close(struct log_lines *lines);

#endif
