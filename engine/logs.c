/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - read a VM's log, and follow it until the VM has ended
 *
 * Theory of operation: reading needs nobody: the files are there, and stay readable when the VM is removed under us. Who follows
 * sleeps until the record's directory changes (inotify: the logs, and the state in it), or the supervisor dies (its pidfd), which
 * need not leave a trace in the directory. What the state says is looked at first and the logs are read then: so what is there when
 * the VM has ended is all there will be. The next life of a VM that is started again is not followed: what it says begins with
 * its start's time.
 */
#include "engine/logs.h"

#include "base/loop.h"
#include "base/path.h"
#include "base/rfc3339.h"
#include "base/when.h"
#include "engine/end.h"
#include "engine/log_window.h"
#include "engine/status.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>

struct logs {
	const struct husk *husk;
	const char *id;
	const struct husk_log_options *options;
	char *directory;
	struct log_source source;
	struct log_window window;
	int notify, state_fd, supervisor; /* owned; supervisor: a pidfd */
	uint32_t starts; /* which life is followed */
	bool over; /* that has ended */
	bool look; /* at the state again */
	uint64_t deadline_ms; /* of CLOCK_MONOTONIC; UINT64_MAX: none */
};

#define LOGS_INIT                                                                                                      \
	{                                                                                                              \
		.source = LOG_SOURCE_INIT, .notify = -1, .state_fd = -1, .supervisor = -1, .look = true,               \
		.deadline_ms = UINT64_MAX                                                                              \
	}

static void logs_close(struct logs *l)
{
	int fds[] = {l->notify, l->state_fd, l->supervisor};

	log_source_close(&l->source);
	log_window_close(&l->window);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(l->directory);
}

struct husk_log_options logs_defaults(void)
{
	return (struct husk_log_options){
		.size = sizeof(struct husk_log_options), .tail = -1, .timeout_ms = -1, .cancel_fd = -1};
}

/** A VM that belongs to its caller has given its output to that. */
static int check_output(struct logs *l, struct husk_error *err)
{
	struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = NULL;

	if (l->options->boot || l->source.records)
		return 0;
	snprintf(record.id, sizeof(record.id), "%s", l->id);
	record.directory = l->directory;
	if (vm_record_read(&record, &json, NULL) < 0)
		return 0;
	const char *lifetime = json_string_value(json_object_get(json, "lifetime"));
	if (lifetime && strcmp(lifetime, "caller") == 0)
		return error_set(err, -ENOTSUP,
			"VM %s runs in the foreground: what its workload says goes to who started it; the log of its "
			"boot is "
			"there",
			l->id);
	return 0;
}

/** Whether the life that we follow has ended; first of all which one that is. */
static void look_at_state(struct logs *l, bool first)
{
	struct status status;
	bool known = status_read_open(l->state_fd, l->directory, l->id, &status, NULL) == 0;
	const struct vm_state_record *state = &status.state;

	l->look = false;
	if (first)
		l->starts = known ? state->starts : 0;
	if (known && state->starts != l->starts && (!l->window.until_ns || state->started_ns < l->window.until_ns))
		l->window.until_ns = state->started_ns;
	l->over = !known || !status_runs(state->state) || state->starts != l->starts;
	if (l->over || l->supervisor >= 0)
		return;
	l->supervisor = end_watch(state);
	l->look = l->supervisor == -ESRCH; /* it died just now */
}

/** Watch before anything is read. */
static int open_watch(struct logs *l, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(l->directory, "state");

	l->state_fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (l->state_fd < 0)
		return path ? error_errno(err, "open %s", path) : error_set(err, -ENOMEM, "read a log: out of memory");
	l->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (l->notify < 0 || inotify_add_watch(l->notify, l->directory, IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF) < 0)
		return error_errno(err, "watch the logs of VM %s", l->id);
	return 0;
}

/** Take what inotify has to say; what matters is whether the logs alone have changed. */
static void take_events(struct logs *l)
{
	char bytes[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	while ((n = read(l->notify, bytes, sizeof(bytes))) > 0) {
		const struct inotify_event *event;
		for (const char *at = bytes; at < bytes + n; at += sizeof(*event) + event->len) {
			event = (const void *)at;
			if (event->mask & (IN_MOVE_SELF | IN_DELETE_SELF | IN_IGNORED))
				l->over = true; /* it is being removed */
			if ((event->mask & IN_Q_OVERFLOW) || (event->len && strcmp(event->name, "state") == 0))
				l->look = true;
		}
	}
}

/** Sleep until there may be more. 1: there is no more to wait for. */
static int wait_for_more(struct logs *l, struct husk_error *err)
{
	struct pollfd fds[] = {
		{.fd = l->notify, .events = POLLIN},
		{.fd = l->supervisor, .events = POLLIN},
		{.fd = l->options->cancel_fd, .events = POLLIN},
	};

	if (l->options->until_ns && clock_realtime_ns() >= l->options->until_ns)
		return 1;
	if (clock_monotonic_ms() >= l->deadline_ms)
		return error_set(err, -ETIMEDOUT, "VM %s has not ended in the time that its log was followed", l->id);
	if (poll(fds, ARRAY_SIZE(fds), when_poll_ms(l->deadline_ms, l->options->until_ns)) < 0 && errno != EINTR)
		return error_errno(err, "follow the logs of VM %s", l->id);
	if (fds[2].revents)
		return error_set(err, -ECANCELED, "following the logs of VM %s was canceled", l->id);
	if (fds[1].revents) {
		close(steal_fd(&l->supervisor));
		l->look = true;
	}
	take_events(l);
	return 0;
}

/** Give all there is. @rest: nothing will come behind it. */
static int drain(struct logs *l, bool rest, struct husk_error *err)
{
	struct log_piece piece;
	int rc;

	while ((rc = log_source_next(&l->source, rest, &piece, err)) == 1) {
		rc = log_window_put(&l->window, &piece);
		if (rc == -ENOMEM)
			return error_set(err, rc, "read the logs of VM %s: out of memory", l->id);
		if (rc != 0)
			return rc;
	}
	return rc;
}

static int follow(struct logs *l, struct husk_error *err)
{
	for (bool first = true;; first = false) {
		if (l->look && !l->over)
			look_at_state(l, first);
		bool over = l->over;
		int rc = drain(l, over, err);
		if (rc == 0 && l->window.keep)
			rc = log_window_release(&l->window);
		if (rc != 0 || over)
			return rc;
		rc = l->look ? 0 : wait_for_more(l, err);
		if (rc != 0)
			return rc < 0 ? rc : 0;
	}
}

/** The time of the last start, where it matters. */
static int to_last_start(struct logs *l, struct husk_error *err)
{
	struct status status;
	int rc = status_read(l->husk, l->id, &status, err);

	return rc < 0 ? rc : log_source_to_last_start(&l->source, status.state.started_ns, err);
}

int logs_read(const struct husk *husk, const char *id, const struct husk_log_options *options, husk_log_fn *fn,
	void *data, struct husk_error *err)
{
	CLEANUP(logs_close) struct logs l = LOGS_INIT;

	l.husk = husk;
	l.id = id;
	l.options = options;
	l.directory = path_format("%s/vms/%s", husk->home, id);
	log_window_open(&l.window, options, fn, data);
	if (!l.directory)
		return error_set(err, -ENOMEM, "read a log: out of memory");
	if (access(l.directory, F_OK) < 0)
		return error_set(err, -ENOENT, "there is no VM %s", id);
	if (options->follow && options->timeout_ms >= 0)
		l.deadline_ms = clock_monotonic_ms() + (uint64_t)options->timeout_ms;
	int rc = options->follow ? open_watch(&l, err) : 0;
	rc = rc < 0 ? rc : log_source_open(&l.source, l.directory, options->boot, err);
	rc = rc < 0 ? rc : check_output(&l, err);
	if (rc == 0 && options->last_start)
		rc = to_last_start(&l, err);
	if (rc < 0)
		return rc;
	if (options->follow)
		return follow(&l, err);
	rc = drain(&l, true, err);
	return rc ? rc : log_window_release(&l.window);
}
