/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user.c - "user[:group]" looked up in the image's own passwd and group
 *
 * Theory of operation: as Docker reads them. The first line whose name or number is what was asked for wins; a number
 * without a line is fine and has group 0 and home "/". Without a group in the spec the user's supplementary groups are
 * those that list its name; with one there are none. The primary group is always among them.
 *
 * The files are an image's, so hostile: read up to a limit, cut into lines and fields by length, never as C strings; lines
 * that are no entries are passed over, as libc does.
 */
#include "guest/user.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define FIELDS_MAX 7
#define ID_MAX 0x7fffffffu /* Docker's limit */

struct text {
	const char *at;
	size_t size;
};

static bool text_is(struct text t, struct text other)
{
	return t.size == other.size && (t.size == 0 || memcmp(t.at, other.at, t.size) == 0);
}

static bool text_number(struct text t, uint32_t *value)
{
	uint64_t n = 0;
	if (!t.size || t.size > 10)
		return false;
	for (size_t i = 0; i < t.size; i++) {
		if (t.at[i] < '0' || t.at[i] > '9')
			return false;
		n = n * 10 + (uint64_t)(t.at[i] - '0');
	}
	if (n > ID_MAX)
		return false;
	*value = (uint32_t)n;
	return true;
}

/** Cut the piece up to @delimiter off the front of @rest. */
static struct text cut(struct text *rest, char delimiter)
{
	const char *end = rest->size ? memchr(rest->at, delimiter, rest->size) : NULL;
	struct text piece = {rest->at, end ? (size_t)(end - rest->at) : rest->size};
	size_t gone = piece.size + (end ? 1 : 0);
	rest->at += gone;
	rest->size -= gone;
	return piece;
}

/** The next entry of at least @n fields whose third is a number (@id); false at the end. */
static bool next_entry(struct text *rest, struct text *fields, size_t n, uint32_t *id)
{
	while (rest->size) {
		struct text line = cut(rest, '\n');
		size_t count = 0;
		if (line.size == 0 || line.at[0] == '#' || memchr(line.at, 0, line.size))
			continue;
		while (count < FIELDS_MAX && (line.size || count == 0))
			fields[count++] = cut(&line, ':');
		for (size_t i = count; i < FIELDS_MAX; i++)
			fields[i] = (struct text){line.at, 0};
		if (count >= n && fields[0].size && text_number(fields[2], id))
			return true;
	}
	return false;
}

static bool matches(struct text wanted, struct text name, uint32_t id)
{
	uint32_t number;
	return text_is(wanted, name) || (text_number(wanted, &number) && number == id);
}

static int add_group(struct user *user, gid_t gid, struct husk_error *err)
{
	for (size_t i = 0; i < user->n_groups; i++)
		if (user->groups[i] == gid)
			return 0;
	if (user->n_groups == USER_GROUPS_MAX)
		return error_set(err, -E2BIG, "more than %d supplementary groups", USER_GROUPS_MAX);
	user->groups[user->n_groups++] = gid;
	return 0;
}

/** Fill uid, gid and home of @wanted; its name (empty when it has no line) goes to @name. */
static int find_user(
	const struct user_files *files, struct text wanted, struct user *out, struct text *name, struct husk_error *err)
{
	struct text rest = {files->passwd, files->passwd_size}, f[FIELDS_MAX];
	struct text root = {"0", 1};
	uint32_t uid, gid;

	while (next_entry(&rest, f, 4, &uid)) {
		if (wanted.size ? !matches(wanted, f[0], uid) : uid != 0)
			continue;
		if (!text_number(f[3], &gid))
			continue;
		out->uid = uid;
		out->gid = gid;
		*name = f[0];
		if (f[5].size && f[5].size < sizeof(out->home) && f[5].at[0] == '/') {
			memcpy(out->home, f[5].at, f[5].size);
			out->home[f[5].size] = 0;
		}
		return 0;
	}
	if (!text_number(wanted.size ? wanted : root, &uid))
		return error_set(err, -ENOENT, "unable to find user %.*s: no matching entries in passwd file",
			(int)(wanted.size < 256 ? wanted.size : 256), wanted.at);
	out->uid = uid;
	return 0;
}

static int find_group(const struct user_files *files, struct text wanted, gid_t *gid, struct husk_error *err)
{
	struct text rest = {files->group, files->group_size}, f[FIELDS_MAX];
	uint32_t id;

	while (next_entry(&rest, f, 3, &id)) {
		if (matches(wanted, f[0], id)) {
			*gid = id;
			return 0;
		}
	}
	if (!text_number(wanted, &id))
		return error_set(err, -ENOENT, "unable to find group %.*s: no matching entries in group file",
			(int)(wanted.size < 256 ? wanted.size : 256), wanted.at);
	*gid = id;
	return 0;
}

/** Add every group that lists @name as a member. */
static int find_memberships(const struct user_files *files, struct text name, struct user *out, struct husk_error *err)
{
	struct text rest = {files->group, files->group_size}, f[FIELDS_MAX];
	uint32_t id;

	while (next_entry(&rest, f, 3, &id)) {
		struct text members = f[3];
		while (members.size) {
			if (!text_is(cut(&members, ','), name))
				continue;
			int rc = add_group(out, id, err);
			if (rc < 0)
				return rc;
			break;
		}
	}
	return 0;
}

int user_resolve(const struct user_files *files, const char *spec, char *const *extra, size_t n, struct user *out,
	struct husk_error *err)
{
	struct text rest = {spec ? spec : "", spec ? strlen(spec) : 0};
	struct text user = cut(&rest, ':'), group = rest, name = {"", 0};

	*out = (struct user){.home = "/"};
	int rc = find_user(files, user, out, &name, err);
	if (rc == 0 && group.size)
		rc = find_group(files, group, &out->gid, err);
	if (rc == 0)
		rc = add_group(out, out->gid, err);
	if (rc == 0 && !group.size && name.size)
		rc = find_memberships(files, name, out, err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		gid_t gid = 0;
		rc = find_group(files, (struct text){extra[i], strlen(extra[i])}, &gid, err);
		if (rc == 0)
			rc = add_group(out, gid, err);
	}
	return rc;
}

/** The content of @path; empty when it is not there or no regular file. */
static int read_file(const char *path, struct buffer *b, struct husk_error *err)
{
	struct stat st;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	int rc = fd_read_to_end(fd, b, USER_FILE_MAX);
	if (rc < 0)
		return error_set(err, rc, "read %s: %s", path, rc == -EFBIG ? "file too large" : strerror(-rc));
	return 0;
}

int user_lookup(const char *spec, char *const *extra, size_t n, struct user *out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer passwd = {0}, group = {0};
	int rc = read_file("/etc/passwd", &passwd, err);
	if (rc == 0)
		rc = read_file("/etc/group", &group, err);
	struct user_files files = {
		.passwd = passwd.size ? (char *)buffer_bytes(&passwd) : "",
		.passwd_size = passwd.size,
		.group = group.size ? (char *)buffer_bytes(&group) : "",
		.group_size = group.size,
	};
	return rc < 0 ? rc : user_resolve(&files, spec, extra, n, out, err);
}
