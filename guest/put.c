/* SPDX-License-Identifier: Apache-2.0 */
/*
 * put.c - PUT: a tree that comes is written
 *
 * Theory of operation: the request's path is resolved as any program's, links followed. From the tree's root on down no link
 * is followed any more: directories are opened with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, things are made below their
 * descriptors with calls that follow nothing, so a workload that changes names meanwhile turns no write to elsewhere.
 *
 * A directory that is there stays as it is and takes in what comes; any other thing gives way to what comes under its name. A
 * directory never gives way to a thing, nor a thing to a directory. Files get owner, mode and time when their bytes are
 * complete, directories at the end, the deepest first, since their own rights and times would be in the way before. A file that
 * was not completed is removed.
 */
#include "guest/tree.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LINKS_MAX 40 /* followed, as by the kernel (path_resolution(7)) */
#define PLACES_MAX 16 /* times that a name is made free which is taken again */

/** What a thing gets at the end. */
struct attributes {
	uint32_t mode, uid, gid;
	int64_t mtime_ns;
};

/** A directory that was made; the list's first is the newest. */
struct made {
	struct made *next;
	struct attributes attributes;
	char name[];
};

struct put {
	struct tree *tree;
	int base; /* where the tree's root lies */
	char root_name[NAME_MAX + 1]; /* its name there */
	bool must_be_directory; /* the root: no NAME, or a path that ends in a slash */
	bool must_not; /* a thing is there that only another thing can replace */
	bool begun; /* the root has come */
	int root; /* the root as a directory; -1: it is not there, or none */
	struct made *made;
	int parent; /* that which was opened last: of parent_name */
	char parent_name[AGENT_NAME_MAX + 1];
	int file; /* under way; -1: none */
	int file_dir; /* where it lies; not owned */
	const char *file_name; /* its name there, in `entry` or root_name */
	uint64_t end; /* of what was written of it */
	struct agent_entry entry;
};

static int open_beneath(int dir, const char *name, uint64_t flags)
{
	struct open_how how = {.flags = flags | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

_Noreturn static void fail(struct put *put, int rc)
{
	tree_fail_at(put->tree, rc, put->begun ? put->entry.name : "");
}

_Noreturn static void malformed(struct put *put, const char *what)
{
	tree_fail(put->tree, AGENT_ERROR_PROTOCOL, "PUT: %s", what);
}

/** Something stands in the way. */
_Noreturn static void in_the_way(struct put *put, int rc, const char *what)
{
	tree_fail_text(put->tree, rc, put->entry.name, what);
}

/* ---- where the tree goes ---- */

/** Split @path (not "/") into the directory that it lies in and its name. Changes @path. */
static void split(struct put *put, int from, char *path)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		path[--n] = 0;
	char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	const char *directory = !slash ? "." : slash == path ? "/" : path;

	if (strlen(name) > NAME_MAX)
		fail(put, -ENAMETOOLONG);
	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		fail(put, -ENOTDIR);
	memcpy(put->root_name, name, strlen(name) + 1);
	if (slash)
		*slash = 0;
	int base = openat(from, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (base < 0)
		fail(put, -errno);
	cleanup_fd(&put->base);
	put->base = base;
}

/** The path is no directory: find the one that it lies in, also where links lead to another. */
static void find_place(struct put *put)
{
	char path[AGENT_NAME_MAX + 1];

	strcpy(path, put->tree->request->path);
	split(put, AT_FDCWD, path);
	for (int i = 0;; i++) {
		ssize_t n = readlinkat(put->base, put->root_name, path, sizeof(path));
		if (n < 0)
			return;
		if (i == LINKS_MAX)
			fail(put, -ELOOP);
		if ((size_t)n == sizeof(path))
			fail(put, -ENAMETOOLONG);
		path[n] = 0;
		split(put, put->base, path);
	}
}

/** "@path/@name", for good. */
static char *path_below(struct put *put, const char *path, const char *name)
{
	size_t room = strlen(path) + 1 + strlen(name) + 1;
	char *below = tree_memory(put->tree, room);
	snprintf(below, room, "%s%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/", name);
	return below;
}

static void find_target(struct put *put)
{
	const struct tree_request *request = put->tree->request;
	size_t length = strlen(request->path);
	int fd = open(request->path, O_PATH | O_DIRECTORY | O_CLOEXEC), rc = fd < 0 ? -errno : 0;

	put->must_be_directory = !request->name || request->path[length - 1] == '/';
	if (fd >= 0 && !request->name) {
		put->root = fd;
	} else if (fd >= 0) {
		put->base = fd;
		strcpy(put->root_name, request->name);
		put->tree->path = path_below(put, request->path, request->name);
		put->must_be_directory = false;
	} else if (rc == -ENOENT || (rc == -ENOTDIR && !put->must_be_directory)) {
		put->must_not = rc == -ENOTDIR;
		find_place(put);
	} else {
		fail(put, rc);
	}
}

/** The directory that the entry @name lies in; *@last is its name there. */
static int parent_of(struct put *put, const char *name, const char **last)
{
	const char *slash = strrchr(name, '/');

	*last = slash ? slash + 1 : name;
	if (!slash)
		return put->root;
	size_t n = (size_t)(slash - name);
	if (put->parent >= 0 && strncmp(put->parent_name, name, n) == 0 && !put->parent_name[n])
		return put->parent;
	cleanup_fd(&put->parent);
	memcpy(put->parent_name, name, n);
	put->parent_name[n] = 0;
	put->parent = open_beneath(put->root, put->parent_name, O_PATH);
	if (put->parent < 0)
		tree_fail_at(put->tree, put->parent, put->parent_name);
	return put->parent;
}

/* ---- attributes ---- */

static bool with_owner(const struct put *put)
{
	return put->tree->request->flags & AGENT_TREE_FLAG_OWNER;
}

/** The access time is now. */
static void times_of(int64_t mtime_ns, struct timespec times[2])
{
	int64_t rest = mtime_ns % 1000000000, seconds = mtime_ns / 1000000000;
	times[0] = (struct timespec){.tv_nsec = UTIME_NOW};
	times[1] = (struct timespec){.tv_sec = (time_t)(rest < 0 ? seconds - 1 : seconds),
		.tv_nsec = (long)(rest < 0 ? rest + 1000000000 : rest)};
}

static struct attributes attributes_of(const struct agent_entry *e)
{
	return (struct attributes){.mode = e->mode, .uid = e->uid, .gid = e->gid, .mtime_ns = e->mtime_ns};
}

/** To a file or directory. The owner first, since that takes the set-id bits away. */
static int apply(const struct put *put, int fd, const struct attributes *a)
{
	struct timespec times[2];

	times_of(a->mtime_ns, times);
	if (with_owner(put) && fchown(fd, a->uid, a->gid) < 0)
		return -errno;
	return fchmod(fd, a->mode) < 0 || futimens(fd, times) < 0 ? -errno : 0;
}

/** To what cannot be opened; its mode was given when it was made. */
static int apply_at(const struct put *put, int dir, const char *name)
{
	struct timespec times[2];

	times_of(put->entry.mtime_ns, times);
	if (with_owner(put) && fchownat(dir, name, put->entry.uid, put->entry.gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* ---- things ---- */

static void remember(struct put *put)
{
	size_t size = strlen(put->entry.name) + 1;
	struct made *made = tree_memory(put->tree, sizeof(*made) + size);

	made->next = put->made;
	made->attributes = attributes_of(&put->entry);
	memcpy(made->name, put->entry.name, size);
	put->made = made;
}

static void make_directory(struct put *put, int dir, const char *name)
{
	struct stat st;

	if (mkdirat(dir, name, 0700) == 0)
		return remember(put);
	if (errno != EEXIST)
		fail(put, -errno);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		fail(put, -errno);
	if (!S_ISDIR(st.st_mode))
		in_the_way(put, -ENOTDIR, "is not a directory, and is not replaced by one");
}

/** Make room at @name, where something is. */
static void make_place(struct put *put, int dir, const char *name)
{
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		in_the_way(put, -EISDIR, "is a directory, and is not replaced");
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		fail(put, -errno);
}

static int link_to(struct put *put, int dir, const char *name)
{
	const char *slash = strrchr(put->entry.link, '/'), *last = slash ? slash + 1 : put->entry.link;
	CLEANUP_FD int other = -1;

	if (slash) {
		char parent[AGENT_NAME_MAX + 1];
		memcpy(parent, put->entry.link, (size_t)(slash - put->entry.link));
		parent[slash - put->entry.link] = 0;
		other = open_beneath(put->root, parent, O_PATH);
		if (other < 0)
			return other;
	}
	return linkat(slash ? other : put->root, last, dir, name, 0) < 0 ? -errno : 0;
}

/** Make the entry, at a place that is free: 0 or -errno; a file's descriptor is put->file then. */
static int make(struct put *put, int dir, const char *name)
{
	static const mode_t types[] = {[AGENT_FIFO] = S_IFIFO,
		[AGENT_CHARACTER] = S_IFCHR,
		[AGENT_BLOCK] = S_IFBLK,
		[AGENT_SOCKET] = S_IFSOCK};
	const struct agent_entry *e = &put->entry;

	switch (e->type) {
	case AGENT_FILE:
		put->file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return put->file < 0 ? -errno : 0;
	case AGENT_SYMLINK:
		return symlinkat(e->link, dir, name) < 0 ? -errno : 0;
	case AGENT_HARDLINK:
		return link_to(put, dir, name);
	default:
		return mknodat(dir, name, types[e->type] | e->mode,
			       makedev((unsigned)(e->device >> 32), (unsigned)e->device)) < 0
			       ? -errno
			       : 0;
	}
}

static void make_thing(struct put *put, int dir, const char *name)
{
	int rc = -EEXIST;

	for (int i = 0; rc == -EEXIST && i < PLACES_MAX; i++) {
		rc = make(put, dir, name);
		if (rc == -EEXIST)
			make_place(put, dir, name);
	}
	if (rc == 0 && put->file < 0 && put->entry.type != AGENT_HARDLINK)
		rc = apply_at(put, dir, name);
	if (rc < 0)
		fail(put, rc);
	put->file_dir = dir;
	put->file_name = name;
	put->end = 0;
}

/* ---- files ---- */

/** The process ends in the midst of a file: half of one is worse than none. */
static void remove_unfinished(void *data)
{
	struct put *put = data;
	if (put->file >= 0)
		unlinkat(put->file_dir, put->file_name, 0);
}

static void finish_file(struct put *put)
{
	const struct attributes attributes = attributes_of(&put->entry);

	if (put->file < 0)
		return;
	if (put->end < put->entry.size && ftruncate(put->file, (off_t)put->entry.size) < 0)
		fail(put, -errno);
	int rc = apply(put, put->file, &attributes);
	if (rc < 0)
		fail(put, rc);
	if (close(put->file) < 0)
		fail(put, -errno);
	put->file = -1;
}

static void take_data(struct put *put, const struct agent_frame *frame)
{
	const uint8_t *bytes;
	uint64_t offset;
	size_t n;

	if (put->file < 0 || !agent_data_get(frame, &offset, &bytes, &n))
		malformed(put, "DATA without a file, or malformed");
	if (offset < put->end || offset + n > put->entry.size)
		malformed(put, "DATA that goes back, or beyond the file's size");
	int rc = fd_write_all_at(put->file, bytes, n, offset);
	if (rc < 0)
		fail(put, rc);
	put->end = offset + n;
}

/* ---- the tree ---- */

static void take_root(struct put *put)
{
	bool directory = put->entry.type == AGENT_DIRECTORY;

	put->begun = true;
	if (put->entry.name[0] || (!directory && !put->tree->request->name))
		malformed(put, "the first ENTRY is not the root, or not a directory where one is meant");
	if (!directory && put->must_be_directory)
		fail(put, -ENOENT);
	if (directory && put->must_not)
		in_the_way(put, -ENOTDIR, "is not a directory, and is not replaced by one");
	if (!directory)
		return make_thing(put, put->base, put->root_name);
	if (put->root >= 0)
		return;
	make_directory(put, put->base, put->root_name);
	put->root = open_beneath(put->base, put->root_name, O_PATH);
	if (put->root < 0)
		fail(put, put->root);
}

static void take_entry(struct put *put, const struct agent_frame *frame)
{
	const char *name;

	finish_file(put);
	if (!agent_entry_get(frame, &put->entry))
		malformed(put, "malformed ENTRY");
	if (put->entry.uid == UINT32_MAX || put->entry.gid == UINT32_MAX)
		malformed(put, "nobody has that number");
	if (!put->begun)
		return take_root(put);
	if (!put->entry.name[0] || put->root < 0)
		malformed(put, "a second root, or an ENTRY below what is no directory");
	if (strcmp(put->entry.name, put->entry.link) == 0 && put->entry.type == AGENT_HARDLINK)
		malformed(put, "a hard link to itself");
	int dir = parent_of(put, put->entry.name, &name);
	if (put->entry.type == AGENT_DIRECTORY)
		make_directory(put, dir, name);
	else
		make_thing(put, dir, name);
}

static void finish_directories(struct put *put)
{
	for (const struct made *made = put->made; made; made = made->next) {
		CLEANUP_FD int fd = open_beneath(put->root, made->name[0] ? made->name : ".", O_RDONLY);
		int rc = fd < 0 ? fd : apply(put, fd, &made->attributes);
		if (rc < 0)
			tree_fail_at(put->tree, rc, made->name);
	}
}

_Noreturn void put_tree(struct tree *tree)
{
	static struct put put;

	put.tree = tree;
	put.base = put.root = put.parent = put.file = -1;
	tree->abort = remove_unfinished;
	tree->data = &put;
	find_target(&put);
	for (;;) {
		struct agent_frame frame = tree_receive(tree);
		if (frame.type == AGENT_ENTRY)
			take_entry(&put, &frame);
		else if (frame.type == AGENT_DATA)
			take_data(&put, &frame);
		else if (frame.type == AGENT_END && !frame.size && put.begun)
			break;
		else
			malformed(&put, "a frame out of place");
	}
	finish_file(&put);
	finish_directories(&put);
	agent_frame_put(&tree->out, AGENT_OK, 0, NULL, 0);
	tree_finish(tree);
}
