/* SPDX-License-Identifier: Apache-2.0 */
/* log_source.c - what a VM has said, in the order of its times (theory of operation: log_source.h) */
#include "engine/log_source.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <fcntl.h>

/** *@fd is -1 when there is no such file. */
static int open_file(const char *directory, const char *name, int *fd, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(directory, name);

	*fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
	if (*fd >= 0 || (path && errno == ENOENT))
		return 0;
	return path ? error_errno(err, "open %s", path) : error_set(err, -ENOMEM, "read a log: out of memory");
}

int log_source_open(struct log_source *s, const char *directory, bool boot, struct husk_error *err)
{
	int rc = open_file(directory, boot ? "console.0" : "output.0", &s->fd[0], err);

	rc = rc < 0 ? rc : open_file(directory, boot ? "console.1" : "output.1", &s->fd[1], err);
	if (rc == 0 && boot)
		rc = open_file(directory, "log", &s->fd[2], err);
	s->lines = (struct log_lines){.fd = s->fd[2]};
	if (rc == 0 && s->fd[0] >= 0 && s->fd[1] >= 0) {
		rc = record_reader_open(&s->reader, s->fd, err);
		s->records = rc == 0;
	}
	return rc;
}

int log_source_to_last_start(struct log_source *s, uint64_t started_ns, struct husk_error *err)
{
	struct record_reader mark = s->reader;
	struct record record;
	int rc = 0;

	while (s->records && (rc = record_reader_next(&s->reader, &record, err)) == 1)
		if (record.stream == RECORD_BOOT)
			mark = s->reader;
	if (rc < 0)
		return rc;
	if (s->records)
		record_reader_go_back(&s->reader, &mark);
	while (s->lines.fd >= 0 && (rc = log_lines_next(&s->lines, false, &s->line, err)) == 1)
		if (s->line.time_ns >= started_ns) {
			s->line_ready = true;
			return 0;
		}
	return rc;
}

/** Look at the next record and the next line, as far as that was not done. */
static int look(struct log_source *s, bool rest, struct husk_error *err)
{
	int rc = 0;

	while (s->records && !s->record_ready) {
		rc = record_reader_next(&s->reader, &s->record, err);
		if (rc <= 0)
			break;
		s->record_ready = s->record.stream != RECORD_BOOT;
	}
	if (rc >= 0 && !s->line_ready) {
		rc = log_lines_next(&s->lines, rest, &s->line, err);
		s->line_ready = rc == 1;
	}
	return rc < 0 ? rc : 0;
}

static void give_record(struct log_source *s, struct log_piece *out)
{
	static const enum husk_stream streams[] = {
		[RECORD_STDOUT] = HUSK_STDOUT,
		[RECORD_STDERR] = HUSK_STDERR,
		[RECORD_CONSOLE] = HUSK_CONSOLE,
		[RECORD_GAP] = HUSK_LOST,
	};
	const struct record *r = &s->record;

	*out = (struct log_piece){.stream = streams[r->stream], .time_ns = r->time_ns, .bytes = r->bytes, .n = r->size};
	if (r->stream == RECORD_GAP) {
		uint64_t lost = record_gap(r);
		out->n = lost < SIZE_MAX ? (size_t)lost : SIZE_MAX;
		out->bytes = NULL;
	}
	if (r->stream == RECORD_CONSOLE)
		s->in_line = r->bytes[r->size - 1] != '\n';
	s->record_ready = false;
}

static void give_line(struct log_source *s, struct log_piece *out)
{
	*out = (struct log_piece){
		.stream = HUSK_CONSOLE, .time_ns = s->line.time_ns, .bytes = s->line.bytes, .n = s->line.n};
	if (s->in_line) { /* the console is in the middle of one: the words come next */
		out->bytes = "\n";
		out->n = 1;
		s->in_line = false;
		return;
	}
	s->line_ready = false;
}

int log_source_next(struct log_source *s, bool rest, struct log_piece *out, struct husk_error *err)
{
	int rc = look(s, rest, err);

	if (rc < 0 || (!s->record_ready && !s->line_ready))
		return rc;
	bool record = s->record_ready && (!s->line_ready || s->record.time_ns <= s->line.time_ns);
	if (record)
		give_record(s, out);
	else
		give_line(s, out);
	return 1;
}

void log_source_close(struct log_source *s)
{
	if (s->records)
		record_reader_close(&s->reader);
	log_lines_close(&s->lines);
	for (size_t i = 0; i < ARRAY_SIZE(s->fd); i++)
		if (s->fd[i] >= 0)
			close(steal_fd(&s->fd[i]));
}
