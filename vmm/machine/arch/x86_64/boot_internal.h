/* SPDX-License-Identifier: Apache-2.0 */
/* boot_internal.h - what the rooms of the boot loader share: files, plans, formats (theory of operation: boot.h) */
#ifndef VMM_MACHINE_ARCH_X86_64_BOOT_INTERNAL_H
#define VMM_MACHINE_ARCH_X86_64_BOOT_INTERNAL_H

#include "vmm/machine/arch/x86_64/boot.h"

#include <asm/bootparam.h>
#include <stddef.h>

#define BOOT_PIECES_MAX 32
#define BOOT_HEAD 4096 /* bytes of a kernel that its format is told by */

/** A file to load from. */
struct boot_file {
	const char *what; /* in messages: "kernel" */
	int fd;
	uint64_t size;
};

/** @n bytes at @offset of the kernel go to guest-physical @gpa and need @size bytes of memory there; @n <= @size. */
struct boot_piece {
	uint64_t gpa, size;
	uint64_t offset, n;
};

/** What a format made of a kernel's headers. */
struct boot_plan {
	bool pvh;
	uint64_t rip;
	unsigned n_pieces;
	struct boot_piece pieces[BOOT_PIECES_MAX];
	uint64_t initrd_max; /* the last address that the initramfs may use */
	uint64_t cmdline_max; /* bytes that the kernel takes, without the NUL */
	struct setup_header header; /* 64-bit entry: as boot_params are to have it, but for what the loader fills */
};

/** A format of kernel files. */
struct boot_format {
	const char *name;
	bool (*probe)(const uint8_t *head, size_t n);
	int (*plan)(const struct boot_file *kernel, const struct memory *memory, struct boot_plan *plan,
		struct husk_error *err);
};

extern const struct boot_format boot_bzimage;
extern const struct boot_format boot_elf;

/** Copy @n bytes at @offset; -EINVAL when the file has fewer. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *bytes, size_t n, struct husk_error *err);

/** Add a piece, checked against the file, RAM above the first MiB, and the pieces that are there already. */
int boot_plan_add(struct boot_plan *plan, const struct boot_file *kernel, const struct memory *memory,
	const struct boot_piece *piece, struct husk_error *err);
/** Whether @gpa lies in one of the pieces. */
bool boot_plan_holds(const struct boot_plan *plan, uint64_t gpa);

/** Tell the kernel of everything, at X86_BOOT_INFO; @entry has the initramfs. */
int boot_info_write(const struct x86_boot *boot, const struct boot_plan *plan, const struct x86_entry *entry,
	struct husk_error *err);

/** All of the VM's RAM. */
uint64_t boot_ram(const struct memory *memory);

#endif
