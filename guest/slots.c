/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slots.c - virtio-mmio slots that were empty when the guest booted
 *
 * Theory of operation: ACPI describes each slot as a platform device LNRO0005:xx, xx in slot order. The driver refuses one
 * whose device id is 0 (Linux drivers/virtio/virtio_mmio.c) and it is left without a driver; one with a device has a child
 * virtioN. There is no hot-plug: to write the slot's name to the driver's `bind` file is what makes it look again, and the
 * write fails as the probe does while the slot is still empty. A slot that kept the driver without a device is unbound
 * first. In slot order, so that disks get their names in the order in which the host filled the slots.
 *
 * Probing a disk reads from it and may take as long as the host likes, so the agent has a child do this. It mounts sysfs in a
 * namespace of its own, because the agent needs none.
 */
#include "guest/slots.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define SYSFS "/sys"
#define DEVICES "bus/platform/devices"
#define DRIVER "bus/platform/drivers/virtio-mmio"
#define SLOT "LNRO0005:"

static int mount_sysfs(struct husk_error *err)
{
	if (mkdir(SYSFS, 0755) < 0 && errno != EEXIST)
		return error_errno(err, "make %s", SYSFS);
	if (unshare(CLONE_NEWNS) < 0 || mount("sysfs", SYSFS, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return error_errno(err, "mount %s", SYSFS);
	return 0;
}

static int is_slot(const struct dirent *entry)
{
	return strncmp(entry->d_name, SLOT, strlen(SLOT)) == 0;
}

/** Does the slot @name of the directory @devices have a device? */
static bool is_filled(int devices, const char *name)
{
	CLEANUP_FD int fd = openat(devices, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (dir)
		fd = -1; /* the directory's now */
	while (dir && (entry = readdir(dir)))
		if (strncmp(entry->d_name, "virtio", strlen("virtio")) == 0)
			return true;
	return false;
}

/** Write @name to the file @file of the driver's directory. */
static int tell_driver(int driver, const char *file, const char *name)
{
	char line[NAME_MAX + 2];
	int n = snprintf(line, sizeof(line), "%s\n", name);
	CLEANUP_FD int fd = openat(driver, file, O_WRONLY | O_APPEND | O_CLOEXEC);

	return fd < 0 || write(fd, line, (size_t)n) != n ? -errno : 0;
}

/** Let the driver look at the slot @name; has a device appeared? */
static bool probe(int devices, int driver, const char *name)
{
	char bound[NAME_MAX + sizeof("/driver")];

	if (is_filled(devices, name))
		return false;
	snprintf(bound, sizeof(bound), "%s/driver", name);
	if (faccessat(devices, bound, F_OK, 0) == 0)
		tell_driver(driver, "unbind", name);
	return tell_driver(driver, "bind", name) == 0;
}

/** Open @path below @sysfs; -1 with errno. */
static int open_below(const char *sysfs, const char *path)
{
	CLEANUP_FD int root = open(sysfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return root < 0 ? -1 : openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int slots_rescan(const char *sysfs, struct husk_error *err)
{
	char path[PATH_MAX];
	struct dirent **slots = NULL;
	int rc = sysfs ? 0 : mount_sysfs(err), appeared = 0;

	if (rc < 0)
		return rc;
	sysfs = sysfs ? sysfs : SYSFS;
	snprintf(path, sizeof(path), "%s/%s", sysfs, DEVICES);
	CLEANUP_FD int devices = open_below(sysfs, DEVICES);
	int n = devices < 0 ? -1 : scandir(path, &slots, is_slot, alphasort);
	if (n < 0)
		return error_errno(err, "look for slots in %s", path);
	CLEANUP_FD int driver = open_below(sysfs, DRIVER);
	if (n > 0 && driver < 0)
		rc = error_errno(err, "find the driver virtio-mmio");
	for (int i = 0; i < n; i++) {
		appeared += rc == 0 && probe(devices, driver, slots[i]->d_name);
		free(slots[i]);
	}
	free(slots);
	return rc < 0 ? rc : appeared;
}
