/* SPDX-License-Identifier: Apache-2.0 */
/*
 * get.c - GET: a tree of the guest's, read
 *
 * Theory of operation: depth first, the names of a directory in the order of their bytes, everything by descriptors and names
 * below them, and no link is followed but a root where that was asked for. The workload may change what is read meanwhile: what
 * has gone since its directory was read is not there, what became another type is looked at again. A file has the size that
 * its ENTRY says: what it grows by later is not read, what it loses is a hole.
 *
 * A file without blocks may be one of the kernel's own, whose size says nothing: it is read to its end first. File systems
 * that show the kernel and not files are not entered on the way, only where the root lies in one.
 */
#include "guest/request.h"
#include "guest/tree.h"

#include "agent/entry.h"
#include "base/bytes.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CHUNK (256u << 10)
#define UNSIZED_MAX (16u << 20) /* of a file whose size says nothing */
#define LOOKS_MAX 16 /* at a thing that changes its type each time */
#define MQUEUE_MAGIC 0x19800202 /* Linux, ipc/mqueue.c */

struct get {
	struct tree *tree;
	struct agent_entry entry;
	struct agent_links links;
};

static void visit(struct get *get, int dir, const char *base, const struct stat *above);

static void send_entry(struct get *get)
{
	int rc = agent_entry_put(&get->tree->out, &get->entry);
	if (rc < 0)
		tree_fail_at(get->tree, rc, get->entry.name);
	tree_send(get->tree, CHUNK);
}

/* ---- files ---- */

/** Read at most @max bytes at @offset into a DATA frame; how many, 0 at the end. */
static size_t send_piece(struct get *get, int fd, uint64_t offset, size_t max)
{
	struct buffer *out = &get->tree->out;
	uint8_t *to = buffer_reserve(out, AGENT_HEADER_SIZE + 8 + max);
	if (!to)
		tree_fail_at(get->tree, -ENOMEM, get->entry.name);
	ssize_t n;
	do
		n = pread(fd, to + AGENT_HEADER_SIZE + 8, max, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		tree_fail_at(get->tree, -errno, get->entry.name);
	if (n == 0)
		return 0;
	put_le32(to, 8 + (uint32_t)n);
	to[4] = AGENT_DATA;
	to[5] = 0;
	put_le16(to + 6, 0);
	put_le64(to + AGENT_HEADER_SIZE, offset);
	buffer_commit(out, AGENT_HEADER_SIZE + 8 + (size_t)n);
	tree_send(get->tree, CHUNK);
	return (size_t)n;
}

/** What lies between holes. */
static void send_data(struct get *get, int fd)
{
	uint64_t size = get->entry.size, at = 0;

	while (at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return;
		off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		at = data < 0 ? at : (uint64_t)data;
		uint64_t end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
		while (at < end) {
			size_t n = send_piece(get, fd, at, end - at < CHUNK ? (size_t)(end - at) : CHUNK);
			if (!n)
				return;
			at += n;
		}
	}
}

/** Read it first, as only that tells its size. */
static void send_unsized(struct get *get, int fd)
{
	CLEANUP_BUFFER struct buffer bytes = {0};
	ssize_t n;

	while ((n = buffer_read(&bytes, fd, CHUNK)) != 0) {
		if (n < 0 && n != -EINTR)
			tree_fail_at(get->tree, (int)n, get->entry.name);
		if (bytes.size > UNSIZED_MAX)
			tree_fail_at(get->tree, -EFBIG, get->entry.name);
	}
	get->entry.size = bytes.size;
	send_entry(get);
	for (uint64_t at = 0; bytes.size;) {
		size_t piece = bytes.size < CHUNK ? bytes.size : CHUNK;
		if (agent_data_put(&get->tree->out, at, buffer_bytes(&bytes), piece) < 0)
			tree_fail_at(get->tree, -ENOMEM, get->entry.name);
		tree_send(get->tree, CHUNK);
		buffer_consume(&bytes, piece);
		at += piece;
	}
}

static void send_file(struct get *get, int fd, const struct stat *st)
{
	if (!st->st_blocks && st->st_size <= CHUNK)
		return send_unsized(get, fd);
	send_entry(get);
	send_data(get, fd);
}

/* ---- directories ---- */

/** Does a file system of this kind show the kernel rather than files? */
static bool is_kernels_own(int fd)
{
	static const uint32_t kinds[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
		DEVPTS_SUPER_MAGIC, MQUEUE_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC, SECURITYFS_MAGIC, BPF_FS_MAGIC,
		BINFMTFS_MAGIC, EFIVARFS_MAGIC, PSTOREFS_MAGIC};
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if ((uint32_t)fs.f_type == kinds[i])
			return true;
	return false;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_names(struct get *get, DIR *dir, struct strings *names)
{
	struct dirent *d;

	errno = 0;
	while ((d = readdir(dir))) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (strings_add(names, d->d_name) < 0)
			tree_fail_at(get->tree, -ENOMEM, get->entry.name);
		errno = 0;
	}
	if (errno)
		tree_fail_at(get->tree, -errno, get->entry.name);
	if (names->n)
		qsort(names->items, names->n, sizeof(*names->items), compare_names);
}

/** What is in the directory @fd (taken), whose entry has been sent. */
static void visit_all(struct get *get, int fd, const struct stat *st)
{
	char *name = get->entry.name;
	size_t length = strlen(name);
	struct strings names = {0};
	CLEANUP_DIR DIR *dir = fdopendir(fd);

	if (!dir)
		tree_fail_at(get->tree, -errno, name);
	read_names(get, dir, &names);
	for (size_t i = 0; i < names.n; i++) {
		size_t room = AGENT_NAME_MAX + 1 - length;
		if ((size_t)snprintf(name + length, room, "%s%s", length ? "/" : "", names.items[i]) >= room) {
			name[length] = 0;
			tree_fail_at(get->tree, -ENAMETOOLONG, name);
		}
		visit(get, dirfd(dir), names.items[i], st);
		name[length] = 0;
	}
	strings_free(&names);
}

/* ---- one thing ---- */

/** Look at @base below @dir, and open it when it is a file or a directory: *@fd, else -1. 0, -errno, or -EAGAIN when it has
 *  become another thing in between. */
static int look(struct get *get, int dir, const char *base, bool follow, struct stat *st, int *fd)
{
	*fd = -1;
	if (fstatat(dir, base, st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	mode_t type = st->st_mode & S_IFMT;
	if (type == S_IFREG || type == S_IFDIR) {
		*fd = openat(dir, base,
			O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow ? 0 : O_NOFOLLOW) |
				(type == S_IFDIR ? O_DIRECTORY : 0));
		if (*fd < 0)
			return errno == ELOOP || errno == ENOTDIR || errno == ENXIO ? -EAGAIN : -errno;
		if (fstat(*fd, st) < 0)
			return -errno;
		if ((st->st_mode & S_IFMT) != type) {
			close(*fd);
			*fd = -1;
			return -EAGAIN;
		}
	}
	agent_entry_describe(&get->entry, st);
	if (type != S_IFLNK)
		return 0;
	ssize_t n = readlinkat(dir, base, get->entry.link, AGENT_NAME_MAX + 1);
	if (n < 0)
		return errno == EINVAL ? -EAGAIN : -errno;
	if (n > AGENT_NAME_MAX)
		return -ENAMETOOLONG;
	get->entry.link[n] = 0;
	return 0;
}

/** Send @base below @dir and what is in it. @above: its directory; NULL: it is the root. */
static void visit(struct get *get, int dir, const char *base, const struct stat *above)
{
	bool follow = !above && get->tree->request->flags & AGENT_TREE_FLAG_FOLLOW;
	struct stat st;
	int fd = -1, rc = -EAGAIN;

	for (int i = 0; rc == -EAGAIN && i < LOOKS_MAX; i++)
		rc = look(get, dir, base, follow, &st, &fd);
	if (rc == -ENOENT && above)
		return;
	if (rc < 0)
		tree_fail_at(get->tree, rc, get->entry.name);
	int known = agent_links_meet(&get->links, &get->entry, &st);
	if (known < 0)
		tree_fail_at(get->tree, known, get->entry.name);
	if (!known && S_ISREG(st.st_mode))
		send_file(get, fd, &st);
	else
		send_entry(get);
	if (S_ISDIR(st.st_mode) && !(above && above->st_dev != st.st_dev && is_kernels_own(fd)))
		visit_all(get, steal_fd(&fd), &st);
	cleanup_fd(&fd);
}

_Noreturn void get_tree(struct tree *tree)
{
	static struct get get;

	get.tree = tree;
	visit(&get, AT_FDCWD, tree->request->path, NULL);
	if (agent_frame_put(&tree->out, AGENT_END, 0, NULL, 0) < 0)
		tree_fail_at(tree, -ENOMEM, "");
	tree_finish(tree);
}
