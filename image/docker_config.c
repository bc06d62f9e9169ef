/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docker_config.c - credentials in Docker's config.json
 *
 * Theory of operation: `auths` maps a registry to {"auth": base64("user:password")} or to an "identitytoken"; Docker Hub
 * goes by the key "https://index.docker.io/v1/". Keys of other registries may carry a scheme and a path, which older
 * tools wrote, so both sides are compared by their host. `credHelpers` (by host) and `credsStore` (for all) name a helper
 * program that holds the secret instead. An entry in `auths` that has a secret wins: Docker empties it when it puts a
 * newer one into a helper, so it cannot be the stale one of the two.
 *
 * Writing keeps everything else in the file: it is read again under a lock on its directory, changed, and replaced as a
 * whole with mode 0600. A config.json that is a symbolic link stays one.
 */
#include "image/docker_config.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"

#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>

#define CONFIG_MAX (1024 * 1024)
#define DOCKER_HUB_KEY "https://index.docker.io/v1/"

static void json_cleanup(json_t **json)
{
	json_decref(*json);
}
#define CLEANUP_JSON CLEANUP(json_cleanup)

static void secret_free(char *secret)
{
	if (secret)
		OPENSSL_cleanse(secret, strlen(secret));
	free(secret);
}

void credential_free(struct credential *credential)
{
	free(credential->user);
	secret_free(credential->password);
	secret_free(credential->identity_token);
	secret_free(credential->registry_token);
	*credential = (struct credential){0};
}

char *basic_encode(const char *user, const char *password)
{
	char *plain = path_format("%s:%s", user, password);
	if (!plain)
		return NULL;
	size_t n = strlen(plain);
	char *text = malloc((n + 2) / 3 * 4 + 1);
	if (text)
		EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)plain, (int)n);
	secret_free(plain);
	return text;
}

/** Take "user:password" out of base64 @text into @out; 0, -EINVAL or -ENOMEM. */
static int basic_decode(const char *text, struct credential *out)
{
	size_t n = strlen(text);
	if (n % 4 != 0 || n > CONFIG_MAX)
		return -EINVAL;
	char *plain = calloc(1, n / 4 * 3 + 1);
	if (!plain)
		return -ENOMEM;
	int decoded = EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)text, (int)n);
	char *colon = decoded > 0 ? strchr(plain, ':') : NULL;
	int rc = -EINVAL;
	if (colon) {
		*colon = 0;
		out->user = strdup(plain);
		out->password = strdup(colon + 1);
		rc = out->user && out->password ? 0 : -ENOMEM;
		*colon = ':';
	}
	OPENSSL_cleanse(plain, n / 4 * 3);
	free(plain);
	return rc;
}

int docker_config_path(const char *option, char **out, struct husk_error *err)
{
	const char *directory = getenv("DOCKER_CONFIG");
	const char *home = getenv("HOME");
	if (option) {
		*out = strdup(option);
	} else if (directory && *directory) {
		*out = path_join(directory, "config.json");
	} else {
		if (!home || !*home) {
			struct passwd *user = getpwuid(getuid());
			home = user ? user->pw_dir : "/";
		}
		*out = path_join(home, ".docker/config.json");
	}
	return *out ? 0 : error_set(err, -ENOMEM, "find config.json: out of memory");
}

/** The file as an object; NULL in *@out when there is none. */
static int config_read(const char *path, json_t **out, struct husk_error *err)
{
	*out = NULL;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : error_errno(err, "read %s", path);
	CLEANUP_BUFFER struct buffer text = {0};
	int rc = fd_read_to_end(fd, &text, CONFIG_MAX);
	if (rc < 0)
		return error_set(err, rc, "read %s: %s", path, strerror(-rc));
	if (text.size == 0)
		return 0;
	json_error_t why;
	json_t *config = json_loadb((const char *)buffer_bytes(&text), text.size, JSON_ALLOW_NUL, &why);
	OPENSSL_cleanse(buffer_bytes(&text), text.size);
	if (!json_is_object(config)) {
		json_decref(config);
		return error_set(err, -EINVAL, "read %s: not a JSON object (line %d)", path, why.line);
	}
	*out = config;
	return 0;
}

/** Whether the key @key of auths or credHelpers is about @host. */
static bool key_matches(const char *key, const char *host)
{
	static const char *const hub[] = {"docker.io", "index.docker.io", "registry-1.docker.io"};
	const char *scheme = strstr(key, "://");
	if (scheme)
		key = scheme + 3;
	size_t n = strcspn(key, "/");
	if (strlen(host) == n && strncasecmp(key, host, n) == 0)
		return true;
	if (strcmp(host, "docker.io") != 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(hub); i++)
		if (strlen(hub[i]) == n && strncasecmp(key, hub[i], n) == 0)
			return true;
	return false;
}

/** The key of @object that is about @host: the very one first, then any that matches; NULL: none. */
static const char *find_key(json_t *object, const char *exact, const char *host)
{
	const char *key;
	json_t *value;
	if (json_object_get(object, exact))
		return exact;
	json_object_foreach(object, key, value) if (key_matches(key, host)) return key;
	return NULL;
}

static const char *host_key(const char *host)
{
	return strcmp(host, "docker.io") == 0 ? DOCKER_HUB_KEY : host;
}

/** A nonempty string member, NULL when it is not there. */
static const char *member(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text && *text ? text : NULL;
}

/** Name of the credential helper for @host, NULL: none. */
static const char *helper_name(json_t *config, const char *host)
{
	json_t *helpers = json_object_get(config, "credHelpers");
	const char *key = find_key(helpers, host_key(host), host);
	const char *name = key ? member(helpers, key) : NULL;
	return name ? name : member(config, "credsStore");
}

/** Credentials in the entry of auths; leaves @out empty when it has none. */
static int entry_read(const char *path, const char *host, json_t *entry, struct credential *out, struct husk_error *err)
{
	const char *auth = member(entry, "auth");
	const char *user = member(entry, "username"), *password = member(entry, "password");
	const char *identity = member(entry, "identitytoken"), *registry = member(entry, "registrytoken");
	int rc = auth ? basic_decode(auth, out) : 0;
	/* Beside an identity token, auth holds "user:" only; whatever it holds, it is not needed then. */
	if (rc == -EINVAL && !identity && !registry)
		return error_set(err, -EINVAL, "read %s: the auth of %s is not base64 of user:password", path, host);
	bool complete = rc != -ENOMEM;
	if (!auth && user && password)
		complete &= (out->user = strdup(user)) && (out->password = strdup(password));
	if (identity)
		complete &= (out->identity_token = strdup(identity)) != NULL;
	if (registry)
		complete &= (out->registry_token = strdup(registry)) != NULL;
	return complete ? 0 : error_set(err, -ENOMEM, "read %s: out of memory", path);
}

/** One bounded line out of what a helper said. */
static void helper_text(const struct buffer *output, char text[160])
{
	size_t n = output->size < 159 ? output->size : 159;
	for (size_t i = 0; i < n; i++) {
		char c = (char)buffer_bytes(output)[i];
		text[i] = c < ' ' || c > '~' ? ' ' : c;
	}
	while (n && text[n - 1] == ' ')
		n--;
	text[n] = 0;
}

static int helper_failed(const char *name, const char *verb, const char *host, const struct buffer *output, int status,
	struct husk_error *err)
{
	char text[160];
	helper_text(output, text);
	return error_set(err, -EACCES, "docker-credential-%s %s %s: exit status %d%s%s", name, verb, host, status,
		*text ? ": " : "", text);
}

static bool helper_has_none(const struct buffer *output)
{
	char text[160];
	helper_text(output, text);
	return strstr(text, "credentials not found") || strstr(text, "no credentials server URL");
}

static int helper_get(const char *name, const char *host, const volatile int *cancelled, struct credential *out,
	struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer output = {0};
	int status;
	int rc = credential_helper_run(name, "get", host_key(host), cancelled, &output, &status, err);
	if (rc < 0)
		return rc;
	if (status != 0)
		return helper_has_none(&output) ? 0 : helper_failed(name, "get", host, &output, status, err);
	CLEANUP_JSON json_t *answer = json_loadb((const char *)buffer_bytes(&output), output.size, 0, NULL);
	if (output.size)
		OPENSSL_cleanse(buffer_bytes(&output), output.size);
	const char *user = member(answer, "Username"), *secret = member(answer, "Secret");
	if (!user || !secret)
		return error_set(
			err, -EPROTO, "docker-credential-%s get %s: its answer has no Username and Secret", name, host);
	bool token = strcmp(user, "<token>") == 0;
	out->user = token ? NULL : strdup(user);
	*(token ? &out->identity_token : &out->password) = strdup(secret);
	if ((!token && (!out->user || !out->password)) || (token && !out->identity_token))
		return error_set(err, -ENOMEM, "docker-credential-%s get %s: out of memory", name, host);
	return 0;
}

int docker_config_get(const char *path, const char *host, const volatile int *cancelled, struct credential *out,
	struct husk_error *err)
{
	CLEANUP_JSON json_t *config = NULL;
	*out = (struct credential){0};
	int rc = config_read(path, &config, err);
	if (rc < 0 || !config)
		return rc;
	json_t *auths = json_object_get(config, "auths");
	const char *key = find_key(auths, host_key(host), host);
	if (key)
		rc = entry_read(path, host, json_object_get(auths, key), out, err);
	const char *helper = helper_name(config, host);
	if (rc == 0 && helper && !out->password && !out->identity_token && !out->registry_token) {
		credential_free(out);
		rc = helper_get(helper, host, cancelled, out, err);
	}
	if (rc < 0)
		credential_free(out);
	return rc;
}

/** Where the file really is (a symbolic link is followed), its directory made and locked; *@lock is the lock. */
static int config_lock(const char *path, char **real, int *lock, struct husk_error *err)
{
	CLEANUP_FREE char *target = realpath(path, NULL);
	if (!target)
		target = strdup(path);
	CLEANUP_FREE char *copy = target ? strdup(target) : NULL;
	if (!copy)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	const char *directory = dirname(copy);
	int rc = path_make_directories(directory, 0700, err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "open %s", directory);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_errno(err, "lock %s", directory);
	*lock = steal_fd(&fd);
	*real = steal_pointer(&target);
	return 0;
}

static int config_write(const char *path, json_t *config, struct husk_error *err)
{
	char *text = json_dumps(config, JSON_INDENT(8));
	if (!text)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	int rc = path_write_atomically(path, text, strlen(text), 0600, err);
	secret_free(text);
	return rc;
}

/** Set the entry of @host to @entry (stolen; NULL: remove it). -ENOENT when there was none to remove. */
static int config_change(const char *path, const char *host, json_t *entry, struct husk_error *err)
{
	CLEANUP_JSON json_t *ours = entry;
	CLEANUP_JSON json_t *config = NULL;
	CLEANUP_FREE char *real = NULL;
	CLEANUP_FD int lock = -1;
	int rc = config_lock(path, &real, &lock, err);
	if (rc == 0)
		rc = config_read(real, &config, err);
	if (rc < 0)
		return rc;
	if (!config && !(config = json_object()))
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	json_t *auths = json_object_get(config, "auths");
	if (!json_is_object(auths)) {
		json_object_set_new(config, "auths", json_object());
		auths = json_object_get(config, "auths");
	}
	bool found = false;
	for (const char *key; (key = find_key(auths, host_key(host), host)); found = true) {
		CLEANUP_FREE char *name = strdup(key);
		if (!name || json_object_del(auths, name) < 0)
			return error_set(err, -ENOMEM, "write %s: out of memory", path);
	}
	if (!ours && !found)
		return -ENOENT;
	if (ours && json_object_set(auths, host_key(host), ours) < 0)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	return config_write(real, config, err);
}

/** Name of the configured helper for @host, malloc'ed; NULL in *@name: none. */
static int configured_helper(const char *path, const char *host, char **name, struct husk_error *err)
{
	CLEANUP_JSON json_t *config = NULL;
	int rc = config_read(path, &config, err);
	const char *helper = config ? helper_name(config, host) : NULL;
	*name = helper ? strdup(helper) : NULL;
	if (rc == 0 && helper && !*name)
		return error_set(err, -ENOMEM, "read %s: out of memory", path);
	return rc;
}

static int helper_put(const char *name, const char *host, const char *user, const char *password,
	const volatile int *cancelled, struct husk_error *err)
{
	CLEANUP_JSON json_t *object =
		json_pack("{s:s, s:s, s:s}", "ServerURL", host_key(host), "Username", user, "Secret", password);
	char *input = object ? json_dumps(object, JSON_COMPACT) : NULL;
	if (!input)
		return error_set(err, -EINVAL, "store the credentials of %s: user and password must be UTF-8", host);
	CLEANUP_BUFFER struct buffer output = {0};
	int status;
	int rc = credential_helper_run(name, "store", input, cancelled, &output, &status, err);
	secret_free(input);
	return rc == 0 && status != 0 ? helper_failed(name, "store", host, &output, status, err) : rc;
}

int docker_config_put(const char *path, const char *host, const char *user, const char *password,
	const volatile int *cancelled, struct husk_error *err)
{
	CLEANUP_FREE char *helper = NULL;
	int rc = configured_helper(path, host, &helper, err);
	if (rc < 0)
		return rc;
	if (helper) {
		rc = helper_put(helper, host, user, password, cancelled, err);
		/* As Docker does: an empty entry says that there is a login, and nothing older may win over it. */
		return rc < 0 ? rc : config_change(path, host, json_object(), err);
	}
	char *auth = basic_encode(user, password);
	json_t *entry = auth ? json_pack("{s:s}", "auth", auth) : NULL;
	secret_free(auth);
	if (!entry)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	return config_change(path, host, entry, err);
}

int docker_config_remove(const char *path, const char *host, const volatile int *cancelled, struct husk_error *err)
{
	CLEANUP_FREE char *helper = NULL;
	int rc = configured_helper(path, host, &helper, err);
	if (rc < 0)
		return rc;
	bool erased = false;
	if (helper) {
		CLEANUP_BUFFER struct buffer output = {0};
		int status;
		rc = credential_helper_run(helper, "erase", host_key(host), cancelled, &output, &status, err);
		if (rc == 0 && status != 0 && !helper_has_none(&output))
			rc = helper_failed(helper, "erase", host, &output, status, err);
		if (rc < 0)
			return rc;
		erased = status == 0;
	}
	rc = config_change(path, host, NULL, err);
	if (rc == -ENOENT && !erased)
		return error_set(err, -ENOENT, "no credentials of %s are stored in %s", host, path);
	return rc == -ENOENT ? 0 : rc;
}
