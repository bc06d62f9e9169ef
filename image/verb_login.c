/* SPDX-License-Identifier: Apache-2.0 */
/* verb_login.c - husk-image login and logout: the password comes on standard input and nowhere else */
#include "base/fd.h"
#include "image/registry.h"
#include "image/source.h"
#include "image/verbs.h"

#include <getopt.h>
#include <string.h>

#define PASSWORD_MAX 65536

static int read_password(struct buffer *password, struct husk_error *err)
{
	int rc = fd_read_to_end(STDIN_FILENO, password, PASSWORD_MAX);
	if (rc < 0)
		return error_set(err, rc, "read the password from standard input: %s", strerror(-rc));
	while (password->size && (buffer_bytes(password)[password->size - 1] == '\n' ||
					 buffer_bytes(password)[password->size - 1] == '\r'))
		password->size--;
	if (!password->size || memchr(buffer_bytes(password), 0, password->size))
		return error_set(err, -EINVAL, "the password on standard input is empty or holds a NUL");
	return buffer_append(password, "", 1) < 0 ? error_set(err, -ENOMEM, "login: out of memory") : 0;
}

static void registry_cleanup(struct registry **registry)
{
	if (*registry)
		registry_close(*registry);
}

int verb_login(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	static const struct option options[] = {
		{"username", required_argument, NULL, 'u'},
		{"password-stdin", no_argument, NULL, 'p'},
		{0},
	};
	const char *user = NULL;
	bool from_stdin = false;
	int option;
	while ((option = getopt_long(argc, argv, "+u:", options, NULL)) != -1) {
		if (option == 'u')
			user = optarg;
		else if (option == 'p')
			from_stdin = true;
		else
			return error_set(err, -EINVAL, "login: unknown or incomplete option");
	}
	if (!user || !*user || !from_stdin || argc - optind > 1)
		return error_set(err, -EINVAL, "usage: login -u USER --password-stdin [HOST]");
	CLEANUP(registry_cleanup) struct registry *registry = NULL;
	CLEANUP_BUFFER struct buffer password = {0};
	int rc = read_password(&password, err);
	if (rc == 0)
		rc = source_registry_open(store, &registry, err);
	if (rc == 0)
		rc = registry_login(registry, optind < argc ? argv[optind] : "docker.io", user,
			(const char *)buffer_bytes(&password), err);
	if (password.data)
		explicit_bzero(password.data, password.capacity);
	return rc;
}

int verb_logout(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	CLEANUP(registry_cleanup) struct registry *registry = NULL;
	if (argc > 2)
		return error_set(err, -EINVAL, "usage: logout [HOST]");
	int rc = source_registry_open(store, &registry, err);
	return rc < 0 ? rc : registry_logout(registry, argc > 1 ? argv[1] : "docker.io", err);
}
