/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - what an EXEC frame asks for
 *
 * Theory of operation: the frame's limit (1 MiB) bounds all that is stored here. What is out of place is refused, not
 * passed over: an entry that appears twice, flags that need others, an environment entry without a name.
 */
#include "guest/request.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/tlv.h"

#include <limits.h>
#include <string.h>

#define FLAGS_KNOWN (AGENT_EXEC_FLAG_MAIN | AGENT_EXEC_FLAG_TTY | AGENT_EXEC_FLAG_STDIN | AGENT_EXEC_FLAG_INIT)

int strings_add(struct strings *list, const char *text)
{
	/* Grown in powers of two, with room for the NULL at the end. */
	if ((list->n & (list->n + 1)) == 0) {
		char **items = realloc(list->items, (list->n * 2 + 2) * sizeof(*items));
		if (!items)
			return -ENOMEM;
		list->items = items;
	}
	list->items[list->n] = strdup(text);
	if (!list->items[list->n])
		return -ENOMEM;
	list->items[++list->n] = NULL;
	return 0;
}

void strings_free(struct strings *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct strings){0};
}

static int malformed(struct husk_error *err, const char *what)
{
	return error_set(err, -EPROTO, "EXEC: %s", what);
}

static int store_text(struct exec_request *out, const struct tlv *entry, struct husk_error *err)
{
	CLEANUP_FREE char *text = tlv_string(entry);
	if (!text)
		return malformed(err, "a text has a NUL in it");
	switch (entry->tag) {
	case AGENT_EXEC_ARG:
		return strings_add(&out->args, text) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
	case AGENT_EXEC_ENV:
		if (text[0] == '=' || !strchr(text, '='))
			return malformed(err, "an environment entry is not NAME=value");
		return strings_add(&out->env, text) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
	case AGENT_EXEC_GROUP:
		if (!text[0])
			return malformed(err, "a group is empty");
		return strings_add(&out->groups, text) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
	case AGENT_EXEC_CWD:
		if (out->cwd || text[0] != '/' || entry->size >= PATH_MAX)
			return malformed(err, "the working directory is given twice, too long or not absolute");
		out->cwd = steal_pointer(&text);
		return 0;
	default:
		if (out->user)
			return malformed(err, "the user is given twice");
		out->user = steal_pointer(&text);
		return 0;
	}
}

static int store(struct exec_request *out, const struct tlv *entry, struct husk_error *err)
{
	uint32_t value;
	switch (entry->tag) {
	case AGENT_EXEC_FLAGS:
		if (!tlv_u32(entry, &value) || value & ~FLAGS_KNOWN)
			return malformed(err, "unknown flags");
		out->flags = value;
		return 0;
	case AGENT_EXEC_WINDOW:
		if (!tlv_u32(entry, &value))
			return malformed(err, "bad window size");
		out->rows = (uint16_t)(value >> 16);
		out->columns = (uint16_t)value;
		return 0;
	case AGENT_EXEC_ARG:
	case AGENT_EXEC_ENV:
	case AGENT_EXEC_CWD:
	case AGENT_EXEC_USER:
	case AGENT_EXEC_GROUP:
		return store_text(out, entry, err);
	default:
		return error_set(err, -EPROTO, "EXEC: unknown entry %u", entry->tag);
	}
}

static int check(struct exec_request *out, struct husk_error *err)
{
	if (!out->args.n || !out->args.items[0][0])
		return malformed(err, "no program is named");
	if ((out->flags & AGENT_EXEC_FLAG_INIT) && !(out->flags & AGENT_EXEC_FLAG_MAIN))
		return malformed(err, "only the main workload has a reaper");
	if (!out->cwd)
		out->cwd = strdup("/");
	return out->cwd ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int exec_request_parse(const void *payload, size_t size, struct exec_request *out, struct husk_error *err)
{
	struct tlv_reader reader;
	struct tlv entry;
	int rc = 0;

	*out = (struct exec_request){0};
	tlv_start(&reader, payload, size);
	while (rc == 0 && tlv_next(&reader, &entry))
		rc = store(out, &entry, err);
	if (rc == 0 && reader.broken)
		rc = malformed(err, "malformed entries");
	if (rc == 0)
		rc = check(out, err);
	if (rc < 0)
		exec_request_free(out);
	return rc;
}

void exec_request_free(struct exec_request *request)
{
	strings_free(&request->args);
	strings_free(&request->env);
	strings_free(&request->groups);
	free(request->cwd);
	free(request->user);
	*request = (struct exec_request){0};
}
