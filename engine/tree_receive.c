/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_receive.c - a tree of a guest's, written on the host
 *
 * Theory of operation: every name, link and number comes from a guest that may mean ill. The target's path is the user's and is
 * resolved as any program's; from there on things are made by their last name below a descriptor of the directory that they lie in,
 * with calls that follow nothing, and that directory is opened below the root with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS. So a link
 * that this very tree has made, or that lay there before, leads nowhere. A file is always a new one: what had its name is unlinked,
 * not written to. A hard link goes to a file that this copy has made: their inodes are remembered, up to a bound. There are no
 * devices, and set-id bits only where root asked for all of it (archive).
 *
 * A directory that was there stays as it is. One that was made gets mode and time when the tree has gone past it, since its own
 * rights would be in the way before; so what is kept in memory is the way from the root to here, and no list of what an endless tree
 * has sent. What fills up is the disk.
 */
#include "engine/tree.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/tree_inodes.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define MODE_PLAIN 0777u
#define MODE_DIRECTORY 01777u

/** A directory that was made, on the way from the root to here. */
struct open_directory {
	struct open_directory *above;
	uint32_t mode, uid, gid;
	int64_t mtime_ns;
	char name[];
};

struct writer {
	struct tree_link *link;
	const struct tree_target *target;
	bool begun, ended;
	int base; /* where the root lies */
	char root_name[256]; /* its name there */
	bool place_taken; /* something other than a directory is there */
	bool must_be_directory; /* the target's path ends in a slash, or what is in the root is wanted */
	int root; /* the root as a directory; -1: it is none */
	int parent; /* that of parent_name, as it was opened last; -1: none */
	char parent_name[AGENT_NAME_MAX + 1];
	struct open_directory *made;
	int file; /* under way; -1: none */
	uint64_t end; /* of what was written of it */
	struct tree_inodes files;
	struct agent_entry entry;
	struct husk_error *err;
};

static int fail(struct writer *w, int code, const char *what)
{
	char text[400];
	const char *slash = w->entry.name[0] ? "/" : "";
	return error_set(w->err, code, "write '%.400s%s%s': %s", w->target->path, slash,
		tree_name_text(w->entry.name, text, sizeof(text)), what ? what : strerror(-code));
}

static int broke(struct writer *w, const char *what)
{
	return error_set(w->err, -EPROTO, "VM %s: the guest's agent broke the protocol: %s", w->link->id, what);
}

/* ---- where it goes ---- */

/** The user's path is no directory: the one that it lies in, and its name there. */
static int find_place(struct writer *w)
{
	CLEANUP_FREE char *path = strdup(w->target->path);
	size_t n = path ? strlen(path) : 0;
	if (!path)
		return fail(w, -ENOMEM, NULL);
	while (n > 1 && path[n - 1] == '/')
		path[--n] = 0;
	char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return fail(w, -ENOTDIR, NULL);
	if (strlen(name) >= sizeof(w->root_name))
		return fail(w, -ENAMETOOLONG, NULL);
	memcpy(w->root_name, name, strlen(name) + 1);
	if (slash)
		*slash = 0;
	const char *directory = !slash ? "." : slash == path ? "/" : path;
	w->base = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return w->base < 0 ? fail(w, -errno, NULL) : 0;
}

/** A link of the user's own at the path leads to the place. */
static int find_target(struct writer *w)
{
	const char *path = w->target->path, *name = w->target->name;
	size_t length = strlen(path);
	if (length == 0)
		return error_set(w->err, -EINVAL, "copy: there is no path to write to");
	w->must_be_directory = !name || path[length - 1] == '/';
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && !name) {
		w->root = fd;
		return 0;
	}
	if (fd >= 0) {
		w->base = fd;
		w->must_be_directory = false;
		if (strlen(name) >= sizeof(w->root_name))
			return fail(w, -ENAMETOOLONG, NULL);
		memcpy(w->root_name, name, strlen(name) + 1);
		return 0;
	}
	w->place_taken = errno == ENOTDIR;
	if (errno != ENOENT && (errno != ENOTDIR || w->must_be_directory))
		return fail(w, -errno, NULL);
	return find_place(w);
}

/** The directory that the entry @name lies in; *@last is its name there. Not owned by the caller; or -errno. */
static int parent_of(struct writer *w, const char *name, const char **last)
{
	const char *slash = strrchr(name, '/');
	*last = slash ? slash + 1 : name;
	if (!slash)
		return w->root;
	size_t n = (size_t)(slash - name);
	if (w->parent >= 0 && strncmp(w->parent_name, name, n) == 0 && !w->parent_name[n])
		return w->parent;
	cleanup_fd(&w->parent);
	memcpy(w->parent_name, name, n);
	w->parent_name[n] = 0;
	w->parent = tree_open_beneath(w->root, w->parent_name, O_RDONLY | O_DIRECTORY, 0);
	return w->parent;
}

/* ---- attributes ---- */

static void times_of(int64_t mtime_ns, struct timespec times[2])
{
	int64_t rest = mtime_ns % 1000000000, seconds = mtime_ns / 1000000000;
	times[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	times[1] = (struct timespec){.tv_sec = (time_t)(rest < 0 ? seconds - 1 : seconds),
		.tv_nsec = (long)(rest < 0 ? rest + 1000000000 : rest)};
}

static bool with_owner(const struct writer *w)
{
	return w->target->archive && geteuid() == 0;
}

/** To a file or directory. The owner first, since that takes the set-id bits away. */
static int apply(
	const struct writer *w, int fd, uint32_t mode, uint32_t uid, uint32_t gid, int64_t mtime_ns, uint32_t plain)
{
	struct timespec times[2];
	times_of(mtime_ns, times);
	if (with_owner(w) && fchown(fd, uid, gid) < 0)
		return -errno;
	return fchmod(fd, mode & (with_owner(w) ? 07777 : plain)) < 0 || futimens(fd, times) < 0 ? -errno : 0;
}

static int apply_at(const struct writer *w, int dir, const char *name)
{
	struct timespec times[2];
	times_of(w->entry.mtime_ns, times);
	if (with_owner(w) && fchownat(dir, name, w->entry.uid, w->entry.gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* ---- directories ---- */

/** Is @name @directory itself, or beneath it? The root, "", has all beneath it. */
static bool is_within(const char *name, const char *directory)
{
	size_t n = strlen(directory);
	return n == 0 || (strncmp(name, directory, n) == 0 && (name[n] == '/' || !name[n]));
}

/** The tree has gone past those that do not hold @name; NULL: past all. */
static int close_directories(struct writer *w, const char *name)
{
	int rc = 0;
	while (w->made && (!name || !is_within(name, w->made->name))) {
		struct open_directory *d = w->made;
		CLEANUP_FD int fd = tree_open_beneath(w->root, d->name[0] ? d->name : ".", O_RDONLY | O_DIRECTORY, 0);
		int closed = fd < 0 ? fd : apply(w, fd, d->mode, d->uid, d->gid, d->mtime_ns, MODE_DIRECTORY);
		if (closed < 0 && rc == 0)
			rc = fail(w, closed, NULL);
		w->made = d->above;
		free(d);
	}
	return rc;
}

static int make_directory(struct writer *w, int dir, const char *name)
{
	struct stat st;
	size_t size = strlen(w->entry.name) + 1;
	if (mkdirat(dir, name, 0700) < 0) {
		if (errno != EEXIST || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return fail(w, -errno, NULL);
		return S_ISDIR(st.st_mode) ? 0 : fail(w, -ENOTDIR, "is not a directory, and is not replaced by one");
	}
	struct open_directory *d = malloc(sizeof(*d) + size);
	if (!d)
		return fail(w, -ENOMEM, NULL);
	*d = (struct open_directory){.above = w->made,
		.mode = w->entry.mode,
		.uid = w->entry.uid,
		.gid = w->entry.gid,
		.mtime_ns = w->entry.mtime_ns};
	memcpy(d->name, w->entry.name, size);
	w->made = d;
	return 0;
}

/* ---- things ---- */

/** Make room at @name: a file or a link gives way, nothing else does. */
static int make_place(struct writer *w, int dir, const char *name)
{
	struct stat st;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(w, -errno, NULL);
	if (S_ISDIR(st.st_mode))
		return fail(w, -EISDIR, "is a directory, and is not replaced");
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode) && !S_ISFIFO(st.st_mode))
		return fail(w, -EEXIST, "is no file, and is not replaced");
	return unlinkat(dir, name, 0) < 0 && errno != ENOENT ? fail(w, -errno, NULL) : 0;
}

static int make_file(struct writer *w, int dir, const char *name)
{
	struct stat st;
	w->file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (w->file < 0 || fstat(w->file, &st) < 0)
		return fail(w, -errno, NULL);
	w->end = 0;
	return tree_inodes_add(&w->files, &st) < 0 ? fail(w, -ENOMEM, NULL) : 0;
}

/** To a file of this copy, wherever it is now. */
static int make_link(struct writer *w, int dir, const char *name)
{
	char proc[64];
	struct stat st;
	CLEANUP_FD int fd = tree_open_beneath(w->root, w->entry.link, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(w, fd < 0 ? fd : -errno, NULL);
	if (!S_ISREG(st.st_mode) || !tree_inodes_have(&w->files, &st))
		return fail(w, -EPERM, "a hard link to what this copy has not made");
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd); /* AT_EMPTY_PATH is for root alone: linkat(2) */
	return linkat(AT_FDCWD, proc, dir, name, AT_SYMLINK_FOLLOW) < 0 ? fail(w, -errno, NULL) : 0;
}

static int make_thing(struct writer *w, int dir, const char *name)
{
	const struct agent_entry *e = &w->entry;
	if (e->type == AGENT_CHARACTER || e->type == AGENT_BLOCK || e->type == AGENT_SOCKET) {
		tree_link_skip(w->link, e->name, e->type == AGENT_SOCKET ? "a socket" : "a device");
		return 0;
	}
	int rc = make_place(w, dir, name);
	if (rc < 0)
		return rc;
	if (e->type == AGENT_FILE)
		return make_file(w, dir, name);
	if (e->type == AGENT_HARDLINK)
		return make_link(w, dir, name);
	if (e->type == AGENT_FIFO)
		rc = mkfifoat(dir, name, e->mode & MODE_PLAIN) < 0 ? -errno : 0;
	else
		rc = symlinkat(e->link, dir, name) < 0 ? -errno : 0;
	rc = rc < 0 ? rc : apply_at(w, dir, name);
	return rc < 0 ? fail(w, rc, NULL) : 0;
}

/* ---- files ---- */

static int finish_file(struct writer *w)
{
	const struct agent_entry *e = &w->entry;
	if (w->file < 0)
		return 0;
	int rc = w->end < e->size && ftruncate(w->file, (off_t)e->size) < 0 ? -errno : 0;
	rc = rc < 0 ? rc : apply(w, w->file, e->mode, e->uid, e->gid, e->mtime_ns, MODE_PLAIN);
	if (close(steal_fd(&w->file)) < 0 && rc == 0)
		rc = -errno;
	return rc < 0 ? fail(w, rc, NULL) : 0;
}

static int take_data(struct writer *w, const struct agent_frame *frame)
{
	const uint8_t *bytes;
	uint64_t offset;
	size_t n;
	if (w->file < 0 || !agent_data_get(frame, &offset, &bytes, &n))
		return broke(w, "DATA without a file, or malformed");
	if (offset < w->end || offset + n > w->entry.size)
		return broke(w, "DATA that goes back, or beyond the file's size");
	int rc = fd_write_all_at(w->file, bytes, n, offset);
	if (rc < 0)
		return fail(w, rc, NULL);
	w->end = offset + n;
	tree_link_count(w->link, n);
	return tree_link_canceled(w->link, w->err);
}

/* ---- the tree ---- */

static int take_root(struct writer *w)
{
	bool directory = w->entry.type == AGENT_DIRECTORY;
	w->begun = true;
	if (w->entry.name[0] || w->entry.type == AGENT_HARDLINK)
		return broke(w, "the first ENTRY is not the root");
	if (!directory && w->root >= 0)
		return fail(w, -ENOTDIR, "the guest's path is not a directory");
	if (!directory && w->must_be_directory)
		return fail(w, -ENOENT, NULL);
	if (directory && w->place_taken)
		return fail(w, -ENOTDIR, "is not a directory, and is not replaced by one");
	if (w->entry.type >= AGENT_CHARACTER)
		return fail(w, -EINVAL, "the guest's path is a device or a socket");
	if (!directory)
		return make_thing(w, w->base, w->root_name);
	if (w->root >= 0)
		return 0;
	int rc = make_directory(w, w->base, w->root_name);
	if (rc < 0)
		return rc;
	w->root = tree_open_beneath(w->base, w->root_name, O_RDONLY | O_DIRECTORY, 0);
	return w->root < 0 ? fail(w, w->root, NULL) : 0;
}

static int take_entry(struct writer *w, const struct agent_frame *frame)
{
	const char *name;
	int rc = finish_file(w);
	if (rc < 0)
		return rc;
	if (!agent_entry_get(frame, &w->entry))
		return broke(w, "malformed ENTRY");
	if (!w->begun)
		return take_root(w);
	if (!w->entry.name[0] || w->root < 0)
		return broke(w, "a second root, or an ENTRY below what is no directory");
	rc = close_directories(w, w->entry.name);
	if (rc < 0)
		return rc;
	int dir = parent_of(w, w->entry.name, &name);
	if (dir < 0)
		return fail(w, dir, NULL);
	rc = w->entry.type == AGENT_DIRECTORY ? make_directory(w, dir, name) : make_thing(w, dir, name);
	return rc < 0 ? rc : tree_link_canceled(w->link, w->err);
}

static int take_end(struct writer *w, const struct agent_frame *frame)
{
	if (!w->begun || frame->size)
		return broke(w, "an END before the root");
	w->ended = true;
	int rc = finish_file(w);
	return rc < 0 ? rc : close_directories(w, NULL);
}

static int take_frame(struct writer *w, const struct agent_frame *frame)
{
	switch (frame->type) {
	case AGENT_ENTRY:
		return take_entry(w, frame);
	case AGENT_DATA:
		return take_data(w, frame);
	case AGENT_END:
		return take_end(w, frame);
	default:
		return broke(w, "a frame out of place");
	}
}

static void release(struct writer *w)
{
	if (w->file >= 0) { /* half a file is worse than none */
		const char *name;
		int dir = w->entry.name[0] ? parent_of(w, w->entry.name, &name) : w->base;
		if (dir >= 0)
			unlinkat(dir, w->entry.name[0] ? name : w->root_name, 0);
	}
	while (w->made) {
		struct open_directory *d = w->made;
		w->made = d->above;
		free(d);
	}
	int *const fds[] = {&w->base, &w->root, &w->parent, &w->file};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		cleanup_fd(fds[i]);
	tree_inodes_free(&w->files);
	free(w);
}

int tree_receive(struct tree_link *link, const struct tree_target *target, struct husk_error *err)
{
	struct writer *w = calloc(1, sizeof(*w));
	struct agent_frame frame;
	if (!w)
		return error_set(err, -ENOMEM, "copy: out of memory");
	w->link = link;
	w->target = target;
	w->base = w->root = w->parent = w->file = -1;
	w->err = err;
	int rc = find_target(w);
	while (rc == 0 && !w->ended) {
		rc = tree_link_receive(link, &frame, err);
		rc = rc < 0 ? rc : take_frame(w, &frame);
	}
	release(w);
	return rc;
}
