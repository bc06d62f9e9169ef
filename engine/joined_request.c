/* SPDX-License-Identifier: Apache-2.0 */
/* joined_request.c - what a caller wants to run in a VM, as the payload of the agent's EXEC. What is not said is the main
 * workload's, which the agent knows */
#include "engine/joined.h"

#include "agent/protocol.h"
#include "base/bytes.h"
#include "base/tlv.h"
#include "engine/exec.h"

#include <string.h>

_Static_assert(JOINED_STEPS_MAX == AGENT_STEPS_MAX, "husk.h says how long a chain may be");

/** Pairs of wishes that cannot be together. */
static int check_pairs(const struct husk_exec_config *c, struct husk_error *err)
{
	bool descriptors = c->stdout_fd >= 0 || c->stderr_fd >= 0, input = c->input || c->stdin_fd >= 0;
	const struct {
		bool wrong;
		const char *why;
	} pairs[] = {
		{!c->command == !c->chain, "exactly one of command and chain is needed"},
		{c->input && c->stdin_fd >= 0, "stdin comes either from bytes or from a descriptor"},
		{c->output && descriptors, "output goes either to a function or to descriptors"},
		{c->collect && (c->output || descriptors), "output is either collected or handed on"},
		{c->chain && c->tty, "a chain of commands has no terminal"},
		{c->detach && (input || c->output || descriptors || c->collect), "a detached program has no streams"},
		{c->detach && c->tty, "a detached program has no terminal"},
		{c->detach && c->chain, "a chain of commands cannot be detached"},
		{c->detach && c->timeout_ms, "a detached program has no time limit"},
		{c->working_dir && c->working_dir[0] != '/', "the working directory has to be absolute"},
		{c->start_timeout_ms <= 0, "start_timeout_ms: a time of 0 leaves none for the start"},
	};
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		if (pairs[i].wrong)
			return error_set(err, -EINVAL, "exec: %s", pairs[i].why);
	return 0;
}

static int put_command(struct buffer *out, const char *const *command, struct husk_error *err)
{
	size_t n = 0;
	int rc = exec_put_list(out, AGENT_EXEC_ARG, command, &n, err);
	if (rc == 0 && (n == 0 || !command[0][0]))
		return error_set(err, -EINVAL, "exec: there is no command, or its name is empty");
	return rc;
}

static int put_commands(struct buffer *out, const struct husk_exec_config *c, struct husk_error *err)
{
	int rc = c->command ? put_command(out, c->command, err) : 0;
	size_t n = 0;
	for (; c->chain && c->chain[n] && rc == 0; n++) {
		if (n == JOINED_STEPS_MAX)
			return error_set(err, -E2BIG, "exec: a chain has at most %d commands", JOINED_STEPS_MAX);
		rc = n ? tlv_put(out, AGENT_EXEC_NEXT, NULL, 0) : 0;
		rc = rc < 0 ? rc : put_command(out, c->chain[n], err);
	}
	return rc == 0 && c->chain && n == 0 ? error_set(err, -EINVAL, "exec: the chain has no commands") : rc;
}

static int put_surroundings(struct buffer *out, const struct husk_exec_config *c, struct husk_error *err)
{
	size_t n = 0;
	for (const char *const *one = c->env; one && *one; one++)
		if (!**one || **one == '=')
			return error_set(err, -EINVAL, "exec: the variable '%s' has no name", *one);
	for (const char *const *one = c->groups; one && *one; one++)
		if (!**one)
			return error_set(err, -EINVAL, "exec: a group's name is empty");
	int rc = exec_put_list(out, AGENT_EXEC_ENV, c->env, &n, err);
	return rc < 0 ? rc : exec_put_list(out, AGENT_EXEC_GROUP, c->groups, &n, err);
}

/** One file: u32 mode | u16 length of its path | path | contents. */
static int put_file(struct buffer *out, const struct husk_staged_file *file, struct husk_error *err)
{
	size_t length = file->path ? strlen(file->path) : 0, head = 6 + length;
	if (length == 0 || length > AGENT_NAME_MAX)
		return error_set(
			err, -EINVAL, "exec: a file's path has 1 to %d bytes, not %zu", AGENT_NAME_MAX, length);
	if (file->mode & ~07777u)
		return error_set(err, -EINVAL, "exec: %o is no mode for the file %s", file->mode, file->path);
	if (file->n && !file->data)
		return error_set(
			err, -EINVAL, "exec: the file %s has %zu bytes, and none to read", file->path, file->n);
	if (file->n > AGENT_PAYLOAD_MAX)
		return error_set(err, -E2BIG,
			"exec: the file %s has %zu bytes; all that goes with one exec may have %u", file->path, file->n,
			AGENT_PAYLOAD_MAX);
	uint8_t *to = buffer_reserve(out, TLV_ENTRY_SIZE + head + file->n);
	if (!to)
		return -ENOMEM;
	put_le16(to, AGENT_EXEC_FILE);
	put_le16(to + 2, 0);
	put_le32(to + 4, (uint32_t)(head + file->n));
	to += TLV_ENTRY_SIZE;
	put_le32(to, file->mode ? file->mode : 0644);
	put_le16(to + 4, (uint16_t)length);
	memcpy(to + 6, file->path, length);
	if (file->n)
		memcpy(to + head, file->data, file->n);
	buffer_commit(out, TLV_ENTRY_SIZE + head + file->n);
	return 0;
}

int joined_payload(const struct husk_exec_config *c, struct buffer *out, struct husk_error *err)
{
	uint32_t flags = (c->tty ? AGENT_EXEC_FLAG_TTY : 0) | (c->detach ? AGENT_EXEC_FLAG_DETACH : 0) |
			 (c->input || c->stdin_fd >= 0 ? AGENT_EXEC_FLAG_STDIN : 0);
	uint32_t rows = c->rows ? c->rows : 24, columns = c->columns ? c->columns : 80;
	int rc = check_pairs(c, err);
	rc = rc < 0 ? rc : tlv_put_u32(out, AGENT_EXEC_FLAGS, flags);
	rc = rc < 0 ? rc : put_commands(out, c, err);
	rc = rc < 0 ? rc : put_surroundings(out, c, err);
	rc = rc < 0 ? rc : tlv_put_string(out, AGENT_EXEC_CWD, c->working_dir);
	rc = rc < 0 ? rc : tlv_put_string(out, AGENT_EXEC_USER, c->user && *c->user ? c->user : NULL);
	if (rc == 0 && c->tty)
		rc = tlv_put_u32(out, AGENT_EXEC_WINDOW, rows << 16 | columns);
	if (rc == 0 && c->timeout_ms)
		rc = tlv_put_u64(out, AGENT_EXEC_TIMEOUT, c->timeout_ms);
	for (size_t i = 0; i < c->n_files && rc == 0; i++)
		rc = put_file(out, &c->files[i], err);
	return exec_put_end(out, rc, err);
}
