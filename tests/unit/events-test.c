/* SPDX-License-Identifier: Apache-2.0 */
/* events-test.c - events are read in order, in part, while they are told and across the renaming of their file */
#include "engine/events.h"

#include "base/buffer.h"
#include "base/event.h"
#include "base/path.h"
#include "base/rfc3339.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 25000 /* of about 450 bytes: over two renamings */

static struct husk_error err;
static struct husk husk;
static char path[128], old_path[128];
static struct buffer got; /* "event id|" of each */
static size_t limit, lines;

static int on_line(void *data, const char *line)
{
	const char *event = strstr(line, "\"event\":\""), *id = strstr(line, "\"id\":\"");

	if (event && id)
		buffer_printf(&got, "%.*s %.*s|", (int)strcspn(event + 9, "\""), event + 9, (int)strcspn(id + 6, "\""),
			id + 6);
	return ++lines == limit ? 77 : 0;
}

static const char *read_with(struct husk_event_options o)
{
	static char text[4096];
	const struct husk_event_options d = events_defaults();

	o.size = d.size;
	o.timeout_ms = o.timeout_ms ? o.timeout_ms : d.timeout_ms;
	o.cancel_fd = o.cancel_fd ? o.cancel_fd : d.cancel_fd;
	buffer_free(&got);
	lines = 0;
	int rc = events_read(&husk, &o, on_line, NULL, &err);
	if (rc != 0)
		buffer_printf(&got, "%d", rc);
	snprintf(text, sizeof(text), "%.*s", (int)got.size, got.size ? (char *)buffer_bytes(&got) : "");
	return text;
}
#define READ(...) read_with((struct husk_event_options){__VA_ARGS__})

static void tell(const char *event, const char *id)
{
	event_tell(path, event, id, "web", NULL, 0);
}

static void append(const char *text)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "something else is in the file");
}

static void test_reading(void)
{
	CHECK_STRING(READ(), "", "a home in which nothing has happened has no events");
	tell("created", "a");
	tell("created", "b");
	uint64_t middle = clock_realtime_ns();
	tell("removed", "a");
	CHECK_STRING(READ(), "created a|created b|removed a|", "all of them, in order");
	CHECK_STRING(READ(.vm = "a"), "created a|removed a|", "of one VM");
	CHECK_STRING(READ(.since_ns = middle), "removed a|", "since a point in time");
	CHECK_STRING(READ(.until_ns = middle), "created a|created b|", "until then");
	limit = 2;
	CHECK_STRING(READ(), "created a|created b|77", "who has enough ends it");
	limit = 0;
	CHECK(rename(path, old_path) == 0, "the file is renamed");
	CHECK_STRING(READ(), "created a|created b|removed a|", "which changes nothing");
	tell("created", "c");
	CHECK_STRING(READ(), "created a|created b|removed a|created c|", "a new one is read behind it");
	append("torn{\"time\":\"2026\n{}\n[1]\nnull\n{\"time\":\"2026-11-28T22:36:32Z\",\"event\":1,\"id\":\"x\"}\n"
	       "{\"time\":\"then\",\"event\":\"e\",\"id\":\"x\"}\n{\"time\":\"2026-11-28T22:36:32Z\",\"event\":\"e\"}"
	       "\n\n");
	tell("created", "d");
	append("{\"time\":\"2026-11-28T22:36:32Z\",\"event\":\"e\",\"id\":\"x\"}");
	CHECK_STRING(READ(), "created a|created b|removed a|created c|created d|",
		"what is no event, or has no end, is passed over");
	append("\n");
	CHECK_STRING(READ(.vm = "x"), "e x|", "until it has one");
	CHECK_STRING(READ(.vm = "x", .since_ns = 1), "e x|", "also with another form of time");
	CHECK_STRING(READ(.follow = true, .timeout_ms = 1, .vm = "d"), "created d|-110",
		"they are followed until the deadline");
	CHECK_STRING(READ(.follow = true, .until_ns = middle, .vm = "a"), "created a|", "or until then");
	int cancel[2];
	CHECK(pipe(cancel) == 0 && write(cancel[1], "", 1) == 1, "a pipe that says enough");
	CHECK_STRING(
		READ(.follow = true, .cancel_fd = cancel[0], .vm = "d"), "created d|-125", "or until somebody says so");
	CHECK(unlink(path) == 0 && unlink(old_path) == 0, "begin anew");
}

/** Tell MANY events in another process. */
static pid_t tell_many(void)
{
	pid_t pid = fork();
	char text[400], id[13];
	const struct event_field field = {"text", text, 0};

	if (pid != 0)
		return pid;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	for (int i = 0; i <= MANY; i++) {
		snprintf(id, sizeof(id), "%012d", i);
		event_tell(path, i < MANY ? "e" : "last", id, NULL, &field, 1);
		if (i % 200 == 0)
			poll(NULL, 0,
				2); /* faster than a reader that sleeps too long it may not be: that loses two files */
	}
	_exit(0);
}

struct counting {
	int next;
	bool gap;
};

static int on_number(void *data, const char *line)
{
	struct counting *c = data;
	const char *id = strstr(line, "\"id\":\"");
	int n = id ? atoi(id + 6) : -1;

	c->gap = c->gap || n != c->next;
	c->next = n + 1;
	return strstr(line, "\"last\"") ? 5 : 0;
}

static void test_following(void)
{
	struct husk_event_options o = events_defaults();
	struct counting c = {0};
	int status;

	o.follow = true;
	o.timeout_ms = 60000;
	pid_t pid = tell_many();
	CHECK(events_read(&husk, &o, on_number, &c, &err) == 5, "events are followed until the last one has come");
	CHECK(!c.gap && c.next == MANY + 1, "each of them once, and in order, over two renamings");
	CHECK(waitpid(pid, &status, 0) == pid && status == 0, "they were told by another process");
	CHECK(access(old_path, F_OK) == 0, "and the file was renamed");
}

int main(void)
{
	char folder[] = "/tmp/husk-events-XXXXXX";

	CHECK(mkdtemp(folder) != NULL, "a home");
	husk.home = folder;
	snprintf(path, sizeof(path), "%s/events", folder);
	snprintf(old_path, sizeof(old_path), "%s/events.1", folder);
	test_reading();
	test_following();
	buffer_free(&got);
	CHECK(path_remove_tree(folder, NULL) == 0, "clean up");
	return tap_done();
}
