/* SPDX-License-Identifier: Apache-2.0 */
/*
 * images.c - the engine's way to the store
 *
 * Records in the store are husk-image's own writing, so they are read here directly; whatever takes bytes from elsewhere
 * (a registry, an archive) is husk-image's work, in a process of its own.
 */
#include "engine/images.h"

#include "base/cleanup.h"
#include "engine/helper.h"

#include <string.h>

#define ARGS_MAX 24

int images_command(const struct husk *husk, const char *const *args, int stdin_fd, int progress_fd, int cancel_fd,
	struct buffer *out, struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	const char *argv[ARGS_MAX + 4] = {"husk-image", "--home", husk->home};
	int rc = engine_helper(husk, "husk-image", &path, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; args[i]; i++) {
		if (i == ARGS_MAX)
			return error_set(err, -E2BIG, "too many arguments for husk-image");
		argv[3 + i] = args[i];
	}
	struct helper helper = {
		.path = path,
		.argv = argv,
		.stdin_fd = stdin_fd,
		.stdout_fd = -1,
		.stderr_fd = progress_fd,
		.cancel_fd = cancel_fd,
		.error_fd = true,
	};
	return helper_run(&helper, out, err);
}

static const char *policy_name(enum husk_pull policy)
{
	return policy == HUSK_PULL_ALWAYS ? "always" : policy == HUSK_PULL_NEVER ? "never" : "missing";
}

/** The first line of @out as an image id. */
static int take_id(const struct buffer *out, char **id, struct husk_error *err)
{
	const char *bytes = (const char *)buffer_bytes(out);
	size_t n = 0;
	while (n < out->size && bytes[n] != '\n')
		n++;
	if (n != strlen("sha256:") + 64 || strncmp(bytes, "sha256:", 7) != 0)
		return error_set(err, -EPROTO, "husk-image told no image id");
	*id = strndup(bytes, n);
	return *id ? 0 : error_set(err, -ENOMEM, "pull: out of memory");
}

int images_pull(const struct husk *husk, const char *source, const struct husk_pull_options *options, char **id,
	struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer out = {0};
	const char *args[ARGS_MAX];
	size_t n = 0;
	if (source[0] == '-')
		return error_set(err, -EINVAL, "'%s' is not an image", source);
	args[n++] = "pull";
	if (options->platform) {
		args[n++] = "--platform";
		args[n++] = options->platform;
	}
	if (options->offline)
		args[n++] = "--offline";
	if (options->progress_fd < 0)
		args[n++] = "--quiet";
	args[n++] = "--policy";
	args[n++] = policy_name(options->policy);
	args[n++] = source;
	args[n] = NULL;
	int rc = images_command(husk, args, -1, options->progress_fd, options->cancel_fd, &out, err);
	return rc < 0 ? rc : take_id(&out, id, err);
}

bool images_is_local(const char *source)
{
	static const char *const kinds[] = {"oci:", "oci-archive:", "docker-archive:", "rootfs:", "tar:"};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strncmp(source, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return false;
}

int images_find(
	const struct husk *husk, const struct husk_vm_config *config, struct image_record *out, struct husk_error *err)
{
	struct husk_error why = {0};
	if (images_is_local(config->image) || config->pull == HUSK_PULL_ALWAYS)
		return 0;
	int rc = image_find(husk->home, config->image, config->platform, out, &why);
	if (rc == 0)
		return 1;
	if (rc != -ENOENT)
		return error_set(err, rc, "%s", why.message);
	if (config->pull == HUSK_PULL_NEVER)
		return error_set(err, rc, "%s, and the pull policy is 'never'", why.message);
	if (config->offline)
		return error_set(err, rc, "%s, and 'offline' forbids to pull it", why.message);
	return 0;
}

int images_fetch(
	const struct husk *husk, const struct husk_vm_config *config, struct image_record *out, struct husk_error *err)
{
	CLEANUP_FREE char *id = NULL;
	struct husk_pull_options options = {
		.size = sizeof(options),
		.platform = config->platform,
		.policy = config->pull,
		.offline = config->offline,
		.progress_fd = config->progress_fd,
		.cancel_fd = config->cancel_fd,
	};
	int rc = images_pull(husk, config->image, &options, &id, err);
	return rc < 0 ? rc : image_find(husk->home, id, config->platform, out, err);
}
