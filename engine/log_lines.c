/* SPDX-License-Identifier: Apache-2.0 */
/* log_lines.c - husk's own words about a VM (theory of operation: log_lines.h) */
#include "engine/log_lines.h"

#include "base/when.h"

#include <string.h>
#include <sys/stat.h>

/** Read more of the file behind what we have; bytes, 0 at its end for now. */
static ssize_t read_more(struct log_lines *l, struct husk_error *err)
{
	struct stat st;
	void *to = buffer_reserve(&l->text, LOG_LINE_MAX);

	if (!to)
		return error_set(err, -ENOMEM, "read the VM's log: out of memory");
	ssize_t n = pread(l->fd, to, LOG_LINE_MAX, (off_t)l->at);
	if (n < 0 || fstat(l->fd, &st) < 0)
		return error_errno(err, "read the VM's log");
	if ((uint64_t)st.st_size < l->at) /* somebody has emptied it */
		l->at = 0;
	l->at += (uint64_t)n;
	buffer_commit(&l->text, (size_t)n);
	return n;
}

/** The first line that we have, with its newline; 0: it has no end yet. */
static size_t first_line(const struct log_lines *l, bool rest)
{
	const char *bytes = (const char *)buffer_bytes(&l->text);
	size_t n = l->text.size < LOG_LINE_MAX ? l->text.size : LOG_LINE_MAX;
	const char *end = n ? memchr(bytes, '\n', n) : NULL;

	return end ? (size_t)(end + 1 - bytes) : n == LOG_LINE_MAX || rest ? n : 0;
}

int log_lines_next(struct log_lines *l, bool rest, struct log_line *out, struct husk_error *err)
{
	size_t n, used;

	if (l->fd < 0)
		return 0;
	while ((n = first_line(l, false)) == 0) {
		ssize_t more = read_more(l, err);
		if (more < 0)
			return (int)more;
		if (more == 0)
			break;
	}
	n = n ? n : first_line(l, rest);
	if (n == 0)
		return 0;
	/* Consuming moves nothing, so the bytes stay where they are until the next call. */
	out->bytes = (const char *)buffer_bytes(&l->text);
	out->n = n;
	if (when_read(out->bytes, n, &l->time_ns, &used) && used < n && out->bytes[used] == ' ') {
		out->bytes += used + 1;
		out->n -= used + 1;
	}
	out->time_ns = l->time_ns;
	buffer_consume(&l->text, n);
	return 1;
}

void log_lines_close(struct log_lines *l)
{
	buffer_free(&l->text);
}
