/* SPDX-License-Identifier: Apache-2.0 */
/* event.c - append a line to the file of events (theory of operation: event.h) */
#include "base/event.h"

#include "base/cleanup.h"
#include "base/rfc3339.h"
#include "base/utf8.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define TRIES 20
#define TRY_NS 500000
#define CLOSING 2 /* "}\n", for which there is room at any time */

/* ---- the line ---- */

struct line {
	char bytes[EVENT_LINE_MAX];
	size_t n;
	bool full; /* what was put last did not fit */
};

static void put(struct line *l, const char *bytes, size_t n)
{
	if (l->full || n > sizeof(l->bytes) - CLOSING - l->n) {
		l->full = true;
		return;
	}
	memcpy(l->bytes + l->n, bytes, n);
	l->n += n;
}

/** A JSON string: RFC 8259 §7. Controls of either kind are escaped, so that a terminal may be shown the line. */
static void put_string(struct line *l, const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	char escape[8];

	put(l, "\"", 1);
	while (*at) {
		size_t length = utf8_length((const char *)at);
		bool control = utf8_is_control((const char *)at, length);
		if (length == 0)
			put(l, "\\ufffd", 6);
		else if (control)
			put(l, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", length == 2 ? at[1] : *at));
		else if (*at == '"' || *at == '\\')
			put(l, escape, (size_t)snprintf(escape, sizeof(escape), "\\%c", *at));
		else
			put(l, (const char *)at, length);
		at += length ? length : 1;
	}
	put(l, "\"", 1);
}

/** A member of the object; one that does not fit is left out. */
static void put_member(struct line *l, const char *key, const char *text, int64_t number)
{
	size_t before = l->n;
	char digits[24];

	put(l, before ? "," : "{", 1);
	put_string(l, key);
	put(l, ":", 1);
	if (text)
		put_string(l, text);
	else
		put(l, digits, (size_t)snprintf(digits, sizeof(digits), "%lld", (long long)number));
	if (l->full)
		l->n = before;
	l->full = false;
}

/* ---- the file ---- */

static bool is_named(const struct stat *st, const char *path)
{
	struct stat named;

	return stat(path, &named) == 0 && named.st_dev == st->st_dev && named.st_ino == st->st_ino;
}

static void rename_old(const char *path)
{
	char old[4096];
	int n = snprintf(old, sizeof(old), "%s.1", path);

	if (n > 0 && (size_t)n < sizeof(old))
		(void)rename(path, old);
}

/** Take back the part of a line that a full disk let in, unless somebody has written behind it. */
static void take_back(int fd, size_t n)
{
	struct stat st;
	off_t end = lseek(fd, 0, SEEK_CUR);

	if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 && st.st_size == end)
		(void)!ftruncate(fd, end - (off_t)n);
}

static void append(int fd, const struct line *l)
{
	ssize_t n = write(fd, l->bytes, l->n);

	if (n > 0 && (size_t)n < l->n)
		take_back(fd, (size_t)n);
}

static void wait_a_moment(void)
{
	const struct timespec moment = {.tv_nsec = TRY_NS};

	nanosleep(&moment, NULL);
}

/** One attempt; false when it has to be made again, with a file that may be another one then. With @last the line is appended
 *  to whatever file that is. */
static bool try_append(const char *path, const struct line *l, bool last)
{
	struct stat st;
	CLEANUP_FD int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return true;
	bool large = st.st_size + (off_t)l->n > (off_t)EVENTS_MAX;
	bool locked = flock(fd, (large ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0;
	if (locked && fstat(fd, &st) == 0 && is_named(&st, path)) {
		bool fits = st.st_size + (off_t)l->n <= (off_t)EVENTS_MAX;
		if (fits)
			append(fd, l);
		else if (large)
			rename_old(path);
		if (fits)
			return true;
	}
	if (last && st.st_size < (off_t)EVENTS_MAX * 2)
		append(fd, l);
	if (!locked && !last)
		wait_a_moment();
	return last;
}

void event_tell(const char *path, const char *event, const char *id, const char *name, const struct event_field *fields,
	size_t n_fields)
{
	char time[RFC3339_SIZE];
	struct line l = {0};

	if (!path)
		return;
	rfc3339_format(clock_realtime_ns(), time);
	put_member(&l, "time", time, 0);
	put_member(&l, "event", event, 0);
	put_member(&l, "id", id, 0);
	if (name)
		put_member(&l, "name", name, 0);
	for (size_t i = 0; i < n_fields; i++)
		put_member(&l, fields[i].key, fields[i].text, fields[i].number);
	memcpy(l.bytes + l.n, "}\n", CLOSING);
	l.n += CLOSING;
	for (int i = 1; i <= TRIES && !try_append(path, &l, i == TRIES); i++)
		;
}
