/* SPDX-License-Identifier: Apache-2.0 */
/* logs_show.c - the last lines of a boot that failed, in notices */
#include "engine/logs.h"

#include "base/buffer.h"

#include <string.h>

struct shown {
	const struct husk *husk;
	struct buffer line; /* what there is of it */
};

static void show_line(struct shown *s)
{
	size_t n = s->line.size;
	const char *text = (const char *)buffer_bytes(&s->line);

	while (n && (text[n - 1] == '\r' || text[n - 1] == '\n'))
		n--;
	if (n)
		engine_notice(s->husk, HUSK_NOTICE_CONSOLE, "%.*s", (int)n, text);
	buffer_consume(&s->line, s->line.size);
}

static int on_piece(void *data, enum husk_stream stream, uint64_t time_ns, const void *bytes, size_t n)
{
	struct shown *s = data;
	const char *at = bytes, *end = at + n;

	(void)time_ns;
	while (stream != HUSK_LOST && at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *next = newline ? newline + 1 : end;
		if (buffer_append(&s->line, at, (size_t)(next - at)) < 0)
			return -ENOMEM;
		if (newline)
			show_line(s);
		at = next;
	}
	return 0;
}

void logs_show(const struct husk *husk, const char *id, int lines)
{
	struct shown s = {.husk = husk};
	struct husk_log_options options = logs_defaults();

	options.boot = options.last_start = true;
	options.tail = lines;
	(void)logs_read(husk, id, &options, on_piece, &s, NULL);
	if (s.line.size)
		show_line(&s);
	buffer_free(&s.line);
}
