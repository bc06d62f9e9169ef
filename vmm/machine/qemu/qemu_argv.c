/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_argv.c - the command line of a VM's QEMU
 *
 * Theory of operation: a q35 machine with nothing in it but what the guest uses, every byte of which reaches QEMU through
 * an inherited descriptor: guest memory, kernel and initramfs as /proc/self/fd/N, the sockets of QMP, of the console and
 * of each device as fd=N. So QEMU runs under its whole sandbox: it can start no program and gain no privilege. The CPUs
 * start stopped (-S); the worker lets them run when its side stands.
 *
 * Choices with a reason: `-erms` because TCG does `rep movsb` byte by byte (vsock is then a third as fast);
 * max-ram-below-4g fixes where RAM lies (qemu.c maps the same); sata, smbus, usb, hpet, smm and vmport are off because the
 * guest's kernel would probe them; the PIT and the RTC stay because the kernel calibrates its clock with them; vsock sits
 * behind a root port so that it can be unplugged before a snapshot, and ROMs are off because nothing boots from a device.
 */
#include "vmm/machine/qemu/qemu_argv.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define ARGV_MAX (88 + 4 * QEMU_DISKS_MAX)

/* Slots of the root bus. 0 is the host bridge, 0x1f q35's ISA bridge. */
#define SLOT_DISKS 0x2
#define SLOT_VSOCK 0x18
#define SLOT_RNG 0x19
#define SLOT_BALLOON 0x1a
#define SLOT_HVC 0x1b
_Static_assert(SLOT_DISKS + QEMU_DISKS_MAX <= SLOT_VSOCK, "each disk has a slot");

/** An argv under construction; failed once memory was out. */
struct argv_builder {
	char **argv;
	size_t n;
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct argv_builder *b, const char *format, ...)
{
	va_list args;

	if (b->failed || b->n == ARGV_MAX - 1) {
		b->failed = true;
		return;
	}
	va_start(args, format);
	b->failed = vasprintf(&b->argv[b->n], format, args) < 0;
	va_end(args);
	if (b->failed)
		b->argv[b->n] = NULL;
	else
		b->n++;
}

static void add_base(struct argv_builder *b, const struct qemu_start *s)
{
	add(b, "%s", s->path);
	add(b, "-name");
	add(b, "husk-%s", s->id);
	add(b, "-nodefaults");
	add(b, "-no-user-config");
	add(b, "-no-reboot");
	add(b, "-S");
	add(b, "-display");
	add(b, "none");
	add(b, "-vga");
	add(b, "none");
	add(b, "-sandbox");
	add(b, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(b, "-machine");
	add(b, "q35,memory-backend=ram,max-ram-below-4g=2G,dump-guest-core=off,"
	       "smm=off,vmport=off,hpet=off,graphics=off,sata=off,smbus=off,usb=off");
	add(b, "-object");
	add(b, "memory-backend-file,id=ram,size=%" PRIu64 ",share=on,mem-path=/proc/self/fd/%d", s->memory,
		s->memory_fd);
	add(b, "-m");
	add(b, "%" PRIu64 "M", s->memory >> 20);
	add(b, "-accel");
	add(b, "tcg,thread=multi");
	add(b, "-cpu");
	add(b, "max,-erms");
	add(b, "-smp");
	/* Room for a second CPU keeps QEMU from leaving out memory barriers and from making locked instructions ordinary ones,
	 * as 7.2 does for a machine that can only have one (CF_PARALLEL in its accel/tcg). The guest's CPU is not alone: the
	 * worker reads and writes the same rings, and there an order that is not kept is a kick or an interrupt too few. */
	uint32_t most = s->cpus > 1 ? s->cpus : 2;
	add(b, "cpus=%" PRIu32 ",maxcpus=%" PRIu32 ",sockets=1,cores=%" PRIu32 ",threads=1", s->cpus, most, most);
}

static void add_channels(struct argv_builder *b, const struct qemu_start *s)
{
	add(b, "-chardev");
	add(b, "socket,id=qmp,fd=%d", s->qmp_fd);
	add(b, "-mon");
	add(b, "chardev=qmp,mode=control");
	add(b, "-chardev");
	add(b, "socket,id=console,fd=%d", s->console_fd);
	add(b, "-serial");
	add(b, "chardev:console");
}

static void add_vhost_user(struct argv_builder *b, const char *name, int fd, const char *device)
{
	add(b, "-chardev");
	add(b, "socket,id=%s,fd=%d", name, fd);
	add(b, "-device");
	add(b, "%s,id=device-%s,chardev=%s", device, name, name);
}

static void add_devices(struct argv_builder *b, const struct qemu_start *s)
{
	/* The kernel names disks in the order of their slots, so what this leaves is vda, vdb and so on. */
	for (size_t i = 0; i < s->n_disks; i++) {
		char name[32], device[64];
		snprintf(name, sizeof(name), "disk%zu", i);
		snprintf(device, sizeof(device), "vhost-user-blk-pci,addr=%#zx,num-queues=1", SLOT_DISKS + i);
		add_vhost_user(b, name, s->disk_fd[i], device);
	}
	add(b, "-device");
	add(b, "pcie-root-port,id=port0,chassis=1,addr=%#x", SLOT_VSOCK);
	add_vhost_user(b, "vsock", s->vsock_fd, "vhost-user-vsock-pci,bus=port0");
	add(b, "-object");
	add(b, "rng-builtin,id=entropy");
	add(b, "-device");
	add(b, "virtio-rng-pci,rng=entropy,addr=%#x", SLOT_RNG);
	add(b, "-device");
	add(b, "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on,addr=%#x", SLOT_BALLOON);
}

/** A console of the workload's own, beside the serial port's, which is the kernel's. */
static void add_hvc(struct argv_builder *b, const struct qemu_start *s)
{
	if (s->hvc_fd < 0)
		return;
	add(b, "-chardev");
	add(b, "socket,id=hvc0,fd=%d", s->hvc_fd);
	add(b, "-device");
	add(b, "virtio-serial-pci,id=hvc,max_ports=1,addr=%#x", SLOT_HVC);
	add(b, "-device");
	add(b, "virtconsole,bus=hvc.0,chardev=hvc0");
}

static void add_kernel(struct argv_builder *b, const struct qemu_start *s)
{
	add(b, "-kernel");
	add(b, "/proc/self/fd/%d", s->kernel_fd);
	if (s->initrd_fd >= 0) {
		add(b, "-initrd");
		add(b, "/proc/self/fd/%d", s->initrd_fd);
	}
	add(b, "-append");
	add(b, "%s", s->cmdline ? s->cmdline : "");
}

int qemu_argv_make(const struct qemu_start *start, char ***argv, struct husk_error *err)
{
	struct argv_builder b = {.argv = calloc(ARGV_MAX, sizeof(char *))};
	if (!b.argv)
		return error_set(err, -ENOMEM, "make QEMU's command line: out of memory");
	add_base(&b, start);
	add_channels(&b, start);
	add_devices(&b, start);
	add_hvc(&b, start);
	add_kernel(&b, start);
	if (b.failed) {
		qemu_argv_free(&b.argv);
		return error_set(err, -ENOMEM, "make QEMU's command line: out of memory");
	}
	*argv = b.argv;
	return 0;
}

void qemu_argv_free(char ***argv)
{
	for (char **at = *argv; at && *at; at++)
		free(*at);
	free(*argv);
	*argv = NULL;
}
