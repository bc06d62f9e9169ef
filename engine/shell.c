/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shell.c - which walls a VM's worker and QEMU get
 *
 * Theory of operation: the full shell is the rule and costs no look at the host: whatever of it cannot be built ends the start.
 * Only who asks for less has the host looked at, by `husk-vmm shell`, which tries each wall; what it finds missing is said and
 * kept with the VM.
 */
#include "engine/shell.h"

#include "engine/helper.h"

#include <string.h>

static const char missing[] = "missing ";

/** Take one line of what `husk-vmm shell` says. True for the last one. */
static bool take_line(struct shell_choice *c, const char *line, size_t n)
{
	unsigned standing, full;
	char text[64];

	if (n > sizeof(missing) - 1 && memcmp(line, missing, sizeof(missing) - 1) == 0) {
		buffer_append(&c->missing, line + sizeof(missing) - 1, n - (sizeof(missing) - 1));
		buffer_append(&c->missing, "\n", 1);
	}
	snprintf(text, sizeof(text), "%.*s", (int)n, line);
	if (sscanf(text, "walls %u of %u", &standing, &full) != 2)
		return false;
	c->walls = standing;
	return true;
}

int shell_look(const struct husk *husk, struct shell_choice *out, struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_BUFFER struct buffer said = {0};
	bool whole = false;
	int rc = engine_helper(husk, "husk-vmm", &path, err);
	const char *const argv[] = {"husk-vmm", "shell", husk->runtime, NULL};
	struct helper helper = {
		.path = path, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .cancel_fd = -1};

	rc = rc < 0 ? rc : helper_run(&helper, &said, err);
	if (rc < 0)
		return error_prefix(err, rc, "see which walls this host allows");
	const char *at = (const char *)buffer_bytes(&said), *end = at + said.size;
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline ? newline : end;
		whole |= take_line(out, at, (size_t)(stop - at));
		at = stop + 1;
	}
	return whole ? 0 : error_set(err, -EIO, "see which walls this host allows: husk-vmm does not tell");
}

int shell_choose(const struct husk *husk, const char *shell, struct shell_choice *out, struct husk_error *err)
{
	*out = (struct shell_choice){.walls = UINT32_MAX};
	if (!shell || strcmp(shell, "full") == 0)
		return 0;
	if (strcmp(shell, "degraded") != 0)
		return error_set(err, -EINVAL, "'%s' is no kind of shell: full or degraded", shell);
	out->degraded = true;
	return shell_look(husk, out, err);
}

void shell_choice_free(struct shell_choice *choice)
{
	buffer_free(&choice->missing);
}

static char *lines_of(const struct shell_choice *c)
{
	return strndup(c->missing.size ? (const char *)buffer_bytes(&c->missing) : "", c->missing.size);
}

/** Names with commas between them, then the reason of the last. */
int shell_missing(const struct shell_choice *choice, char **text, struct husk_error *err)
{
	CLEANUP_FREE char *lines = lines_of(choice);
	CLEANUP_BUFFER struct buffer b = {0};
	char *rest = lines, *why = NULL;

	for (char *line; lines && (line = strsep(&rest, "\n"));) {
		char *name = strsep(&line, ":");
		if (!*name)
			continue;
		buffer_append(&b, ", ", b.size ? 2 : 0);
		buffer_append(&b, name, strlen(name));
		why = line ? line + strspn(line, " ") : why;
	}
	if (asprintf(text, "%.*s%s%s%s", (int)b.size, b.size ? (const char *)buffer_bytes(&b) : "", why ? " (" : "", why ? why : "",
		    why ? ")" : "") < 0)
		return error_set(err, -ENOMEM, "list what is missing: out of memory");
	return 0;
}

json_t *shell_json(const struct shell_choice *choice)
{
	if (!choice->degraded)
		return json_pack("{s:s}", "mode", "full");
	CLEANUP_FREE char *lines = lines_of(choice);
	json_t *list = lines ? json_array() : NULL;
	char *rest = lines;
	for (char *one; list && (one = strsep(&rest, "\n"));)
		if (*one)
			json_array_append_new(list, json_string(one));
	return list ? json_pack("{s:s, s:o}", "mode", "degraded", "missing", list) : NULL;
}
