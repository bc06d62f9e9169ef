/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot-test.c - the boot loader: kernels made up here, one field wrong at a time, in VMs of sizes around the hole
 *
 * Memory is sparse: a VM of 5 GiB costs the pages that are written. Messages are part of what is promised, so each refusal
 * is told by a piece of its text.
 */
#include "boot_images.h"
#include "vmm/machine/arch/x86_64/boot.h"
#include "vmm/machine/arch/x86_64/layout.h"
#include "vmm/machine/arch/x86_64/registers.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "tests/tap.h"

#include <asm/bootparam.h>
#include <stdlib.h>
#include <sys/mman.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define RSDP (X86_ACPI)

/** A VM, and what x86_boot_load() made of it. */
struct vm {
	struct memory memory;
	struct x86_entry entry;
	struct husk_error err;
	int rc;
};

static void vm_make(struct vm *vm, uint64_t ram)
{
	int fd = -1;
	*vm = (struct vm){0};
	if (memory_make_fd(ram, &fd, &vm->err) < 0 || memory_init(&vm->memory, fd, &vm->err) < 0 ||
		x86_map_memory(&vm->memory, ram, &vm->err) < 0) {
		fprintf(stderr, "%s\n", vm->err.message);
		abort();
	}
}

static void vm_destroy(struct vm *vm)
{
	memory_destroy(&vm->memory);
}

/** A file of @n bytes; the last byte of the initramfs below tells that all of it came. */
static int file_of(const void *bytes, size_t n, uint64_t size)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	if (fd < 0 || pwrite(fd, bytes, n, 0) != (ssize_t)n || ftruncate(fd, (off_t)size) < 0)
		abort();
	return fd;
}

static int initrd_of(uint64_t size)
{
	int fd = file_of("070701", 6, size);
	if (pwrite(fd, "!", 1, (off_t)size - 1) != 1)
		abort();
	return fd;
}

/** Load @image and an initramfs of @initrd bytes (0: none) into a fresh VM. */
static void load(struct vm *vm, uint64_t ram, const struct image *image, uint64_t initrd, const char *cmdline)
{
	CLEANUP_FD int kernel = file_of(image->bytes, image->size, image->size);
	CLEANUP_FD int initrd_fd = initrd ? initrd_of(initrd) : -1;
	vm_make(vm, ram);
	const struct x86_boot boot = {
		.memory = &vm->memory, .kernel_fd = kernel, .initrd_fd = initrd_fd, .cmdline = cmdline, .rsdp = RSDP};
	vm->rc = x86_boot_load(&boot, &vm->entry, &vm->err);
}

static void refused(
	uint64_t ram, const struct image *image, uint64_t initrd, int code, const char *text, const char *what)
{
	struct vm vm;
	load(&vm, ram, image, initrd, "quiet");
	if (!CHECK(vm.rc == code && vm.err.code == code && strstr(vm.err.message, text), what))
		printf("# %d: %s\n", vm.rc, vm.rc ? vm.err.message : "loaded");
	vm_destroy(&vm);
}

/* ---- the memory map ---- */

struct totals {
	uint64_t all, ram, acpi;
	bool sorted, in_hole;
};

static void total_add(struct totals *t, uint64_t *end, uint64_t gpa, uint64_t size, uint32_t type)
{
	t->all += size;
	t->ram += type == 1 ? size : 0;
	t->acpi += type == 3 ? size : 0;
	t->sorted = t->sorted && gpa >= *end;
	t->in_hole = t->in_hole || (gpa < X86_HIGH && gpa + size > X86_HOLE);
	*end = gpa + size;
}

static struct totals totals_of(const struct vm *vm)
{
	struct totals t = {.sorted = true};
	uint64_t end = 0;
	if (vm->entry.pvh) {
		const uint8_t *info = memory_at(&vm->memory, vm->entry.info, 56);
		uint32_t n = get_le32(info + 48);
		const uint8_t *map = memory_at(&vm->memory, get_le64(info + 40), n * 24ull);
		for (uint32_t i = 0; i < n; i++)
			total_add(&t, &end, get_le64(map + 24 * i), get_le64(map + 24 * i + 8),
				get_le32(map + 24 * i + 16));
	} else {
		const struct boot_params *p = memory_at(&vm->memory, vm->entry.info, sizeof(*p));
		for (unsigned i = 0; i < p->e820_entries; i++)
			total_add(&t, &end, p->e820_table[i].addr, p->e820_table[i].size, p->e820_table[i].type);
	}
	return t;
}

static void test_sizes(void)
{
	static const uint64_t sizes[] = {
		32 * MIB, 3 * GIB - 4096, 3 * GIB, 3 * GIB + 4096, 4 * GIB - 4096, 4 * GIB, 4 * GIB + 4096, 5 * GIB};
	const uint64_t reserved = X86_KERNEL - X86_LOW_RAM_END;
	char what[80];
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (unsigned pvh = 0; pvh < 2; pvh++) {
			struct vm vm;
			struct image image = pvh ? make_elf(true) : make_bzimage();
			load(&vm, sizes[i], &image, 0, "");
			struct totals t = vm.rc ? (struct totals){0} : totals_of(&vm);
			snprintf(what, sizeof(what), "the map of a VM of 0x%llx bytes, %s",
				(unsigned long long)sizes[i], pvh ? "PVH" : "boot_params");
			CHECK(t.all == sizes[i] && t.ram == sizes[i] - reserved && t.acpi == X86_ACPI_END - X86_ACPI &&
					t.sorted && !t.in_hole,
				what);
			vm_destroy(&vm);
			image_free(&image);
		}
	}
}

static void test_map_refusals(void)
{
	static const uint64_t sizes[] = {0, 4096, MIB, 16 * MIB + 1, 32 * MIB};
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct memory memory = {0};
		struct husk_error err = {0};
		int fd = -1;
		memory_make_fd(16 * MIB, &fd, NULL);
		memory_init(&memory, fd, NULL);
		CHECK(x86_map_memory(&memory, sizes[i], &err) < 0 && err.code, "a size that cannot be");
		memory_destroy(&memory);
	}
}

/* ---- bzImage ---- */

static void test_bzimage(void)
{
	struct vm vm;
	struct image image = make_bzimage();
	load(&vm, 64 * MIB, &image, 5000, "console=hvc0 quiet");
	if (!CHECK(vm.rc == 0, "a bzImage loads"))
		printf("# %s\n", vm.err.message);
	const struct boot_params *p = memory_at(&vm.memory, vm.entry.info, sizeof(*p));
	const char *kernel = memory_at(&vm.memory, BZ_ADDRESS, BZ_PAYLOAD);
	CHECK(!vm.entry.pvh && vm.entry.rip == BZ_ADDRESS + 0x200, "its entry is at 0x200 of its preferred address");
	CHECK(memcmp(kernel, image.bytes + BZ_SETUP, BZ_PAYLOAD) == 0, "its protected-mode part lies there");
	CHECK(p->hdr.type_of_loader == 0xff && p->ext_ramdisk_size == 0 && p->acpi_rsdp_addr == RSDP,
		"loader and RSDP");
	CHECK(p->hdr.init_size == BZ_INIT_SIZE && p->hdr.header == 0x53726448 && p->hdr.setup_data == 0,
		"the setup header went along, its pointer did not");
	CHECK(p->sentinel == 0 && p->hdr.ramdisk_size == 5000, "a clean page, and the initramfs's size");
	CHECK_STRING(memory_at(&vm.memory, p->hdr.cmd_line_ptr, 100), "console=hvc0 quiet", "the command line");
	CHECK(vm.entry.initrd == 64 * MIB - 8192 && p->hdr.ramdisk_image == vm.entry.initrd,
		"the initramfs is at the top of memory, at a page");
	const char *initrd = memory_at(&vm.memory, vm.entry.initrd, 5000);
	CHECK(memcmp(initrd, "070701", 6) == 0 && initrd[4999] == '!', "all of it");
	vm_destroy(&vm);
	image_free(&image);
}

/** What one field of the setup header leads to. */
static void test_bzimage_refusals(void)
{
	static const struct {
		const char *what, *text;
		unsigned at, bytes;
		uint64_t value;
		uint64_t ram;
		int code;
	} cases[] = {
		{"protocol 2.11", "2.11, 2.12", 0x206, 2, 0x20b, 64 * MIB, -EINVAL},
		{"a zImage", "zImage", 0x211, 1, 0, 64 * MIB, -EINVAL},
		{"a 32-bit kernel", "32-bit", 0x236, 2, 0, 64 * MIB, -EINVAL},
		{"no HdrS", "neither a bzImage nor an ELF", 0x202, 4, 0, 64 * MIB, -EINVAL},
		{"no boot flag", "neither a bzImage nor an ELF", 0x1fe, 2, 0, 64 * MIB, -EINVAL},
		{"a header that ends before init_size", "setup header ends at 0x242", 0x201, 1, 0x40, 64 * MIB,
			-EINVAL},
		{"alignment 0", "power of two", 0x230, 4, 0, 64 * MIB, -EINVAL},
		{"alignment 3", "power of two", 0x230, 4, 3, 64 * MIB, -EINVAL},
		{"nothing to load", "of 0 bytes", 0x1f4, 4, 0, 64 * MIB, -EINVAL},
		{"an entry behind its end", "of 512 bytes", 0x1f4, 4, 32, 64 * MIB, -EINVAL},
		{"more to load than there is", "cut off", 0x1f4, 4, 0x10000000, 64 * MIB, -EINVAL},
		{"setup code longer than the file", "cut off", 0x1f1, 1, 255, 64 * MIB, -EINVAL},
		{"init_size beyond memory", "give it more with -m", 0x260, 4, 0x10000000, 64 * MIB, -ENOMEM},
		{"init_size to the hole", "has to lie below 0xc0000000", 0x260, 4, 0xf0000000, 5 * GIB, -EINVAL},
		{"an address in the hole", "has to lie below 0xc0000000", 0x258, 8, 0xd0000000, 5 * GIB, -EINVAL},
		{"an address above 4 GiB, where there is RAM", "has to lie below 0xc0000000", 0x258, 8, X86_HIGH,
			5 * GIB, -EINVAL},
		{"an address that wraps when aligned", "broken", 0x258, 8, UINT64_MAX - 10, 64 * MIB, -EINVAL},
		{"an address that wraps with its size", "broken", 0x258, 8, 0xffffffffffe00000, 64 * MIB, -EINVAL},
		{"a VM without room", "it needs 33 MiB (17 MiB from 0x1000000 on), the VM has 32", 0x260, 4,
			16 * MIB + 1, 32 * MIB, -ENOMEM},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct image image = make_bzimage();
		memcpy(image.bytes + cases[i].at, &cases[i].value, cases[i].bytes);
		refused(cases[i].ram, &image, 0, cases[i].code, cases[i].text, cases[i].what);
		image_free(&image);
	}
}

static void test_bzimage_edges(void)
{
	struct vm vm;
	struct image image = make_bzimage();
	put_le64(image.bytes + 0x258, 0x1000001);
	load(&vm, 64 * MIB, &image, 0, "");
	CHECK(vm.rc == 0 && vm.entry.rip == 0x1200200, "an address is aligned up");
	vm_destroy(&vm);
	put_le64(image.bytes + 0x258, 0);
	load(&vm, 64 * MIB, &image, 0, "");
	CHECK(vm.rc == 0 && vm.entry.rip == 0x200200, "at the lowest one above the first MiB");
	vm_destroy(&vm);
	image.bytes[0x234] = 0;
	load(&vm, 64 * MIB, &image, 0, "");
	CHECK(vm.rc == 0 && vm.entry.rip == 0x100200, "a kernel that is not relocatable is not aligned");
	vm_destroy(&vm);
	put_le32(image.bytes + 0x260, 0);
	put_le64(image.bytes + 0x258, 16 * MIB - 4096);
	load(&vm, 16 * MIB, &image, 0, "");
	CHECK(vm.rc == 0, "a kernel that ends with memory");
	vm_destroy(&vm);
	put_le64(image.bytes + 0x258, 16 * MIB - 4095);
	refused(16 * MIB, &image, 0, -ENOMEM, "give it more with -m", "and one byte beyond");
	image_free(&image);

	image = make_bzimage();
	for (size_t n = image.size - 16; n < image.size; n++) {
		const struct image cut = {.bytes = image.bytes, .size = n};
		if (n > image.size - 16) {
			load(&vm, 64 * MIB, &cut, 0, "");
			if (vm.rc)
				CHECK(false, "the last paragraph need not be whole");
			vm_destroy(&vm);
		} else
			refused(64 * MIB, &cut, 0, -EINVAL, "cut off", "a paragraph less");
	}
	for (size_t n = 0; n < BZ_SETUP; n += 97) {
		const struct image cut = {.bytes = image.bytes, .size = n};
		load(&vm, 64 * MIB, &cut, 0, "");
		if (vm.rc != -EINVAL)
			CHECK(false, "a file that ends in its setup code");
		vm_destroy(&vm);
	}
	image_free(&image);
}

/* ---- ELF ---- */

static void test_elf(void)
{
	struct vm vm;
	struct image image = make_elf(true);
	load(&vm, 64 * MIB, &image, 5000, "quiet");
	if (!CHECK(vm.rc == 0, "an ELF file with a PVH note loads"))
		printf("# %s\n", vm.err.message);
	CHECK(vm.entry.pvh && vm.entry.rip == ELF_PVH_ENTRY, "and is entered as the note says");
	const char *text = memory_at(&vm.memory, ELF_TEXT, ELF_TEXT_SIZE);
	CHECK(memcmp(text, image.bytes + ELF_TEXT_AT, ELF_TEXT_SIZE) == 0, "its first segment lies where it should");
	const char *data = memory_at(&vm.memory, ELF_DATA, ELF_DATA_MEMORY);
	bool zero = true;
	for (unsigned i = ELF_DATA_SIZE; i < ELF_DATA_MEMORY; i++)
		zero = zero && !data[i];
	CHECK(memcmp(data, image.bytes + ELF_DATA_AT, ELF_DATA_SIZE) == 0 && zero, "and its second, zero at its end");
	const uint8_t *info = memory_at(&vm.memory, vm.entry.info, 56);
	CHECK(get_le32(info) == 0x336ec578 && get_le32(info + 4) == 1 && get_le64(info + 32) == RSDP,
		"hvm_start_info, version 1, with the RSDP");
	CHECK_STRING(memory_at(&vm.memory, get_le64(info + 24), 100), "quiet", "with the command line");
	const uint8_t *module = memory_at(&vm.memory, get_le64(info + 16), 32);
	CHECK(get_le32(info + 12) == 1 && get_le64(module) == vm.entry.initrd && get_le64(module + 8) == 5000,
		"and with the initramfs as its one module");
	vm_destroy(&vm);
	load(&vm, 64 * MIB, &image, 0, "quiet");
	info = memory_at(&vm.memory, vm.entry.info, 56);
	CHECK(get_le32(info + 12) == 0 && get_le64(info + 16) == 0, "no module without one");
	vm_destroy(&vm);
	image_free(&image);

	image = make_elf(false);
	load(&vm, 64 * MIB, &image, 5000, "quiet");
	const struct boot_params *p = memory_at(&vm.memory, vm.entry.info, sizeof(*p));
	CHECK(vm.rc == 0 && !vm.entry.pvh && vm.entry.rip == ELF_TEXT, "without the note it is entered at e_entry");
	CHECK(p->hdr.boot_flag == 0xaa55 && p->hdr.header == 0x53726448 && p->hdr.type_of_loader == 0xff &&
			p->hdr.ramdisk_image == vm.entry.initrd && p->acpi_rsdp_addr == RSDP,
		"with boot_params");
	vm_destroy(&vm);
	image_free(&image);
}

static void test_elf_refusals(void)
{
	enum { TEXT = 64, DATA = 64 + 56, NOTES = 64 + 2 * 56 }; /* the program headers */
	enum { OFFSET = 8, PADDR = 24, FILESZ = 32, MEMSZ = 40 }; /* their fields */
	static const struct {
		const char *what, *text;
		unsigned at, bytes;
		uint64_t value;
		int code;
	} cases[] = {
		{"a 32-bit ELF file", "another kind of CPU", 4, 1, 1, -EINVAL},
		{"a big-endian one", "another kind of CPU", 5, 1, 2, -EINVAL},
		{"one for arm64", "machine 183", 18, 2, 183, -EINVAL},
		{"an object file", "no program (type 1)", 16, 2, 1, -EINVAL},
		{"no program headers", "0 program headers", 56, 2, 0, -EINVAL},
		{"too many", "65535 program headers", 56, 2, 65535, -EINVAL},
		{"program headers of another size", "headers of 32 bytes", 54, 2, 32, -EINVAL},
		{"program headers behind the file", "cut off", 32, 8, 1 << 20, -EINVAL},
		{"program headers whose offset wraps", "cut off", 32, 8, UINT64_MAX - 50, -EINVAL},
		{"an offset behind the file", "cut off", TEXT + OFFSET, 8, 1 << 30, -EINVAL},
		{"an offset that wraps", "cut off", TEXT + OFFSET, 8, UINT64_MAX - 1, -EINVAL},
		{"more bytes than memory", "the file is broken", TEXT + FILESZ, 8, ELF_TEXT_SIZE + 1, -EINVAL},
		{"no memory for bytes", "the file is broken", TEXT + MEMSZ, 8, 0, -EINVAL},
		{"memory that wraps", "no range of memory", TEXT + MEMSZ, 8, UINT64_MAX, -EINVAL},
		{"memory beyond the VM", "give it more with -m", DATA + MEMSZ, 8, 64 * MIB, -ENOMEM},
		{"memory into the hole", "has to lie below 0xc0000000", DATA + MEMSZ, 8, 4 * GIB, -EINVAL},
		{"an address in the first MiB", "the first MiB is the machine's", TEXT + PADDR, 8, MIB - 1, -EINVAL},
		{"address 0", "the first MiB is the machine's", TEXT + PADDR, 8, 0, -EINVAL},
		{"an address that wraps", "no range of memory", TEXT + PADDR, 8, UINT64_MAX - 10, -EINVAL},
		{"an address above 4 GiB", "has to lie below 0xc0000000", TEXT + PADDR, 8, 8 * GIB, -EINVAL},
		{"segments that overlap by a byte", "overlap", DATA + PADDR, 8, ELF_TEXT + ELF_TEXT_SIZE - 1, -EINVAL},
		{"segments that overlap by the other's first byte", "overlap", DATA + PADDR, 8,
			ELF_TEXT - ELF_DATA_MEMORY + 1, -EINVAL},
		{"one segment twice", "overlap", DATA + PADDR, 8, ELF_TEXT, -EINVAL},
		{"notes behind the file", "cut off", NOTES + OFFSET, 8, 1 << 20, -EINVAL},
		{"notes whose offset wraps", "cut off", NOTES + OFFSET, 8, UINT64_MAX, -EINVAL},
		{"a mass of notes", "bytes of ELF notes", NOTES + FILESZ, 8, 1 << 20, -EINVAL},
		{"a note longer than its segment", "longer than its segment", ELF_NOTES_AT + 4, 4, 100, -EINVAL},
		{"a note whose name wraps", "longer than its segment", ELF_NOTES_AT, 4, UINT32_MAX, -EINVAL},
		{"a PVH entry of 3 bytes", "PVH entry of 3 bytes", ELF_PVH_NOTE_AT + 4, 4, 3, -EINVAL},
		{"a PVH entry outside of the kernel", "PVH entry 0x10", ELF_PVH_NOTE_AT + 16, 8, 0x10, -EINVAL},
		{"a PVH entry above 4 GiB", "PVH entry 0x101000010", ELF_PVH_NOTE_AT + 16, 8, 0x101000010, -EINVAL},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct image image = make_elf(true);
		memcpy(image.bytes + cases[i].at, &cases[i].value, cases[i].bytes);
		refused(64 * MIB, &image, 0, cases[i].code, cases[i].text, cases[i].what);
		image_free(&image);
	}
	struct image image = make_elf(false);
	put_le64(image.bytes + 24, 0xffffffff81000000);
	refused(64 * MIB, &image, 0, -EINVAL, "64-bit entry 0xffffffff81000000", "a virtual address as its entry");
	image_free(&image);
	image = make_elf(false);
	put_le64(image.bytes + 64 + 56 + 24, X86_HIGH);
	refused(5 * GIB, &image, 0, -EINVAL, "has to lie below 0xc0000000",
		"a segment above 4 GiB, where there is RAM");
	image_free(&image);
	image = make_elf(true);
	for (size_t n = 4; n < ELF_DATA_AT + ELF_DATA_SIZE; n += 53) {
		const struct image cut = {.bytes = image.bytes, .size = n};
		struct vm vm;
		load(&vm, 64 * MIB, &cut, 0, "");
		if (vm.rc != -EINVAL)
			CHECK(false, "an ELF file that is cut off");
		vm_destroy(&vm);
	}
	image_free(&image);
}

static void test_not_kernels(void)
{
	static const struct {
		const char *bytes, *text;
	} cases[] = {{"\x1f\x8b\x08 gzip", "unpack it first"}, {"\x28\xb5\x2f\xfd zstd", "zstd"},
		{"070701 cpio", "an initramfs"}, {"MZ and no more", "EFI program"}, {"#!/bin/sh", "a script"},
		{"hello", "give it a bzImage"}};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		char bytes[32];
		strcpy(bytes, cases[i].bytes);
		const struct image image = {.bytes = (uint8_t *)bytes, .size = strlen(bytes)};
		refused(64 * MIB, &image, 0, -EINVAL, cases[i].text, "a file that is no kernel");
	}
	const struct image empty = {.bytes = (uint8_t *)"", .size = 0};
	refused(64 * MIB, &empty, 0, -EINVAL, "the file is empty", "an empty file");
	struct vm vm;
	int fds[2] = {-1, -1};
	vm_make(&vm, 16 * MIB);
	if (pipe(fds) < 0)
		abort();
	struct x86_boot boot = {.memory = &vm.memory, .kernel_fd = fds[0], .initrd_fd = -1, .cmdline = ""};
	CHECK(x86_boot_load(&boot, &vm.entry, &vm.err) == -EINVAL && strstr(vm.err.message, "regular"), "a pipe");
	close(fds[0]);
	close(fds[1]);
	CHECK(x86_boot_load(&boot, &vm.entry, &vm.err) == -EBADF, "a descriptor that is none");
	struct image image = make_bzimage();
	boot.kernel_fd = file_of(image.bytes, image.size, image.size);
	boot.initrd_fd = file_of("", 0, 0);
	CHECK(x86_boot_load(&boot, &vm.entry, &vm.err) == -EINVAL &&
			strstr(vm.err.message, "initramfs: the file is empty"),
		"an empty initramfs");
	close(boot.kernel_fd);
	close(boot.initrd_fd);
	image_free(&image);
	vm_destroy(&vm);
}

/* ---- initramfs ---- */

/** Where an initramfs of @size goes in a VM of @ram with @image, or 0. */
static uint64_t placed(uint64_t ram, const struct image *image, uint64_t size)
{
	struct vm vm;
	load(&vm, ram, image, size, "");
	const uint8_t *at = vm.rc == 0 ? memory_at(&vm.memory, vm.entry.initrd, size) : NULL;
	bool whole = at && at[0] == '0' && at[size - 1] == '!';
	uint64_t where = whole ? vm.entry.initrd : 0;
	vm_destroy(&vm);
	return where;
}

static void test_initrd(void)
{
	struct image image = make_bzimage();
	CHECK(placed(64 * MIB, &image, 4096) == 64 * MIB - 4096, "one page");
	CHECK(placed(64 * MIB, &image, 4097) == 64 * MIB - 8192, "a page and a byte");
	uint64_t kernel_end = BZ_ADDRESS + BZ_INIT_SIZE;
	CHECK(placed(32 * MIB, &image, 32 * MIB - kernel_end) == kernel_end, "all that is left above the kernel");
	CHECK(placed(20 * MIB, &image, BZ_ADDRESS - X86_KERNEL) == X86_KERNEL, "all that is left below it");
	refused(20 * MIB, &image, BZ_ADDRESS - X86_KERNEL + 1, -ENOMEM,
		"initramfs: its 16 MiB do not fit beside the kernel's 2 MiB", "a byte more than fits");
	CHECK(placed(5 * GIB, &image, 4096) == 3 * GIB - 4096, "below the hole, not above it");

	put_le16(image.bytes + 0x236, XLF_KERNEL_64);
	CHECK(placed(5 * GIB, &image, 4096) == 0x7ffff000, "not above initrd_addr_max");
	put_le32(image.bytes + 0x22c, 0x2000ffe);
	CHECK(placed(64 * MIB, &image, 4096) == 0x1fff000, "whose last byte counts");
	put_le32(image.bytes + 0x22c, 0x2000fff);
	CHECK(placed(64 * MIB, &image, 4096) == 0x2000000, "and is included");
	put_le32(image.bytes + 0x22c, 0);
	refused(64 * MIB, &image, 4096, -ENOMEM, "do not fit", "initrd_addr_max 0");
	image_free(&image);

	image = make_elf(true);
	CHECK(placed(34 * MIB, &image, 16 * MIB) == 18 * MIB, "above an ELF file's segments");
	CHECK(placed(5 * GIB, &image, 4096) == 3 * GIB - 4096, "a PVH module below 4 GiB");
	image_free(&image);
}

/** A big kernel leaves room for the initramfs only above 4 GiB. */
static void test_initrd_high(void)
{
	struct image image = make_bzimage();
	struct vm vm;
	put_le32(image.bytes + 0x260, X86_HOLE - BZ_ADDRESS - 8 * MIB);
	load(&vm, 5 * GIB, &image, 16 * MIB, "");
	const struct boot_params *p = memory_at(&vm.memory, vm.entry.info, sizeof(*p));
	CHECK(vm.rc == 0 && vm.entry.initrd == 6 * GIB - 16 * MIB, "above 4 GiB when there is no room below");
	CHECK(p->ext_ramdisk_image == 1 && p->hdr.ramdisk_image == 0x80000000 - 16 * MIB &&
			p->hdr.ramdisk_size == 16 * MIB,
		"told in two halves");
	vm_destroy(&vm);
	put_le16(image.bytes + 0x236, XLF_KERNEL_64);
	refused(5 * GIB, &image, 16 * MIB, -ENOMEM, "do not fit", "unless the kernel cannot take it there");
	image_free(&image);
	for (unsigned pvh = 0; pvh < 2; pvh++) {
		image = make_elf(pvh);
		put_le64(image.bytes + 64 + 56 + 40, X86_HOLE - ELF_DATA - 8 * MIB); /* p_memsz of its data */
		if (pvh)
			refused(5 * GIB, &image, 16 * MIB, -ENOMEM, "do not fit", "as by PVH");
		else
			CHECK(placed(5 * GIB, &image, 16 * MIB) == 6 * GIB - 16 * MIB,
				"an ELF kernel with boot_params can");
		image_free(&image);
	}
}

static void test_cmdline(void)
{
	struct vm vm;
	char line[2050];
	struct image images[] = {make_bzimage(), make_elf(true), make_elf(false)};
	for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
		memset(line, 'x', sizeof(line));
		line[2047] = 0;
		load(&vm, 64 * MIB, &images[i], 0, line);
		CHECK(vm.rc == 0 && strcmp(memory_at(&vm.memory, X86_CMDLINE, 2048), line) == 0,
			"2047 bytes of command line");
		vm_destroy(&vm);
		line[2047] = 'x';
		line[2048] = 0;
		load(&vm, 64 * MIB, &images[i], 0, line);
		CHECK(vm.rc == -E2BIG && strstr(vm.err.message, "has 2048 bytes, this kernel takes 2047"),
			"and one more");
		vm_destroy(&vm);
	}
	put_le32(images[0].bytes + 0x238, UINT32_MAX);
	CLEANUP_FREE char *longest = malloc(X86_CMDLINE_SIZE + 1);
	memset(longest, 'x', X86_CMDLINE_SIZE);
	longest[X86_CMDLINE_SIZE] = 0;
	load(&vm, 64 * MIB, &images[0], 0, longest);
	CHECK(vm.rc == -E2BIG, "a kernel that takes any length gets what there is room for");
	vm_destroy(&vm);
	load(&vm, 64 * MIB, &images[0], 0, longest + 1);
	CHECK(vm.rc == 0, "to the last byte");
	vm_destroy(&vm);
	for (unsigned i = 0; i < ARRAY_SIZE(images); i++)
		image_free(&images[i]);
}

/* ---- entering ---- */

/** Walk the page tables as a CPU does for pages of 2 MiB; UINT64_MAX when there is none. */
static uint64_t translate(const struct vm *vm, uint64_t address)
{
	uint64_t table = vm->entry.page_tables;
	for (unsigned shift = 39; shift >= 21; shift -= 9) {
		const uint8_t *at = memory_at(&vm->memory, table + (address >> shift & 511) * 8, 8);
		uint64_t e = at ? get_le64(at) : 0;
		if ((e & 3) != 3) /* present, writable */
			return UINT64_MAX;
		if (shift == 21)
			return e & 0x80 ? (e & ~0x1fffffull) + (address & 0x1fffff) : UINT64_MAX;
		if (e & 0x80)
			return UINT64_MAX;
		table = e & ~0xfffull;
	}
	return UINT64_MAX;
}

/** The segment that a selector names must be the one in the register. */
static bool matches(const struct vm *vm, const struct kvm_segment *s)
{
	const uint8_t *at = memory_at(&vm->memory, vm->entry.gdt + s->selector, 8);
	uint64_t d = at ? get_le64(at) : 0;
	uint64_t limit = (d & 0xffff) | (d >> 32 & 0xf0000);
	if (d >> 55 & 1)
		limit = limit << 12 | 0xfff;
	return s->selector + 7u <= vm->entry.gdt_limit && limit == s->limit && (d >> 40 & 15) == s->type &&
	       (d >> 44 & 1) == s->s && (d >> 47 & 1) == s->present && (d >> 53 & 1) == s->l &&
	       (d >> 54 & 1) == s->db && !s->base && !s->unusable;
}

static void test_registers(void)
{
	struct vm vm;
	struct kvm_regs regs;
	struct image image = make_bzimage();
	/* As after a reset: caches off, the APIC on. */
	struct kvm_sregs sregs = {.cr0 = 0x60000010, .apic_base = 0xfee00900, .cs = {.base = 0xffff0000}, .cr8 = 0};
	load(&vm, 5 * GIB, &image, 0, "");
	memset(&regs, 0xff, sizeof(regs));
	x86_entry_registers(&vm.entry, &sregs, &regs);
	CHECK(sregs.cr0 == 0x80000031 && sregs.cr4 == 0x20 && sregs.efer == 0x500 && sregs.cr3 == vm.entry.page_tables,
		"64-bit: long mode with paging");
	CHECK(regs.rip == vm.entry.rip && regs.rsi == X86_BOOT_INFO && regs.rflags == 2 && !regs.rsp,
		"rip, rsi, no interrupts");
	CHECK(sregs.cs.selector == 0x10 && sregs.ds.selector == 0x18 && sregs.es.selector == 0x18 &&
			sregs.ss.selector == 0x18,
		"the boot protocol's selectors");
	CHECK(matches(&vm, &sregs.cs) && matches(&vm, &sregs.ds) && matches(&vm, &sregs.ss) &&
			matches(&vm, &sregs.tr) && sregs.cs.l && !sregs.cs.db,
		"that the GDT has");
	CHECK(sregs.apic_base == 0xfee00900 && sregs.gdt.base == vm.entry.gdt && sregs.gdt.limit == vm.entry.gdt_limit,
		"the APIC stays, the GDT is there");
	static const uint64_t addresses[] = {
		0, X86_BOOT_INFO, BZ_ADDRESS + 0x200, X86_HOLE - 1, X86_LAPIC, X86_HIGH - 1};
	bool same = true;
	for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++)
		same = same && translate(&vm, addresses[i]) == addresses[i];
	CHECK(same, "the first 4 GiB are mapped to themselves");
	CHECK(translate(&vm, X86_HIGH) == UINT64_MAX, "and no more");
	vm_destroy(&vm);
	image_free(&image);

	image = make_elf(true);
	sregs = (struct kvm_sregs){.cr0 = 0x60000010, .cr4 = 0x20, .efer = 0x500, .apic_base = 0xfee00900};
	load(&vm, 64 * MIB, &image, 0, "");
	x86_entry_registers(&vm.entry, &sregs, &regs);
	CHECK(sregs.cr0 == 0x11 && sregs.cr4 == 0 && sregs.efer == 0 && sregs.cr3 == 0,
		"PVH: protected mode, nothing else");
	CHECK(regs.rip == ELF_PVH_ENTRY && regs.rbx == X86_BOOT_INFO && regs.rflags == 2, "rip, ebx, no interrupts");
	CHECK(matches(&vm, &sregs.cs) && matches(&vm, &sregs.ds) && matches(&vm, &sregs.tr) && sregs.cs.db &&
			!sregs.cs.l,
		"32-bit segments that the GDT has");
	CHECK(sregs.tr.limit == 0x67 && sregs.tr.type == 0xb, "an active TSS");
	vm_destroy(&vm);
	image_free(&image);
}

/** Nothing of what the loader itself puts below 1 MiB may overlap. */
static void test_layout(void)
{
	static const struct {
		uint64_t at, size;
	} low[] = {{X86_GDT, 48}, {X86_BOOT_INFO, 4096}, {X86_PAGE_TABLES, 6 * 4096}, {X86_CMDLINE, X86_CMDLINE_SIZE},
		{X86_LOW_RAM_END, 0}};
	bool ok = low[0].at >= 0x1000;
	for (unsigned i = 0; i + 1 < ARRAY_SIZE(low); i++)
		ok = ok && low[i].at + low[i].size <= low[i + 1].at;
	CHECK(ok, "what lies in the first MiB does not overlap");
}

int main(void)
{
	test_layout();
	test_sizes();
	test_map_refusals();
	test_bzimage();
	test_bzimage_refusals();
	test_bzimage_edges();
	test_elf();
	test_elf_refusals();
	test_not_kernels();
	test_initrd();
	test_initrd_high();
	test_cmdline();
	test_registers();
	return tap_done();
}
