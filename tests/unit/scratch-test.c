/* SPDX-License-Identifier: Apache-2.0 */
/* scratch-test.c - a scratch disk that was made is opened again; what is none is refused and left alone */
#include "base/cleanup.h"
#include "base/path.h"
#include "engine/scratch.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int opened(const char *path, uint64_t size)
{
	struct husk_error err;
	CLEANUP_FD int fd = -1;
	return scratch_open(path, size, &fd, &err);
}

int main(void)
{
	char directory[] = "/tmp/husk-scratch-XXXXXX", bytes[5] = "";
	struct husk_error err = {0};
	if (!mkdtemp(directory))
		return 1;
	CLEANUP_FREE char *path = path_join(directory, "scratch.img");
	CLEANUP_FREE char *other = path_join(directory, "other.img");
	CLEANUP_FD int made = -1, again = -1, plain = -1;

	CHECK(scratch_open(path, SCRATCH_MIN, &again, &err) == -ENOENT, "a disk that is not there is not made");
	int rc = scratch_create(path, SCRATCH_MIN, -1, &made, &err);
	if (rc < 0) {
		SKIP("a scratch disk", err.message);
		path_remove_tree(directory, &err);
		return tap_done();
	}
	/* Behind the file system's own: what the VM has written is what comes back. */
	CHECK(pwrite(made, "mine", 4, SCRATCH_MIN - 4096) == 4, "something is written");
	CHECK(scratch_open(path, SCRATCH_MIN, &again, &err) == 0 && pread(again, bytes, 4, SCRATCH_MIN - 4096) == 4 &&
			strcmp(bytes, "mine") == 0 && pwrite(again, "more", 4, SCRATCH_MIN - 4096) == 4,
		"a disk is opened again, to be written, with what was on it");
	CHECK(scratch_create(path, SCRATCH_MIN, -1, &plain, &err) == -EEXIST, "and is not made a second time");
	CHECK(opened(path, SCRATCH_MIN * 2) == -EBADMSG, "a disk of another size is refused");
	CHECK(symlink(path, other) == 0 && opened(other, SCRATCH_MIN) == -ELOOP, "so is a link");
	unlink(other);
	CHECK(mkfifo(other, 0600) == 0 && opened(other, SCRATCH_MIN) == -EBADMSG, "so is a fifo, without a wait");
	unlink(other);
	plain = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(ftruncate(plain, SCRATCH_MIN) == 0 && opened(other, SCRATCH_MIN) == -EBADMSG,
		"so is a file without a file system, as an interrupted start leaves one");
	path_remove_tree(directory, &err);
	return tap_done();
}
