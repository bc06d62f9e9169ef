/* SPDX-License-Identifier: Apache-2.0 */
/* engine.c - notices and the search for programs */
#include "engine/engine.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

void engine_notice(const struct husk *husk, enum husk_notice kind, const char *format, ...)
{
	if (!husk->notice)
		return;
	CLEANUP_FREE char *line = NULL;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&line, format, ap);
	va_end(ap);
	if (n < 0) {
		line = NULL;
		return;
	}
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	husk->notice(husk->notice_data, kind, line);
}

int engine_helper(const struct husk *husk, const char *name, char **path, struct husk_error *err)
{
	CLEANUP_FREE char *candidate = path_join(husk->libexec, name);
	if (!candidate)
		return error_set(err, -ENOMEM, "find %s: out of memory", name);
	if (access(candidate, X_OK) < 0)
		return error_set(err, -ENOENT,
			"husk's helper %s is not in %s; install husk, or set HUSK_LIBEXEC to the directory that has it",
			name, husk->libexec);
	*path = steal_pointer(&candidate);
	return 0;
}

static bool is_program(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

char *engine_find_program(const char *name)
{
	const char *search = getenv("PATH");
	CLEANUP_FREE char *list = path_format("%s:/usr/sbin:/sbin:/usr/bin:/bin", search ? search : "");
	char *rest = list;
	for (char *dir; list && (dir = strsep(&rest, ":"));) {
		if (*dir != '/')
			continue;
		char *path = path_join(dir, name);
		if (path && is_program(path))
			return path;
		free(path);
	}
	return NULL;
}
