/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - read the events of a home, and follow them
 *
 * Theory of operation: a line is given when it is a JSON object with a time, an event and an id; a full disk or a process that was
 * killed may leave others. Lines begin with their time in a form that sorts as text, so those from before the time that is asked
 * for are passed over without being parsed. Who follows sleeps until something in the home changes, and reads then.
 */
#include "engine/events.h"

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/rfc3339.h"
#include "base/when.h"
#include "engine/event_files.h"
#include "engine/vm.h"

#include <poll.h>
#include <string.h>
#include <sys/inotify.h>

#define LINE_BEGIN "{\"time\":\"" /* base/event.c */

struct events {
	const struct husk_event_options *options;
	struct event_files files;
	int notify; /* owned */
	char since[RFC3339_SIZE]; /* "": none */
	uint64_t deadline_ms; /* of CLOCK_MONOTONIC; UINT64_MAX: none */
};

static void events_close(struct events *e)
{
	event_files_close(&e->files);
	if (e->notify >= 0)
		close(e->notify);
}

struct husk_event_options events_defaults(void)
{
	return (struct husk_event_options){
		.size = sizeof(struct husk_event_options), .timeout_ms = -1, .cancel_fd = -1};
}

/** Its time says at once that it is too old. */
static bool is_early(const struct events *e, const char *line)
{
	size_t begin = strlen(LINE_BEGIN), n = strlen(e->since);

	return n && strncmp(line, LINE_BEGIN, begin) == 0 && strnlen(line + begin, n) == n && line[begin + n] == '"' &&
	       memcmp(line + begin, e->since, n) < 0;
}

/** Whether @line is an event that is asked for. */
static bool is_wanted(const struct events *e, const char *line)
{
	const struct husk_event_options *o = e->options;
	uint64_t ns;

	if (is_early(e, line))
		return false;
	CLEANUP_JSON json_t *json = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	const char *time = json_string_value(json_object_get(json, "time"));
	const char *id = json_string_value(json_object_get(json, "id"));
	if (!time || !id || !json_is_string(json_object_get(json, "event")) ||
		!when_read(time, strlen(time), &ns, NULL))
		return false;
	return ns >= o->since_ns && (!o->until_ns || ns < o->until_ns) && (!o->vm || strcmp(o->vm, id) == 0);
}

static int drain(struct events *e, husk_event_fn *fn, void *data, struct husk_error *err)
{
	char *line;
	int rc;

	while ((rc = event_files_next(&e->files, &line, err)) == 1) {
		rc = is_wanted(e, line) ? fn(data, line) : 0;
		if (rc != 0)
			return rc;
	}
	return rc;
}

static void take_notices(const struct events *e)
{
	char bytes[4096];

	while (read(e->notify, bytes, sizeof(bytes)) > 0)
		;
}

/** Sleep until there may be more. */
static int wait_for_more(struct events *e, struct husk_error *err)
{
	struct pollfd fds[] = {{.fd = e->notify, .events = POLLIN}, {.fd = e->options->cancel_fd, .events = POLLIN}};

	if (clock_monotonic_ms() >= e->deadline_ms)
		return error_set(err, -ETIMEDOUT, "the time in which events were followed is over");
	if (poll(fds, ARRAY_SIZE(fds), when_poll_ms(e->deadline_ms, e->options->until_ns)) < 0 && errno != EINTR)
		return error_errno(err, "follow the events");
	if (fds[1].revents)
		return error_set(err, -ECANCELED, "following the events was canceled");
	take_notices(e);
	return 0;
}

static int open_watch(struct events *e, const char *home, struct husk_error *err)
{
	e->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	/* The directory: the file may not be there yet, and is not always the same. */
	if (e->notify < 0 || inotify_add_watch(e->notify, home, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0)
		return error_errno(err, "watch the events in %s", home);
	return 0;
}

int events_read(const struct husk *husk, const struct husk_event_options *options, husk_event_fn *fn, void *data,
	struct husk_error *err)
{
	CLEANUP(events_close)
	struct events e = {.options = options, .files = EVENT_FILES_INIT, .notify = -1, .deadline_ms = UINT64_MAX};

	if (options->since_ns)
		rfc3339_format(options->since_ns, e.since);
	if (options->follow && options->timeout_ms >= 0)
		e.deadline_ms = clock_monotonic_ms() + (uint64_t)options->timeout_ms;
	int rc = options->follow ? open_watch(&e, husk->home, err) : 0;
	rc = rc < 0 ? rc : event_files_open(&e.files, husk->home, err);
	while (rc == 0) {
		/* What was told until then was told before this look. */
		bool over = !options->follow || (options->until_ns && clock_realtime_ns() >= options->until_ns);
		rc = drain(&e, fn, data, err);
		if (rc != 0 || over)
			break;
		rc = wait_for_more(&e, err);
	}
	return rc;
}
