/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nodes.c - devices of this VM for the workload's /dev
 *
 * Theory of operation: a workload's /dev is a tmpfs of its own (enter.c). What it shall find there beyond a container's nodes is
 * looked up in the agent's devtmpfs once, at start, and made anew in each workload's: a disk of the user's with its partitions
 * as the kernel has found them, and the names by serial number that udev would give (virtio-SERIAL, virtio-SERIAL-partN). The
 * disks of husk's own, root and scratch, are not among them. A console that is the workload's alone is its /dev/console, too.
 * It carries bytes and no lines: it is made raw here, and kept open, since the driver forgets that with the last who closes it
 * (drivers/tty/hvc: TTY_DRIVER_RESET_TERMIOS).
 */
#include "guest/nodes.h"

#include "base/cleanup.h"
#include "guest/mounts.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>

#define BY_ID "/dev/disk/by-id"

static int add_node(struct nodes *nodes, const char *name, const char *serial, const char *part, struct husk_error *err)
{
	char path[NODES_NAME + 8];
	struct stat st;

	if (nodes->n == NODES_MAX || strlen(name) >= NODES_NAME)
		return error_set(err, -E2BIG, "the disks have too many partitions for /dev");
	struct node *node = &nodes->list[nodes->n];
	snprintf(path, sizeof(path), "/dev/%s", name);
	if (stat(path, &st) < 0)
		return error_errno(err, "look at %s", path);
	snprintf(node->name, sizeof(node->name), "%s", name);
	if (*serial)
		snprintf(node->id, sizeof(node->id), "virtio-%s%s%s", serial, *part ? "-part" : "", part);
	node->type = st.st_mode & S_IFMT;
	node->device = st.st_rdev;
	nodes->n++;
	return 0;
}

/** "vdb1", "vdb2", … of "vdb". */
static int add_partitions(struct nodes *nodes, const struct envelope_disk *disk, struct husk_error *err)
{
	size_t n = strlen(disk->device);
	struct dirent *entry;
	int rc = 0;
	DIR *dir = opendir("/dev");

	if (!dir)
		return error_errno(err, "list /dev");
	while (rc == 0 && (entry = readdir(dir))) {
		const char *part = entry->d_name + n;
		if (strncmp(entry->d_name, disk->device, n) == 0 && isdigit((unsigned char)*part) &&
			part[strspn(part, "0123456789")] == 0)
			rc = add_node(nodes, entry->d_name, disk->serial, part, err);
	}
	closedir(dir);
	return rc;
}

static int find_console(const char *name, struct nodes *out, struct husk_error *err)
{
	char path[ENVELOPE_DEVICE_MAX + 8];
	struct termios raw;

	snprintf(path, sizeof(path), "/dev/%s", name);
	int rc = mounts_wait_for(path, err);
	rc = rc < 0 ? rc : add_node(out, name, "", "", err);
	if (rc < 0)
		return rc;
	out->console = out->list[out->n - 1].device;
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC); /* for good */
	if (fd < 0 || tcgetattr(fd, &raw) < 0)
		return error_errno(err, "open %s", path);
	cfmakeraw(&raw);
	return tcsetattr(fd, TCSANOW, &raw) < 0 ? error_errno(err, "make %s raw", path) : 0;
}

int nodes_find(const struct envelope *envelope, struct nodes *out, struct husk_error *err)
{
	char path[ENVELOPE_DEVICE_MAX + 8];
	int rc = envelope->console[0] ? find_console(envelope->console, out, err) : 0;

	for (size_t i = 0; i < envelope->n_disks && rc == 0; i++) {
		const struct envelope_disk *disk = &envelope->disks[i];
		snprintf(path, sizeof(path), "/dev/%s", disk->device);
		rc = mounts_wait_for(path, err);
		rc = rc < 0 ? rc : add_node(out, disk->device, disk->serial, "", err);
		rc = rc < 0 ? rc : add_partitions(out, disk, err);
	}
	return rc;
}

int nodes_make(const struct nodes *nodes, struct husk_error *err)
{
	char path[128], target[NODES_NAME + 8];
	bool disks = false;

	for (size_t i = 0; i < nodes->n; i++)
		disks |= nodes->list[i].id[0] != 0;
	if (disks && (mkdir("/dev/disk", 0755) < 0 || mkdir(BY_ID, 0755) < 0))
		return error_errno(err, "make " BY_ID);
	for (size_t i = 0; i < nodes->n; i++) {
		const struct node *node = &nodes->list[i];
		snprintf(path, sizeof(path), "/dev/%s", node->name);
		if (mknod(path, node->type | 0660, node->device) < 0 || chmod(path, 0660) < 0)
			return error_errno(err, "make %s", path);
		if (!node->id[0])
			continue;
		snprintf(path, sizeof(path), BY_ID "/%s", node->id);
		snprintf(target, sizeof(target), "../../%s", node->name);
		if (symlink(target, path) < 0)
			return error_errno(err, "make %s", path);
	}
	return 0;
}
