/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_files.h - the lines of a home's events, from the oldest on, across the renaming of their file
 *
 * Theory of operation: HOME/events is appended to, and renamed to HOME/events.1 when it is full (base/event.h). Nobody appends to a
 * file that was renamed, so a reader that finds another file under the name reads its own one to the end, and then goes on with
 * the next: that one, or the one that was renamed to events.1 meanwhile. A reader that is two renamings late has missed what was in
 * between; nothing can be done about that. A line that does not end yet is waited for.
 */
#ifndef ENGINE_EVENT_FILES_H
#define ENGINE_EVENT_FILES_H

#include "base/buffer.h"
#include "base/error.h"

struct event_files {
	char *path, *old_path; /* owned */
	int fd, next_fd; /* owned: the file that is read, and the one behind it; -1: none */
	struct buffer text; /* read, and not given yet */
};

#define EVENT_FILES_INIT                                                                                               \
	{                                                                                                              \
		.fd = -1, .next_fd = -1                                                                                \
	}

/** Begin with the oldest line of the home @home. That there is no file yet is fine. */
int event_files_open(struct event_files *files, const char *home, struct husk_error *err);
/** The next line, NUL-terminated in place of its newline, valid until the next call: 1; 0 when there is none now; -errno. */
int event_files_next(struct event_files *files, char **line, struct husk_error *err);
void event_files_close(struct event_files *files);

#endif
