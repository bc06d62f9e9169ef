/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.h - a kernel, its initramfs and its command line into guest memory, and how the first vCPU enters
 *
 * Theory of operation: a file is told by its first bytes to be a bzImage (bzimage.c) or an ELF vmlinux (elf.c). Its format
 * only reads headers and makes a plan: which bytes of the file go where, how much memory they need there, where to enter.
 * boot.c checks each piece of the plan against RAM, the first MiB and the other pieces, places the initramfs as high as its
 * limit allows, and only then reads the files, straight into guest memory. boot_info.c writes what the kernel is told:
 * boot_params (Documentation/arch/x86/boot.rst and zero-page.rst) for a 64-bit entry, or hvm_start_info (Xen's
 * docs/misc/pvh.pandoc) for a PVH entry, both with the same memory map.
 *
 * Both files are hostile: each field is checked before it is used, and both may change or shrink while they are read, which
 * spoils the guest or fails the load, and nothing else. Guest memory must be fresh: what a file does not fill is taken to be
 * zero.
 */
#ifndef VMM_MACHINE_ARCH_X86_64_BOOT_H
#define VMM_MACHINE_ARCH_X86_64_BOOT_H

#include "memory/memory.h"

#include <stdbool.h>
#include <stdint.h>

struct x86_boot {
	const struct memory *memory; /* as x86_map_memory() laid it out */
	int kernel_fd, initrd_fd; /* regular files; initrd_fd -1: none. Read with pread(2), not taken */
	const char *cmdline;
	uint64_t rsdp; /* gpa of the ACPI RSDP; 0: none */
};

/** How the first vCPU enters; registers.h makes registers of it. */
struct x86_entry {
	bool pvh; /* 32-bit without paging; otherwise 64-bit */
	uint64_t rip;
	uint64_t info; /* gpa of boot_params (rsi, 64-bit) or hvm_start_info (ebx, PVH) */
	uint64_t page_tables; /* cr3 of a 64-bit entry */
	uint64_t gdt;
	uint16_t gdt_limit;
	uint64_t initrd, initrd_size; /* where the initramfs went; 0 without one */
};

/** Lay out @size bytes of RAM: from 0 up to X86_HOLE, the rest from 4 GiB on. */
int x86_map_memory(struct memory *memory, uint64_t size, struct husk_error *err);

/**
 * Load what @boot names and fill @entry. -EINVAL: a file is not what it should be; -ENOMEM: it does not fit into the VM's
 * memory; -E2BIG: the command line is too long; or what reading gave. The message says what would help. Guest memory may
 * then hold a part of the files.
 */
int x86_boot_load(const struct x86_boot *boot, struct x86_entry *entry, struct husk_error *err);

#endif
