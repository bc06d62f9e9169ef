/* SPDX-License-Identifier: Apache-2.0 */
/* kernel-test.c - guest kernels that are found whole or refused */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "engine/kernel.h"
#include "engine/kernel_modules.h"
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
	CHECK(kernel_find(dir, NULL, &k, &err) == -ENOENT && strstr(err.message, "husk kernel fetch"),
		"one that was fetched for other modules counts for nothing");
	CLEANUP_FREE char *other = write_file(kernel, "wanted", "virtio_pci\n");
	CHECK(kernel_find(dir, NULL, &k, &err) == -ENOENT, "whatever these were");
	CLEANUP_FREE char *wanted = write_file(kernel, "wanted", kernel_modules_wanted());
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

static void test_collect(void)
{
	static const char dep[] = "kernel/drivers/virtio/virtio.ko:\n"
				  "kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n"
				  "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko "
				  "kernel/drivers/virtio/virtio.ko\n"
				  "kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio_ring.ko "
				  "kernel/drivers/virtio/virtio.ko\n"
				  "kernel/fs/not_overlay.ko:\n";
	static const char builtin[] = "kernel/a/virtio_mmio.ko\nkernel/a/virtio_blk.ko\nkernel/fs/squashfs.ko\n"
				      "kernel/fs/overlay.ko\nkernel/net/vmw_vsock_virtio_transport.ko\n"
				      "kernel/net/vsock_loopback.ko\nkernel/a/virtio_console.ko\n"
				      "kernel/a/virtio_balloon.ko\nkernel/a/evdev.ko\nkernel/a/button.ko\n";
	struct husk_error err = {0};
	CLEANUP(kernel_modules_free) char **list = NULL;

	if (!CHECK(kernel_modules_collect(dep, builtin, &list, &err) == 0, "what is built in needs no module"))
		return;
	static const char *const order[] = {"kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko",
		"kernel/drivers/virtio/virtio_pci.ko.xz", "kernel/drivers/char/hw_random/virtio-rng.ko"};
	size_t n = 0;
	while (list[n] && n < ARRAY_SIZE(order) && strcmp(list[n], order[n]) == 0)
		n++;
	CHECK(n == ARRAY_SIZE(order) && !list[n], "what a module needs comes before it, and once");
	char **none = NULL;
	CHECK(kernel_modules_collect(dep, "kernel/fs/not_overlay.ko\n", &none, &err) == -ENOENT && !none &&
			strstr(err.message, "virtio_mmio"),
		"a module that is neither there nor built in is named");
}

static void test_use(void)
{
	static const struct {
		const char *file;
		enum kernel_module_use qemu, kvm;
	} cases[] = {
		{"virtio.ko", KERNEL_MODULE_BOOT, KERNEL_MODULE_BOOT},
		{"virtio_blk.ko", KERNEL_MODULE_BOOT, KERNEL_MODULE_BOOT},
		{"virtio_pci.ko", KERNEL_MODULE_BOOT, KERNEL_MODULE_UNUSED},
		{"virtio_pci_legacy_dev.ko", KERNEL_MODULE_BOOT, KERNEL_MODULE_UNUSED},
		{"virtio_mmio.ko", KERNEL_MODULE_UNUSED, KERNEL_MODULE_BOOT},
		{"virtio_console.ko", KERNEL_MODULE_UNUSED, KERNEL_MODULE_BOOT},
		{"virtio-rng.ko", KERNEL_MODULE_LATE, KERNEL_MODULE_LATE},
		{"button.ko", KERNEL_MODULE_LATE, KERNEL_MODULE_LATE},
		{"virtio_pc.ko", KERNEL_MODULE_BOOT, KERNEL_MODULE_BOOT},
		{"button", KERNEL_MODULE_BOOT, KERNEL_MODULE_BOOT},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		CHECK(kernel_module_use(cases[i].file, VMM_MACHINE_QEMU, false) == cases[i].qemu &&
				kernel_module_use(cases[i].file, VMM_MACHINE_KVM, false) == cases[i].kvm,
			cases[i].file);
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
	test_collect();
	test_use();
	test_unpack(dir);
	test_tool();
	path_remove_tree(dir, NULL);
	return tap_done();
}
