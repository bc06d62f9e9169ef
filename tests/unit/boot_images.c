/* SPDX-License-Identifier: Apache-2.0 */
/* boot_images.c - small kernels with nothing wrong with them (boot_images.h) */
#include "boot_images.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

static struct image image_new(size_t size)
{
	struct image image = {.bytes = calloc(1, size), .size = size};
	if (!image.bytes)
		abort();
	for (size_t i = 0; i < size; i++)
		image.bytes[i] = (uint8_t)(i * 7 + i / 256);
	return image;
}

struct image make_bzimage(void)
{
	struct image image = image_new(BZ_SETUP + BZ_PAYLOAD);
	const struct setup_header header = {
		.setup_sects = BZ_SETUP / 512 - 1,
		.syssize = BZ_PAYLOAD / 16,
		.boot_flag = 0xaa55,
		.jump = 0xeb | 0x6a << 8, /* to 0x26c, where the header ends */
		.header = 0x53726448,
		.version = 0x20f,
		.loadflags = LOADED_HIGH,
		.setup_data = 0x1234,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = BZ_ALIGNMENT,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
		.cmdline_size = 2047,
		.pref_address = BZ_ADDRESS,
		.init_size = BZ_INIT_SIZE,
	};
	memcpy(image.bytes + 0x1f1, &header, sizeof(header));
	return image;
}

/** Write a note with a name of 4 bytes and a value of @n. */
static void put_note(uint8_t *at, const char *name, uint32_t type, uint32_t n, uint64_t value)
{
	const Elf64_Nhdr note = {.n_namesz = 4, .n_descsz = n, .n_type = type};
	memcpy(at, &note, sizeof(note));
	memcpy(at + sizeof(note), name, 4);
	memcpy(at + sizeof(note) + 4, &value, n);
}

struct image make_elf(int pvh)
{
	struct image image = image_new(ELF_DATA_AT + ELF_DATA_SIZE);
	const Elf64_Ehdr header = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = ELF_TEXT,
		.e_phoff = sizeof(header),
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
	};
	const Elf64_Phdr segments[3] = {
		{.p_type = PT_LOAD,
			.p_offset = ELF_TEXT_AT,
			.p_vaddr = 0xffffffff81000000,
			.p_paddr = ELF_TEXT,
			.p_filesz = ELF_TEXT_SIZE,
			.p_memsz = ELF_TEXT_SIZE},
		{.p_type = PT_LOAD,
			.p_offset = ELF_DATA_AT,
			.p_vaddr = 0xffffffff81100000,
			.p_paddr = ELF_DATA,
			.p_filesz = ELF_DATA_SIZE,
			.p_memsz = ELF_DATA_MEMORY},
		{.p_type = PT_NOTE, .p_offset = ELF_NOTES_AT, .p_filesz = 20 + 24, .p_memsz = 20 + 24},
	};
	memcpy(image.bytes, &header, sizeof(header));
	memcpy(image.bytes + sizeof(header), segments, sizeof(segments));
	put_note(image.bytes + ELF_NOTES_AT, "GNU", 3, 3, 0x123456);
	put_note(image.bytes + ELF_PVH_NOTE_AT, pvh ? "Xen" : "Zen", 18, 8, ELF_PVH_ENTRY);
	return image;
}

void image_free(struct image *image)
{
	free(image->bytes);
	*image = (struct image){0};
}
