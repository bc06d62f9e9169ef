/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_modules.c - which modules guests use, and when (theory of operation: kernel_modules.h) */
#include "engine/kernel_modules.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <string.h>

/* What a guest needs to find its disks, stack its root and hear its host, on either machine; then the console, the random
 * generator and the memory that the host may ask back, and the power button. vsock_loopback makes connects inside the guest
 * arrive, so that the agent can refuse them by itself. */
static const char wanted[] = "virtio_pci\n"
			     "virtio_mmio\n"
			     "virtio_blk\n"
			     "squashfs\n"
			     "overlay\n"
			     "vmw_vsock_virtio_transport\n"
			     "vsock_loopback\n"
			     "virtio_console\n"
			     "virtio_rng\n"
			     "virtio_balloon\n"
			     "evdev\n"
			     "button\n";

/** Modules that not every guest loads before all else. */
static const struct {
	const char *name;
	enum kernel_module_use qemu, kvm;
} uses[] = {
	{"virtio_pci", KERNEL_MODULE_BOOT, KERNEL_MODULE_UNUSED},
	{"virtio_pci_legacy_dev", KERNEL_MODULE_BOOT, KERNEL_MODULE_UNUSED},
	{"virtio_pci_modern_dev", KERNEL_MODULE_BOOT, KERNEL_MODULE_UNUSED},
	{"virtio_mmio", KERNEL_MODULE_UNUSED, KERNEL_MODULE_BOOT},
	{"virtio_console", KERNEL_MODULE_UNUSED, KERNEL_MODULE_BOOT},
	{"virtio_rng", KERNEL_MODULE_LATE, KERNEL_MODULE_LATE}, /* the boot envelope has brought entropy already */
	{"virtio_balloon", KERNEL_MODULE_LATE, KERNEL_MODULE_LATE},
	{"evdev", KERNEL_MODULE_LATE, KERNEL_MODULE_LATE},
	{"button", KERNEL_MODULE_LATE, KERNEL_MODULE_LATE},
};

const char *kernel_modules_wanted(void)
{
	return wanted;
}

void kernel_modules_free(char ***list)
{
	for (char **at = *list; at && *at; at++)
		free(*at);
	free(*list);
}

/** True when the path [@path, @path + @n) is the module [@name, @name + @length) ('-' and '_' are one to the kernel). */
static bool is_module(const char *path, size_t n, const char *name, size_t length)
{
	const char *base = path + n;
	while (base > path && base[-1] != '/')
		base--;
	if ((size_t)(path + n - base) < length + strlen(".ko"))
		return false;
	for (size_t i = 0; i < length; i++)
		if ((base[i] == '-' ? '_' : base[i]) != name[i])
			return false;
	return strncmp(base + length, ".ko", 3) == 0;
}

enum kernel_module_use kernel_module_use(const char *file, enum vmm_machine machine, bool hvc)
{
	static const char console[] = "virtio_console";
	if (hvc && is_module(file, strlen(file), console, strlen(console)))
		return KERNEL_MODULE_BOOT;
	for (size_t i = 0; i < ARRAY_SIZE(uses); i++)
		if (is_module(file, strlen(file), uses[i].name, strlen(uses[i].name)))
			return machine == VMM_MACHINE_KVM ? uses[i].kvm : uses[i].qemu;
	return KERNEL_MODULE_BOOT;
}

/** Append [@path, @path + @n) to the NULL-terminated @list unless it is there. */
static int add_unique(char **list, const char *path, size_t n)
{
	size_t i = 0;
	for (; list[i]; i++)
		if (strlen(list[i]) == n && memcmp(list[i], path, n) == 0)
			return 0;
	if (i == KERNEL_MODULES_MAX)
		return -E2BIG;
	list[i] = strndup(path, n);
	return list[i] ? 0 : -ENOMEM;
}

/** Add what a @line of modules.dep names: "path: path…", where each path comes before those that it needs itself, so that
 *  read from the right it is a load order. @own: the length of its first path. */
static int add_line(char **list, const char *line, size_t own)
{
	const char *needs = line + own + 1, *end = line + strcspn(line, "\n");
	while (end > needs) {
		const char *word = end;
		while (word > needs && word[-1] != ' ')
			word--;
		int rc = word < end ? add_unique(list, word, (size_t)(end - word)) : 0;
		if (rc < 0)
			return rc;
		end = word > needs ? word - 1 : needs;
	}
	return add_unique(list, line, own);
}

static const char *next_line(const char *line)
{
	line += strcspn(line, "\n");
	return line + (*line == '\n');
}

static bool is_builtin(const char *builtin, const char *name, size_t n)
{
	for (const char *line = builtin; *line; line = next_line(line))
		if (is_module(line, strcspn(line, "\n"), name, n))
			return true;
	return false;
}

/** Add the module [@name, @name + @n) behind what it needs. */
static int add_module(
	char **list, const char *dep, const char *builtin, const char *name, size_t n, struct husk_error *err)
{
	for (const char *line = dep; *line; line = next_line(line)) {
		size_t own = strcspn(line, ":\n");
		if (line[own] != ':' || !is_module(line, own, name, n))
			continue;
		int rc = add_line(list, line, own);
		return rc < 0 ? error_set(err, rc, "collect the modules of %.*s", (int)n, name) : 0;
	}
	return is_builtin(builtin, name, n)
		       ? 0
		       : error_set(err, -ENOENT, "the kernel package has no module %.*s", (int)n, name);
}

int kernel_modules_collect(const char *dep, const char *builtin, char ***list, struct husk_error *err)
{
	CLEANUP(kernel_modules_free) char **found = calloc(KERNEL_MODULES_MAX + 1, sizeof(*found));
	if (!found)
		return error_set(err, -ENOMEM, "collect the kernel's modules: out of memory");
	for (const char *name = wanted; *name; name = next_line(name)) {
		int rc = add_module(found, dep, builtin, name, strcspn(name, "\n"), err);
		if (rc < 0)
			return rc;
	}
	*list = steal_pointer(&found);
	return 0;
}
