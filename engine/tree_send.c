/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_send.c - a tree of the host's, sent to a guest
 *
 * Theory of operation: depth first, the names of a directory in the order of their bytes. Only the root's path is the user's; from
 * there on each directory is opened anew below the root's descriptor with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, so that one who
 * changes the tree meanwhile leads us nowhere else, and a deep tree costs no descriptors. A thing with several names is sent once
 * and then as a hard link. Holes stay holes. A file has the size that it had when it was opened: what it grows by is not sent, and
 * one that shrinks under our hands is an error, as the copy would be no state that it ever had.
 */
#include "engine/tree.h"

#include "agent/entry.h"
#include "base/bytes.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/** The names of one directory on the way. */
struct level {
	struct level *above;
	char **names;
	size_t n, at;
	size_t length; /* of the directory's own name */
};

struct walk {
	struct tree_link *link;
	int root; /* as a directory */
	int here; /* the directory of the level */
	struct level *level;
	struct agent_links links;
	struct agent_entry entry;
	struct husk_error *err;
};

static int fail(struct walk *w, int code)
{
	char text[512];
	return error_set(
		w->err, code, "copy '%s': %s", tree_name_text(w->entry.name, text, sizeof(text)), strerror(-code));
}

int tree_open_beneath(int dir, const char *name, uint64_t flags, uint32_t mode)
{
	struct open_how how = {.flags = flags | O_CLOEXEC,
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	int fd;
	do /* EAGAIN: something was renamed while the kernel looked (openat2(2)) */
		fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
	while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd < 0 ? -errno : fd;
}

static int send_entry(struct walk *w)
{
	int rc = agent_entry_put(&w->link->out, &w->entry);
	return rc < 0 ? fail(w, rc) : tree_link_send(w->link, false, w->err);
}

/* ---- files ---- */

/** At most @max bytes at @offset as a DATA frame; how many, 0 at the end. */
static ssize_t send_piece(struct walk *w, int fd, uint64_t offset, size_t max)
{
	struct buffer *out = &w->link->out;
	uint8_t *to = buffer_reserve(out, AGENT_HEADER_SIZE + 8 + max);
	ssize_t n = to ? pread(fd, to + AGENT_HEADER_SIZE + 8, max, (off_t)offset) : -1;
	if (!to || n < 0)
		return fail(w, to ? -errno : -ENOMEM);
	if (n == 0)
		return 0;
	put_le32(to, 8 + (uint32_t)n);
	to[4] = AGENT_DATA;
	to[5] = 0;
	put_le16(to + 6, 0);
	put_le64(to + AGENT_HEADER_SIZE, offset);
	buffer_commit(out, AGENT_HEADER_SIZE + 8 + (size_t)n);
	tree_link_count(w->link, (size_t)n);
	int rc = tree_link_send(w->link, false, w->err);
	return rc < 0 ? rc : n;
}

/** What lies between holes. */
static int send_contents(struct walk *w, int fd)
{
	uint64_t size = w->entry.size, at = 0;
	while (at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		struct stat st;
		if (data < 0 && errno == ENXIO) /* a hole up to the end, wherever that is now */
			return fstat(fd, &st) < 0            ? fail(w, -errno)
			       : (uint64_t)st.st_size < size ? fail(w, -ESTALE)
							     : 0;
		off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		at = data < 0 ? at : (uint64_t)data;
		uint64_t end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
		while (at < end) {
			ssize_t n = send_piece(w, fd, at, end - at < TREE_CHUNK ? (size_t)(end - at) : TREE_CHUNK);
			if (n <= 0)
				return n < 0 ? (int)n : fail(w, -ESTALE);
			at += (uint64_t)n;
		}
	}
	return 0;
}

static int send_file(struct walk *w, int fd)
{
	struct stat st;
	if (fd < 0)
		return fail(w, fd);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return fail(w, -ESTALE);
	agent_entry_describe(&w->entry, &st);
	int rc = send_entry(w);
	return rc < 0 ? rc : send_contents(w, fd);
}

/* ---- directories ---- */

static void leave_level(struct walk *w)
{
	struct level *level = w->level;
	w->level = level->above;
	w->entry.name[level->length] = 0;
	for (size_t i = 0; i < level->n; i++)
		free(level->names[i]);
	free(level->names);
	free(level);
	cleanup_fd(&w->here);
	w->here = -1;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_names(struct level *level, DIR *dir)
{
	struct dirent *d;
	errno = 0;
	while ((d = readdir(dir))) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if ((level->n & (level->n - 1)) == 0) { /* grown in powers of two */
			char **more = realloc(level->names, (level->n ? level->n * 2 : 1) * sizeof(*more));
			if (!more)
				return -ENOMEM;
			level->names = more;
		}
		if (!(level->names[level->n] = strdup(d->d_name)))
			return -ENOMEM;
		level->n++;
		errno = 0;
	}
	if (errno)
		return -errno;
	if (level->n)
		qsort(level->names, level->n, sizeof(*level->names), compare_names);
	return 0;
}

/** The directory of the entry is what comes next. */
static int enter_level(struct walk *w)
{
	struct level *level = calloc(1, sizeof(*level));
	if (!level)
		return fail(w, -ENOMEM);
	level->above = w->level;
	level->length = strlen(w->entry.name);
	w->level = level;
	int fd = tree_open_beneath(w->root, level->length ? w->entry.name : ".", O_RDONLY | O_DIRECTORY, 0);
	CLEANUP_DIR DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return fail(w, fd < 0 ? fd : -errno);
	cleanup_fd(&w->here);
	w->here = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	int rc = w->here < 0 ? -errno : read_names(level, dir);
	return rc < 0 ? fail(w, rc) : 0;
}

/** The level's directory, which is closed while one below it is read. */
static int open_here(struct walk *w)
{
	size_t length = w->level->length;
	char saved = w->entry.name[length];
	w->entry.name[length] = 0;
	w->here = tree_open_beneath(w->root, length ? w->entry.name : ".", O_RDONLY | O_DIRECTORY, 0);
	int rc = w->here < 0 ? fail(w, w->here) : 0;
	w->entry.name[length] = saved;
	return rc;
}

/** One thing that is not the root. */
static int send_thing(struct walk *w, const char *base)
{
	struct stat st;
	if (fstatat(w->here, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(w, -errno); /* it has gone meanwhile */
	agent_entry_describe(&w->entry, &st);
	if (S_ISSOCK(st.st_mode)) {
		tree_link_skip(w->link, w->entry.name, "a socket");
		return 0;
	}
	int rc = agent_links_meet(&w->links, &w->entry, &st);
	if (rc != 0)
		return rc < 0 ? fail(w, rc) : send_entry(w);
	if (S_ISREG(st.st_mode)) {
		CLEANUP_FD int fd = tree_open_beneath(w->here, base, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
		return send_file(w, fd);
	}
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(w->here, base, w->entry.link, sizeof(w->entry.link));
		if (n <= 0 || n > AGENT_NAME_MAX)
			return fail(w, n < 0 ? -errno : -ENAMETOOLONG);
		w->entry.link[n] = 0;
	}
	rc = send_entry(w);
	return rc == 0 && S_ISDIR(st.st_mode) ? enter_level(w) : rc;
}

static int send_level(struct walk *w)
{
	struct level *level = w->level;
	if (level->at == level->n) {
		leave_level(w);
		return 0;
	}
	const char *base = level->names[level->at++];
	int rc = w->here < 0 ? open_here(w) : 0;
	if (rc < 0)
		return rc;
	size_t room = sizeof(w->entry.name) - level->length;
	w->entry.name[level->length] = 0;
	if (level->length + strlen(base) + 1 > AGENT_NAME_MAX)
		return fail(w, -ENAMETOOLONG);
	snprintf(w->entry.name + level->length, room, "%s%s", level->length ? "/" : "", base);
	return send_thing(w, base);
}

static int send_all(struct walk *w, int fd, const struct stat *st, const char *from)
{
	if (S_ISREG(st->st_mode))
		return send_file(w, fd);
	agent_entry_describe(&w->entry, st);
	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlinkat(fd, "", w->entry.link, sizeof(w->entry.link));
		if (n <= 0 || n > AGENT_NAME_MAX)
			return error_errno(w->err, "read the link %s", from);
		w->entry.link[n] = 0;
	}
	int rc = send_entry(w);
	if (rc < 0 || !S_ISDIR(st->st_mode))
		return rc;
	w->root = fd;
	rc = enter_level(w);
	while (rc == 0 && w->level)
		rc = send_level(w);
	return rc;
}

int tree_open_source(const char *from, bool follow, int *fd, struct stat *st, struct husk_error *err)
{
	int flags = O_CLOEXEC | O_NOCTTY | (follow ? 0 : O_NOFOLLOW);
	CLEANUP_FD int path = open(from, O_PATH | flags);
	if (path < 0 || fstat(path, st) < 0)
		return error_errno(err, "copy %s", from);
	if (S_ISSOCK(st->st_mode))
		return error_set(err, -EINVAL, "copy %s: a socket cannot be copied", from);
	*fd = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) ? open(from, O_RDONLY | O_NONBLOCK | flags)
							   : steal_fd(&path);
	return *fd < 0 ? error_errno(err, "copy %s", from) : 0;
}

int tree_send(struct tree_link *link, int fd, const struct stat *st, const char *from, struct husk_error *err)
{
	CLEANUP_FREE struct walk *w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(err, -ENOMEM, "copy %s: out of memory", from);
	w->link = link;
	w->root = w->here = -1;
	w->err = err;
	int rc = send_all(w, fd, st, from);
	while (w->level)
		leave_level(w);
	agent_links_free(&w->links);
	cleanup_fd(&w->here);
	return rc < 0 ? rc : tree_link_finish(link, err);
}
