/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.c - what a VM boots
 *
 * Theory of operation: the initramfs is the kernel's shared archive, with husk-init and the modules, in a memfd, and
 * behind it a second small archive with this VM's boot envelope. A kernel of the user's gets husk-init without modules:
 * it has to have the drivers built in. A foreign initramfs is handed on as it is.
 */
#include "engine/boot.h"

#include "agent/boot.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/tlv.h"
#include "engine/exec.h"
#include "engine/initramfs.h"
#include "engine/kernel.h"
#include "engine/kernel_modules.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#define ENTROPY_SIZE 64
#define CMDLINE_MAX 2000 /* of the kernel's 2048 */

/* What a guest would only lose time with is left out: crypto self-tests, and clearing every page that its kernel allocates for
 * itself, which is a fifth of its CPU time when bytes leave through a door (--cmdline init_on_alloc=1 has it back; no page of
 * the host or of another VM is ever among them). The agent powers off at its end, and a panic reboots, which ends the machine.
 * `quiet` comes before any console, which would otherwise repeat all that was said until then, a VM exit or two per byte. */
static const char common_cmdline[] =
	"quiet panic=-1 random.trust_cpu=on 8250.nr_uarts=1 cryptomgr.notests init_on_alloc=0";

/** What each machine adds. Under emulation there is no speculation to mitigate, and its timers are known to be good; probing
 *  its keyboard controller takes tenths of a second. That of `kvm` is absent, as ACPI says: i8042.nopnp would make the kernel
 *  look for it all the same. There the early console carries the kernel's first words until hvc1 takes over; a reset goes
 *  through ACPI's register. */
static const char *const machine_cmdline[] = {
	[VMM_MACHINE_QEMU] = "console=ttyS0 reboot=t no_timer_check tsc=reliable mitigations=off "
			     "i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd",
	[VMM_MACHINE_KVM] = "earlycon=uart8250,io,0x3f8 console=hvc1 reboot=a",
};

int boot_disk_name(size_t slot, char name[BOOT_DISK_NAME])
{
	if (slot >= 26)
		return -E2BIG;
	snprintf(name, BOOT_DISK_NAME, "vd%c", (char)('a' + slot));
	return 0;
}

/** The disks of a VM by their slots: the root, the user's in their order, scratch. */
static int put_disks(const struct open_disks *disks, struct buffer *b)
{
	char name[BOOT_DISK_NAME], entry[BOOT_DISK_NAME + 1 + VMM_SERIAL_MAX + 1];
	int rc = boot_disk_name(0, name);
	rc = rc < 0 ? rc : tlv_put_string(b, BOOT_ROOT_DEVICE, name);
	for (size_t i = 0; i < disks->n && rc == 0; i++) {
		rc = boot_disk_name(1 + i, name);
		snprintf(entry, sizeof(entry), "%s %s", name, disks->disk[i].serial);
		rc = rc < 0 ? rc : tlv_put_string(b, BOOT_DISK, entry);
	}
	rc = rc < 0 ? rc : boot_disk_name(1 + disks->n, name);
	return rc < 0 ? rc : tlv_put_string(b, BOOT_SCRATCH_DEVICE, name);
}

static int put_envelope(const struct husk_vm_config *config, const struct image_record *image, const char *id,
	const struct boot *boot, const struct open_disks *disks, struct buffer *b)
{
	uint8_t entropy[ENTROPY_SIZE];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	for (size_t n = 0; n < sizeof(entropy);) {
		ssize_t got = getrandom(entropy + n, sizeof(entropy) - n, 0);
		n += got > 0 ? (size_t)got : 0;
	}
	uint32_t flags = (config->read_only ? BOOT_FLAG_READ_ONLY : 0) |
			 (config->lifetime == HUSK_LIFETIME_DETACHED ? BOOT_FLAG_KEPT : 0);
	int rc = tlv_begin(b, BOOT_MAGIC, BOOT_VERSION);
	for (char **module = boot->kernel.modules; module && *module && rc == 0; module++) {
		enum kernel_module_use use = kernel_module_use(*module, boot->machine, boot->hvc);
		if (use != KERNEL_MODULE_UNUSED)
			rc = tlv_put_string(b, use == KERNEL_MODULE_LATE ? BOOT_LATE_MODULE : BOOT_MODULE, *module);
	}
	rc = rc < 0 ? rc : put_disks(disks, b);
	if (rc == 0 && boot->hvc)
		rc = tlv_put_string(b, BOOT_CONSOLE, "hvc0");
	if (rc == 0 && boot->vsock_port)
		rc = tlv_put_u32(b, BOOT_VSOCK_PORT, boot->vsock_port);
	rc = rc < 0 ? rc : tlv_put_u32(b, BOOT_LAYERS, (uint32_t)image->n_layers);
	rc = rc < 0 ? rc : tlv_put_u32(b, BOOT_FLAGS, flags);
	rc = rc < 0 ? rc : tlv_put_u32(b, BOOT_STOP_SIGNAL, (uint32_t)exec_stop_signal(image->stop_signal));
	rc = rc < 0 ? rc : tlv_put_string(b, BOOT_HOSTNAME, config->hostname ? config->hostname : id);
	for (char **volume = image->volumes; volume && *volume && rc == 0; volume++)
		rc = tlv_put_string(b, BOOT_VOLUME, *volume);
	rc = rc < 0 ? rc : tlv_put_u64(b, BOOT_TIME_NS, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
	rc = rc < 0 ? rc : tlv_put(b, BOOT_ENTROPY, entropy, sizeof(entropy));
	if (rc == 0)
		tlv_seal(b);
	explicit_bzero(entropy, sizeof(entropy));
	return rc;
}

static void paths_free(char ***paths)
{
	for (char **path = *paths; path && *path; path++)
		free(*path);
	free(*paths);
}

/** The archive that all VMs of this kernel and machine share, with husk-init at @init, onto @fd. */
static int write_shared(int fd, const char *init, const struct boot *boot, struct husk_error *err)
{
	char **modules = boot->kernel.modules;
	size_t n = 0;
	while (modules && modules[n])
		n++;
	CLEANUP(paths_free) char **paths = calloc(n + 1, sizeof(*paths));
	n = 0;
	for (; modules && *modules && paths; modules++)
		if (kernel_module_use(*modules, boot->machine, boot->hvc) != KERNEL_MODULE_UNUSED &&
			!(paths[n++] = path_format("%s/modules/%s", boot->kernel.directory, *modules)))
			return error_set(err, -ENOMEM, "build the initramfs: out of memory");
	return paths ? initramfs_write(fd, init, (const char *const *)paths, n, err)
		     : error_set(err, -ENOMEM, "build the initramfs: out of memory");
}

/** Shared part and boot envelope, in a sealed memfd. */
static int build_initramfs(const struct husk *husk, const struct boot *boot, const struct buffer *envelope, int *out,
	 struct husk_error *err)
{
	CLEANUP_FREE char *init = NULL;
	int rc = engine_helper(husk, "husk-init", &init, err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int fd = memfd_create("husk-initramfs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_errno(err, "build the initramfs");
	rc = write_shared(fd, init, boot, err);
	rc = rc < 0 ? rc : initramfs_append_boot(fd, buffer_bytes(envelope), envelope->size, err);
	if (rc < 0)
		return rc;
	if (lseek(fd, 0, SEEK_SET) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return error_errno(err, "seal the initramfs");
	*out = steal_fd(&fd);
	return 0;
}

/** A file that the user names, or the store's. */
static int open_file(const char *path, const char *what, struct husk_error *err)
{
	struct stat st;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "%s: '%s'", what, path);
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return error_set(err, -EINVAL, "%s: '%s' is not a file with content", what, path);
	return steal_fd(&fd);
}

static int put_cmdline(const struct husk_vm_config *config, struct boot *boot, struct husk_error *err)
{
	const char *more = config->cmdline ? config->cmdline : "";
	boot->cmdline = path_format("%s %s%s%s", common_cmdline, machine_cmdline[boot->machine], *more ? " " : "", more);
	if (!boot->cmdline)
		return error_set(err, -ENOMEM, "build the kernel command line: out of memory");
	if (strlen(boot->cmdline) > CMDLINE_MAX)
		return error_set(err, -E2BIG, "cmdline: the kernel command line has %zu bytes; %d are possible",
			strlen(boot->cmdline), CMDLINE_MAX);
	return 0;
}

int boot_open(const struct husk *husk, const struct husk_vm_config *config, enum vmm_machine machine, struct boot *boot,
	struct husk_error *err)
{
	boot->hvc = config->serial == HUSK_SERIAL_CAPTURE;
	boot->machine = machine;
	int rc = put_cmdline(config, boot, err);
	bool path = config->kernel && (strchr(config->kernel, '/') || access(config->kernel, F_OK) == 0);
	if (rc == 0 && !path)
		rc = kernel_find(husk->home, config->kernel, &boot->kernel, err);
	if (rc < 0)
		return config->kernel && !path ? error_prefix(err, rc, "kernel") : rc;
	boot->kernel_fd = open_file(path ? config->kernel : boot->kernel.image, "kernel", err);
	if (boot->kernel_fd < 0)
		return boot->kernel_fd;
	if (config->initramfs)
		boot->initrd_fd = open_file(config->initramfs, "initramfs", err);
	return config->initramfs && boot->initrd_fd < 0 ? boot->initrd_fd : 0;
}

int boot_build(const struct husk *husk, const struct husk_vm_config *config, const struct image_record *image,
	const char *id, const struct open_disks *disks, struct boot *boot, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer envelope = {0};
	if (config->initramfs)
		return 0;
	if (put_envelope(config, image, id, boot, disks, &envelope) < 0)
		return error_set(err, -ENOMEM, "build the boot envelope: out of memory");
	if (envelope.size > BOOT_SIZE_MAX)
		return error_set(err, -E2BIG, "the image has too many volumes");
	return build_initramfs(husk, boot, &envelope, &boot->initrd_fd, err);
}

void boot_free(struct boot *boot)
{
	if (boot->kernel_fd >= 0)
		close(boot->kernel_fd);
	if (boot->initrd_fd >= 0)
		close(boot->initrd_fd);
	free(boot->cmdline);
	kernel_free(&boot->kernel);
}
