/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_source.h - what a VM has said, in the order of its times: the workload's output, or the guest's console and husk's own words
 *
 * Theory of operation: the workload's output is one log of records. The log of the boot is made of two, the records of the console
 * and the lines of the file `log`; of both the next one is looked at, and the earlier is given. A VM that belongs to its caller
 * has the file alone, with the console in it.
 */
#ifndef ENGINE_LOG_SOURCE_H
#define ENGINE_LOG_SOURCE_H

#include "base/record_log.h"
#include "engine/log_lines.h"

#include <husk.h>

/** A piece of a log. LOST: `n` bytes are missing, and `bytes` is NULL. */
struct log_piece {
	enum husk_stream stream;
	uint64_t time_ns;
	const void *bytes; /* valid until the next call */
	size_t n;
};

struct log_source {
	int fd[3]; /* owned; the two files of records, and `log`; -1: none */
	bool records; /* the two are there, and `reader` is open */
	struct record_reader reader;
	struct log_lines lines;
	bool record_ready, line_ready; /* looked at, and not given yet */
	struct record record;
	struct log_line line;
	bool in_line; /* what was given last of the console did not end with a newline */
};

#define LOG_SOURCE_INIT                                                                                                \
	{                                                                                                              \
		.fd = { -1, -1, -1 }                                                                                   \
	}

/** Open the log in the record @directory: of the workload, or with @boot of console and husk. Files that are not there hold
 *  nothing. */
int log_source_open(struct log_source *source, const char *directory, bool boot, struct husk_error *err);
/** Go on behind where the VM was started last; husk's own words from @started_ns on. Nothing was read yet. */
int log_source_to_last_start(struct log_source *source, uint64_t started_ns, struct husk_error *err);
/** The next piece: 1; 0 when there is none now; -errno. @rest: a line that has no end yet, too. */
int log_source_next(struct log_source *source, bool rest, struct log_piece *out, struct husk_error *err);
void log_source_close(struct log_source *source);

#endif
