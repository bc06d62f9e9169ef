/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_recipe.c - what a tuned kernel is made from
 *
 * Theory of Operation: the id of a kernel is a digest over its recipe: the version of the source, the configuration fragment,
 * the compiler, the linker and this file's own idea of how a build goes (BUILD_VERSION). So a kernel that is there already is
 * known before anything is downloaded, and a changed fragment or a newer compiler never passes for the old kernel.
 */
#include "engine/kernel_recipe.h"

#include "base/buffer.h"
#include "base/fd.h"
#include "base/path.h"
#include "engine/tool.h"

#include <string.h>
#include <sys/mman.h>

/* Counted up when kernel_build.c makes another kernel from the same parts. */
#define BUILD_VERSION 1
#define DIGEST_DIGITS 12

const char kernel_fragment[] =
#include "kernel_fragment.inc"
	;

void kernel_recipe_free(struct kernel_recipe *recipe)
{
	free(recipe->source);
	free(recipe->fragment);
	free(recipe->compiler);
	free(recipe->linker);
	*recipe = (struct kernel_recipe){0};
}

/** The parts one behind the other, each with its length, so that no two recipes look alike. */
static int put_parts(const struct kernel_recipe *r, struct buffer *b)
{
	const char *const parts[] = {r->source, r->fragment, r->compiler, r->linker, KERNEL_ARCH};
	int rc = buffer_printf(b, "husk kernel %d\n", BUILD_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(parts) && rc == 0; i++)
		rc = buffer_printf(b, "%zu %s\n", strlen(parts[i]), parts[i]);
	return rc;
}

int kernel_recipe_id(const struct kernel_recipe *recipe, char **id, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer parts = {0};
	CLEANUP_BUFFER struct buffer digest = {0};
	CLEANUP_FD int fd = memfd_create("recipe", MFD_CLOEXEC);
	int rc = put_parts(recipe, &parts);
	if (rc == 0)
		rc = fd < 0 ? -errno : fd_write_all(fd, buffer_bytes(&parts), parts.size);
	if (rc < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return error_set(err, rc < 0 ? rc : -EIO, "name the kernel: %s", strerror(rc < 0 ? -rc : EIO));
	const char *argv[] = {"sha256sum", NULL};
	struct tool tool = {.argv = argv, .package = "coreutils", .stdin_fd = fd, .stdout_fd = -1};
	rc = tool_run(&tool, &digest, err);
	if (rc < 0)
		return rc;
	if (digest.size < DIGEST_DIGITS)
		return error_set(err, -EIO, "name the kernel: sha256sum said nothing");
	*id = path_format("husk-%s-" KERNEL_ARCH "-%.*s", recipe->source, DIGEST_DIGITS, (char *)buffer_bytes(&digest));
	return *id ? 0 : error_set(err, -ENOMEM, "name the kernel: out of memory");
}

/** The option that the line [@line, @line + @n) sets or unsets: its name's length, 0 for other lines. *@name: where it is. */
static size_t option_of(const char *line, size_t n, const char **name)
{
	static const char prefix[] = "CONFIG_", unset[] = " is not set";
	bool comment = n > 2 && line[0] == '#' && line[1] == ' ';
	*name = line + (comment ? 2 : 0);
	size_t left = n - (size_t)(*name - line);
	if (left < sizeof(prefix) || strncmp(*name, prefix, sizeof(prefix) - 1) != 0)
		return 0;
	size_t length = 0;
	while (length < left && (*name)[length] != '=' && (*name)[length] != ' ')
		length++;
	if (!comment)
		return length < left && (*name)[length] == '=' ? length : 0;
	return left - length == sizeof(unset) - 1 && memcmp(*name + length, unset, sizeof(unset) - 1) == 0 ? length : 0;
}

/** The last line of @text on the option [@name, @name + @n); NULL when there is none. *@length: of the line. */
static const char *line_on(const char *text, const char *name, size_t n, size_t *length)
{
	const char *found = NULL;
	for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
		const char *other;
		size_t line = strcspn(at, "\n");
		if (option_of(at, line, &other) != n || memcmp(other, name, n) != 0)
			continue;
		found = at;
		*length = line;
	}
	return found;
}

int kernel_recipe_check(const char *fragment, const char *config, struct husk_error *err)
{
	for (const char *at = fragment; *at; at += strcspn(at, "\n"), at += *at == '\n') {
		const char *name;
		size_t n = option_of(at, strcspn(at, "\n"), &name), wanted_length = 0, got_length = 0;
		const char *wanted = n ? line_on(fragment, name, n, &wanted_length) : NULL;
		if (wanted != at)
			continue;
		const char *got = line_on(config, name, n, &got_length);
		/* An option that is not to be set and does not even exist is what was asked for. */
		if (!got && *wanted == '#')
			continue;
		if (got && got_length == wanted_length && memcmp(got, wanted, got_length) == 0)
			continue;
		return error_set(err, -EINVAL,
			"the configuration asks for '%.*s', and the kernel's source makes of it '%.*s': the option "
			"does not "
			"exist there, or it depends on another one that is not set",
			(int)wanted_length, wanted, got ? (int)got_length : 7, got ? got : "nothing");
	}
	return 0;
}

int kernel_needs_met(const struct kernel_need *needs, size_t n, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer names = {0};
	CLEANUP_BUFFER struct buffer packages = {0};
	int rc = 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (!needs[i].missing)
			continue;
		rc = buffer_printf(&names, "%s%s", names.size ? ", " : "", needs[i].name);
		bool named = false;
		for (size_t j = 0; j < i; j++)
			named |= needs[j].missing && strcmp(needs[j].package, needs[i].package) == 0;
		if (rc == 0 && !named)
			rc = buffer_printf(&packages, " %s", needs[i].package);
	}
	if (rc < 0)
		return error_set(err, rc, "look for the tools of a kernel build: out of memory");
	if (!names.size)
		return 0;
	return error_set(err, -ENOENT,
		"a kernel build needs what is not installed here: %.*s; run: apt-get install%.*s", (int)names.size,
		(char *)buffer_bytes(&names), (int)packages.size, (char *)buffer_bytes(&packages));
}

/** The first line of @log that holds @mark, NULL for none. */
static const char *line_with(const char *log, const char *mark)
{
	const char *at = strstr(log, mark);
	while (at && at > log && at[-1] != '\n')
		at--;
	return at;
}

/** The start of the last line of @log that is not empty. */
static const char *last_line(const char *log)
{
	const char *last = log;
	for (const char *at = log; *at; at += strcspn(at, "\n"), at += *at == '\n')
		if (*at != '\n')
			last = at;
	return last;
}

void kernel_complaint(const char *log, char *line, size_t room)
{
	const char *at = line_with(log, "error:");
	at = at ? at : line_with(log, "*** ");
	at = at ? at : last_line(log);
	size_t n = strcspn(at, "\n");
	n = n < room ? n : room - 1;
	for (size_t i = 0; i < n; i++)
		line[i] = (unsigned char)at[i] < ' ' || at[i] == 0x7f ? '?' : at[i];
	line[n] = 0;
}
