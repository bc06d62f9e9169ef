/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scratch.c - the scratch disk
 *
 * A file that is new reads as zeros, so mke2fs need not write any (assume_storage_prezeroed) and the guest's kernel has no
 * lazy initialisation to do later: 8 GiB cost 4.2 MiB on disk and 15 ms, which a cached template would not beat by enough
 * to be worth its upkeep.
 *
 * A VM that is started again gets the disk that it had. However the VM ended, its kernel has a journal to replay
 * (BOOT_FLAG_KEPT); here it is only made sure that the file is the disk at all.
 */
#include "engine/scratch.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "engine/helper.h"

#include <fcntl.h>
#include <sys/stat.h>

/* Linux, Documentation/filesystems/ext4/super.rst: the super block is at byte 1024, s_magic 0x38 behind that. */
#define EXT4_MAGIC_OFFSET (1024 + 0x38)
#define EXT4_MAGIC 0xef53

int scratch_create(const char *path, uint64_t size, int cancel_fd, int *fd_out, struct husk_error *err)
{
	CLEANUP_FREE char *program = engine_find_program("mke2fs");
	if (!program)
		return error_set(err, -ENOENT, "mke2fs is missing; install the package e2fsprogs");
	CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return error_errno(err, "make the scratch disk %s", path);
	const char *const argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E",
		"assume_storage_prezeroed=1,nodiscard", path, NULL};
	struct helper helper = {.path = program,
		.argv = argv,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.cancel_fd = cancel_fd};
	int rc = helper_run(&helper, NULL, err);
	if (rc == -ECANCELED)
		return rc;
	if (rc < 0)
		return error_prefix(err, rc, "make the scratch disk");
	*fd_out = steal_fd(&fd);
	return 0;
}

int scratch_open(const char *path, uint64_t size, int *fd_out, struct husk_error *err)
{
	struct stat st;
	uint8_t magic[2];

	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open the scratch disk %s", path);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return error_set(
			err, -EBADMSG, "the scratch disk %s is no file of %llu bytes", path, (unsigned long long)size);
	if (pread(fd, magic, sizeof(magic), EXT4_MAGIC_OFFSET) != sizeof(magic) || get_le16(magic) != EXT4_MAGIC)
		return error_set(err, -EBADMSG, "the scratch disk %s has no ext4 file system", path);
	*fd_out = steal_fd(&fd);
	return 0;
}
