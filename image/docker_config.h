/* SPDX-License-Identifier: Apache-2.0 */
/* docker_config.h - credentials in Docker's config.json and in the credential helpers it names */
#ifndef IMAGE_DOCKER_CONFIG_H
#define IMAGE_DOCKER_CONFIG_H

#include "base/buffer.h"
#include "base/error.h"

/** What is known of a user at one registry; all NULL: nothing. Owned strings, wiped by credential_free(). */
struct credential {
	char *user, *password;
	char *identity_token; /* an OAuth2 refresh token instead of a password */
	char *registry_token; /* a bearer token to be used as it is */
};

void credential_free(struct credential *credential);

/** malloc'ed path of config.json: @option, else $DOCKER_CONFIG/config.json, else ~/.docker/config.json. */
int docker_config_path(const char *option, char **out, struct husk_error *err);

/** Look @host ("docker.io", "localhost:5000") up; *@out stays empty when nothing is stored. -ENOENT when the credential
 *  helper that is configured for it is not installed. @cancelled as in registry.h. */
int docker_config_get(const char *path, const char *host, const volatile int *cancelled, struct credential *out,
	struct husk_error *err);
/** Store, in the configured credential helper, else in the file. */
int docker_config_put(const char *path, const char *host, const char *user, const char *password,
	const volatile int *cancelled, struct husk_error *err);
/** Remove; -ENOENT when nothing was stored. */
int docker_config_remove(const char *path, const char *host, const volatile int *cancelled, struct husk_error *err);

/** Run docker-credential-@name @verb with @input on its stdin; what it wrote to stdout is in @output (at most 64 KiB),
 *  *@status its exit status. Ends after 30 seconds. -ENOENT: not installed. (credential_helper.c) */
int credential_helper_run(const char *name, const char *verb, const char *input, const volatile int *cancelled,
	struct buffer *output, int *status, struct husk_error *err);

/** malloc'ed base64 of "@user:@password". */
char *basic_encode(const char *user, const char *password);

#endif
