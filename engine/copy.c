/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy.c - files of a running VM: trees in and out, and single files from memory
 *
 * Theory of operation: `docker cp` names the copy by where it goes: into a directory under its own name, elsewhere under the
 * name that is given. The guest's agent decides that for what comes in, tree_receive.c for what goes out; both need the source's
 * own name, which is had from its path.
 */
#include "engine/copy.h"

#include "base/cleanup.h"
#include "engine/tree.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CLEANUP_LINK CLEANUP(tree_link_close)

int copy_own_name(const char *path, char name[256], struct husk_error *err)
{
	size_t end = strlen(path);
	while (end > 1 && path[end - 1] == '/')
		end--;
	size_t start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	size_t n = end - start;
	name[0] = 0;
	if (end == 0)
		return error_set(err, -EINVAL, "copy: a path is empty");
	if (n == 2 && path[start] == '.' && path[start + 1] == '.')
		return error_set(
			err, -EINVAL, "copy: '%s' does not say by which name; end it in '/.' for what is in it", path);
	if (n > 255)
		return error_set(err, -ENAMETOOLONG, "copy: the name of '%.100s…' is too long", path);
	if (n == 0 || (n == 1 && path[start] == '.') || path[0] == 0)
		return 0;
	if (end == 1 && path[0] == '/')
		return 0;
	memcpy(name, path + start, n);
	name[n] = 0;
	return 0;
}

int copy_in(const struct husk *husk, const char *id, const char *from, const char *to,
	const struct husk_copy_options *options, struct husk_error *err)
{
	CLEANUP_LINK struct tree_link link = TREE_LINK_INIT;
	CLEANUP_FD int fd = -1;
	char name[256];
	struct stat st;
	int rc = copy_own_name(from, name, err);
	rc = rc < 0 ? rc : tree_open_source(from, options->follow, &fd, &st, err);
	if (rc < 0)
		return rc;
	if (!name[0] && !S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR, "copy %s: not a directory", from);
	rc = tree_link_open(&link, husk, id, AGENT_PUT, to, name[0] ? name : NULL,
		options->archive ? AGENT_TREE_FLAG_OWNER : 0, options, err);
	return rc < 0 ? rc : tree_send(&link, fd, &st, from, err);
}

int copy_out(const struct husk *husk, const char *id, const char *from, const char *to,
	const struct husk_copy_options *options, struct husk_error *err)
{
	CLEANUP_LINK struct tree_link link = TREE_LINK_INIT;
	char name[256];
	int rc = copy_own_name(from, name, err);
	const struct tree_target target = {.path = to, .name = name[0] ? name : NULL, .archive = options->archive};
	rc = rc < 0 ? rc
		    : tree_link_open(&link, husk, id, AGENT_GET, from, NULL,
			      options->follow ? AGENT_TREE_FLAG_FOLLOW : 0, options, err);
	return rc < 0 ? rc : tree_receive(&link, &target, err);
}

/* ---- single files ---- */

int copy_write_file(const struct husk *husk, const char *id, const char *path, const void *data, size_t n,
	uint32_t mode, const struct husk_copy_options *options, struct husk_error *err)
{
	CLEANUP_LINK struct tree_link link = TREE_LINK_INIT;
	struct timespec now;
	char name[256];
	int rc = copy_own_name(path, name, err);
	if (rc < 0)
		return rc;
	if (!name[0] || path[strlen(path) - 1] == '/')
		return error_set(err, -EISDIR, "'%s' is no name of a file", path);
	if (mode & ~07777u)
		return error_set(err, -EINVAL, "%o is no mode of a file", mode);
	/* Into the directory, under its name: a directory with that name is not replaced, nor written into. */
	CLEANUP_FREE char *directory = strndup(path, (size_t)(strrchr(path, '/') ? strrchr(path, '/') - path + 1 : 0));
	CLEANUP_FREE struct agent_entry *entry = calloc(1, sizeof(*entry));
	if (!directory || !entry)
		return error_set(err, -ENOMEM, "write '%s': out of memory", path);
	clock_gettime(CLOCK_REALTIME, &now);
	entry->type = AGENT_FILE;
	entry->mode = mode ? mode : 0644;
	entry->size = n;
	entry->mtime_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	rc = tree_link_open(&link, husk, id, AGENT_PUT, directory, name, 0, options, err);
	if (rc == 0 && agent_entry_put(&link.out, entry) < 0)
		return error_set(err, -ENOMEM, "write '%s': out of memory", path);
	for (size_t at = 0; at < n && rc == 0;) {
		size_t piece = n - at < TREE_CHUNK ? n - at : TREE_CHUNK;
		if (agent_data_put(&link.out, at, (const uint8_t *)data + at, piece) < 0)
			return error_set(err, -ENOMEM, "write '%s': out of memory", path);
		at += piece;
		rc = tree_link_send(&link, false, err);
	}
	return rc < 0 ? rc : tree_link_finish(&link, err);
}

/** A file that is read into memory. */
struct reading {
	const char *path;
	size_t max;
	struct buffer bytes;
	uint64_t size;
	bool begun;
};

/** Bytes of the file as they come; what is left out is zero. */
static int take_bytes(struct reading *r, const struct agent_frame *frame, struct husk_error *err)
{
	const uint8_t *bytes;
	uint64_t offset, have = r->bytes.size;
	size_t n;
	if (!r->begun || !agent_data_get(frame, &offset, &bytes, &n) || offset < have || offset + n > r->size)
		return error_set(err, -EPROTO, "read '%s': the guest's agent broke the protocol", r->path);
	uint8_t *to = buffer_reserve(&r->bytes, (size_t)(offset - have) + n + 1);
	if (!to)
		return error_set(
			err, -ENOMEM, "read '%s': no memory for %llu bytes", r->path, (unsigned long long)r->size);
	memset(to, 0, (size_t)(offset - have));
	memcpy(to + (offset - have), bytes, n);
	buffer_commit(&r->bytes, (size_t)(offset - have) + n);
	return 0;
}

static int take_root(struct reading *r, const struct agent_frame *frame, struct husk_error *err)
{
	CLEANUP_FREE struct agent_entry *entry = calloc(1, sizeof(*entry));
	if (!entry)
		return error_set(err, -ENOMEM, "read '%s': out of memory", r->path);
	if (r->begun || !agent_entry_get(frame, entry) || entry->name[0])
		return error_set(err, -EPROTO, "read '%s': the guest's agent broke the protocol", r->path);
	r->begun = true;
	r->size = entry->size;
	if (entry->type == AGENT_DIRECTORY)
		return error_set(err, -EISDIR, "read '%s': it is a directory", r->path);
	if (entry->type != AGENT_FILE)
		return error_set(err, -EINVAL, "read '%s': it is not a file", r->path);
	if (entry->size > r->max)
		return error_set(err, -EFBIG, "read '%s': it has %llu bytes, and %zu are wanted at most", r->path,
			(unsigned long long)entry->size, r->max);
	return 0;
}

int copy_read_file(const struct husk *husk, const char *id, const char *path, size_t max, void **data, size_t *n,
	const struct husk_copy_options *options, struct husk_error *err)
{
	CLEANUP_LINK struct tree_link link = TREE_LINK_INIT;
	struct reading r = {.path = path, .max = max};
	struct agent_frame frame = {0};
	int rc = tree_link_open(&link, husk, id, AGENT_GET, path, NULL, AGENT_TREE_FLAG_FOLLOW, options, err);
	while (rc == 0 && frame.type != AGENT_END) {
		rc = tree_link_receive(&link, &frame, err);
		if (rc == 0 && frame.type == AGENT_ENTRY)
			rc = take_root(&r, &frame, err);
		else if (rc == 0 && frame.type == AGENT_DATA)
			rc = take_bytes(&r, &frame, err);
		else if (rc == 0 && (frame.type != AGENT_END || !r.begun))
			rc = error_set(err, -EPROTO, "read '%s': the guest's agent broke the protocol", path);
	}
	uint8_t *end = rc < 0 ? NULL : buffer_reserve(&r.bytes, (size_t)(r.size - r.bytes.size) + 1);
	if (rc == 0 && !end)
		rc = error_set(err, -ENOMEM, "read '%s': no memory for %llu bytes", path, (unsigned long long)r.size);
	if (rc < 0) {
		buffer_free(&r.bytes);
		return rc;
	}
	memset(end, 0, (size_t)(r.size - r.bytes.size) + 1);
	*data = r.bytes.data; /* nothing was ever consumed from its front */
	*n = (size_t)r.size;
	return 0;
}
