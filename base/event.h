/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event.h - what happened to the VMs of a home: JSON lines in one file of bounded size
 *
 * Theory of operation: HOME/events is appended to by every husk process, one write(2) with O_APPEND a line, which the kernel
 * keeps whole. The line that would make it larger than EVENTS_MAX renames it to HOME/events.1 first, over the one before, and
 * begins a new one. So at most about 2 * EVENTS_MAX bytes are kept, and `rm` of a VM does not take what happened to it along.
 * Telling an event never fails an operation. Strings are escaped here, since the supervisor has no JSON library and a name may
 * hold anything.
 *
 * Writers hold the file's flock(2) shared, who renames it holds it alone: so nobody appends to a file that has been renamed,
 * and a reader that finds another file under the name has all of the old one. Nobody waits for that lock: a process that was
 * stopped while it had it would hold up every VM. It is tried a few times; then the line is appended without it, and the
 * renaming is left to a later line. Should nobody be able to rename, lines are dropped once the file has twice its size.
 *
 * A line: {"time":"2026-11-28T22:36:32.123456789Z","event":"started","id":"0123456789ab","name":"web",…}
 * "name" is left out when there is none; what else there is depends on the event.
 */
#ifndef BASE_EVENT_H
#define BASE_EVENT_H

#include <stddef.h>
#include <stdint.h>

#define EVENTS_MAX (4u << 20)
#define EVENT_LINE_MAX 4096 /* with its newline; what is longer loses fields, never its form */

/** One more member of the line. */
struct event_field {
	const char *key;
	const char *text; /* NULL: `number` is the value */
	int64_t number;
};

/** Append an event of the VM @id to the file @path; @name may be NULL. */
void event_tell(const char *path, const char *event, const char *id, const char *name, const struct event_field *fields,
	size_t n_fields);

#endif
