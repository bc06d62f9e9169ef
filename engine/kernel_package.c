/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_package.c - the distribution's packages, asked about and downloaded */
#include "engine/kernel_package.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "engine/tool.h"

#include <string.h>

int kernel_package_ask(const char *verb, const char *package, const char *key, char **out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer text = {0};
	const char *argv[] = {"apt-cache", "-o", "APT::Cache::AllVersions=false", verb, package, NULL};
	struct tool tool = {.argv = argv, .package = "apt", .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&tool, &text, err);
	if (rc == 0 && buffer_append(&text, "", 1) < 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc < 0)
		return error_prefix(
			err, rc, "find the package of the guest kernel (is this Debian, and was apt-get update run?)");
	const char *at = strstr((char *)buffer_bytes(&text), key);
	if (!at)
		return error_set(err, -ENOENT, "apt knows no %s; run apt-get update", package);
	at += strlen(key);
	*out = strndup(at, strcspn(at, " \n"));
	return *out ? 0 : error_set(err, -ENOMEM, "find the guest kernel: out of memory");
}

int kernel_package_version(const char *package, char **version, struct husk_error *err)
{
	int rc = kernel_package_ask("show", package, "\nVersion: ", version, err);
	for (char *c = rc == 0 ? *version : NULL; c && *c; c++)
		if (*c == ':' || *c == '/')
			*c = '_';
	return rc;
}

char *kernel_package_find(const char *directory, const char *prefix, const char *suffix)
{
	CLEANUP_DIR DIR *dir = opendir(directory);
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name), tail = strlen(suffix);
		if (entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && n >= tail &&
			strcmp(entry->d_name + n - tail, suffix) == 0)
			return strdup(entry->d_name);
	}
	return NULL;
}

int kernel_package_download(struct kernel_store *store, const char *package, char **deb, struct husk_error *err)
{
	CLEANUP_FREE char *prefix = path_format("%s_", package);
	if (!prefix)
		return error_set(err, -ENOMEM, "download %s: out of memory", package);
	kernel_store_progress(store, "downloading %s", package);
	/* apt's own unprivileged user cannot write to our directory; it only warns of that, on stderr. */
	const char *argv[] = {"apt-get", "-q", "download", package, NULL};
	struct tool tool = {.argv = argv, .package = "apt", .directory = store->work, .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&tool, NULL, err);
	if (rc < 0)
		return error_prefix(err, rc, "download %s", package);
	*deb = kernel_package_find(store->work, prefix, ".deb");
	if (!*deb)
		return error_set(err, -EIO, "download %s: apt-get left no package in %s", package, store->work);
	return 0;
}
