/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - what an EXEC frame asks for
 *
 * Theory of operation: the frame's limit (1 MiB) bounds all that is stored here. What is out of place is refused, not
 * passed over: an entry that appears twice, flags that need others, an environment entry without a name.
 *
 * A joined program is what the main workload is by all that it does not say: a request may have that one's as its base.
 */
#include "guest/request.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/tlv.h"

#include <limits.h>
#include <string.h>

#define FLAGS_KNOWN                                                                                                    \
	(AGENT_EXEC_FLAG_MAIN | AGENT_EXEC_FLAG_TTY | AGENT_EXEC_FLAG_STDIN | AGENT_EXEC_FLAG_INIT |                   \
		AGENT_EXEC_FLAG_SYNC | AGENT_EXEC_FLAG_DETACH)
#define FILE_HEADER 6 /* u32 mode | u16 length of the path */

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

static int no_memory(struct husk_error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int store_text(struct exec_request *out, const struct tlv *entry, struct husk_error *err)
{
	CLEANUP_FREE char *text = tlv_string(entry);
	if (!text)
		return malformed(err, "a text has a NUL in it");
	switch (entry->tag) {
	case AGENT_EXEC_ARG:
		return strings_add(&out->commands[out->n_commands - 1], text) < 0 ? no_memory(err) : 0;
	case AGENT_EXEC_ENV:
		if (text[0] == '=' || !text[0])
			return malformed(err, "an environment entry has no name");
		return strings_add(&out->env, text) < 0 ? no_memory(err) : 0;
	case AGENT_EXEC_GROUP:
		if (!text[0])
			return malformed(err, "a group is empty");
		return strings_add(&out->groups, text) < 0 ? no_memory(err) : 0;
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

static int store_file(struct exec_request *out, const struct tlv *entry, struct husk_error *err)
{
	struct staged_file *files;
	uint32_t mode = entry->size >= FILE_HEADER ? get_le32(entry->value) : UINT32_MAX;
	size_t length = entry->size >= FILE_HEADER ? get_le16(entry->value + 4) : 0;

	if (mode > 07777 || !length || length >= PATH_MAX || length > entry->size - FILE_HEADER ||
		memchr(entry->value + FILE_HEADER, 0, length))
		return malformed(err, "a file's mode or path is not one");
	if ((out->n_files & (out->n_files - 1)) == 0) { /* grown in powers of two */
		files = realloc(out->files, (out->n_files ? out->n_files * 2 : 1) * sizeof(*files));
		if (!files)
			return no_memory(err);
		out->files = files;
	}
	struct staged_file file = {.mode = mode, .size = entry->size - FILE_HEADER - length};
	file.path = strndup((const char *)entry->value + FILE_HEADER, length);
	file.contents = malloc(file.size + 1);
	out->files[out->n_files++] = file;
	if (!file.path || !file.contents)
		return no_memory(err);
	memcpy(file.contents, entry->value + FILE_HEADER + length, file.size);
	return 0;
}

static int store_next(struct exec_request *out, const struct tlv *entry, struct husk_error *err)
{
	if (entry->size || out->n_commands == AGENT_STEPS_MAX)
		return malformed(err, "NEXT with a value, or too many commands");
	out->n_commands++;
	return 0;
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
	case AGENT_EXEC_TIMEOUT:
		if (out->timeout_ms || !tlv_u64(entry, &out->timeout_ms) || !out->timeout_ms)
			return malformed(err, "bad time limit");
		return 0;
	case AGENT_EXEC_FILE:
		return store_file(out, entry, err);
	case AGENT_EXEC_NEXT:
		return store_next(out, entry, err);
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
	const uint32_t of_main = AGENT_EXEC_FLAG_INIT | AGENT_EXEC_FLAG_SYNC;
	bool is_main = out->flags & AGENT_EXEC_FLAG_MAIN, detach = out->flags & AGENT_EXEC_FLAG_DETACH;

	for (size_t i = 0; i < out->n_commands; i++)
		if (!out->commands[i].n || !out->commands[i].items[0][0])
			return malformed(err, "no program is named");
	if (!is_main && out->flags & of_main)
		return malformed(err, "only the main workload has a reaper, and a sync at its end");
	if (is_main && (out->timeout_ms || out->n_files))
		return malformed(err, "the main workload has no time limit and no files here");
	if (out->n_commands > 1 && (is_main || detach || out->flags & AGENT_EXEC_FLAG_TTY))
		return malformed(err, "several commands, and the main workload, a terminal or nobody who waits");
	if (detach && (is_main || out->timeout_ms || out->flags & (AGENT_EXEC_FLAG_TTY | AGENT_EXEC_FLAG_STDIN)))
		return malformed(err, "a detached program has no terminal, no input and no time limit");
	return 0;
}

int exec_request_parse(const void *payload, size_t size, struct exec_request *out, struct husk_error *err)
{
	struct tlv_reader reader;
	struct tlv entry;
	int rc = 0;

	*out = (struct exec_request){.n_commands = 1};
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

void exec_request_shrink(struct exec_request *request)
{
	for (size_t i = 0; i < request->n_commands; i++)
		strings_free(&request->commands[i]);
	for (size_t i = 0; i < request->n_files; i++) {
		free(request->files[i].path);
		free(request->files[i].contents);
	}
	free(request->files);
	request->files = NULL;
	request->n_files = 0;
}

const char *exec_request_cwd(const struct exec_request *request)
{
	if (request->cwd)
		return request->cwd;
	return request->base ? exec_request_cwd(request->base) : "/";
}

const char *exec_request_user(const struct exec_request *request)
{
	if (request->user)
		return request->user;
	return request->base ? exec_request_user(request->base) : "";
}

void exec_request_free(struct exec_request *request)
{
	exec_request_shrink(request);
	strings_free(&request->env);
	strings_free(&request->groups);
	free(request->cwd);
	free(request->user);
	*request = (struct exec_request){0};
}
