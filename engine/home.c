/* SPDX-License-Identifier: Apache-2.0 */
/*
 * home.c - where husk keeps its state, and where its sockets lie
 *
 * Theory of operation: the home holds all that lasts; the runtime directory holds unix sockets, whose paths may not be
 * longer than 107 bytes. A home that the user chose moves everything, so its runtime directory is its own subdirectory
 * `run`; where that is too long, a short private directory stands in, told apart by a hash of the home.
 */
#include "engine/home.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

void home_environment_get(struct home_environment *env)
{
	*env = (struct home_environment){
		.husk_home = getenv("HUSK_HOME"),
		.xdg_data_home = getenv("XDG_DATA_HOME"),
		.xdg_runtime_dir = getenv("XDG_RUNTIME_DIR"),
		.home = getenv("HOME"),
		.uid = geteuid(),
	};
}

/** XDG: relative paths in these variables are to be ignored. */
static bool absolute(const char *path)
{
	return path && path[0] == '/';
}

/** @path without "." and with the current directory in front; links are left alone, it may not exist yet. */
static char *make_absolute(const char *path)
{
	char *result;
	if (path[0] == '/') {
		result = strdup(path);
	} else {
		char cwd[PATH_MAX];
		while (path[0] == '.' && path[1] == '/')
			path += 2;
		result = !getcwd(cwd, sizeof(cwd)) ? NULL : !strcmp(path, ".") ? strdup(cwd) : path_join(cwd, path);
	}
	for (size_t n = result ? strlen(result) : 0; n > 1 && result[n - 1] == '/'; n--)
		result[n - 1] = 0;
	return result;
}

/** FNV-1a: only tells homes apart, their owner chooses them. */
static uint32_t hash_text(const char *text)
{
	uint32_t hash = 2166136261u;
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 16777619u;
	return hash;
}

/** The runtime directory that goes with no particular home. */
static char *standard_runtime(const struct home_environment *env)
{
	if (env->uid == 0)
		return strdup("/run/husk");
	if (absolute(env->xdg_runtime_dir) && strlen(env->xdg_runtime_dir) + 5 <= HOME_RUNTIME_MAX)
		return path_join(env->xdg_runtime_dir, "husk");
	return path_format("/tmp/husk-%u", (unsigned)env->uid);
}

static char *chosen_runtime(const char *home, const struct home_environment *env)
{
	char *beneath = path_join(home, "run");
	if (!beneath || strlen(beneath) <= HOME_RUNTIME_MAX)
		return beneath;
	free(beneath);
	CLEANUP_FREE char *standard = standard_runtime(env);
	if (!standard)
		return NULL;
	/* Below the standard directory there are 12 digits for VMs; a name that starts otherwise cannot clash. */
	char *apart = path_format("%s/home-%08x", standard, hash_text(home));
	if (apart && strlen(apart) <= HOME_RUNTIME_MAX)
		return apart;
	free(apart);
	return path_format("/tmp/husk-%u/home-%08x", (unsigned)env->uid, hash_text(home));
}

int home_resolve(const char *option, const struct home_environment *env, char **home_out, char **runtime_out,
	struct husk_error *err)
{
	const char *chosen = option ? option : env->husk_home && *env->husk_home ? env->husk_home : NULL;
	CLEANUP_FREE char *home = NULL;
	if (chosen && !*chosen)
		return error_set(err, -EINVAL, "the home directory's path is empty");
	if (chosen)
		home = make_absolute(chosen);
	else if (env->uid == 0)
		home = strdup("/var/lib/husk");
	else if (absolute(env->xdg_data_home))
		home = path_join(env->xdg_data_home, "husk");
	else if (absolute(env->home))
		home = path_join(env->home, ".local/share/husk");
	else
		return error_set(err, -EINVAL, "cannot tell where husk's state belongs: set HUSK_HOME or HOME");
	CLEANUP_FREE char *runtime = !home ? NULL : chosen ? chosen_runtime(home, env) : standard_runtime(env);
	if (!home || !runtime)
		return error_set(err, -ENOMEM, "resolve the home directory: out of memory");
	*home_out = steal_pointer(&home);
	*runtime_out = steal_pointer(&runtime);
	return 0;
}

/** Sockets may only lie where nobody else can put or swap them. */
static int check_private(const char *path, struct husk_error *err)
{
	struct stat st;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open the runtime directory %s", path);
	if (st.st_uid != geteuid())
		return error_set(err, -EPERM,
			"the runtime directory %s belongs to user %u; remove it or set XDG_RUNTIME_DIR", path,
			(unsigned)st.st_uid);
	if ((st.st_mode & 077) && fchmod(fd, 0700) < 0)
		return error_errno(err, "make the runtime directory %s private", path);
	return 0;
}

/** Make @path and, above it, private directories of our own in /tmp. */
static int make_private(const char *path, struct husk_error *err)
{
	CLEANUP_FREE char *parent = strdup(path);
	char *slash = parent ? strrchr(parent, '/') : NULL;
	if (!slash)
		return error_set(err, -ENOMEM, "make %s: out of memory", path);
	*slash = 0;
	int rc = 0;
	if (strncmp(parent, "/tmp/husk-", 10) == 0) {
		rc = path_make_directories(parent, 0700, err);
		rc = rc < 0 ? rc : check_private(parent, err);
	}
	rc = rc < 0 ? rc : path_make_directories(path, 0700, err);
	rc = rc < 0 ? rc : check_private(path, err);
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	/* As after su and sudo, which keep the variable of the user before. */
	if (rc < 0 && xdg && *xdg == '/' && strncmp(path, xdg, strlen(xdg)) == 0)
		return error_prefix(err, rc, "use XDG_RUNTIME_DIR=%s (unset it if it is another user's)", xdg);
	return rc;
}

int home_make(const char *home, const char *runtime, struct husk_error *err)
{
	int rc = path_make_directories(home, 0700, err);
	if (rc < 0)
		return error_prefix(err, rc, "open the home directory");
	if (access(home, R_OK | W_OK | X_OK) < 0)
		return error_errno(err, "open the home directory %s", home);
	return make_private(runtime, err);
}
