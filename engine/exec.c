/* SPDX-License-Identifier: Apache-2.0 */
/* exec.c - image config and caller's wishes, merged by Docker's rules (OCI image-spec config.md) */
#include "engine/exec.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "base/tlv.h"
#include "engine/config_json.h"

#include <signal.h>
#include <string.h>
#include <strings.h>

int exec_put_list(struct buffer *out, uint16_t tag, const char *const *list, size_t *n, struct husk_error *err)
{
	for (; list && *list; list++) {
		if (strlen(*list) > EXEC_ARGUMENT_MAX)
			return error_set(err, -E2BIG,
				"an argument or variable of %zu bytes is longer than the guest's kernel takes (%d); "
				"pass it in a file or on stdin",
				strlen(*list), EXEC_ARGUMENT_MAX);
		if (tlv_put_string(out, tag, *list) < 0)
			return error_set(err, -ENOMEM, "describe the command: out of memory");
		++*n;
	}
	return 0;
}

int exec_put_end(const struct buffer *out, int rc, struct husk_error *err)
{
	if (rc == -ENOMEM)
		return error_set(err, rc, "describe the command: out of memory");
	if (rc == 0 && out->size > AGENT_PAYLOAD_MAX)
		return error_set(err, -E2BIG,
			"arguments, environment and files have %zu bytes together; the limit is %u", out->size,
			AGENT_PAYLOAD_MAX);
	return rc;
}

static bool empty(const char *const *list)
{
	return !list || !list[0];
}

/** Entrypoint and command: the caller's entrypoint takes the image's Cmd out, as Docker's does. */
static int put_arguments(const struct husk_vm_config *config, const struct image_record *image, struct buffer *out,
	struct husk_error *err)
{
	const char *const *entrypoint =
		config->entrypoint ? config->entrypoint : (const char *const *)image->entrypoint;
	const char *const *command = config->command;
	size_t n = 0;
	if (empty(command))
		command = config->entrypoint ? NULL : (const char *const *)image->cmd;
	if (!empty(entrypoint) && config->entrypoint && !entrypoint[0][0])
		entrypoint = NULL;
	int rc = exec_put_list(out, AGENT_EXEC_ARG, entrypoint, &n, err);
	rc = rc < 0 ? rc : exec_put_list(out, AGENT_EXEC_ARG, command, &n, err);
	if (rc == 0 && n == 0)
		return error_set(err, -EINVAL,
			"no command: the image has neither Entrypoint nor Cmd, so say what to run behind the image's "
			"name");
	const char *first = !empty(entrypoint) ? entrypoint[0] : empty(command) ? "" : command[0];
	if (rc == 0 && !*first)
		return error_set(err, -EINVAL, "the command's name is empty");
	return rc;
}

static bool has_bare_name(const char *const *list)
{
	while (list && *list && strchr(*list, '='))
		list++;
	return list && *list;
}

/** True when an entry of @later is a bare NAME, which takes the variable of @entry away. */
static bool is_removed(const char *entry, const char *const *later)
{
	size_t name = strcspn(entry, "=");
	for (; later && *later; later++)
		if (!strchr(*later, '=') && strlen(*later) == name && memcmp(*later, entry, name) == 0)
			return true;
	return false;
}

/** The variables of @list but for those that a bare NAME in @removals, or further on in @list, takes away. */
static int put_environment(
	struct buffer *out, const char *const *list, const char *const *removals, struct husk_error *err)
{
	size_t n = 0;
	int rc = 0;
	if (!has_bare_name(list) && !has_bare_name(removals))
		return exec_put_list(out, AGENT_EXEC_ENV, list, &n, err);
	for (; rc == 0 && list && *list; list++) {
		const char *one[] = {*list, NULL};
		if (strchr(*list, '=') && !is_removed(*list, removals) && !is_removed(*list, list + 1))
			rc = exec_put_list(out, AGENT_EXEC_ENV, one, &n, err);
	}
	return rc;
}

int exec_payload(const struct husk_vm_config *config, const struct image_record *image, struct buffer *out,
	struct husk_error *err)
{
	const char *cwd = config->working_dir ? config->working_dir : image->working_dir;
	const char *user = config->user ? config->user : image->user;
	uint32_t flags = AGENT_EXEC_FLAG_MAIN | (config->tty ? AGENT_EXEC_FLAG_TTY : 0) |
			 (config->stdin_fd >= 0 || config->open_stdin ? AGENT_EXEC_FLAG_STDIN : 0) |
			 (config->init ? AGENT_EXEC_FLAG_INIT : 0) |
			 (config->lifetime == HUSK_LIFETIME_DETACHED ? AGENT_EXEC_FLAG_SYNC : 0);
	int rc = tlv_put_u32(out, AGENT_EXEC_FLAGS, flags);
	rc = rc < 0 ? rc : put_arguments(config, image, out, err);
	rc = rc < 0 ? rc : put_environment(out, (const char *const *)image->env, config->env, err);
	rc = rc < 0 ? rc : put_environment(out, config->env, NULL, err);
	if (rc == 0 && cwd && *cwd)
		rc = tlv_put_string(out, AGENT_EXEC_CWD, cwd);
	if (rc == 0 && user && *user)
		rc = tlv_put_string(out, AGENT_EXEC_USER, user);
	if (rc == 0 && config->tty) {
		uint32_t rows = config->rows ? config->rows : 24, columns = config->columns ? config->columns : 80;
		rc = tlv_put_u32(out, AGENT_EXEC_WINDOW, rows << 16 | columns);
	}
	return exec_put_end(out, rc, err);
}

json_t *exec_arguments(const struct buffer *payload)
{
	json_t *json = json_array();
	struct tlv_reader reader;
	struct tlv entry;
	tlv_start(&reader, buffer_bytes(payload), payload->size);
	while (json && tlv_next(&reader, &entry)) {
		CLEANUP_FREE char *text = entry.tag == AGENT_EXEC_ARG ? tlv_string(&entry) : NULL;
		if (text)
			json_array_append_new(json, config_json_text(text));
	}
	return json;
}

int exec_stop_signal(const char *text)
{
	int n;
	return text && parse_signal(text, "StopSignal", &n, NULL) == 0 ? n : SIGTERM;
}
