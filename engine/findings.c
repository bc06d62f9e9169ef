/* SPDX-License-Identifier: Apache-2.0 */
/* findings.c - a list of findings in the making (theory of operation: findings.h) */
#include "engine/findings.h"

#include <stdarg.h>
#include <string.h>

static long put_text(struct findings *f, const char *text)
{
	long at = (long)f->text.size;
	return text && buffer_append(&f->text, text, strlen(text) + 1) == 0 ? at : -1;
}

void findings_add(struct findings *f, enum husk_finding_status status, const char *topic, const char *remedy,
	const char *format, ...)
{
	CLEANUP_FREE char *message = NULL;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&message, format, ap);
	va_end(ap);
	if (n < 0)
		message = NULL;
	if (f->n == FINDINGS_MAX || !message)
		return;
	long at = put_text(f, message);
	if (at < 0)
		return;
	f->list[f->n].status = status;
	f->list[f->n].topic = topic;
	f->list[f->n].message = at;
	f->list[f->n++].remedy = put_text(f, remedy);
}

/** One allocation: the array, then the strings. */
static struct husk_finding *pack(const struct findings *f)
{
	size_t head = (f->n + 1) * sizeof(struct husk_finding), topics = 0;
	for (size_t i = 0; i < f->n; i++)
		topics += strlen(f->list[i].topic) + 1;
	struct husk_finding *out = malloc(head + f->text.size + topics);
	if (!out)
		return NULL;
	char *text = (char *)out + head, *topic = text + f->text.size;
	memcpy(text, buffer_bytes(&f->text), f->text.size);
	for (size_t i = 0; i < f->n; i++) {
		out[i] = (struct husk_finding){
			.status = f->list[i].status,
			.topic = topic,
			.message = text + f->list[i].message,
			.remedy = f->list[i].remedy < 0 ? NULL : text + f->list[i].remedy,
		};
		topic = stpcpy(topic, f->list[i].topic) + 1;
	}
	return out;
}

int findings_give(struct findings *f, struct husk_finding **out, size_t *n, struct husk_error *err)
{
	*out = pack(f);
	*n = f->n;
	buffer_free(&f->text);
	f->n = 0;
	return *out ? 0 : error_set(err, -ENOMEM, "list the findings: out of memory");
}
