/* SPDX-License-Identifier: Apache-2.0 */
/* log_window.c - which part of a log a caller gets (theory of operation: log_window.h) */
#include "engine/log_window.h"

#include <stdlib.h>
#include <string.h>

struct kept_piece {
	struct kept_piece *next;
	struct log_piece piece; /* its bytes are `bytes` */
	uint64_t newlines;
	char bytes[];
};

static uint64_t count_newlines(const char *bytes, size_t n)
{
	const char *end = bytes + n;
	uint64_t count = 0;

	while (bytes && (bytes = memchr(bytes, '\n', (size_t)(end - bytes))) && bytes++ < end)
		count++;
	return count;
}

void log_window_open(struct log_window *w, const struct husk_log_options *o, husk_log_fn *fn, void *data)
{
	*w = (struct log_window){
		.since_ns = o->since_ns,
		.until_ns = o->until_ns,
		.tail = o->tail < 0 ? 0 : (uint64_t)o->tail,
		.keep = o->tail >= 0,
		.fn = fn,
		.data = data,
	};
	w->last = &w->first;
}

static int give(struct log_window *w, const struct log_piece *p)
{
	return w->fn(w->data, p->stream, p->time_ns, p->bytes, p->n);
}

/** Lines in what is kept; one without an end is one. */
static uint64_t lines(const struct log_window *w)
{
	return w->newlines + w->open;
}

static bool ends_line(const struct log_piece *p)
{
	return p->bytes && p->n && ((const char *)p->bytes)[p->n - 1] == '\n';
}

static void drop_first(struct log_window *w)
{
	struct kept_piece *k = w->first;

	w->first = k->next;
	if (!w->first)
		w->last = &w->first;
	w->newlines -= k->newlines;
	free(k);
}

/** Drop the pieces in which no line begins that is wanted. */
static void trim(struct log_window *w)
{
	while (w->first && lines(w) > w->tail) {
		const struct kept_piece *k = w->first;
		uint64_t surplus = lines(w) - w->tail;
		if (k->newlines > surplus || (k->newlines == surplus && !ends_line(&k->piece)))
			return;
		drop_first(w);
	}
}

static int keep(struct log_window *w, const struct log_piece *p)
{
	size_t n = p->bytes ? p->n : 0;
	struct kept_piece *k = w->tail ? malloc(sizeof(*k) + n) : NULL;

	if (!k)
		return w->tail ? -ENOMEM : 0;
	*k = (struct kept_piece){.piece = *p, .newlines = count_newlines(p->bytes, n)};
	if (n)
		k->piece.bytes = memcpy(k->bytes, p->bytes, n);
	*w->last = k;
	w->last = &k->next;
	w->newlines += k->newlines;
	w->open = n ? !ends_line(p) : w->open;
	trim(w);
	return 0;
}

int log_window_put(struct log_window *w, const struct log_piece *p)
{
	if (p->time_ns < w->since_ns || (w->until_ns && p->time_ns >= w->until_ns))
		return 0;
	return w->keep ? keep(w, p) : give(w, p);
}

/** Cut the lines off the first piece that are too many. */
static void cut_first(struct log_window *w)
{
	struct log_piece *p = &w->first->piece;

	while (p->bytes && p->n && lines(w) > w->tail) {
		const char *end = memchr(p->bytes, '\n', p->n);
		if (!end)
			return;
		p->n -= (size_t)(end + 1 - (const char *)p->bytes);
		p->bytes = end + 1;
		w->newlines--;
		w->first->newlines--;
	}
}

int log_window_release(struct log_window *w)
{
	int rc = 0;

	w->keep = false;
	if (w->first)
		cut_first(w);
	while (w->first && rc == 0) {
		const struct log_piece *p = &w->first->piece;
		if (p->n || p->stream == HUSK_LOST)
			rc = give(w, p);
		drop_first(w);
	}
	return rc;
}

void log_window_close(struct log_window *w)
{
	while (w->first)
		drop_first(w);
}
