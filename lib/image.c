/* SPDX-License-Identifier: Apache-2.0 */
/* image.c - images and kernels in the public API */
#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/images.h"
#include "base/adopt.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>

void husk_pull_options_init(struct husk_pull_options *options)
{
	*options = (struct husk_pull_options){.size = sizeof(*options), .progress_fd = -1, .cancel_fd = -1};
}

static int adopt_options(
	struct husk_pull_options *options, const struct husk_pull_options *given, struct husk_error *err)
{
	husk_pull_options_init(options);
	return given ? adopt_struct(options, sizeof(*options), given, "struct husk_pull_options", err) : 0;
}

/** What a command printed, as a string of the caller's without its last newline; @text may be NULL. */
static int take_text(struct buffer *out, char **text, struct husk_error *err)
{
	if (!text)
		return 0;
	size_t n = out->size;
	while (n && buffer_bytes(out)[n - 1] == '\n')
		n--;
	*text = n ? strndup((const char *)buffer_bytes(out), n) : strdup("");
	return *text ? 0 : error_set(err, -ENOMEM, "read husk-image's answer: out of memory");
}

static int command(struct husk *husk, const char *const *args, int stdin_fd, char **text, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer out = {0};
	int rc = images_command(husk, args, stdin_fd, -1, -1, &out, err);
	return rc < 0 ? rc : take_text(&out, text, err);
}

/** A name of the user's goes to husk-image as an operand; one that looks like an option never does. */
static int check_operand(const char *text, const char *what, struct husk_error *err)
{
	return text && *text && *text != '-' ? 0 : error_set(err, -EINVAL, "'%s' is not %s", text ? text : "", what);
}

int husk_image_pull(
	struct husk *husk, const char *source, const struct husk_pull_options *given, char **id, struct husk_error *err)
{
	struct husk_pull_options options;
	CLEANUP_FREE char *pulled = NULL;
	int rc = adopt_options(&options, given, err);
	rc = rc < 0 ? rc : images_pull(husk, source, &options, &pulled, err);
	if (rc == 0 && id)
		*id = steal_pointer(&pulled);
	return rc;
}

static json_t *strings(char **list)
{
	json_t *array = json_array();
	for (; list && *list; list++)
		json_array_append_new(array, json_string(*list));
	return array;
}

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static json_t *image_json(const struct image_record *r)
{
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:I}", "id", r->id, "names", strings(r->names), "created",
		text_or_null(r->created), "os", text_or_null(r->os), "architecture", text_or_null(r->architecture),
		"size", (json_int_t)r->size);
}

int husk_image_list(struct husk *husk, char **json, struct husk_error *err)
{
	struct image_record *records = NULL;
	size_t n = 0;
	int rc = image_list(husk->home, &records, &n, err);
	if (rc < 0)
		return rc;
	json_t *array = json_array();
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(array, image_json(&records[i]));
		image_record_free(&records[i]);
	}
	free(records);
	*json = json_dumps(array, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(array);
	return *json ? 0 : error_set(err, -ENOMEM, "list images: out of memory");
}

int husk_image_inspect(struct husk *husk, const char *name, char **json, struct husk_error *err)
{
	int rc = check_operand(name, "an image", err);
	return rc < 0 ? rc : command(husk, (const char *const[]){"inspect", name, NULL}, -1, json, err);
}

int husk_image_remove(struct husk *husk, const char *name, bool force, char **report, struct husk_error *err)
{
	int rc = check_operand(name, "an image", err);
	if (rc < 0)
		return rc;
	const char *const plain[] = {"rmi", name, NULL}, *const forced[] = {"rmi", "-f", name, NULL};
	return command(husk, force ? forced : plain, -1, report, err);
}

int husk_image_import(struct husk *husk, const char *source, const char *name, const struct husk_pull_options *given,
	char **id, struct husk_error *err)
{
	struct husk_pull_options options;
	CLEANUP_BUFFER struct buffer out = {0};
	int rc = adopt_options(&options, given, err);
	if (rc == 0 && strcmp(source, "-") != 0)
		rc = check_operand(source, "a source", err);
	if (rc == 0 && name)
		rc = check_operand(name, "a name", err);
	if (rc < 0)
		return rc;
	const char *args[8];
	size_t n = 0;
	args[n++] = "import";
	if (options.platform) {
		args[n++] = "--platform";
		args[n++] = options.platform;
	}
	if (options.progress_fd < 0)
		args[n++] = "--quiet";
	args[n++] = source;
	if (name)
		args[n++] = name;
	args[n] = NULL;
	rc = images_command(
		husk, args, strcmp(source, "-") == 0 ? 0 : -1, options.progress_fd, options.cancel_fd, &out, err);
	return rc < 0 ? rc : take_text(&out, id, err);
}

int husk_login(struct husk *husk, const char *registry, const char *user, const char *password, struct husk_error *err)
{
	int ends[2];
	int rc = check_operand(registry, "a registry", err);
	if (rc == 0 && (!user || !*user || !password || !*password || strlen(password) > 4000))
		rc = error_set(err, -EINVAL, "log in to %s: user or password is missing or too long", registry);
	if (rc < 0)
		return rc;
	/* The password never is an argument, which other users could read: it goes through a pipe, whose buffer holds it. */
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(err, "log in to %s: make a pipe", registry);
	CLEANUP_FD int reading = ends[0];
	CLEANUP_FD int writing = ends[1];
	rc = fd_write_all(writing, password, strlen(password));
	close(steal_fd(&writing));
	if (rc < 0)
		return error_set(err, rc, "log in to %s: %s", registry, strerror(-rc));
	return command(husk, (const char *const[]){"login", "-u", user, "--password-stdin", registry, NULL},
		reading, NULL, err);
}

int husk_logout(struct husk *husk, const char *registry, struct husk_error *err)
{
	int rc = check_operand(registry, "a registry", err);
	return rc < 0 ? rc : command(husk, (const char *const[]){"logout", registry, NULL}, -1, NULL, err);
}

int husk_image_gc(struct husk *husk, char **report, struct husk_error *err)
{
	return command(husk, (const char *const[]){"gc", NULL}, -1, report, err);
}
