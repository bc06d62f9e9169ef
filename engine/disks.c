/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disks.c - the user's disks: judged, opened, locked
 *
 * Theory of operation: a disk is opened here, with the caller's rights, and travels as a descriptor; one that is read-only is
 * opened so, and no process of the VM could write it. A lock on the open file description (F_OFD_SETLK) goes with the
 * descriptor into the VM's processes: shared for readers, exclusive for a writer, and gone with the last of them, however they
 * died. So no two VMs write the same disk, and none reads what another one writes. A block device is first opened with
 * O_EXCL, which the kernel refuses while it, or a partition of it, is mounted or otherwise claimed (open(2)); a writer keeps
 * that claim.
 */
#include "engine/disks.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define SECTOR 512

static const char serial_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

/** The serial number of disk @i: what is given, or "diskN". */
static void serial_of(const struct husk_disk *disk, size_t i, char out[VMM_SERIAL_MAX + 4])
{
	if (disk->serial)
		snprintf(out, VMM_SERIAL_MAX + 1, "%s", disk->serial);
	else
		snprintf(out, VMM_SERIAL_MAX + 1, "disk%u", (unsigned)i);
}

static int check_serial(const struct husk_vm_config *config, size_t i, struct husk_error *err)
{
	const struct husk_disk *disk = &config->disks[i];
	const char *serial = disk->serial;
	char ours[VMM_SERIAL_MAX + 4], theirs[VMM_SERIAL_MAX + 4];

	size_t n = serial ? strlen(serial) : 1;
	if (serial && (n == 0 || n > VMM_SERIAL_MAX || strspn(serial, serial_characters) != n))
		return error_set(err, -EINVAL,
			"disks[%zu].serial: '%s' is no serial number: 1 to %d letters, digits, '.', '_' and '-'", i,
			serial, VMM_SERIAL_MAX);
	serial_of(disk, i, ours);
	if (strcmp(ours, "husk-root") == 0 || strcmp(ours, "husk-scratch") == 0)
		return error_set(err, -EINVAL, "disks[%zu].serial: '%s' is that of a disk of husk's own", i, ours);
	for (size_t k = 0; k < i; k++) {
		serial_of(&config->disks[k], k, theirs);
		if (strcmp(ours, theirs) == 0)
			return error_set(err, -EINVAL,
				"disks[%zu].serial: '%s' is disks[%zu]'s as well; each has its own", i, ours, k);
	}
	return 0;
}

int disks_check(const struct husk_vm_config *config, struct husk_error *err)
{
	if (config->n_disks > VMM_DISKS_MAX)
		return error_set(err, -E2BIG, "disks: %zu disks: at most %d, a VM has 24 slots and needs 6 itself",
			config->n_disks, VMM_DISKS_MAX);
	for (size_t i = 0; i < config->n_disks; i++) {
		const struct husk_disk *disk = &config->disks[i];
		if (!disk->path || !*disk->path)
			return error_set(err, -EINVAL, "disks[%zu].path: '': a disk needs the path of its image", i);
		if (disk->format && strcmp(disk->format, "raw") != 0)
			return error_set(
				err, -ENOTSUP, "disks[%zu].format: '%s': only 'raw' can be read", i, disk->format);
		int rc = check_serial(config, i, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/** open(2) for a disk: *@out, or the errno's rule. */
static int open_image(size_t i, const struct husk_disk *disk, int *out, struct stat *st, struct husk_error *err)
{
	int flags = (disk->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	CLEANUP_FD int fd = -1;

	bool there = stat(disk->path, st) == 0, block = there && S_ISBLK(st->st_mode);
	if (there && !block && !S_ISREG(st->st_mode))
		return error_set(
			err, -EINVAL, "disks[%zu].path: '%s': neither a file nor a block device", i, disk->path);
	fd = open(disk->path, flags | (block ? O_EXCL : 0));
	if (fd >= 0 && block && disk->read_only) { /* that nobody has it is known; others may read it, too */
		close(fd);
		fd = open(disk->path, flags);
	}
	if (fd < 0 && block && errno == EBUSY)
		return error_set(err, -EBUSY, "disks[%zu].path: '%s': the block device is mounted or otherwise in use",
			i, disk->path);
	if (fd < 0 && errno == ENOENT)
		return error_set(err, -ENOENT, "disks[%zu].path: '%s': no such file", i, disk->path);
	if (fd < 0 || fstat(fd, st) < 0)
		return error_errno(err, "disks[%zu].path: '%s': open for %s", i, disk->path,
			disk->read_only ? "reading" : "writing");
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return error_set(
			err, -EINVAL, "disks[%zu].path: '%s': neither a file nor a block device", i, disk->path);
	*out = steal_fd(&fd);
	return 0;
}

static int check_size(size_t i, const char *path, int fd, const struct stat *st, struct husk_error *err)
{
	uint64_t size = (uint64_t)st->st_size;

	if (S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)
		return error_errno(err, "disks[%zu].path: '%s': read the device's size", i, path);
	if (!size || size % SECTOR)
		return error_set(err, -EINVAL,
			"disks[%zu].path: '%s' has %llu bytes: a disk has a multiple of %d, and more than none", i,
			path, (unsigned long long)size, SECTOR);
	return 0;
}

static int lock(size_t i, const struct husk_disk *disk, int fd, struct husk_error *err)
{
	struct flock whole = {.l_type = disk->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return error_set(err, -EBUSY, "disks[%zu].path: '%s': %s", i, disk->path,
			disk->read_only ? "another VM writes it"
					: "another VM has it; a disk that is written has one VM");
	return error_errno(err, "disks[%zu].path: '%s': lock it", i, disk->path);
}

/** One disk twice in a VM, one of the two writable: the lock would call it another VM's. */
static int check_twice(const struct husk_vm_config *config, const struct stat *all, size_t i, struct husk_error *err)
{
	for (size_t k = 0; k < i; k++) {
		bool same = S_ISBLK(all[i].st_mode) && S_ISBLK(all[k].st_mode)
				    ? all[i].st_rdev == all[k].st_rdev
				    : all[i].st_dev == all[k].st_dev && all[i].st_ino == all[k].st_ino;
		if (same && !(config->disks[i].read_only && config->disks[k].read_only))
			return error_set(err, -EBUSY,
				"disks[%zu].path: '%s' is disks[%zu] as well; that works with both read-only", i,
				config->disks[i].path, k);
	}
	return 0;
}

static char *absolute(const char *path)
{
	CLEANUP_FREE char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
	return here ? path_join(here, path) : strdup(path);
}

int disks_open(const struct husk_vm_config *config, struct open_disks *out, struct husk_error *err)
{
	struct stat all[VMM_DISKS_MAX];
	int rc = 0;

	for (size_t i = 0; i < config->n_disks && rc == 0; i++) {
		const struct husk_disk *disk = &config->disks[i];
		struct vmm_disk *opened = &out->disk[out->n];
		*opened = (struct vmm_disk){.fd = -1, .read_only = disk->read_only};
		serial_of(disk, i, opened->serial);
		if (stat(disk->path, &all[i]) == 0 && (rc = check_twice(config, all, i, err)) < 0)
			return rc; /* before O_EXCL meets the claim of the first */
		rc = open_image(i, disk, &opened->fd, &all[i], err);
		if (rc < 0)
			return rc;
		out->path[out->n++] = absolute(disk->path);
		rc = check_size(i, disk->path, opened->fd, &all[i], err);
		rc = rc < 0 ? rc : lock(i, disk, opened->fd, err);
		if (rc == 0 && !out->path[i])
			rc = error_set(err, -ENOMEM, "open the disks: out of memory");
	}
	return rc;
}

void disks_put(const struct open_disks *disks, struct envelope *e)
{
	for (size_t i = 0; i < disks->n; i++)
		envelope_disk(e, &disks->disk[i]);
}

void disks_close(struct open_disks *disks)
{
	for (size_t i = 0; i < disks->n; i++) {
		close(disks->disk[i].fd);
		free(disks->path[i]);
	}
	disks->n = 0;
}
