/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initramfs.c - cpio archives for the guest kernel
 *
 * Theory of operation: the kernel unpacks any number of "newc" archives (Linux Documentation/driver-api/early-userspace/
 * buffer-format.rst) one behind the other, zero bytes between them. The first is the same for all VMs of a kernel; the
 * second holds one file. Both are written uncompressed: unpacking is then one copy, where inflating would cost an emulated
 * guest more than it saves. Device nodes are header fields, so no root is needed.
 */
#include "engine/initramfs.h"

#include "agent/boot.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ARCHIVE_ALIGN 512
#define FILE_MAX (64u << 20)

struct entry {
	const char *name; /* without the leading slash */
	mode_t mode;
	unsigned major, minor; /* of a device node */
	const void *bytes;
	size_t size;
};

/** Zero bytes until @b's size is a multiple of @align. */
static int pad(struct buffer *b, size_t align)
{
	static const char zero[ARCHIVE_ALIGN];
	return buffer_append(b, zero, (align - b->size % align) % align);
}

/** Append one member; its inode number only has to differ from those of the archive's other members. */
static int add(struct buffer *b, unsigned inode, const struct entry *e)
{
	int rc = buffer_printf(b, "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X%s", inode,
		(unsigned)e->mode, 0, 0, 1, 0, e->size, 0, 0, e->major, e->minor, strlen(e->name) + 1, 0, e->name);
	if (rc == 0)
		rc = buffer_append(b, "", 1);
	if (rc == 0)
		rc = pad(b, 4);
	if (rc == 0)
		rc = buffer_append(b, e->bytes, e->size);
	return rc < 0 ? rc : pad(b, 4);
}

static int finish(int fd, struct buffer *b, struct husk_error *err)
{
	static const struct entry trailer = {.name = "TRAILER!!!"};
	int rc = add(b, 0, &trailer);
	if (rc == 0)
		rc = pad(b, ARCHIVE_ALIGN);
	if (rc == 0)
		rc = fd_write_all(fd, buffer_bytes(b), b->size);
	return rc < 0 ? error_set(err, rc, "write the initramfs: %s", strerror(-rc)) : 0;
}

static int add_file(
	struct buffer *b, unsigned inode, const char *path, const char *name, mode_t mode, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer content = {0};
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "open %s", path);
	int rc = fd_read_to_end(fd, &content, FILE_MAX);
	struct entry e = {.name = name, .mode = S_IFREG | mode, .bytes = content.data, .size = content.size};
	if (content.data)
		e.bytes = buffer_bytes(&content);
	if (rc == 0)
		rc = add(b, inode, &e);
	return rc < 0 ? error_set(err, rc, "put %s into the initramfs: %s", path, strerror(-rc)) : 0;
}

int initramfs_write(
	int fd, const char *husk_init_path, const char *const *module_paths, size_t n, struct husk_error *err)
{
	static const struct entry fixed[] = {
		{.name = "dev", .mode = S_IFDIR | 0755},
		{.name = "dev/console", .mode = S_IFCHR | 0600, .major = 5, .minor = 1},
		{.name = "husk", .mode = S_IFDIR | 0700},
		{.name = &BOOT_MODULES_DIR[1], .mode = S_IFDIR | 0700},
	};
	CLEANUP_BUFFER struct buffer b = {0};
	unsigned inode = 1;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(fixed); i++)
		rc = add(&b, inode++, &fixed[i]);
	if (rc < 0)
		return error_set(err, rc, "write the initramfs: out of memory");
	rc = add_file(&b, inode++, husk_init_path, "init", 0755, err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		char name[512];
		const char *slash = strrchr(module_paths[i], '/');
		if ((size_t)snprintf(name, sizeof(name), "%s/%s", &BOOT_MODULES_DIR[1],
			    slash ? slash + 1 : module_paths[i]) >= sizeof(name))
			return error_set(err, -ENAMETOOLONG, "module name too long: %s", module_paths[i]);
		rc = add_file(&b, inode++, module_paths[i], name, 0644, err);
	}
	return rc < 0 ? rc : finish(fd, &b, err);
}

int initramfs_append_boot(int fd, const void *envelope, size_t size, struct husk_error *err)
{
	const struct entry boot = {.name = &BOOT_PATH[1], .mode = S_IFREG | 0600, .bytes = envelope, .size = size};
	CLEANUP_BUFFER struct buffer b = {0};

	if (size > BOOT_SIZE_MAX)
		return error_set(err, -EFBIG, "boot envelope of %zu bytes is larger than %u", size, BOOT_SIZE_MAX);
	off_t end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return error_errno(err, "find the end of the initramfs");
	/* The next archive begins at a multiple of 4. */
	static const char zero[4];
	int rc = fd_write_all(fd, zero, (size_t)(-end & 3));
	if (rc == 0)
		rc = add(&b, 1, &boot);
	if (rc < 0)
		return error_set(err, rc, "append the boot envelope: %s", strerror(-rc));
	return finish(fd, &b, err);
}
