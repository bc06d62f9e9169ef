/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounts.c - the root that workloads see
 *
 * Theory of operation: all layers are partitions of one read-only disk, partition 1 the bottom. Each is mounted at
 * LAYERS/<n>, the scratch disk at SCRATCH, and one overlay over all of them at MOUNTS_ROOT, with upper and work directory on
 * the scratch disk, so that what a workload writes is disk and not guest RAM. On a disk that is kept an earlier boot's are
 * there, however that one ended: ext4 replays its journal, and overlayfs empties its work directory itself; and what is written
 * goes to the disk within seconds. The agent stays outside, in the initramfs; a workload's mount namespace is a copy in which
 * the overlay is moved to "/" (guest/enter.c).
 *
 * A disk's driver was loaded before, and its probe makes the node before finit_module(2) returns; where a node is late all
 * the same, inotify on devtmpfs tells when it comes, nobody sleeps.
 *
 * What is opened below the image's root is opened with RESOLVE_IN_ROOT: links in a hostile image lead nowhere else.
 */
#include "guest/mounts.h"

#include "agent/boot.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "guest/console.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LAYERS "/l" /* short: every layer's path is in the overlay's option string, which has a page */
#define SCRATCH "/scratch"
#define DEVICE_TIMEOUT_MS 10000
#define OPTIONS_MAX 4000

int mounts_open_in(int root, const char *path, int flags, mode_t mode)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = mode,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

int mounts_make_directory_in(int root, const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	CLEANUP_FD int at = mounts_open_in(root, "/", O_PATH | O_DIRECTORY, 0);
	if (at < 0)
		return at;
	/* Each prefix is resolved from the root again: a component may be a link to anywhere inside. */
	for (char *end = copy; *end;) {
		char *name = end + strspn(end, "/");
		end = name + strcspn(name, "/");
		if (end == name)
			break;
		char saved = *end;
		*end = 0;
		int next = mounts_open_in(root, copy, O_PATH | O_DIRECTORY, 0);
		if (next == -ENOENT && mkdirat(at, name, 0755) == 0)
			next = mounts_open_in(root, copy, O_PATH | O_DIRECTORY, 0);
		*end = saved;
		if (next < 0)
			return next;
		close(at);
		at = next;
	}
	return steal_fd(&at);
}

static int mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *options,
	struct husk_error *err)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		return error_errno(err, "make %s", target);
	if (mount(source, target, type, flags, options) < 0)
		return error_errno(err, "mount %s (%s) on %s", source, type, target);
	return 0;
}

int mounts_devices(struct husk_error *err)
{
	int rc = mount_at("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL, err);
	return rc < 0 && err->code == -EBUSY ? 0 : rc; /* a kernel with DEVTMPFS_MOUNT */
}

int mounts_wait_for(const char *path, struct husk_error *err)
{
	if (access(path, F_OK) == 0)
		return 0;
	CLEANUP_FD int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (watch < 0 || inotify_add_watch(watch, "/dev", IN_CREATE) < 0)
		return error_errno(err, "watch /dev");
	uint64_t deadline = clock_monotonic_ns() + DEVICE_TIMEOUT_MS * 1000000ull;
	for (;;) {
		char events[4096];
		if (access(path, F_OK) == 0)
			return 0;
		uint64_t now = clock_monotonic_ns();
		if (now >= deadline)
			return error_set(err, -ETIMEDOUT, "%s did not appear", path);
		struct pollfd wait = {.fd = watch, .events = POLLIN};
		poll(&wait, 1, (int)((deadline - now) / 1000000) + 1);
		if (read(watch, events, sizeof(events)) < 0 && errno != EAGAIN && errno != EINTR)
			return error_errno(err, "watch /dev");
	}
}

static int mount_disk(const char *device, const char *target, const char *type, unsigned long flags,
	const char *options, struct husk_error *err)
{
	int rc = mounts_wait_for(device, err);
	return rc < 0 ? rc : mount_at(device, target, type, flags, options, err);
}

/** Mount each layer and write their paths, top first, to @lower. */
static int mount_layers(const struct envelope *envelope, char *lower, size_t room, struct husk_error *err)
{
	/* Linux puts a 'p' between a disk's name that ends in a digit and the partition (nvme0n1p1). */
	size_t length = strlen(envelope->root_device);
	char last = envelope->root_device[length - 1];
	const char *infix = last >= '0' && last <= '9' ? "p" : "";
	size_t used = 0;

	if (mkdir(LAYERS, 0700) < 0 && errno != EEXIST)
		return error_errno(err, "make " LAYERS);
	for (uint32_t layer = envelope->layers; layer >= 1; layer--) {
		char device[64], target[32];
		snprintf(device, sizeof(device), "/dev/%s%s%u", envelope->root_device, infix, layer);
		snprintf(target, sizeof(target), LAYERS "/%u", layer);
		int rc = mount_disk(device, target, "squashfs", MS_RDONLY, NULL, err);
		if (rc < 0)
			return rc;
		used += (size_t)snprintf(lower + used, room - used, "%s%s", used ? ":" : "", target);
	}
	return 0;
}

static int make_volumes(const struct envelope *envelope, struct husk_error *err)
{
	CLEANUP_FD int root = open(MOUNTS_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return error_errno(err, "open the root");
	for (size_t i = 0; i < envelope->n_volumes; i++) {
		CLEANUP_FD int fd = mounts_make_directory_in(root, envelope->volumes[i]);
		if (fd < 0) {
			errno = -fd;
			return error_errno(err, "make the volume %s", envelope->volumes[i]);
		}
	}
	return 0;
}

/** A VM may be killed at any time, and what it wrote be looked for at its next boot. Linux's own habit is to leave what was
 *  written in memory for 30 seconds (vm.dirty_expire_centisecs, Documentation/admin-guide/sysctl/vm.rst). */
static void write_soon(void)
{
	static const struct {
		const char *path, *value;
	} settings[] = {
		{"/proc/sys/vm/dirty_expire_centisecs", "200"},
		{"/proc/sys/vm/dirty_writeback_centisecs", "100"},
	};
	struct husk_error err = {0};

	if (mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, &err) < 0)
		return console_say("%s", err.message);
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		CLEANUP_FD int fd = open(settings[i].path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, settings[i].value, strlen(settings[i].value)) < 0)
			console_say("set %s: %s", settings[i].path, strerror(errno));
	}
	umount2("/proc", MNT_DETACH);
}

int mounts_root(const struct envelope *envelope, struct husk_error *err)
{
	char device[32], lower[OPTIONS_MAX / 2], options[OPTIONS_MAX];

	snprintf(device, sizeof(device), "/dev/%s", envelope->scratch_device);
	/* A disk that lives as long as the VM needs no barriers, and no journal commits that nobody will replay. */
	bool kept = envelope->flags & BOOT_FLAG_KEPT;
	int rc = mount_disk(device, SCRATCH, "ext4", MS_NOATIME, kept ? NULL : "nobarrier,noauto_da_alloc", err);
	console_debug("scratch disk mounted");
	if (rc == 0 && kept)
		write_soon();
	if (rc == 0)
		rc = mount_layers(envelope, lower, sizeof(lower), err);
	if (rc < 0)
		return rc;
	console_debug("%u layers mounted", envelope->layers);
	if ((mkdir(SCRATCH "/upper", 0755) < 0 && errno != EEXIST) ||
		(mkdir(SCRATCH "/work", 0700) < 0 && errno != EEXIST))
		return error_errno(err, "make the overlay's directories");
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=" SCRATCH "/upper,workdir=" SCRATCH "/work", lower);
	rc = mount_at("husk", MOUNTS_ROOT, "overlay", 0, options, err);
	if (rc == 0)
		rc = make_volumes(envelope, err);
	console_debug("root mounted");
	return rc;
}

int mounts_cgroup(int *fd, struct husk_error *err)
{
	int rc = mount_at("cgroup", MOUNTS_CGROUP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int control = open(MOUNTS_CGROUP "/cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
	/* A kernel without one of them leaves the workload without that control, which is no reason not to run it. */
	static const char *const wanted[] = {"+memory", "+pids", "+cpu", "+io"};
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (control < 0 || write(control, wanted[i], strlen(wanted[i])) < 0)
			console_debug("cgroup controller %s: %s", wanted[i], strerror(errno));
	if (mkdir(MOUNTS_CGROUP "/workload", 0755) < 0 && errno != EEXIST)
		return error_errno(err, "make the workload's cgroup");
	*fd = open(MOUNTS_CGROUP "/workload", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *fd < 0 ? error_errno(err, "open the workload's cgroup") : 0;
}
