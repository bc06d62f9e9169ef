/* SPDX-License-Identifier: Apache-2.0 */
/* elf_file.c - an ELF file, checked, as what it puts into memory (theory of operation: elf_file.h)
 *
 * Layouts are those of the System V ABI, generic (gABI 4.1, chapters 4 and 5) and for x86-64 (1.0, chapters 4 and 5). */
#include "sandbox/elf_file.h"

#include "base/cleanup.h"
#include "sandbox/layout.h"

#include <inttypes.h>
#include <string.h>

#define PROGRAM_HEADERS_MAX 64
#define ALIGNMENT_MAX (2ull << 20) /* SANDBOX_PROGRAM is a multiple of it */
#define LOWEST_MAX (2ull << 20) /* of the first segment; what lies below it is zeroes that nobody can reach */
#define DYNAMIC_MAX 256 /* entries */
#define TAGS 40 /* the tags that are looked at are below it */

#ifndef DT_RELR
#define DT_RELRSZ 35
#define DT_RELR 36
#endif

#define LINK_HINT "; `husk sandbox cc` makes programs that fit"

static uint64_t page_down(uint64_t n)
{
	return n & ~(SANDBOX_PAGE - 1);
}

static uint64_t segment_end(const struct elf_segment *segment)
{
	return page_up(segment->vaddr + segment->memsz);
}

/** Is [@at, @at + @n) within @size bytes? */
static bool within(uint64_t at, uint64_t n, uint64_t size)
{
	return at <= size && n <= size - at;
}

/* ---- the header ---- */

static int check_header(const Elf64_Ehdr *header, size_t size, struct husk_error *err)
{
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
		return error_set(err, -ENOEXEC, "it is no ELF file" LINK_HINT);
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
		header->e_machine != EM_X86_64)
		return error_set(err, -ENOEXEC,
			"it is for another machine (class %u, byte order %u, machine %u): compile it for x86-64",
			header->e_ident[EI_CLASS], header->e_ident[EI_DATA], header->e_machine);
	if (header->e_ident[EI_VERSION] != EV_CURRENT || header->e_version != EV_CURRENT ||
		header->e_ehsize != sizeof(*header))
		return error_set(err, -ENOEXEC, "its ELF header is of another version of the format (%u, %u bytes)",
			header->e_version, header->e_ehsize);
	if (header->e_ident[EI_OSABI] != ELFOSABI_SYSV && header->e_ident[EI_OSABI] != ELFOSABI_GNU)
		return error_set(err, -ENOEXEC, "it is for another system's ABI (%u)", header->e_ident[EI_OSABI]);
	if (header->e_type != ET_DYN)
		return error_set(err, -ENOEXEC,
			"it is no position-independent executable (ELF type %u): link with -static-pie" LINK_HINT,
			header->e_type);
	if (header->e_phnum == 0 || header->e_phnum > PROGRAM_HEADERS_MAX)
		return error_set(err, -ENOEXEC, "it has %u program headers; 1 to %d are possible", header->e_phnum,
			PROGRAM_HEADERS_MAX);
	if (header->e_phentsize != sizeof(Elf64_Phdr) ||
		!within(header->e_phoff, (uint64_t)header->e_phnum * sizeof(Elf64_Phdr), size))
		return error_set(
			err, -ENOEXEC, "its program headers lie outside of the file, which is damaged or cut off");
	return 0;
}

static Elf64_Phdr program_header(const struct elf *elf, unsigned i)
{
	Elf64_Ehdr header;
	Elf64_Phdr ph;

	memcpy(&header, elf->file, sizeof(header));
	memcpy(&ph, elf->file + header.e_phoff + i * sizeof(ph), sizeof(ph));
	return ph;
}

static unsigned n_program_headers(const struct elf *elf)
{
	Elf64_Ehdr header;

	memcpy(&header, elf->file, sizeof(header));
	return header.e_phnum;
}

/* ---- segments ---- */

/** What one PT_LOAD may be by itself. */
static int check_load(const struct elf *elf, const Elf64_Phdr *ph, unsigned i, struct husk_error *err)
{
	uint64_t align = ph->p_align ? ph->p_align : 1;

	if (ph->p_memsz < ph->p_filesz)
		return error_set(err, -ENOEXEC,
			"segment %u has more bytes in the file than in memory (%#" PRIx64 ", %#" PRIx64 ")", i,
			ph->p_filesz, ph->p_memsz);
	if (ph->p_filesz && !within(ph->p_offset, ph->p_filesz, elf->size))
		return error_set(
			err, -ENOEXEC, "segment %u ends behind the end of the file, which is damaged or cut off", i);
	if (!within(ph->p_vaddr, ph->p_memsz, IMAGE_MEMORY_MAX))
		return error_set(err, -ENOEXEC,
			"segment %u (%#" PRIx64 " bytes at %#" PRIx64
			") ends above %llu MiB, the most that a program can have",
			i, ph->p_memsz, ph->p_vaddr, IMAGE_MEMORY_MAX >> 20);
	if (align & (align - 1) || align > ALIGNMENT_MAX)
		return error_set(err, -ENOEXEC,
			"segment %u has an alignment of %#" PRIx64
			"; powers of two up to 2 MiB are possible: link with -z max-page-size=4096",
			i, align);
	if (align < SANDBOX_PAGE)
		align = SANDBOX_PAGE;
	if (ph->p_filesz && (ph->p_vaddr ^ ph->p_offset) & (align - 1))
		return error_set(err, -ENOEXEC,
			"segment %u lies at other places of a page in the file and in memory (%#" PRIx64 ", %#" PRIx64
			"): link without -n and -N",
			i, ph->p_offset, ph->p_vaddr);
	if (!(ph->p_flags & PF_R))
		return error_set(err, -ENOEXEC, "segment %u cannot be read, which sandboxes do not offer", i);
	if (ph->p_flags & PF_W && ph->p_flags & PF_X)
		return error_set(err, -ENOEXEC,
			"segment %u is writable and executable: give code and data segments of their own" LINK_HINT, i);
	return 0;
}

static int add_load(struct elf *elf, const Elf64_Phdr *ph, unsigned i, struct husk_error *err)
{
	int rc = check_load(elf, ph, i, err);

	if (rc < 0 || ph->p_memsz == 0)
		return rc;
	if (elf->n_segments == IMAGE_SEGMENTS_MAX)
		return error_set(err, -ENOEXEC, "it has more than %d segments", IMAGE_SEGMENTS_MAX);
	const struct elf_segment *last = elf->n_segments ? &elf->segments[elf->n_segments - 1] : NULL;
	if (!last && ph->p_vaddr >= LOWEST_MAX)
		return error_set(err, -ENOEXEC,
			"its first segment is at %#" PRIx64 "; a program has to begin below %#llx" LINK_HINT,
			ph->p_vaddr, LOWEST_MAX);
	if (last && page_down(ph->p_vaddr) < segment_end(last))
		return error_set(err, -ENOEXEC,
			"segment %u is not in pages of its own above those before it (%#" PRIx64
			"): link with -z separate-code" LINK_HINT,
			i, ph->p_vaddr);
	if (last && last->write && !(ph->p_flags & PF_W))
		return error_set(err, -ENOEXEC,
			"segment %u is not writable and lies above a writable one, and data have to come "
			"last" LINK_HINT,
			i);
	elf->segments[elf->n_segments++] = (struct elf_segment){
		.vaddr = ph->p_vaddr,
		.memsz = ph->p_memsz,
		.offset = ph->p_filesz ? ph->p_offset : 0,
		.filesz = ph->p_filesz,
		.write = ph->p_flags & PF_W,
		.execute = ph->p_flags & PF_X,
	};
	return 0;
}

/** Program headers that ask for what a sandbox has not got. */
static const struct {
	uint32_t type, flags; /* refused when it has one of these flags; 0: always */
	const char *why;
} refused[] = {
	{PT_INTERP, 0, "it asks for a dynamic linker: link with -static-pie" LINK_HINT},
	{PT_TLS, 0, "it has thread-local variables, and a sandbox has no threads: make them plain variables"},
	{PT_GNU_STACK, PF_X,
		"it asks for an executable stack: no nested functions whose address is taken, and "
		"a .note.GNU-stack section in every assembler file"},
};

static int read_segments(struct elf *elf, Elf64_Phdr *dynamic, struct husk_error *err)
{
	for (unsigned i = 0, n = n_program_headers(elf); i < n; i++) {
		const Elf64_Phdr ph = program_header(elf, i);
		for (size_t k = 0; k < ARRAY_SIZE(refused); k++)
			if (ph.p_type == refused[k].type && (!refused[k].flags || ph.p_flags & refused[k].flags))
				return error_set(err, -ENOEXEC, "%s", refused[k].why);
		if (ph.p_type == PT_DYNAMIC && dynamic->p_type == PT_DYNAMIC)
			return error_set(err, -ENOEXEC, "it has two dynamic sections");
		if (ph.p_type == PT_DYNAMIC)
			*dynamic = ph;
		int rc = ph.p_type == PT_LOAD ? add_load(elf, &ph, i, err) : 0;
		if (rc < 0)
			return rc;
	}
	if (!elf->n_segments)
		return error_set(err, -ENOEXEC, "it has nothing to load");
	uint64_t end = segment_end(&elf->segments[elf->n_segments - 1]);
	elf->ro_size = end;
	for (unsigned i = elf->n_segments; i-- > 0 && elf->segments[i].write;)
		elf->ro_size = page_down(elf->segments[i].vaddr);
	elf->data_size = end - elf->ro_size;
	return 0;
}

/* ---- the dynamic section ---- */

static const struct {
	unsigned tag; /* refused when it is there and its value is not 0 */
	const char *why;
} refused_tags[] = {
	{DT_NEEDED, "it needs a shared library: link with -static-pie" LINK_HINT},
	{DT_REL, "it has relocations in the form REL, which x86-64 does not use"},
	{DT_RELSZ, "it has relocations in the form REL, which x86-64 does not use"},
	{DT_RELR, "it has packed relocations: link with -z nopack-relative-relocs"},
	{DT_RELRSZ, "it has packed relocations: link with -z nopack-relative-relocs"},
	{DT_PLTRELSZ, "it calls functions that a dynamic linker would have to find: link with -static-pie" LINK_HINT},
	{DT_TEXTREL, "its code would have to be relocated: compile with -fPIE"},
};

static int check_tags(const uint64_t *values, struct husk_error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused_tags); i++)
		if (values[refused_tags[i].tag])
			return error_set(err, -ENOEXEC, "%s", refused_tags[i].why);
	return 0;
}

/** Find the relocations; @dynamic says where the dynamic section is. */
static int read_dynamic(struct elf *elf, const Elf64_Phdr *dynamic, struct husk_error *err)
{
	uint64_t values[TAGS] = {0};
	const uint8_t *at = elf_bytes(elf, dynamic->p_vaddr, dynamic->p_filesz);
	uint64_t n = dynamic->p_filesz / sizeof(Elf64_Dyn);

	if (!at || n > DYNAMIC_MAX)
		return error_set(err, -ENOEXEC,
			"its dynamic section (%#" PRIx64 " bytes at %#" PRIx64
			") is not a part of what is loaded, or too long",
			dynamic->p_filesz, dynamic->p_vaddr);
	for (uint64_t i = 0; i < n; i++) {
		Elf64_Dyn entry;
		memcpy(&entry, at + i * sizeof(entry), sizeof(entry));
		if (entry.d_tag == DT_NULL)
			break;
		/* DT_NEEDED and DT_TEXTREL count by being there: an offset of 0, and no value at all */
		if (entry.d_tag == DT_NEEDED || entry.d_tag == DT_TEXTREL ||
			(entry.d_tag == DT_FLAGS && entry.d_un.d_val & DF_TEXTREL))
			values[entry.d_tag == DT_NEEDED ? DT_NEEDED : DT_TEXTREL] = 1;
		else if (entry.d_tag > 0 && entry.d_tag < TAGS)
			values[entry.d_tag] = entry.d_un.d_val;
	}
	int rc = check_tags(values, err);
	if (rc < 0 || values[DT_RELASZ] == 0)
		return rc;
	elf->rela = elf_bytes(elf, values[DT_RELA], values[DT_RELASZ]);
	elf->n_rela = values[DT_RELASZ] / sizeof(Elf64_Rela);
	if (!elf->rela || values[DT_RELASZ] % sizeof(Elf64_Rela) || values[DT_RELAENT] != sizeof(Elf64_Rela))
		return error_set(err, -ENOEXEC,
			"its relocations (%#" PRIx64 " bytes at %#" PRIx64 ", %" PRIu64
			" each) are not a part of what is loaded, or of another size",
			values[DT_RELASZ], values[DT_RELA], values[DT_RELAENT]);
	return 0;
}

int elf_parse(const uint8_t *file, size_t size, struct elf *elf, struct husk_error *err)
{
	Elf64_Ehdr header;
	Elf64_Phdr dynamic = {.p_type = PT_NULL};

	*elf = (struct elf){.file = file, .size = size};
	if (size < sizeof(header))
		return error_set(err, -ENOEXEC, "it is no ELF file, or cut off (%zu bytes)", size);
	memcpy(&header, file, sizeof(header));
	int rc = check_header(&header, size, err);
	if (rc == 0)
		rc = read_segments(elf, &dynamic, err);
	if (rc == 0 && dynamic.p_type == PT_DYNAMIC)
		rc = read_dynamic(elf, &dynamic, err);
	if (rc < 0)
		return rc;
	if (!elf_is_code(elf, header.e_entry))
		return error_set(err, -ENOEXEC,
			"its entry (%#" PRIx64 ") is not in code: it is a library, or lacks the start code" LINK_HINT,
			header.e_entry);
	elf->entry = header.e_entry;
	return 0;
}

/* ---- addresses ---- */

/** The segment that [@vaddr, @vaddr + @n) lies in, or NULL. */
static const struct elf_segment *segment_of(const struct elf *elf, uint64_t vaddr, uint64_t n)
{
	for (unsigned i = 0; i < elf->n_segments; i++)
		if (vaddr >= elf->segments[i].vaddr &&
			within(vaddr - elf->segments[i].vaddr, n, elf->segments[i].memsz))
			return &elf->segments[i];
	return NULL;
}

const uint8_t *elf_bytes(const struct elf *elf, uint64_t vaddr, uint64_t n)
{
	const struct elf_segment *segment = segment_of(elf, vaddr, n);

	if (!segment || !within(vaddr - segment->vaddr, n, segment->filesz))
		return NULL;
	return elf->file + segment->offset + (vaddr - segment->vaddr);
}

uint64_t elf_constant(const struct elf *elf, uint64_t vaddr)
{
	const struct elf_segment *segment = segment_of(elf, vaddr, 1);

	return segment && !segment->write ? segment->memsz - (vaddr - segment->vaddr) : 0;
}

bool elf_is_code(const struct elf *elf, uint64_t vaddr)
{
	const struct elf_segment *segment = segment_of(elf, vaddr, 1);

	return segment && segment->execute;
}

/* ---- into memory ---- */

int elf_lay_out(const struct elf *elf, uint8_t *memory, uint64_t base, struct husk_error *err)
{
	for (unsigned i = 0; i < elf->n_segments; i++)
		memcpy(memory + elf->segments[i].vaddr, elf->file + elf->segments[i].offset, elf->segments[i].filesz);
	for (uint64_t i = 0; i < elf->n_rela; i++) {
		Elf64_Rela rela;
		memcpy(&rela, elf->rela + i * sizeof(rela), sizeof(rela));
		if (rela.r_info != R_X86_64_RELATIVE)
			return error_set(err, -ENOEXEC,
				"its relocation %" PRIu64 " is of type %u for symbol %u: only R_X86_64_RELATIVE is "
				"possible; is a symbol undefined?",
				i, (unsigned)ELF64_R_TYPE(rela.r_info), (unsigned)ELF64_R_SYM(rela.r_info));
		if (!segment_of(elf, rela.r_offset, sizeof(uint64_t)))
			return error_set(err, -ENOEXEC,
				"its relocation %" PRIu64 " is for %#" PRIx64 ", where nothing is loaded", i,
				rela.r_offset);
		/* Whatever the sum is: to the guest it is a number like any other. */
		const uint64_t value = base + (uint64_t)rela.r_addend;
		memcpy(memory + rela.r_offset, &value, sizeof(value));
	}
	return 0;
}

/* ---- notes ---- */

/** The notes of one PT_NOTE, whose @n bytes at @at lie at @vaddr. Adds to *@found what matches. */
static bool read_notes(const uint8_t *at, uint64_t n, uint64_t align, const char *name, uint32_t type, unsigned *found,
	uint64_t *where, uint64_t *size)
{
	const uint64_t room = strlen(name) + 1;

	for (uint64_t i = 0; i < n;) {
		Elf64_Nhdr note;
		if (!within(i, sizeof(note), n))
			return false;
		memcpy(&note, at + i, sizeof(note));
		/* names and contents are padded, the last content need not be */
		uint64_t contents = i + ((sizeof(note) + note.n_namesz + align - 1) & ~(align - 1));
		if (!within(contents, note.n_descsz, n))
			return false;
		if (note.n_type == type && note.n_namesz == room && memcmp(at + i + sizeof(note), name, room) == 0) {
			(*found)++;
			*where = contents;
			*size = note.n_descsz;
		}
		i = contents + ((note.n_descsz + align - 1) & ~(align - 1));
	}
	return true;
}

int elf_find_note(
	const struct elf *elf, const char *name, uint32_t type, uint64_t *vaddr, uint64_t *size, struct husk_error *err)
{
	unsigned found = 0;

	for (unsigned i = 0, n = n_program_headers(elf); i < n; i++) {
		const Elf64_Phdr ph = program_header(elf, i);
		unsigned before = found;
		uint64_t where = 0;
		if (ph.p_type != PT_NOTE)
			continue;
		const uint8_t *at = elf_bytes(elf, ph.p_vaddr, ph.p_filesz);
		if (!at || !read_notes(at, ph.p_filesz, ph.p_align == 8 ? 8 : 4, name, type, &found, &where, size))
			return error_set(err, -ENOEXEC, "its notes (program header %u) are damaged", i);
		if (found > before)
			*vaddr = ph.p_vaddr + where;
	}
	if (found != 1)
		return error_set(err, -ENOEXEC, "%s" LINK_HINT,
			found ? "it says twice what it is (two notes of husk's): it is linked with the runtime twice"
			      : "it is no program for sandboxes (no note of husk's in what is loaded): link it with "
				"husk's guest runtime");
	return 0;
}
