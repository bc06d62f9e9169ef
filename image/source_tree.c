/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_tree.c - the named files of a directory or an archive
 *
 * Theory of operation: a directory is read in place with openat2(RESOLVE_BENEATH), so neither ".." nor a link leads out of
 * it. An archive's manifest usually comes last, so its regular members are unpacked first, in one pass, to numbered files
 * of a directory under partial/: no name from the archive is ever used as a path, names live in a table only, and links
 * are followed within the table. The directory holds a flock, by which garbage collection knows that it is in use.
 */
#include "image/source.h"

#include "base/fd.h"
#include "base/path.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MEMBERS_MAX 65536
#define NAME_MAX_BYTES 4096
#define LINKS_MAX 8
#define CHUNK (256u << 10)

struct member {
	char *name;
	char *link; /* normalised name of what it links to, or NULL */
	size_t number;
};

struct tree {
	struct store *store;
	char *path; /* of the source, for messages */
	int fd; /* the directory, or that of the unpacked members */
	bool archive;
	char temporary[64]; /* under partial/ */
	struct member *members;
	size_t n, room;
};

/** @name relative to the directory part of @base (may be NULL), without ".", "..", "//"; NULL when it leads out. */
static char *normalise(const char *base, const char *name)
{
	const char *slash = base && name[0] != '/' ? strrchr(base, '/') : NULL;
	CLEANUP_FREE char *joined = slash ? path_format("%.*s/%s", (int)(slash - base), base, name) : strdup(name);
	char *out = joined ? calloc(1, strlen(joined) + 2) : NULL;
	if (!out)
		return NULL;
	char *rest = joined, *part;
	size_t n = 0;
	while ((part = strsep(&rest, "/"))) {
		if (!*part || strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			if (!n) {
				free(out);
				return NULL;
			}
			char *last = strrchr(out, '/');
			n = last ? (size_t)(last - out) : 0;
			out[n] = 0;
			continue;
		}
		n += (size_t)sprintf(out + n, "%s%s", n ? "/" : "", part);
	}
	return out;
}

static int add_member(struct tree *tree, const char *name, const char *link, bool symbolic, struct husk_error *err)
{
	CLEANUP_FREE char *normal = normalise(NULL, name);
	if (!normal || !*normal)
		return 0; /* "..": nothing that a manifest may name */
	if (tree->n == MEMBERS_MAX)
		return error_set(err, -EFBIG, "%s: more than %d members", tree->path, MEMBERS_MAX);
	if (tree->n == tree->room) {
		size_t room = tree->room ? 2 * tree->room : 64;
		struct member *more = reallocarray(tree->members, room, sizeof(*more));
		if (!more)
			return error_set(err, -ENOMEM, "%s: out of memory", tree->path);
		tree->members = more;
		tree->room = room;
	}
	struct member *m = &tree->members[tree->n];
	*m = (struct member){.number = tree->n};
	if (link) {
		m->link = normalise(symbolic ? normal : NULL, link);
		if (!m->link)
			return 0;
	}
	m->name = steal_pointer(&normal);
	tree->n++;
	return 1;
}

static int write_member(struct tree *tree, struct archive *archive, struct husk_error *err)
{
	char file[32];
	snprintf(file, sizeof(file), "%zu", tree->n - 1);
	CLEANUP_FD int fd = openat(tree->fd, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CLEANUP_FREE char *chunk = malloc(CHUNK);
	if (fd < 0 || !chunk)
		return error_errno(err, "unpack %s", tree->path);
	for (;;) {
		if (tree->store->stop && *tree->store->stop)
			return error_set(err, -ECANCELED, "cancelled");
		la_ssize_t n = archive_read_data(archive, chunk, CHUNK);
		if (n == 0)
			return 0;
		if (n < 0)
			return error_set(err, -EBADMSG, "%s: %s", tree->path, archive_error_string(archive));
		int rc = fd_write_all(fd, chunk, (size_t)n);
		if (rc < 0) {
			errno = -rc;
			return error_errno(err, "unpack %s", tree->path);
		}
	}
}

static int unpack_member(
	struct tree *tree, struct archive *archive, struct archive_entry *entry, struct husk_error *err)
{
	const char *name = archive_entry_pathname(entry);
	const char *hard = archive_entry_hardlink(entry), *symbolic = NULL;
	if (!hard && archive_entry_filetype(entry) == AE_IFLNK)
		symbolic = archive_entry_symlink(entry);
	else if (!hard && archive_entry_filetype(entry) != AE_IFREG)
		return 0;
	if (!name || strlen(name) > NAME_MAX_BYTES)
		return 0;
	int rc = add_member(tree, name, hard ? hard : symbolic, symbolic != NULL, err);
	return rc == 1 && !hard && !symbolic ? write_member(tree, archive, err) : rc < 0 ? rc : 0;
}

static void cleanup_archive(struct archive **archive)
{
	archive_read_free(*archive);
}

static int unpack(struct tree *tree, int fd, struct husk_error *err)
{
	CLEANUP(cleanup_archive) struct archive *archive = archive_read_new();
	if (!archive)
		return error_set(err, -ENOMEM, "%s: out of memory", tree->path);
	archive_read_support_filter_gzip(archive);
	archive_read_support_filter_zstd(archive);
	archive_read_support_filter_xz(archive);
	archive_read_support_filter_bzip2(archive);
	archive_read_support_format_tar(archive);
	if (archive_read_open_fd(archive, fd, CHUNK) != ARCHIVE_OK)
		return error_set(err, -EBADMSG, "%s: not a tar archive: %s", tree->path, archive_error_string(archive));
	for (;;) {
		struct archive_entry *entry;
		int rc = archive_read_next_header(archive, &entry);
		if (rc == ARCHIVE_EOF)
			return 0;
		if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
			return error_set(err, -EBADMSG, "%s: %s", tree->path, archive_error_string(archive));
		rc = unpack_member(tree, archive, entry, err);
		if (rc < 0)
			return rc;
	}
}

static int open_archive(struct tree *tree, struct husk_error *err)
{
	static int counter;
	CLEANUP_FD int fd = open(tree->path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open %s", tree->path);
	if (S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, "open %s: a directory, not an archive", tree->path);
	snprintf(tree->temporary, sizeof(tree->temporary), "archive-%d-%d", (int)getpid(), counter++);
	int rc = store_temporary_directory(tree->store, tree->temporary, &tree->fd, err);
	return rc < 0 ? rc : unpack(tree, fd, err);
}

int tree_open(const char *path, bool archive, struct store *store, struct tree **out, struct husk_error *err)
{
	struct tree *tree = calloc(1, sizeof(*tree));
	if (!tree)
		return error_set(err, -ENOMEM, "open %s: out of memory", path);
	*tree = (struct tree){.store = store, .fd = -1, .archive = archive, .path = strdup(path)};
	int rc = tree->path ? 0 : error_set(err, -ENOMEM, "open %s: out of memory", path);
	if (rc == 0 && archive)
		rc = open_archive(tree, err);
	else if (rc == 0 && (tree->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = error_errno(err, "open %s", path);
	if (rc < 0)
		tree_close(tree);
	else
		*out = tree;
	return rc;
}

void tree_close(struct tree *tree)
{
	if (!tree)
		return;
	if (tree->temporary[0])
		store_temporary_remove(tree->store, tree->temporary);
	if (tree->fd >= 0)
		close(tree->fd);
	for (size_t i = 0; i < tree->n; i++) {
		free(tree->members[i].name);
		free(tree->members[i].link);
	}
	free(tree->members);
	free(tree->path);
	free(tree);
}

/** The member @name, links followed; the last of several of one name counts, as when unpacked. */
static const struct member *find_member(const struct tree *tree, const char *name)
{
	for (int links = 0; links <= LINKS_MAX; links++) {
		const struct member *found = NULL;
		for (size_t i = tree->n; i && !found; i--)
			if (strcmp(tree->members[i - 1].name, name) == 0)
				found = &tree->members[i - 1];
		if (!found || !found->link)
			return found;
		name = found->link;
	}
	return NULL;
}

int tree_file(const struct tree *tree, const char *name, int *out, struct husk_error *err)
{
	char number[32];
	const char *path = name;
	if (tree->archive) {
		CLEANUP_FREE char *normal = normalise(NULL, name);
		const struct member *member = normal ? find_member(tree, normal) : NULL;
		if (!member)
			return error_set(err, -ENOENT, "%s: '%.200s' is not in it", tree->path, name);
		snprintf(number, sizeof(number), "%zu", member->number);
		path = number;
	}
	struct open_how how = {
		.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	CLEANUP_FD int fd = (int)syscall(SYS_openat2, tree->fd, path, &how, sizeof(how));
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open '%.200s' of %s", name, tree->path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EBADMSG, "open '%.200s' of %s: not a regular file", name, tree->path);
	*out = steal_fd(&fd);
	return 0;
}

int tree_read(const struct tree *tree, const char *name, size_t limit, struct buffer *out, struct husk_error *err)
{
	CLEANUP_FD int fd = -1;
	int rc = tree_file(tree, name, &fd, err);
	if (rc < 0)
		return rc;
	rc = fd_read_to_end(fd, out, limit);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "read '%.200s' of %s", name, tree->path);
	}
	return 0;
}
