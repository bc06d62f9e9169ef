/* SPDX-License-Identifier: Apache-2.0 */
/* columns.c - tables on stdout whose columns are as wide as what is in them */
#include "cli/columns.h"

#include "base/cleanup.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <string.h>

#define GAP 3 /* spaces between columns, as Docker's */

/** Characters of UTF-8. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/** @text as columns_clean() has it, into @to, which has room for it. */
static void clean(const char *text, size_t max, char *to)
{
	for (size_t n = 1; *text; n++) {
		size_t length = utf8_length(text), step = length ? length : 1;
		if (n == max && text[step]) {
			to = stpcpy(to, "…");
			break;
		}
		if (length && !utf8_is_control(text, length))
			to = mempcpy(to, text, length);
		else
			*to++ = '?';
		text += step;
	}
	*to = 0;
}

char *columns_clean(const char *text, size_t max)
{
	char *to = malloc(strlen(text) + sizeof("…"));

	if (to)
		clean(text, max, to);
	return to;
}

void columns_add(struct columns *c, const char *text)
{
	char *to = buffer_reserve(&c->text, strlen(text) + 1);
	size_t *width = &c->width[c->n_cells % c->n];

	if (!to) {
		c->failed = true;
		return;
	}
	clean(text, 0, to);
	buffer_commit(&c->text, strlen(to) + 1);
	size_t w = width_of(to);
	*width = w > *width ? w : *width;
	c->n_cells++;
}

void columns_format(struct columns *c, const char *format, ...)
{
	CLEANUP_FREE char *text = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&text, format, ap) < 0) {
		text = NULL;
		c->failed = true;
	}
	va_end(ap);
	if (text)
		columns_add(c, text);
}

bool columns_print(const struct columns *c)
{
	const char *cell = (const char *)buffer_bytes(&c->text);

	for (size_t i = 0; i < c->n_cells; i++, cell += strlen(cell) + 1) {
		size_t k = i % c->n;
		bool right = c->right >> k & 1, last = k + 1 == c->n;
		int pad = (int)(c->width[k] - width_of(cell));
		printf("%*s%s%*s%s", right ? pad : 0, "", cell,
			last    ? 0
			: right ? GAP
				: pad + GAP,
			"", last ? "\n" : "");
	}
	return !c->failed;
}

void columns_free(struct columns *c)
{
	buffer_free(&c->text);
}
