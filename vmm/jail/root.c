/* SPDX-License-Identifier: Apache-2.0 */
/*
 * root.c - the second stage: a root of its own
 *
 * Theory of operation: a tree of mounts is put in place and becomes the root with pivot_root(".", "."), which puts the old root
 * on top of it (pivot_root(2), "pivot_root(".", ".")"); that is detached at once, so that no path and no descriptor leads
 * there. What comes from the host is a detached copy of its mount (open_tree), whose flags are tightened before it is
 * attached anywhere: mount_setattr() only adds flags, so that none which a user namespace may not clear is touched.
 *
 * The worker's root is the runtime directory itself. QEMU's is a small tmpfs over the runtime directory, with the directories
 * that its libraries and its firmware lie in. QEMU gets at kernel, initramfs and memory as /proc/self/fd/N, for which it has a
 * proc that shows nothing but this PID namespace's processes.
 */
#include "vmm/jail/root.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* sys/mount.h and linux/mount.h define the same enum on some C libraries; these few calls are all that is needed. */
extern int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
extern int umount2(const char *target, int flags);

#define DETACH 2 /* MNT_DETACH */
#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/** A detached copy of what is mounted at @path, with @attributes on; -errno. */
static int copy_mount(const char *path, uint64_t attributes)
{
	struct mount_attr attr = {.attr_set = attributes};
	CLEANUP_FD int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path,
		OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);

	if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return -errno;
	return steal_fd(&tree);
}

/** Attach the detached @tree at @name beneath the directory @at. */
static int attach(int tree, int at, const char *name)
{
	return syscall(SYS_move_mount, tree, "", at, name, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/** Nothing that is mounted from here on is to be seen outside, and nothing that is mounted there in here. */
static int separate(struct husk_error *err)
{
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? error_errno(err, "part from the host's mounts")
								     : 0;
}

/** The path of the directory @fd in this mount namespace; the descriptor itself belongs to another. */
static int find_path(int fd, char path[PATH_MAX], struct husk_error *err)
{
	char link[40];
	struct stat there, here;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, PATH_MAX - 1);
	if (n < 0)
		return error_errno(err, "find the VM's runtime directory");
	path[n] = 0;
	if (fstat(fd, &there) < 0 || stat(path, &here) < 0)
		return error_errno(err, "find the VM's runtime directory %s", path);
	if (there.st_dev != here.st_dev || there.st_ino != here.st_ino)
		return error_set(err, -ESTALE, "the VM's runtime directory is not at %s any more", path);
	return 0;
}

/** Make the working directory, where something is mounted, the root, and let go of the old one. */
static int pivot(struct husk_error *err)
{
	if (syscall(SYS_pivot_root, ".", ".") < 0) {
		/* The kernel's first root cannot be put away: cover it, and hold on to what covers it. */
		if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
			return error_errno(err, "change the root");
	} else if (umount2(".", DETACH) < 0) {
		return error_errno(err, "let go of the old root");
	}
	return chdir("/") < 0 ? error_errno(err, "enter the new root") : 0;
}

int root_enter(int directory, struct husk_error *err)
{
	char path[PATH_MAX];

	int rc = find_path(directory, path, err);
	rc = rc < 0 ? rc : separate(err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int tree = copy_mount(path, READ_ONLY | MOUNT_ATTR_NOEXEC);
	rc = tree < 0 ? tree : attach(tree, AT_FDCWD, path);
	if (rc < 0 || fchdir(tree) < 0) {
		errno = rc < 0 ? -rc : errno;
		return error_errno(err, "mount the VM's runtime directory");
	}
	return pivot(err);
}

/* ---- a root of parts ---- */

/** The parts of a program's root. What is not there is left out: distributions differ. */
static const char *const parts[] = {
	"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", /* where ld.so looks (ld.so(8)), QEMU's modules */
	"/etc/ld.so.cache", /* what it has found there */
	"/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu", /* firmware */
};
static const char *const devices[] = {"/dev/null", "/dev/urandom"};

/** Make the directories on the way to @path beneath @root. */
static int make_parents(int root, const char *path)
{
	char part[PATH_MAX];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path - 1), path + 1);
		if (mkdirat(root, part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/** Put what is at the absolute @path to the same place beneath @root. 0 also when there is nothing. */
static int put(int root, const char *path, uint64_t attributes)
{
	char target[PATH_MAX];
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	int rc = make_parents(root, path);
	if (rc < 0)
		return rc;
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = 0;
		return n < 0 || (symlinkat(target, root, path + 1) < 0 && errno != EEXIST) ? -errno : 0;
	}
	CLEANUP_FD int tree = copy_mount(path, attributes);
	if (tree < 0)
		return tree;
	if (S_ISDIR(st.st_mode))
		rc = mkdirat(root, path + 1, 0755) < 0 && errno != EEXIST ? -errno : 0;
	else
		rc = mknodat(root, path + 1, S_IFREG | 0444, 0) < 0 && errno != EEXIST ? -errno : 0;
	return rc < 0 ? rc : attach(tree, root, path + 1);
}

static int put_all(int root, const char *const *paths, size_t n, uint64_t attributes, struct husk_error *err)
{
	for (size_t i = 0; i < n; i++) {
		int rc = put(root, paths[i], attributes);
		if (rc < 0)
			return error_set(err, rc, "put %s into the root: %s", paths[i], strerror(-rc));
	}
	return 0;
}

/** @program itself, and what is installed beside it: PREFIX/bin/PROGRAM, PREFIX/lib, PREFIX/share/qemu. */
static int put_program(int root, const char *program, struct husk_error *err)
{
	static const char *const beside[] = {"lib", "share/qemu"};
	char real[PATH_MAX], path[PATH_MAX];
	int rc = 0;

	if (!realpath(program, real))
		return error_errno(err, "find %s", program);
	snprintf(path, sizeof(path), "%s", real);
	for (int i = 0; i < 2 && *path; i++) /* its directory, then that one's */
		*strrchr(path, '/') = 0;
	size_t prefix = strlen(path);
	for (size_t i = 0;
		rc == 0 && i < ARRAY_SIZE(beside) && prefix && strcmp(path, "/usr") && strcmp(path, "/usr/local");
		i++) {
		snprintf(path + prefix, sizeof(path) - prefix, "/%s", beside[i]);
		rc = put(root, path, READ_ONLY);
	}
	rc = rc < 0 ? rc : put(root, real, READ_ONLY);
	if (rc == 0 && strcmp(real, program) != 0) /* a link, perhaps one of several */
		rc = make_parents(root, program);
	if (rc == 0 && strcmp(real, program) != 0 && symlinkat(real, root, program + 1) < 0 && errno != EEXIST)
		rc = -errno;
	return rc < 0 ? error_set(err, rc, "put %s into the root: %s", program, strerror(-rc)) : 0;
}

static int put_proc(int root, bool own_pids, struct husk_error *err)
{
	static const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mkdirat(root, "proc", 0755) < 0)
		return error_errno(err, "make proc");
	if (fchdir(root) < 0)
		return error_errno(err, "enter the new root");
	/* subset=pid (Linux 5.8): processes, and nothing of the rest of the machine. */
	if (own_pids && mount("proc", "proc", "proc", flags, "subset=pid") < 0 &&
		mount("proc", "proc", "proc", flags, NULL) < 0)
		return error_errno(err, "mount a proc of its own");
	int rc = own_pids ? 0 : put(root, "/proc", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return rc < 0 ? error_set(err, rc, "put /proc into the root: %s", strerror(-rc)) : 0;
}

int root_build(int directory, const char *program, bool own_pids, struct husk_error *err)
{
	static const unsigned long flags = MS_NOSUID | MS_NODEV;
	char path[PATH_MAX];

	int rc = find_path(directory, path, err);
	rc = rc < 0 ? rc : separate(err);
	if (rc < 0)
		return rc;
	if (mount("husk", path, "tmpfs", flags, "mode=0755,size=256k,nr_inodes=256") < 0)
		return error_errno(err, "make a root");
	CLEANUP_FD int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return error_errno(err, "enter the new root");
	rc = put_all(root, parts, ARRAY_SIZE(parts), READ_ONLY, err);
	rc = rc < 0 ? rc : put_all(root, devices, ARRAY_SIZE(devices), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
	rc = rc < 0 ? rc : put_program(root, program, err);
	rc = rc < 0 ? rc : put_proc(root, own_pids, err);
	if (rc < 0)
		return rc;
	if (mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC | flags, NULL) < 0)
		return error_errno(err, "make the new root read-only");
	return pivot(err);
}
