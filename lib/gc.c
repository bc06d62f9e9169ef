/* SPDX-License-Identifier: Apache-2.0 */
/* gc.c - cleaning up in the public API */
#include "engine/gc.h"

#include "base/cleanup.h"

#include <string.h>

/** @report as text without its last newline. */
static int give(struct buffer *report, char **out, struct husk_error *err)
{
	size_t n = report->size;

	if (!out)
		return 0;
	while (n && buffer_bytes(report)[n - 1] == '\n')
		n--;
	char *text = malloc(n + 1);
	if (!text)
		return error_set(err, -ENOMEM, "report: out of memory");
	if (n)
		memcpy(text, buffer_bytes(report), n);
	text[n] = 0;
	*out = text;
	return 0;
}

int husk_vm_prune(struct husk *husk, char **report, uint64_t *freed, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer lines = {0};
	uint64_t bytes;
	int rc = prune_run(husk, &lines, &bytes, err);

	if (freed)
		*freed = rc < 0 ? 0 : bytes;
	return rc < 0 ? rc : give(&lines, report, err);
}

int husk_gc(struct husk *husk, bool images, bool dry_run, char **report, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer lines = {0};
	int rc = gc_run(husk, images, dry_run, &lines, err);

	return rc < 0 ? rc : give(&lines, report, err);
}
