/* SPDX-License-Identifier: Apache-2.0 */
/* path-test.c - files appear whole, trees go without following links */
#include "base/cleanup.h"
#include "base/path.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/stat.h>

static bool exists(const char *dir, const char *name)
{
	CLEANUP_FREE char *path = path_join(dir, name);
	struct stat st;
	return lstat(path, &st) == 0;
}

static void touch(const char *dir, const char *name)
{
	CLEANUP_FREE char *path = path_join(dir, name);
	CLEANUP_FD int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		perror(path);
}

int main(void)
{
	struct husk_error err;
	char dir[] = "/tmp/husk-path-test.XXXXXX";
	if (!mkdtemp(dir))
		return 1;
	CLEANUP_FREE char *deep = path_format("%s/a/b/c", dir);
	CHECK(path_make_directories(deep, 0700, &err) == 0 && exists(dir, "a/b/c"), "missing parents are made");
	CHECK(path_make_directories(deep, 0700, &err) == 0, "making it again is fine");
	touch(dir, "a/file");
	CLEANUP_FREE char *through = path_format("%s/a/file/x", dir);
	CHECK(path_make_directories(through, 0700, &err) == -ENOTDIR, "a file in the way is an error");

	CLEANUP_FREE char *file = path_format("%s/whole", dir);
	CHECK(path_write_atomically(file, "one", 3, 0640, &err) == 0, "a file is written");
	CHECK(path_write_atomically(file, "second", 6, 0640, &err) == 0, "and replaced");
	struct stat st;
	CHECK(stat(file, &st) == 0 && st.st_size == 6 && (st.st_mode & 07777) == 0640, "with its size and mode");
	CLEANUP_FREE char *nowhere = path_format("%s/none/x", dir);
	CHECK(path_write_atomically(nowhere, "x", 1, 0600, &err) == -ENOENT, "no directory, no file");
	CHECK(strstr(err.message, nowhere) != NULL, "and the message names the path");

	touch(dir, "precious");
	CLEANUP_FREE char *link = path_format("%s/a/b/link", dir);
	CLEANUP_FREE char *a = path_join(dir, "a");
	CHECK(symlink("../../precious", link) == 0 && path_remove_tree(a, &err) == 0 && !exists(dir, "a"),
		"a tree is removed");
	CHECK(exists(dir, "precious"), "what a link in it pointed to stays");
	CHECK(path_remove_tree(a, &err) == 0, "removing what is not there is fine");
	CHECK(path_remove_tree(dir, &err) == 0, "the rest goes too");
	return tap_done();
}
