/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_info.c - what the kernel is told: memory map, initramfs, command line, ACPI (theory of operation: boot.h)
 *
 * The memory map is made once and written in either form. All of it lies in one page at X86_BOOT_INFO.
 */
#include "vmm/machine/arch/x86_64/boot_internal.h"

#include "vmm/machine/arch/x86_64/layout.h"

#include <string.h>

#define PAGE 4096

/* ---- the memory map ---- */

enum { RAM = 1, RESERVED = 2, ACPI = 3 }; /* the same numbers in both forms: ACPI 6.5 §15.1 */

#define MAP_MAX (MEMORY_REGIONS_MAX + 3)

struct map {
	unsigned n;
	struct range {
		uint64_t gpa, size;
		uint32_t type;
	} ranges[MAP_MAX];
};

static void map_add(struct map *map, uint64_t gpa, uint64_t end, uint32_t type)
{
	if (end > gpa)
		map->ranges[map->n++] = (struct range){.gpa = gpa, .size = end - gpa, .type = type};
}

/** All of the VM's memory, each byte once. The page of the VM's generation id is read by the guest, and never RAM. */
static struct map make_map(const struct memory *memory)
{
	struct map map = {0};

	map_add(&map, 0, X86_LOW_RAM_END, RAM);
	map_add(&map, X86_LOW_RAM_END, X86_ACPI, RESERVED);
	map_add(&map, X86_ACPI, X86_ACPI_END, ACPI);
	for (unsigned i = 0; i < memory->n_regions; i++) {
		const struct memory_region *r = &memory->regions[i];
		map_add(&map, r->gpa < X86_KERNEL ? X86_KERNEL : r->gpa, r->gpa + r->size, RAM);
	}
	return map;
}

/* ---- boot_params ---- */

_Static_assert(sizeof(struct boot_params) == PAGE, "boot_params are one page");

static void write_params(
	void *to, const struct x86_boot *boot, const struct boot_plan *plan, const struct x86_entry *entry)
{
	struct boot_params params = {.hdr = plan->header, .acpi_rsdp_addr = boot->rsdp};
	const struct map map = make_map(boot->memory);

	params.hdr.cmd_line_ptr = X86_CMDLINE;
	params.hdr.ramdisk_image = (uint32_t)entry->initrd;
	params.hdr.ramdisk_size = (uint32_t)entry->initrd_size;
	params.ext_ramdisk_image = (uint32_t)(entry->initrd >> 32);
	params.ext_ramdisk_size = (uint32_t)(entry->initrd_size >> 32);
	params.e820_entries = (uint8_t)map.n;
	for (unsigned i = 0; i < map.n; i++)
		params.e820_table[i] = (struct boot_e820_entry){
			.addr = map.ranges[i].gpa, .size = map.ranges[i].size, .type = map.ranges[i].type};
	memcpy(to, &params, sizeof(params));
}

/* ---- PVH ---- */

#define PVH_MAGIC 0x336ec578 /* "xEn3" with the 0x80 bit of its E set */

/** Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h, version 1; all little-endian. */
struct pvh_info {
	struct {
		uint32_t magic, version, flags, n_modules;
		uint64_t modules, cmdline, rsdp, map;
		uint32_t n_map, reserved;
	} start;
	struct {
		uint64_t gpa, size, cmdline, reserved;
	} module;
	struct {
		uint64_t gpa, size;
		uint32_t type, reserved;
	} map[MAP_MAX];
};
_Static_assert(offsetof(struct pvh_info, module) == 56 && offsetof(struct pvh_info, map) == 88, "PVH's layout");
_Static_assert(sizeof(struct pvh_info) <= PAGE, "PVH's structures fit into their page");

static void write_pvh(void *to, const struct x86_boot *boot, const struct x86_entry *entry)
{
	const struct map map = make_map(boot->memory);
	struct pvh_info info = {
		.start =
			{
				.magic = PVH_MAGIC,
				.version = 1,
				.cmdline = X86_CMDLINE,
				.rsdp = boot->rsdp,
				.map = X86_BOOT_INFO + offsetof(struct pvh_info, map),
				.n_map = map.n,
			},
	};

	if (entry->initrd_size) {
		info.start.n_modules = 1;
		info.start.modules = X86_BOOT_INFO + offsetof(struct pvh_info, module);
		info.module.gpa = entry->initrd;
		info.module.size = entry->initrd_size;
	}
	for (unsigned i = 0; i < map.n; i++) {
		info.map[i].gpa = map.ranges[i].gpa;
		info.map[i].size = map.ranges[i].size;
		info.map[i].type = map.ranges[i].type;
	}
	memcpy(to, &info, sizeof(info));
}

int boot_info_write(const struct x86_boot *boot, const struct boot_plan *plan, const struct x86_entry *entry,
	struct husk_error *err)
{
	void *to = memory_at(boot->memory, X86_BOOT_INFO, PAGE);

	if (!to)
		return error_set(err, -ENOMEM, "load the kernel: the VM has no memory for what it is told");
	if (plan->pvh)
		write_pvh(to, boot, entry);
	else
		write_params(to, boot, plan, entry);
	return 0;
}
