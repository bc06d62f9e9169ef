/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.h - the guest's serial console on its way into the VM's log
 *
 * Theory of operation: the guest decides what it writes there, so the log takes at most CONSOLE_MAX bytes of it and then one
 * line that says so; the rest is read and dropped, since a console that is not read would stop the guest. The last lines are
 * searched for the kernel's own last words, which tell why a guest ended.
 *
 * A VM that has a log of bounded size for its console (base/record_log.h) gets all of it there instead: a record per line, or
 * what there is of a line that does not end within CONSOLE_FLUSH_MS.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include "base/loop.h"
#include "base/record_log.h"

#define CONSOLE_MAX (4u << 20)
#define CONSOLE_LINE 200
#define CONSOLE_HELD 1024
#define CONSOLE_FLUSH_MS 50

struct console {
	struct loop *loop;
	struct loop_watch watch;
	int fd; /* owned; -1 once closed */
	int log_fd; /* borrowed */
	uint32_t logged; /* bytes in it */
	struct record_log *records; /* borrowed; instead of log_fd, unless NULL */
	struct loop_watch flush; /* the timer of what is held for `records` */
	bool flush_set;
	char held[CONSOLE_HELD]; /* for the log: the rest of a line */
	uint32_t n_held;
	char line[CONSOLE_LINE]; /* the line under way, printable */
	uint32_t line_size;
	char panic[CONSOLE_LINE]; /* "" or the kernel's last words */
};

/** Read @fd (taken on success, made non-blocking; -1: console_write() brings it all) into @log_fd (-1: nowhere). */
int console_open(struct console *console, struct loop *loop, int fd, int log_fd, struct husk_error *err);
/** From now on all of it goes into @records (borrowed). */
int console_record(struct console *console, struct record_log *records, struct husk_error *err);
/** What a console says that is in this process. With the loop's lock, from any thread. */
void console_write(struct console *console, const void *bytes, size_t n);
/** Read what is there now; then log and console->panic are up to date. */
void console_drain(struct console *console);

#endif
