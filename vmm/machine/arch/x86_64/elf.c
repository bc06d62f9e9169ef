/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf.c - an ELF vmlinux, entered by its PVH note or at its 64-bit entry
 *
 * A kernel that can be entered as Xen's PVH guests are says where in a note (name "Xen", type 18, include/xen/interface/
 * elfnote.h): 32-bit, without paging. Without the note e_entry is entered in 64-bit mode with boot_params, as a boot loader
 * of a bzImage would after unpacking it. Segments go to their physical addresses; a vmlinux is not relocatable.
 */
#include "vmm/machine/arch/x86_64/boot_internal.h"

#include "base/cleanup.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define SEGMENTS_MAX 64 /* program headers; a vmlinux has five */
#define NOTES_MAX 65536 /* bytes of notes in one segment; a vmlinux has 500 */
#define NOTE_PHYS32_ENTRY 18
#define CMDLINE_MAX 2047 /* COMMAND_LINE_SIZE less its NUL, arch/x86/include/asm/setup.h; a kernel cuts the rest off */

static bool probe(const uint8_t *head, size_t n)
{
	return n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int read_header(const struct boot_file *kernel, Elf64_Ehdr *header, struct husk_error *err)
{
	int rc = boot_file_read(kernel, 0, header, sizeof(*header), err);

	if (rc < 0)
		return rc;
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
		header->e_machine != EM_X86_64)
		return error_set(err, -EINVAL,
			"load the kernel: it is an ELF file for another kind of CPU (machine %u): give it an x86-64 "
			"vmlinux",
			header->e_machine);
	if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
		return error_set(
			err, -EINVAL, "load the kernel: it is an ELF file, but no program (type %u)", header->e_type);
	if (header->e_phentsize != sizeof(Elf64_Phdr) || !header->e_phnum || header->e_phnum > SEGMENTS_MAX)
		return error_set(err, -EINVAL,
			"load the kernel: %u program headers of %u bytes, 1 to %d of %zu are possible: the file is "
			"broken",
			header->e_phnum, header->e_phentsize, SEGMENTS_MAX, sizeof(Elf64_Phdr));
	return 0;
}

/** Notes are aligned to 4 bytes, whatever the class of the file; those of p_align 8 are others' (GNU properties). */
static uint64_t padded(uint32_t n)
{
	return (n + 3ull) & ~3ull;
}

/** Look for the PVH entry in @n bytes of notes. What is left of a note that does not fit is no note. */
static int parse_notes(const uint8_t *notes, size_t n, struct boot_plan *plan, struct husk_error *err)
{
	Elf64_Nhdr note;

	for (size_t at = 0; n - at >= sizeof(note);) {
		memcpy(&note, notes + at, sizeof(note));
		at += sizeof(note);
		uint64_t name = padded(note.n_namesz), desc = padded(note.n_descsz);
		if (name + note.n_descsz > n - at)
			return error_set(err, -EINVAL,
				"load the kernel: an ELF note is longer than its segment: the file is broken");
		const uint8_t *value = notes + at + name;
		if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 && memcmp(notes + at, "Xen", 4) == 0) {
			uint64_t entry = 0;
			if (note.n_descsz != 4 && note.n_descsz != 8)
				return error_set(err, -EINVAL,
					"load the kernel: a PVH entry of %u bytes: the file is broken", note.n_descsz);
			memcpy(&entry, value, note.n_descsz);
			plan->pvh = true;
			plan->rip = entry;
			return 0;
		}
		at = name + desc > n - at ? n : at + name + desc;
	}
	return 0;
}

static int read_notes(
	const struct boot_file *kernel, const Elf64_Phdr *segment, struct boot_plan *plan, struct husk_error *err)
{
	if (segment->p_filesz > NOTES_MAX)
		return error_set(err, -EINVAL, "load the kernel: %" PRIu64 " bytes of ELF notes: the file is broken",
			(uint64_t)segment->p_filesz);
	CLEANUP_FREE uint8_t *notes = malloc(segment->p_filesz + 1);
	if (!notes)
		return error_set(err, -ENOMEM, "load the kernel: out of memory");
	int rc = boot_file_read(kernel, segment->p_offset, notes, segment->p_filesz, err);
	return rc < 0 ? rc : parse_notes(notes, segment->p_filesz, plan, err);
}

static int plan_segment(const struct boot_file *kernel, const struct memory *memory, const Elf64_Phdr *segment,
	struct boot_plan *plan, struct husk_error *err)
{
	if (segment->p_type == PT_NOTE && !plan->pvh)
		return read_notes(kernel, segment, plan, err);
	if (segment->p_type != PT_LOAD || (!segment->p_memsz && !segment->p_filesz))
		return 0;
	const struct boot_piece piece = {
		.gpa = segment->p_paddr, .size = segment->p_memsz, .offset = segment->p_offset, .n = segment->p_filesz};
	return boot_plan_add(plan, kernel, memory, &piece, err);
}

/** What boot_params say in place of a bzImage's header. */
static const struct setup_header plain_header = {
	.boot_flag = 0xaa55,
	.header = 0x53726448, /* "HdrS" */
	.version = 0x20c,
	.vid_mode = 0xffff,
	.type_of_loader = 0xff,
	.loadflags = LOADED_HIGH,
	.cmdline_size = CMDLINE_MAX,
};

static int plan_elf(
	const struct boot_file *kernel, const struct memory *memory, struct boot_plan *plan, struct husk_error *err)
{
	Elf64_Ehdr header;
	Elf64_Phdr segments[SEGMENTS_MAX];

	int rc = read_header(kernel, &header, err);
	if (rc == 0)
		rc = boot_file_read(kernel, header.e_phoff, segments, header.e_phnum * sizeof(segments[0]), err);
	for (unsigned i = 0; rc == 0 && i < header.e_phnum; i++)
		rc = plan_segment(kernel, memory, &segments[i], plan, err);
	if (rc < 0)
		return rc;
	if (!plan->pvh)
		plan->rip = header.e_entry;
	if (!boot_plan_holds(plan, plan->rip))
		return error_set(err, -EINVAL,
			"load the kernel: its %s entry 0x%" PRIx64
			" is not the physical address of anything in it: it is no vmlinux",
			plan->pvh ? "PVH" : "64-bit", plan->rip);
	plan->cmdline_max = CMDLINE_MAX;
	plan->header = plain_header;
	/* A PVH kernel keeps the 32 low bits of a module's address only (arch/x86/platform/pvh/enlighten.c). */
	plan->initrd_max = plan->pvh ? UINT32_MAX : UINT64_MAX;
	return 0;
}

const struct boot_format boot_elf = {.name = "ELF", .probe = probe, .plan = plan_elf};
