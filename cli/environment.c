/* SPDX-License-Identifier: Apache-2.0 */
/* environment.c - the workload's environment from -e and --env-file, by Docker's rules */
#include "cli/environment.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int append(struct environment *env, char *entry, struct husk_error *err)
{
	char **list = entry ? reallocarray(env->list, env->n + 2, sizeof(*list)) : NULL;
	if (!list) {
		free(entry);
		return error_set(err, -ENOMEM, "read the environment: out of memory");
	}
	env->list = list;
	list[env->n++] = entry;
	list[env->n] = NULL;
	return 0;
}

int environment_keep(struct environment *env, const char *text, struct husk_error *err)
{
	return append(env, strdup(text), err);
}

int environment_add(struct environment *env, const char *text, struct husk_error *err)
{
	size_t name = strcspn(text, "=");
	if (name == 0)
		return error_set(err, -EINVAL, "'%s' is not an environment variable (NAME or NAME=value)", text);
	if (strcspn(text, " \t\n") < name)
		return error_set(err, -EINVAL, "the variable name in '%s' contains a space", text);
	if (text[name])
		return append(env, strdup(text), err);
	const char *value = getenv(text);
	return append(env, value ? path_format("%s=%s", text, value) : strdup(text), err);
}

/** One line of a file, with NULs refused and white space in front skipped. */
static int add_line(struct environment *env, char *line, size_t n, struct husk_error *err)
{
	if (n && line[n - 1] == '\n')
		line[--n] = 0;
	if (n && line[n - 1] == '\r')
		line[--n] = 0;
	if (strlen(line) != n)
		return error_set(err, -EINVAL, "a NUL byte is no text");
	line += strspn(line, " \t");
	return *line && *line != '#' ? environment_add(env, line, err) : 0;
}

int environment_add_file(struct environment *env, const char *path, struct husk_error *err)
{
	CLEANUP_FILE FILE *file = fopen(path, "re");
	CLEANUP_FREE char *line = NULL;
	struct stat st;
	size_t room = 0, number = 0;
	if (!file)
		return error_errno(err, "open the environment file %s", path);
	if (fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, "the environment file %s is a directory", path);
	for (;;) {
		errno = 0;
		ssize_t n = getline(&line, &room, file);
		if (n < 0)
			return ferror(file) ? error_errno(err, "read the environment file %s", path) : 0;
		bool mark = number++ == 0 && n >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0;
		int rc = add_line(env, line + (mark ? 3 : 0), (size_t)n - (mark ? 3 : 0), err);
		if (rc < 0)
			return error_prefix(err, rc, "environment file %s, line %zu", path, number);
	}
}

void environment_free(struct environment *env)
{
	for (size_t i = 0; i < env->n; i++)
		free(env->list[i]);
	free(env->list);
	*env = (struct environment){0};
}
