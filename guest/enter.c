/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enter.c - the workload's own view
 *
 * Theory of operation: runs in the main workload's first process, which is PID 1 of a new PID namespace and has a mount
 * namespace of its own, a copy of the agent's. The root is moved over "/" and entered by chroot: "/" of a VM that boots an
 * initramfs is rootfs, which pivot_root(2) cannot leave. After that every path resolves inside the image.
 *
 * /dev is a tmpfs with a container's nodes, and those of the user's disks (nodes.h). With a read-only root its volumes and /tmp stay writable: each is bound onto
 * itself first, and only the root's own mount is then made read-only.
 */
#include "guest/enter.h"

#include "base/cleanup.h"
#include "guest/nodes.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct mount_entry {
	const char *source, *target, *type;
	unsigned long flags;
	const char *options;
};

static const struct mount_entry mounts[] = {
	{"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"},
	{"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
};

static const struct {
	const char *path;
	mode_t mode;
	unsigned major, minor;
} nodes[] = {
	{"/dev/null", 0666, 1, 3},
	{"/dev/zero", 0666, 1, 5},
	{"/dev/full", 0666, 1, 7},
	{"/dev/random", 0666, 1, 8},
	{"/dev/urandom", 0666, 1, 9},
	{"/dev/tty", 0666, 5, 0},
};

static const struct {
	const char *path, *target;
} links[] = {
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/ptmx", "pts/ptmx"},
	{"/dev/core", "/proc/kcore"},
};

static int mount_one(const struct mount_entry *m, struct husk_error *err)
{
	if (mkdir(m->target, 0755) < 0 && errno != EEXIST)
		return error_errno(err, "make %s", m->target);
	if (mount(m->source, m->target, m->type, m->flags, m->options) < 0)
		return error_errno(err, "mount %s", m->target);
	return 0;
}

static int fill_dev(const struct workload_setup *setup, struct husk_error *err)
{
	char options[64];
	snprintf(options, sizeof(options), "mode=1777,size=%llu", (unsigned long long)setup->shm_size);
	struct mount_entry shm = {"shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options};

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
		/* chmod: mknod's mode goes through the umask. */
		if (mknod(nodes[i].path, S_IFCHR | nodes[i].mode, makedev(nodes[i].major, nodes[i].minor)) < 0 ||
			chmod(nodes[i].path, nodes[i].mode) < 0)
			return error_errno(err, "make %s", nodes[i].path);
	}
	dev_t console = setup->nodes && setup->nodes->console ? setup->nodes->console : makedev(5, 1);
	if (mknod("/dev/console", S_IFCHR | 0600, console) < 0)
		return error_errno(err, "make /dev/console");
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i].target, links[i].path) < 0)
			return error_errno(err, "make %s", links[i].path);
	int rc = setup->nodes ? nodes_make(setup->nodes, err) : 0;
	return rc < 0 ? rc : mount_one(&shm, err);
}

/** Make @path and its parents, as seen from the new root. */
static int make_directories(const char *path, struct husk_error *err)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	for (char *slash = copy; slash;) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = 0;
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return error_errno(err, "make directory %s", copy);
		if (slash)
			*slash = '/';
	}
	return 0;
}

static int bind_writable(const char *path, struct husk_error *err)
{
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
		return error_errno(err, "keep %s writable", path);
	return 0;
}

static int make_read_only(const struct workload_setup *setup, struct husk_error *err)
{
	int rc = 0;
	if (mkdir("/tmp", 01777) == 0)
		rc = chmod("/tmp", 01777) < 0 ? error_errno(err, "make /tmp") : 0;
	if (rc == 0)
		rc = bind_writable("/tmp", err);
	for (size_t i = 0; rc == 0 && i < setup->n_volumes; i++)
		rc = bind_writable(setup->volumes[i], err);
	if (rc == 0 && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		rc = error_errno(err, "make the root read-only");
	return rc;
}

int enter_root(const struct workload_setup *setup, const char *cwd, struct husk_error *err)
{
	int rc = 0;

	umask(022);
	if (chdir(setup->root) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return error_errno(err, "enter the root");
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(mounts); i++)
		rc = mount_one(&mounts[i], err);
	if (rc == 0)
		rc = fill_dev(setup, err);
	if (rc == 0 && setup->cgroup >= 0 &&
		mount("cgroup", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		rc = error_errno(err, "mount /sys/fs/cgroup");
	if (rc == 0)
		rc = make_directories(cwd, err) == -ENOMEM ? -ENOMEM : 0; /* what failed shows when it is entered */
	if (rc == 0 && setup->read_only)
		rc = make_read_only(setup, err);
	return rc;
}
