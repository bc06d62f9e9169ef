/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.c - husk-image gives up what it does not need
 *
 * Theory of operation: whoever takes over a parser in here shall find little to do. no_new_privs always; and, where the
 * kernel has Landlock, one ruleset for the whole process, made before the first thread:
 *
 *     write, make, remove   below the store's home only (and /dev/null)
 *     execute               nothing
 *     read                  the home, the local source that was named, docker's config.json, and what the C library,
 *                           resolver and TLS need: /etc, /usr, /lib, /run, certificates, its own /proc
 *                           tar-in and tar-out: no home and no source, only what lies open
 *     TCP                   only a verb that speaks to a registry
 *     signals, abstract sockets of others: none (where the kernel can tell)
 *
 * Not confined by Landlock: login and logout (they write docker's config.json and run its credential helpers, and read no
 * image), and a pull from a registry when config.json names a credential helper, a program of the user's that needs what it
 * needs. An old kernel without Landlock is accepted: it is one wall of several, and images must be usable there.
 */
#include "image/confine.h"

#include "base/path.h"
#include "image/name.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Newer than the headers of the oldest distribution that builds this (landlock(7)). */
#define FS_TRUNCATE (1ull << 14) /* ABI 3 */
#define NET_TCP 3ull /* bind and connect; ABI 4 */
#define FS_IOCTL_DEV (1ull << 15) /* ABI 5 */
#define SCOPE_ALL 3ull /* abstract unix sockets and signals; ABI 6 */

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define OF_FILES                                                                                                       \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE)

/** struct landlock_ruleset_attr as of ABI 6. */
struct ruleset {
	uint64_t fs, net, scoped;
};

static uint64_t handled_fs(int abi)
{
	uint64_t fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* ABI 1 */
	return fs | (abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) |
	       (abi >= 5 ? FS_IOCTL_DEV : 0);
}

/** Allow @access below @path; a path that is not there needs no rule. */
static int allow(int rules, const char *path, uint64_t access, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_PATH | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	struct landlock_path_beneath_attr rule = {
		.allowed_access = S_ISDIR(st.st_mode) ? access : access & OF_FILES,
		.parent_fd = fd,
	};
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return error_errno(err, "confine: allow %s", path);
	return 0;
}

static char *docker_directory(void)
{
	const char *config = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	if (config && *config)
		return strdup(config);
	return home && *home ? path_join(home, ".docker") : NULL;
}

/** True when docker's config.json may name a program that gives out credentials. */
static bool has_helper(void)
{
	CLEANUP_FREE char *directory = docker_directory();
	CLEANUP_FREE char *path = directory ? path_join(directory, "config.json") : NULL;
	CLEANUP_JSON json_t *config = NULL;
	struct husk_error fault;
	if (!path)
		return false;
	int rc = json_read_file(path, &config, &fault);
	return rc == 0 && (json_object_get(config, "credsStore") || json_object_get(config, "credHelpers"));
}

static int allow_system(int rules, struct husk_error *err)
{
	static const char *const paths[] = {"/etc", "/usr", "/lib", "/lib64", "/run", "/nix",
		"/var/lib/ca-certificates", "/proc/self", "/sys/devices/system/cpu", "/dev/urandom", "/dev/null"};
	static const char *const variables[] = {"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"};
	CLEANUP_FREE char *docker = docker_directory();
	int rc = docker ? allow(rules, docker, READ, err) : 0;
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(paths); i++)
		rc = allow(rules, paths[i], READ, err);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(variables); i++)
		if (getenv(variables[i]))
			rc = allow(rules, getenv(variables[i]), READ, err);
	return rc < 0 ? rc : allow(rules, "/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE, err);
}

/** Allow to read the local sources among the arguments; *@local is set when there is one. */
static int allow_sources(int rules, int argc, char **argv, bool *local, struct husk_error *err)
{
	int rc = 0;
	for (int i = 1; rc == 0 && i < argc; i++) {
		CLEANUP(source_name_free) struct source_name name = {0};
		bool standard_input = strcmp(argv[i], "-") == 0;
		bool parsed = !standard_input && source_name_parse(argv[i], &name, NULL) == 0;
		*local |= standard_input || (parsed && name.path);
		if (parsed && name.path && rules >= 0)
			rc = allow(rules, name.path, READ, err);
	}
	return rc;
}

static int restrict_self(const struct store *store, int argc, char **argv, bool registry, struct husk_error *err)
{
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return 0;
	struct ruleset handled = {.fs = handled_fs(abi)};
	size_t size = abi >= 6 ? sizeof(handled) : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
	bool local = false;
	handled.net = abi >= 4 && !registry ? NET_TCP : 0;
	handled.scoped = abi >= 6 ? SCOPE_ALL : 0;
	CLEANUP_FD int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, size, 0);
	if (rules < 0)
		return error_errno(err, "confine: make a Landlock ruleset");
	bool files = strncmp(argv[0], "tar-", 4) != 0; /* those get all they need as descriptors */
	int rc = !files ? 0 : allow(rules, store->home, handled.fs & ~(uint64_t)(LANDLOCK_ACCESS_FS_EXECUTE | FS_IOCTL_DEV), err);
	if (rc == 0)
		rc = allow_system(rules, err);
	if (rc == 0)
		rc = allow_sources(rules, argc, argv, &local, err);
	if (rc == 0 && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		rc = error_errno(err, "confine: enter the Landlock ruleset");
	return rc;
}

int confine(const struct store *store, int argc, char **argv, struct husk_error *err)
{
	bool pulls = strcmp(argv[0], "pull") == 0 || strcmp(argv[0], "import") == 0, local = false;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, "confine: set no_new_privs");
	if (strcmp(argv[0], "login") == 0 || strcmp(argv[0], "logout") == 0)
		return 0;
	int rc = allow_sources(-1, argc, argv, &local, err);
	if (rc < 0 || (pulls && !local && has_helper()))
		return rc;
	return restrict_self(store, argc, argv, pulls && !local, err);
}
