/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_rootfs.c - a directory tree into one block image, as if it were a layer
 *
 * Theory of operation: the tree is walked in the bytewise order of names, through descriptors (openat, O_NOFOLLOW), so no
 * symbolic link of the tree leads anywhere; each thing is looked at, opened by what it was seen to be, and looked at again
 * through the descriptor. File systems are not crossed: a mount point is stored as an empty directory. Sockets and
 * character devices 0/0 (which would be whiteouts) are left out. Files with the same device and inode number are hard
 * links. Holes are found with SEEK_DATA and by their zeros.
 *
 * The diff ID is the SHA-256 of what was stored, in the order of the walk. For each entry: its path with its NUL, then
 * as little-endian integers u16 mode with type, u32 uid, gid and mtime (as stored), u32 device number, u64 size; u32 bytes
 * of extended attributes in squashfs's layout and those; then, of a symbolic link, its target with NUL; of a file, its
 * contents in blocks of 128 KiB, each a byte 1 and its bytes or a byte 0 when they are all zero. A further name of a hard
 * linked inode is its path, u16 0, and the path of the first name. Paths and their entries do not depend on where the
 * tree was or on how its holes lay.
 */
#include "image/layer.h"
#include "image/layer_squashfs.h"
#include "image/layer_tar.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/** The first name of an inode with several. */
struct known_inode {
	uint64_t number;
	uint32_t inode;
	char *path;
};

struct rootfs {
	struct layer_tree tree;
	struct layer_data data;
	const struct layer_options *options;
	dev_t device;
	EVP_MD_CTX *digest;
	struct known_inode *known; /* open addressing by number; path NULL: free */
	size_t n_known, known_size;
	char path[LAYER_PATH_MAX + 2]; /* of what is being looked at, below the root */
	size_t path_n;
	uint8_t *block;
	uint64_t bytes, dropped_acls;
	struct husk_error *err;
};

static int fail(struct rootfs *f, const char *what)
{
	return error_errno(f->err, "\"%.300s\": %s", f->path, what);
}

static void digest_bytes(struct rootfs *f, const void *bytes, size_t n)
{
	EVP_DigestUpdate(f->digest, bytes, n);
}

static void digest_head(struct rootfs *f, const struct layer_inode *i, uint64_t size)
{
	uint8_t head[26];
	put_le16(head, i->mode);
	put_le32(head + 2, f->tree.ids[i->uid]);
	put_le32(head + 6, f->tree.ids[i->gid]);
	put_le32(head + 10, i->mtime);
	put_le32(head + 14, layer_is(i, S_IFCHR) || layer_is(i, S_IFBLK) ? i->device : 0);
	put_le64(head + 18, size);
	digest_bytes(f, f->path, f->path_n + 1);
	digest_bytes(f, head, sizeof(head));
	const struct layer_xattrs *set = i->xattr == LAYER_NONE ? NULL : f->tree.xattrs[i->xattr];
	uint8_t n[4];
	put_le32(n, set ? set->size : 0);
	digest_bytes(f, n, sizeof(n));
	if (set)
		digest_bytes(f, set->bytes, set->size);
}

/* The extended attributes of @fd (O_PATH or not), through its magic link where the calls refuse O_PATH. */
static int read_xattrs(struct rootfs *f, int fd, uint32_t *index)
{
	char self[32];
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	*index = LAYER_NONE;
	ssize_t n = listxattr(self, NULL, 0);
	if (n <= 0)
		return n == 0 || errno == ENOTSUP || errno == ENOENT ? 0 : fail(f, "list extended attributes");
	CLEANUP_FREE char *names = malloc((size_t)n + 1);
	CLEANUP_FREE uint8_t *values = malloc(LAYER_XATTRS_MAX);
	struct layer_xattr list[64];
	size_t count = 0, used = 0;
	if (!names || !values)
		return error_set(f->err, -ENOMEM, "out of memory");
	n = listxattr(self, names, (size_t)n);
	if (n < 0)
		return fail(f, "list extended attributes");
	names[n] = 0;
	bool acl = false;
	for (char *name = names; name < names + n; name += strlen(name) + 1) {
		if (!layer_xattr_wanted(name, &acl))
			continue;
		ssize_t size = getxattr(self, name, values + used, LAYER_XATTRS_MAX - used);
		if (size < 0)
			return fail(f, name);
		if (count == 64)
			return error_set(f->err, -E2BIG, "\"%.300s\": more than 64 extended attributes", f->path);
		list[count++] = (struct layer_xattr){.name = name, .value = values + used, .size = (size_t)size};
		used += (size_t)size;
	}
	f->dropped_acls += acl;
	return layer_tree_xattrs(&f->tree, list, count, index, f->err);
}

static int read_block(struct rootfs *f, int fd, uint64_t at, size_t n)
{
	for (size_t have = 0; have < n;) {
		ssize_t r = pread(fd, f->block + have, n - have, (off_t)(at + have));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return fail(f, "read");
		if (r == 0)
			return error_set(f->err, -EBUSY, "\"%.300s\" became shorter while it was read", f->path);
		have += (size_t)r;
	}
	return 0;
}

static int read_contents(struct rootfs *f, int fd, uint64_t size, uint32_t inode)
{
	uint64_t next_data = 0;
	layer_data_begin(&f->data, inode);
	for (uint64_t at = 0, n; at < size; at += n) {
		n = size - at < LAYER_BLOCK ? size - at : LAYER_BLOCK;
		if (at >= next_data) {
			off_t found = lseek(fd, (off_t)at, SEEK_DATA);
			next_data = found >= 0 ? (uint64_t)found : errno == ENXIO ? size : at;
		}
		bool hole = next_data >= at + n;
		int r = hole ? 0 : read_block(f, fd, at, n);
		if (r < 0)
			return r;
		hole = hole || bytes_are_zero(f->block, n);
		digest_bytes(f, hole ? "\0" : "\1", 1);
		if (!hole)
			digest_bytes(f, f->block, n);
		r = hole ? layer_data_hole(&f->data, n, f->err) : layer_data_bytes(&f->data, f->block, n, f->err);
		if (r < 0)
			return r;
		f->bytes += n;
	}
	if (f->options && f->options->progress)
		f->options->progress(f->options->progress_data, f->bytes);
	return layer_data_end(&f->data, f->err);
}

static struct known_inode *find_known(struct rootfs *f, uint64_t number)
{
	size_t at = (number * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (f->known_size - 1);
	while (f->known[at].path && f->known[at].number != number)
		at = (at + 1) & (f->known_size - 1);
	return &f->known[at];
}

static int remember(struct rootfs *f, uint64_t number, uint32_t inode)
{
	if (2 * (f->n_known + 1) > f->known_size) {
		struct known_inode *old = f->known;
		size_t old_size = f->known_size;
		struct known_inode *more = calloc(old_size ? 2 * old_size : 256, sizeof(*more));
		if (!more)
			return error_set(f->err, -ENOMEM, "out of memory");
		f->known = more;
		f->known_size = old_size ? 2 * old_size : 256;
		for (size_t i = 0; i < old_size; i++) {
			if (old[i].path)
				*find_known(f, old[i].number) = old[i];
		}
		free(old);
	}
	char *path = strdup(f->path);
	if (!path)
		return error_set(f->err, -ENOMEM, "out of memory");
	*find_known(f, number) = (struct known_inode){.number = number, .inode = inode, .path = path};
	f->n_known++;
	return 0;
}

static int set_attributes(struct rootfs *f, const struct stat *st, int fd, uint32_t inode)
{
	struct layer_attributes a = {
		.mode = (uint16_t)st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .mtime = st->st_mtime};
	int r = read_xattrs(f, fd, &a.xattr);
	if (r == 0)
		r = layer_tree_attributes(&f->tree, inode, &a, f->err);
	return r;
}

static int read_symlink(struct rootfs *f, int fd, uint32_t inode)
{
	char target[LAYER_PATH_MAX];
	ssize_t n = readlinkat(fd, "", target, sizeof(target) - 1);
	if (n <= 0)
		return fail(f, "read symbolic link");
	target[n] = 0;
	uint32_t text = layer_tree_text(&f->tree, target, (size_t)n, f->err);
	if (text == LAYER_NONE)
		return -ENOMEM;
	layer_inode(&f->tree, inode)->symlink.target = text;
	digest_bytes(f, target, (size_t)n + 1);
	return 0;
}

/* Anything but a directory, open as @fd, becomes an inode. */
static int read_leaf(struct rootfs *f, int fd, const struct stat *st, uint32_t inode)
{
	struct layer_inode *i = layer_inode(&f->tree, inode);
	int r = 0;
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		r = layer_device(major(st->st_rdev), minor(st->st_rdev), &i->device, f->err);
	if (r == 0)
		r = set_attributes(f, st, fd, inode);
	if (r < 0)
		return r;
	digest_head(f, i, S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0);
	if (S_ISLNK(st->st_mode))
		return read_symlink(f, fd, inode);
	return S_ISREG(st->st_mode) ? read_contents(f, fd, (uint64_t)st->st_size, inode) : 0;
}

static int open_seen(struct rootfs *f, int dir, const char *name, const struct stat *seen)
{
	int flags = O_NOFOLLOW | O_CLOEXEC;
	if (S_ISREG(seen->st_mode))
		flags |= O_RDONLY | O_NONBLOCK | O_NOCTTY;
	else if (S_ISDIR(seen->st_mode))
		flags |= O_RDONLY | O_DIRECTORY;
	else
		flags |= O_PATH;
	struct stat st;
	CLEANUP_FD int fd = openat(dir, name, flags);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(f, "open");
	if (st.st_ino != seen->st_ino || st.st_dev != seen->st_dev || (st.st_mode & S_IFMT) != (seen->st_mode & S_IFMT))
		return error_set(f->err, -EBUSY, "\"%.300s\" was exchanged while it was read", f->path);
	return steal_fd(&fd);
}

static int link_known(struct rootfs *f, const struct known_inode *known, uint32_t parent, const char *name)
{
	digest_bytes(f, f->path, f->path_n + 1);
	digest_bytes(f, "\0", 2);
	digest_bytes(f, known->path, strlen(known->path) + 1);
	return layer_tree_link(&f->tree, parent, name, strlen(name), known->inode, f->err) == LAYER_NONE ? -ENOMEM : 0;
}

static int read_directory(struct rootfs *f, int fd, const struct stat *st, uint32_t inode);

static int read_entry(struct rootfs *f, int dir, uint32_t parent, const char *name)
{
	struct stat st;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(f, "stat");
	if (S_ISSOCK(st.st_mode) || (S_ISCHR(st.st_mode) && st.st_rdev == 0))
		return 0;
	bool shared = st.st_nlink > 1 && !S_ISDIR(st.st_mode) && st.st_dev == f->device;
	if (shared && f->known_size) {
		const struct known_inode *known = find_known(f, st.st_ino);
		if (known->path)
			return link_known(f, known, parent, name);
	}
	CLEANUP_FD int fd = open_seen(f, dir, name, &st);
	if (fd < 0)
		return fd;
	uint32_t inode = layer_tree_inode(&f->tree, (uint16_t)st.st_mode, f->err);
	if (inode == LAYER_NONE || layer_tree_link(&f->tree, parent, name, strlen(name), inode, f->err) == LAYER_NONE)
		return -ENOMEM;
	if (S_ISDIR(st.st_mode))
		return read_directory(f, fd, &st, inode);
	int r = shared ? remember(f, st.st_ino, inode) : 0;
	return r < 0 ? r : read_leaf(f, fd, &st, inode);
}

/** Names of one directory, one after the other, and where each begins. */
struct names {
	char *text;
	size_t used, room;
	char **list;
	size_t n;
};

static void names_free(struct names *names)
{
	free(names->text);
	free(names->list);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(struct rootfs *f, int fd, struct names *names)
{
	CLEANUP_FD int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *stream = again < 0 ? NULL : fdopendir(again);
	if (!stream)
		return fail(f, "open");
	steal_fd(&again);
	struct dirent *entry;
	while ((errno = 0, entry = readdir(stream))) {
		size_t n = strlen(entry->d_name) + 1;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (names->used + n > names->room) {
			size_t room = names->room ? 2 * names->room : 4096;
			char *more = realloc(names->text, room);
			if (!more)
				return error_set(f->err, -ENOMEM, "out of memory");
			names->text = more;
			names->room = room;
		}
		memcpy(names->text + names->used, entry->d_name, n);
		names->used += n;
		names->n++;
	}
	if (errno)
		return fail(f, "read directory");
	names->list = malloc((names->n + 1) * sizeof(*names->list));
	if (!names->list)
		return error_set(f->err, -ENOMEM, "out of memory");
	char *at = names->text;
	for (size_t i = 0; i < names->n; i++, at += strlen(at) + 1)
		names->list[i] = at;
	qsort(names->list, names->n, sizeof(*names->list), by_name);
	return 0;
}

static int read_directory(struct rootfs *f, int fd, const struct stat *st, uint32_t inode)
{
	CLEANUP(names_free) struct names names = {0};
	int r = set_attributes(f, st, fd, inode);
	if (r < 0)
		return r;
	digest_head(f, layer_inode(&f->tree, inode), 0);
	if (st->st_dev != f->device)
		return 0;
	r = list_names(f, fd, &names);
	size_t here = f->path_n;
	for (size_t i = 0; r == 0 && i < names.n; i++) {
		size_t n = strlen(names.list[i]);
		if (here + 1 + n > LAYER_PATH_MAX)
			return error_set(f->err, -ENAMETOOLONG, "\"%.64s…\" is nested too deep", f->path);
		f->path[here] = '/';
		memcpy(f->path + here + 1, names.list[i], n + 1);
		f->path_n = here + 1 + n;
		r = read_entry(f, fd, inode, names.list[i]);
		if (r == 0) {
			f->path_n = here;
			f->path[here] = 0;
		}
	}
	return r;
}

static void digest_text(struct rootfs *f, struct layer_result *result)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	EVP_DigestFinal_ex(f->digest, hash, NULL);
	char *at = result->diff_id + sprintf(result->diff_id, "sha256:");
	for (unsigned i = 0; i < 32; i++)
		at += sprintf(at, "%02x", hash[i]);
	memcpy(result->digest, result->diff_id, sizeof(result->digest));
}

static int read_root(struct rootfs *f, const char *path, uint32_t *root)
{
	struct stat st;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(f->err, "open");
	f->device = st.st_dev;
	*root = layer_tree_root(&f->tree, f->err);
	return *root == LAYER_NONE ? -ENOMEM : read_directory(f, fd, &st, *root);
}

static int convert(struct rootfs *f, const char *path, int out_fd, struct layer_result *result)
{
	const struct layer_options *o = f->options;
	struct layer_squashfs_result written;
	uint32_t root = LAYER_NONE;
	int r = layer_tree_init(&f->tree, o && o->max_entries ? o->max_entries : LAYER_ENTRIES_MAX, f->err);
	if (r == 0)
		r = layer_data_init(&f->data, &f->tree, out_fd, f->err);
	f->block = malloc(LAYER_BLOCK);
	f->digest = EVP_MD_CTX_new();
	if (r == 0 && (!f->block || !f->digest || !EVP_DigestInit_ex(f->digest, EVP_sha256(), NULL)))
		r = error_set(f->err, -ENOMEM, "out of memory");
	if (r == 0)
		r = read_root(f, path, &root);
	if (r == 0)
		r = layer_squashfs_write(&f->data, root, &written, f->err);
	if (r < 0)
		return error_prefix(f->err, r, "root file system %s", path);
	*result = (struct layer_result){
		.size = written.size, .entries = written.entries, .dropped_acls = f->dropped_acls};
	digest_text(f, result);
	return 0;
}

int layer_from_tree(const char *path, int out_fd, const struct layer_options *options, struct layer_result *result,
	struct husk_error *err)
{
	struct husk_error own;
	CLEANUP_FREE struct rootfs *f = calloc(1, sizeof(*f));
	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	f->options = options;
	f->err = err ? err : &own;
	int r = convert(f, path, out_fd, result);
	layer_data_free(&f->data);
	layer_tree_free(&f->tree);
	for (size_t i = 0; i < f->known_size; i++)
		free(f->known[i].path);
	free(f->known);
	free(f->block);
	EVP_MD_CTX_free(f->digest);
	return r;
}
