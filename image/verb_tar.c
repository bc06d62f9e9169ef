/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verb_tar.c - tar archives as the agent's frames of a tree, and the other way round, for `husk cp` with "-"
 *
 * Theory of operation: libhusk never parses a tar. It runs this program, which may touch no file (confine.c), between the caller's
 * descriptor and a socket of its own: tar-in reads an archive on stdin and says ENTRY, DATA and END on stdout, tar-out reads these on
 * stdin and writes an archive. The tree's root is a directory that the archive does not need to name, and so are directories which
 * it leaves out; names are made relative, and one with ".." in it is refused. Names are bytes: the locale is "C".
 */
#include "agent/protocol.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "image/verbs.h"

#include <archive.h>
#include <archive_entry.h>
#include <search.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#define PIECE (256u << 10)
#define DIRECTORIES_MAX (1u << 20) /* that are remembered of an archive */

/** Either way: an archive and what goes past. */
struct tar {
	struct archive *archive;
	struct archive_entry *header; /* tar-out: the one under way */
	struct agent_entry entry;
	struct buffer frames; /* tar-in: to be written; tar-out: read */
	size_t used; /* of frames, tar-out: the one that was handed out */
	void *directories; /* tar-in: names that have been said, of tsearch(3) */
	size_t n_directories;
	const char *prefix; /* tar-out: the root's name */
	uint64_t at; /* tar-out: how much of the file is written */
	bool file, begun;
	struct husk_error *err;
};

static int archive_failed(struct tar *t, const char *what)
{
	const char *why = archive_error_string(t->archive);
	int code = archive_errno(t->archive);
	return error_set(t->err, code == ENOMEM || code == ENOSPC || code == EPIPE ? -code : -EINVAL, "%s: %s", what,
		why ? why : "malformed");
}

/* ---- tar-in ---- */

static int flush(struct tar *t)
{
	int rc = fd_write_all(STDOUT_FILENO, buffer_bytes(&t->frames), t->frames.size);
	buffer_consume(&t->frames, t->frames.size);
	return rc < 0 ? error_set(t->err, rc, "hand the archive on: %s", strerror(-rc)) : 0;
}

static int say_entry(struct tar *t, const struct agent_entry *e)
{
	int rc = agent_entry_put(&t->frames, e);
	if (rc < 0)
		return error_set(t->err, rc, "read tar: '%.200s' cannot be in a tree", e->name);
	return t->frames.size > PIECE ? flush(t) : 0;
}

/** @name of the archive as one of a tree: relative, without empty or "." components. */
static int clean_name(struct tar *t, const char *name, char out[AGENT_NAME_MAX + 1])
{
	size_t n = 0;
	while (*name) {
		size_t length = strcspn(name, "/");
		bool skipped = length == 0 || (length == 1 && name[0] == '.');
		if (length == 2 && name[0] == '.' && name[1] == '.')
			return error_set(t->err, -EINVAL, "read tar: a name has '..' in it");
		if (!skipped && n + length + 1 > AGENT_NAME_MAX)
			return error_set(
				t->err, -ENAMETOOLONG, "read tar: a name has more than %d bytes", AGENT_NAME_MAX);
		if (!skipped && n)
			out[n++] = '/';
		if (!skipped) {
			memcpy(out + n, name, length);
			n += length;
		}
		name += length + (name[length] == '/');
	}
	out[n] = 0;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

/** Remember the directory @name: 1 when it is new, 0, or -errno. */
static int remember(struct tar *t, const char *name)
{
	char *copy = strdup(name);
	void *found = copy ? tsearch(copy, &t->directories, compare) : NULL;
	if (!found) {
		free(copy);
		return error_set(t->err, -ENOMEM, "read tar: out of memory");
	}
	if (*(char **)found != copy) {
		free(copy);
		return 0;
	}
	if (++t->n_directories > DIRECTORIES_MAX)
		return error_set(t->err, -E2BIG, "read tar: more than %u directories", DIRECTORIES_MAX);
	return 1;
}

/** Say the directories in which @name lies, as far as the archive has not. */
static int say_parents(struct tar *t, const char *name)
{
	static struct agent_entry parent;
	int rc = 0;
	for (const char *slash = strchr(name, '/'); slash && rc >= 0; slash = strchr(slash + 1, '/')) {
		parent = (struct agent_entry){.type = AGENT_DIRECTORY, .mode = 0755, .mtime_ns = t->entry.mtime_ns};
		memcpy(parent.name, name, (size_t)(slash - name));
		rc = remember(t, parent.name);
		if (rc > 0)
			rc = say_entry(t, &parent);
	}
	return rc < 0 ? rc : 0;
}

/** What kind of thing the archive's entry @h is; 0: none. */
static enum agent_entry_type type_of(struct archive_entry *h)
{
	if (archive_entry_hardlink(h))
		return AGENT_HARDLINK;
	switch (archive_entry_filetype(h)) {
	case AE_IFREG:
		return AGENT_FILE;
	case AE_IFDIR:
		return AGENT_DIRECTORY;
	case AE_IFLNK:
		return AGENT_SYMLINK;
	case AE_IFIFO:
		return AGENT_FIFO;
	case AE_IFCHR:
		return AGENT_CHARACTER;
	case AE_IFBLK:
		return AGENT_BLOCK;
	default:
		return 0;
	}
}

static int take_header(struct tar *t, struct archive_entry *h)
{
	struct agent_entry *e = &t->entry;
	const char *name = archive_entry_pathname(h), *link = archive_entry_hardlink(h);
	int64_t ns, seconds = archive_entry_mtime(h);
	*e = (struct agent_entry){
		.type = type_of(h),
		.mode = archive_entry_perm(h) & 07777,
		.uid = (uint32_t)archive_entry_uid(h),
		.gid = (uint32_t)archive_entry_gid(h),
	};
	if (!name || !e->type)
		return error_set(t->err, -EINVAL, "read tar: an entry without a name, or of an unknown type");
	if (!__builtin_mul_overflow(seconds, 1000000000, &ns) &&
		!__builtin_add_overflow(ns, (int64_t)archive_entry_mtime_nsec(h), &ns))
		e->mtime_ns = ns;
	if (e->type == AGENT_FILE && archive_entry_size(h) < 0)
		return error_set(t->err, -EINVAL, "read tar: a negative size");
	if (e->type == AGENT_FILE)
		e->size = (uint64_t)archive_entry_size(h);
	if (e->type == AGENT_CHARACTER || e->type == AGENT_BLOCK)
		e->device = (uint64_t)archive_entry_rdevmajor(h) << 32 | (uint32_t)archive_entry_rdevminor(h);
	if (link)
		return clean_name(t, link, e->link);
	if (e->type == AGENT_SYMLINK) {
		link = archive_entry_symlink(h);
		size_t n = link ? strlen(link) : 0;
		if (n == 0 || n > AGENT_NAME_MAX)
			return error_set(t->err, -EINVAL, "read tar: a symbolic link of %zu bytes", n);
		memcpy(e->link, link, n + 1);
	}
	return 0;
}

static int say_contents(struct tar *t)
{
	const void *bytes;
	size_t n;
	la_int64_t offset;
	int status;
	while ((status = archive_read_data_block(t->archive, &bytes, &n, &offset)) == ARCHIVE_OK ||
		status == ARCHIVE_WARN)
		for (size_t at = 0; at < n;) {
			size_t piece = n - at < PIECE ? n - at : PIECE;
			int rc = offset < 0 ? -EINVAL
					    : agent_data_put(&t->frames, (uint64_t)offset + at,
						      (const uint8_t *)bytes + at, piece);
			rc = rc < 0 ? error_set(t->err, rc, "read tar: %s", strerror(-rc)) : flush(t);
			if (rc < 0)
				return rc;
			at += piece;
		}
	return status == ARCHIVE_EOF ? 0 : archive_failed(t, "read tar");
}

static int say_thing(struct tar *t, struct archive_entry *h)
{
	int rc = take_header(t, h);
	rc = rc < 0 ? rc : clean_name(t, archive_entry_pathname(h), t->entry.name);
	if (rc < 0)
		return rc;
	bool directory = t->entry.type == AGENT_DIRECTORY;
	if (!t->entry.name[0])
		return directory ? 0 : error_set(t->err, -EINVAL, "read tar: an entry without a name");
	rc = say_parents(t, t->entry.name);
	if (rc == 0 && directory)
		rc = remember(t, t->entry.name);
	rc = rc < 0 ? rc : say_entry(t, &t->entry);
	return rc == 0 && t->entry.type == AGENT_FILE ? say_contents(t) : rc;
}

static int read_archive(struct tar *t)
{
	struct archive_entry *h;
	int status = ARCHIVE_OK;
	t->archive = archive_read_new();
	if (!t->archive)
		return error_set(t->err, -ENOMEM, "read tar: out of memory");
	archive_read_support_format_tar(t->archive);
	archive_read_support_filter_gzip(t->archive);
	archive_read_support_filter_bzip2(t->archive);
	archive_read_support_filter_xz(t->archive);
	archive_read_support_filter_zstd(t->archive);
	if (archive_read_open_fd(t->archive, STDIN_FILENO, PIECE) != ARCHIVE_OK)
		return archive_failed(t, "read tar");
	const struct agent_entry root = {
		.type = AGENT_DIRECTORY, .mode = 0755, .mtime_ns = (int64_t)time(NULL) * 1000000000};
	int rc = say_entry(t, &root);
	while (rc == 0) {
		status = archive_read_next_header(t->archive, &h);
		if (status == ARCHIVE_EOF)
			break;
		rc = status == ARCHIVE_OK || status == ARCHIVE_WARN ? say_thing(t, h) : archive_failed(t, "read tar");
	}
	if (rc == 0 && agent_frame_put(&t->frames, AGENT_END, 0, NULL, 0) < 0)
		return error_set(t->err, -ENOMEM, "read tar: out of memory");
	return rc < 0 ? rc : flush(t);
}

int verb_tar_in(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	struct tar *t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(err, -ENOMEM, "read tar: out of memory");
	t->err = err;
	int rc = argc == 1 ? read_archive(t) : error_set(err, -EINVAL, "usage: husk-image tar-in");
	archive_read_free(t->archive);
	tdestroy(t->directories, free);
	buffer_free(&t->frames);
	free(t);
	return rc;
}

/* ---- tar-out ---- */

static int hear(struct tar *t, struct agent_frame *frame)
{
	buffer_consume(&t->frames, t->used);
	t->used = 0;
	for (;;) {
		long n = t->frames.size ? agent_frame_decode(buffer_bytes(&t->frames), t->frames.size, frame) : 0;
		if (n < 0)
			return error_set(t->err, -EPROTO, "write tar: malformed frame");
		if (n > 0) {
			t->used = (size_t)n;
			return 0;
		}
		ssize_t got = buffer_read(&t->frames, STDIN_FILENO, PIECE);
		if (got <= 0 && got != -EINTR)
			return error_set(t->err, -ECANCELED, "write tar: the tree ended early");
	}
}

/** Zeros up to @end: an archive that is streamed has no holes. */
static int write_zeros(struct tar *t, uint64_t end)
{
	static const uint8_t zeros[64 << 10];
	while (t->at < end) {
		size_t n = end - t->at < sizeof(zeros) ? (size_t)(end - t->at) : sizeof(zeros);
		if (archive_write_data(t->archive, zeros, n) < 0)
			return archive_failed(t, "write tar");
		t->at += n;
	}
	return 0;
}

static int end_file(struct tar *t)
{
	int rc = t->file ? write_zeros(t, t->entry.size) : 0;
	t->file = false;
	return rc;
}

static int write_header(struct tar *t)
{
	static const mode_t types[] = {[AGENT_FILE] = S_IFREG,
		[AGENT_DIRECTORY] = S_IFDIR,
		[AGENT_SYMLINK] = S_IFLNK,
		[AGENT_HARDLINK] = S_IFREG,
		[AGENT_FIFO] = S_IFIFO,
		[AGENT_CHARACTER] = S_IFCHR,
		[AGENT_BLOCK] = S_IFBLK};
	static char name[2 * AGENT_NAME_MAX + 4];
	const struct agent_entry *e = &t->entry;
	struct archive_entry *h = t->header;
	int64_t rest = e->mtime_ns % 1000000000, seconds = e->mtime_ns / 1000000000;
	const char *prefix = *t->prefix ? t->prefix : ".";
	archive_entry_clear(h);
	snprintf(name, sizeof(name), "%s%s%s", prefix, e->name[0] ? "/" : "", e->name);
	archive_entry_set_pathname(h, name);
	archive_entry_set_mode(h, types[e->type] | e->mode);
	archive_entry_set_uid(h, e->uid);
	archive_entry_set_gid(h, e->gid);
	archive_entry_set_mtime(h, rest < 0 ? seconds - 1 : seconds, (long)(rest < 0 ? rest + 1000000000 : rest));
	archive_entry_set_size(h, e->type == AGENT_FILE ? (la_int64_t)e->size : 0);
	if (e->type == AGENT_SYMLINK)
		archive_entry_set_symlink(h, e->link);
	snprintf(name, sizeof(name), "%s/%s", prefix, e->link);
	if (e->type == AGENT_HARDLINK)
		archive_entry_set_hardlink(h, name);
	if (e->type == AGENT_CHARACTER || e->type == AGENT_BLOCK) {
		archive_entry_set_rdevmajor(h, (dev_t)(e->device >> 32));
		archive_entry_set_rdevminor(h, (dev_t)(uint32_t)e->device);
	}
	int status = archive_write_header(t->archive, h);
	return status == ARCHIVE_OK || status == ARCHIVE_WARN ? 0 : archive_failed(t, "write tar");
}

static int write_entry(struct tar *t, const struct agent_frame *frame)
{
	int rc = end_file(t);
	if (rc < 0)
		return rc;
	if (!agent_entry_get(frame, &t->entry) || !t->begun != !t->entry.name[0])
		return error_set(t->err, -EPROTO, "write tar: malformed entry");
	t->begun = true;
	if (t->entry.type == AGENT_SOCKET)
		return 0;
	t->file = t->entry.type == AGENT_FILE;
	t->at = 0;
	return write_header(t);
}

static int write_contents(struct tar *t, const struct agent_frame *frame)
{
	const uint8_t *bytes;
	uint64_t offset;
	size_t n;
	if (!t->file || !agent_data_get(frame, &offset, &bytes, &n) || offset < t->at || offset + n > t->entry.size)
		return error_set(t->err, -EPROTO, "write tar: data out of place");
	int rc = write_zeros(t, offset);
	if (rc == 0 && archive_write_data(t->archive, bytes, n) < 0)
		rc = archive_failed(t, "write tar");
	t->at = offset + n;
	return rc;
}

static int write_archive(struct tar *t)
{
	struct agent_frame frame;
	t->archive = archive_write_new();
	t->header = archive_entry_new();
	if (!t->archive || !t->header)
		return error_set(t->err, -ENOMEM, "write tar: out of memory");
	archive_write_set_format_pax_restricted(t->archive);
	archive_write_set_bytes_in_last_block(t->archive, 1);
	if (archive_write_open_fd(t->archive, STDOUT_FILENO) != ARCHIVE_OK)
		return archive_failed(t, "write tar");
	for (;;) {
		int rc = hear(t, &frame);
		if (rc == 0 && frame.type == AGENT_END)
			break;
		rc = rc < 0                      ? rc
		     : frame.type == AGENT_ENTRY ? write_entry(t, &frame)
		     : frame.type == AGENT_DATA  ? write_contents(t, &frame)
						 : error_set(t->err, -EPROTO, "write tar: a frame out of place");
		if (rc < 0)
			return rc;
	}
	int rc = end_file(t);
	return rc == 0 && archive_write_close(t->archive) != ARCHIVE_OK ? archive_failed(t, "write tar") : rc;
}

int verb_tar_out(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	struct tar *t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(err, -ENOMEM, "write tar: out of memory");
	t->err = err;
	t->prefix = argc > 1 ? argv[1] : "";
	int rc = argc == 2 && strlen(t->prefix) <= 255 ? write_archive(t)
						       : error_set(err, -EINVAL, "usage: husk-image tar-out NAME");
	if (rc < 0 && t->archive)
		archive_write_fail(t->archive); /* half an archive gets no end */
	archive_write_free(t->archive);
	archive_entry_free(t->header);
	buffer_free(&t->frames);
	free(t);
	return rc;
}
