/* SPDX-License-Identifier: Apache-2.0 */
/* kernel-test.c - guest kernels that are found whole or refused */
#include "base/cleanup.h"
#include "base/path.h"
#include "engine/kernel.h"
#include "engine/tool.h"
#include "tests/tap.h"

static char *write_file(const char *dir, const char *name, const char *text)
{
	char *path = path_join(dir, name);
	path_write_atomically(path, text, strlen(text), 0644, NULL);
	return path;
}

static void test_find(const char *dir)
{
	struct husk_error err;
	struct kernel k;
	CHECK(kernel_find(dir, NULL, &k, &err) == -ENOENT && strstr(err.message, "husk kernel fetch"),
		"without a kernel the message says what to do");
	CLEANUP_FREE char *kernel = path_format("%s/kernels/k1", dir);
	path_make_directories(kernel, 0755, &err);
	CHECK(kernel_find(dir, NULL, &k, &err) < 0 && strstr(err.message, "not whole"),
		"a kernel without its files is refused");
	CLEANUP_FREE char *load = write_file(kernel, "load", "x.ko\ny.ko\n");
	CLEANUP_FREE char *image = write_file(kernel, "image", "ELF");
	if (!CHECK(kernel_find(dir, NULL, &k, &err) == 0, "a whole one is found"))
		return;
	CHECK_STRING(k.id, "k1", "by its name");
	CHECK(strcmp(k.modules[0], "x.ko") == 0 && strcmp(k.modules[1], "y.ko") == 0 && !k.modules[2],
		"with its modules in load order");
	kernel_free(&k);
}

static void test_unpack(const char *dir)
{
	struct husk_error err;
	CLEANUP_FREE char *text = write_file(dir, "text", "<html>this is no kernel</html>");
	CLEANUP_FREE char *to = path_join(dir, "unpacked");
	CHECK(kernel_image_unpack(text, to, &err) == -ENOTSUP, "a file that is no kernel is refused");
	char header[0x400] = {0};
	memcpy(header + 0x202, "HdrS\x0f\x02", 6);
	memcpy(header + 0x248, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8);
	CLEANUP_FREE char *lies = path_join(dir, "lies");
	path_write_atomically(lies, header, sizeof(header), 0644, NULL);
	CHECK(kernel_image_unpack(lies, to, &err) == -ENOTSUP, "a header that points outside the file is refused");
	CHECK(access(to, F_OK) < 0, "and nothing is left");
}

static void test_tool(void)
{
	struct husk_error err;
	const char *missing[] = {"husk-no-such-tool", NULL};
	struct tool tool = {.argv = missing, .package = "some-package", .stdin_fd = -1, .stdout_fd = -1};
	CHECK(tool_run(&tool, NULL, &err) == -ENOENT && strstr(err.message, "apt-get install some-package"),
		"a missing tool is named with its package");
	const char *failing[] = {"sh", "-c", "echo first >&2; echo 'the reason' >&2; exit 3", NULL};
	tool.argv = failing;
	CHECK(tool_run(&tool, NULL, &err) == -EIO && strstr(err.message, "the reason"),
		"a failing one with its last line");
}

int main(void)
{
	char dir[] = "/tmp/husk-kernel-test.XXXXXX";
	if (!mkdtemp(dir))
		return 1;
	test_find(dir);
	test_unpack(dir);
	test_tool();
	path_remove_tree(dir, NULL);
	return tap_done();
}
