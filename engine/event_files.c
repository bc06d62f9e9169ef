/* SPDX-License-Identifier: Apache-2.0 */
/* event_files.c - the lines of a home's events (theory of operation: event_files.h) */
#include "engine/event_files.h"

#include "base/event.h"
#include "base/path.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define READ_SIZE (64u << 10)
#define ATTEMPTS 16

static int open_one(const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/** True when the file @fd is what is at @path now. */
static bool is_at(int fd, const char *path)
{
	struct stat ours, there;

	return fd >= 0 && fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
	       ours.st_ino == there.st_ino;
}

static void forget(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int event_files_open(struct event_files *f, const char *home, struct husk_error *err)
{
	f->path = path_join(home, "events");
	f->old_path = path_join(home, "events.1");
	if (!f->path || !f->old_path)
		return error_set(err, -ENOMEM, "read the events: out of memory");
	/* Both, with no renaming in between. */
	for (int i = 0; i < ATTEMPTS; i++) {
		f->next_fd = open_one(f->path);
		if (f->next_fd < 0 && errno != ENOENT)
			return error_errno(err, "open %s", f->path);
		f->fd = open_one(f->old_path);
		if (f->fd < 0 && errno != ENOENT)
			return error_errno(err, "open %s", f->old_path);
		if (is_at(f->next_fd, f->path) || (f->next_fd < 0 && access(f->path, F_OK) < 0))
			return 0;
		forget(&f->fd);
		forget(&f->next_fd);
	}
	return error_set(err, -EAGAIN, "read the events: their file is renamed faster than it can be opened");
}

/** The file that follows ours has come: the one of the name, or the one that was before that. */
static void find_next(struct event_files *f)
{
	if (f->next_fd >= 0 || is_at(f->fd, f->path))
		return;
	int newest = open_one(f->path);
	if (newest < 0)
		return;
	int old = open_one(f->old_path);
	bool ours_is_old = f->fd < 0 || is_at(f->fd, f->old_path);
	if (ours_is_old && is_at(newest, f->path)) {
		f->next_fd = newest;
		forget(&old);
		return;
	}
	/* Ours is gone: the next one is in its place. Or something was renamed just now, and the next look tells. */
	if (!ours_is_old)
		f->next_fd = old;
	else
		forget(&old);
	close(newest);
}

/** A whole line of the text. */
static char *take_line(struct event_files *f)
{
	char *line = (char *)buffer_bytes(&f->text), *end = f->text.size ? memchr(line, '\n', f->text.size) : NULL;

	if (!end)
		return NULL;
	*end = 0;
	buffer_consume(&f->text, (size_t)(end + 1 - line));
	return line;
}

/** More of our file: bytes, 0 at its end. */
static ssize_t read_more(struct event_files *f, struct husk_error *err)
{
	if (f->fd < 0)
		return 0;
	if (f->text.size > EVENT_LINE_MAX) /* no event is so long */
		buffer_consume(&f->text, f->text.size);
	ssize_t n = buffer_read(&f->text, f->fd, READ_SIZE);
	return n < 0 ? error_set(err, (int)n, "read the events: %s", strerror((int)-n)) : n;
}

int event_files_next(struct event_files *f, char **line, struct husk_error *err)
{
	for (;;) {
		*line = take_line(f);
		if (*line)
			return 1;
		/* Whether there is another file is asked first: then nothing more comes into ours. */
		find_next(f);
		bool over = f->next_fd >= 0;
		ssize_t n = read_more(f, err);
		if (n < 0)
			return (int)n;
		if (n > 0)
			continue;
		if (!over)
			return 0;
		forget(&f->fd);
		f->fd = f->next_fd;
		f->next_fd = -1;
		buffer_consume(&f->text, f->text.size); /* a line that nobody has finished */
	}
}

void event_files_close(struct event_files *f)
{
	forget(&f->fd);
	forget(&f->next_fd);
	buffer_free(&f->text);
	free(f->path);
	free(f->old_path);
}
