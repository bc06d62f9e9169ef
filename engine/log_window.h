/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_window.h - which part of a log a caller gets: from when, until when, how many lines at the end
 *
 * Theory of operation: how many lines there will be is known at the end only, so while there is more to read the last ones are
 * kept, as copies of the pieces that they came in; at most the log's own size. Then they are given, and whatever follows goes
 * straight to the caller.
 */
#ifndef ENGINE_LOG_WINDOW_H
#define ENGINE_LOG_WINDOW_H

#include "engine/log_source.h"

struct kept_piece;

struct log_window {
	uint64_t since_ns, until_ns; /* 0: none */
	uint64_t tail; /* lines */
	bool keep; /* the end is awaited */
	husk_log_fn *fn;
	void *data;
	struct kept_piece *first, **last;
	uint64_t newlines; /* in what is kept */
	bool open; /* and the last of it does not end with one */
};

/** @tail -1: all. */
void log_window_open(struct log_window *window, const struct husk_log_options *options, husk_log_fn *fn, void *data);
/** 0; what @fn returned when that was not 0; -ENOMEM. */
int log_window_put(struct log_window *window, const struct log_piece *piece);
/** That was all for now: give what was kept. As above. */
int log_window_release(struct log_window *window);
void log_window_close(struct log_window *window);

#endif
