/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event.h - what happened to the VMs of a home: JSON lines in one file of bounded size
 *
 * Theory of operation: HOME/events is appended to by every husk process, one write(2) a line, under a shared moment of
 * flock(2); when it is larger than EVENTS_MAX the writer renames it to HOME/events.1, over the one before, and begins a new
 * one. So at most 2 * EVENTS_MAX bytes are kept, and `rm` of a VM does not take what happened to it along. Telling an event
 * never fails an operation. Strings are escaped here, since the supervisor has no JSON library and a name may hold anything.
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
