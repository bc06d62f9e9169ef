/* SPDX-License-Identifier: Apache-2.0 */
/* image-test.c - programs for sandboxes: what is loaded of a good one, and every way in which one can be bad */
#include "base/cleanup.h"
#include "base/fd.h"
#include "sandbox/cpu.h"
#include "sandbox/image.h"
#include "test_program.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void cleanup_image(struct husk_sandbox_image **image)
{
	husk_sandbox_image_free(*image);
}
#define CLEANUP_IMAGE CLEANUP(cleanup_image)

#define AT(member) offsetof(struct test_program, member)

/* ---- a good one ---- */

static bool same_segment(const struct image_segment *segment, uint64_t at, uint64_t size, bool write, bool execute)
{
	return segment->at == SANDBOX_PROGRAM + at && segment->size == size && segment->write == write &&
	       segment->execute == execute;
}

static void check_memory(const struct husk_sandbox_image *image, const struct test_program *program)
{
	const uint8_t *ro = image->ro + SANDBOX_SUPPORT_SIZE;
	uint8_t support[SANDBOX_SUPPORT_SIZE], zero[4096] = {0};
	uint64_t word;

	cpu_write_support(support);
	CHECK(memcmp(image->ro, support, sizeof(support)) == 0, "the library's pages come first");
	CHECK(memcmp(ro, program, AT(exports)) == 0, "constants that are not relocated are as in the file");
	memcpy(&word, ro + AT(exports[1].name), sizeof(word));
	CHECK(word == SANDBOX_PROGRAM + AT(names[1]), "a constant is relocated");
	CHECK(memcmp(ro + TEST_CODE, program->code, sizeof(program->code)) == 0, "the code is where it belongs");
	CHECK(memcmp(ro + 0x1000, zero, 0x1000) == 0 && memcmp(ro + 0x3000, zero, 0x1000) == 0,
		"pages between the segments are zeroes");
	uint8_t *data =
		mmap(NULL, image->data_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, image->fd, (off_t)image->ro_size);
	CHECK(data != MAP_FAILED, "a sandbox can map the data copy-on-write");
	if (data == MAP_FAILED)
		return;
	memcpy(&word, data + 8, sizeof(word));
	CHECK(word == SANDBOX_PROGRAM + TEST_DATA + 16 && memcmp(data, program->data, 8) == 0 &&
			memcmp(data + 16, program->data + 16, sizeof(program->data) - 16) == 0,
		"data are as in the file, and relocated");
	CHECK(memcmp(data + sizeof(program->data), zero, 4096 - sizeof(program->data)) == 0 &&
			memcmp(data + 0x2000, zero, 4096) == 0,
		"zeroes follow");
	munmap(data, image->data_size);
}

static void check_sealed(const struct husk_sandbox_image *image)
{
	CHECK(fcntl(image->fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL),
		"the memfd is sealed");
	CHECK(pwrite(image->fd, "x", 1, 0) < 0 && errno == EPERM, "nobody can write to it");
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0) == MAP_FAILED, "nor map it to do so");
	CHECK(fcntl(image->fd, F_GETFD) & FD_CLOEXEC, "programs that are executed do not get it");
}

static void check_functions(const struct husk_sandbox_image *image)
{
	struct husk_sandbox_signature function = {0};
	struct husk_error err = {0};

	CHECK(husk_sandbox_image_function(image, 0, &function, &err) == 0 && strcmp(function.name, "add") == 0 &&
			function.result == HUSK_SANDBOX_I32 && function.n_args == 2 &&
			function.args[0] == HUSK_SANDBOX_I32 && function.args[1] == HUSK_SANDBOX_I32,
		"the first function is i32 add(i32, i32)");
	CHECK(husk_sandbox_image_function(image, 1, &function, &err) == 0 && strcmp(function.name, "greet") == 0 &&
			function.result == HUSK_SANDBOX_VOID && function.n_args == 1 &&
			function.args[0] == HUSK_SANDBOX_STRING,
		"the second is void greet(string)");
	CHECK(husk_sandbox_image_function(image, 2, &function, &err) == -ENOENT && err.code == -ENOENT,
		"there is no third");
	CHECK(husk_sandbox_image_import(image, 0, &function, &err) == 0 && strcmp(function.name, "print") == 0,
		"print is what it needs of the host");
	CHECK(husk_sandbox_image_import(image, 1, &function, &err) == -ENOENT, "and nothing else");
	CHECK(image_find_export(image, "add") == 0 && image_find_export(image, "greet") == 1,
		"functions are found by name");
	CHECK(image_find_export(image, "gree") == -ENOENT && image_find_export(image, "print") == -ENOENT &&
			image_find_export(image, "") == -ENOENT,
		"others are not");
}

static void check_symbol(
	const struct husk_sandbox_image *image, uint64_t at, size_t room, const char *want, const char *what)
{
	char text[64] = "unchanged";

	image_symbol(image, SANDBOX_PROGRAM + at, text, room);
	CHECK_STRING(text, want, what);
}

static void check_symbols(const struct husk_sandbox_image *image)
{
	check_symbol(image, TEST_CODE, 64, "add+0x0", "a function's first byte");
	check_symbol(image, TEST_CODE + 31, 64, "add+0x1f", "a function's last byte");
	check_symbol(image, TEST_CODE + 32, 64, "greet+0x0", "the next function");
	check_symbol(image, TEST_CODE + 64, 64, "", "behind the last function");
	check_symbol(image, TEST_DATA + 7, 64, "counter+0x7", "a variable");
	check_symbol(image, 0, 64, "", "before the first symbol");
	check_symbol(image, -SANDBOX_PROGRAM, 64, "", "address 0");
	check_symbol(image, -SANDBOX_PROGRAM - 1, 64, "", "the last address");
	check_symbol(image, TEST_CODE + 32, 8, "gre+0x0", "a name that does not fit is cut, not its offset");
	check_symbol(image, TEST_CODE + 32, 4, "", "no room for the offset: nothing");
}

static void test_good(void)
{
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct husk_error err = {0};

	test_program_make(&program);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) == 0,
		    "a good program is loaded")) {
		printf("# %s\n", err.message);
		return;
	}
	CHECK(image->entry == SANDBOX_PROGRAM + TEST_CODE, "it is entered where it says");
	CHECK(image->ro_size == SANDBOX_SUPPORT_SIZE + TEST_DATA && image->data_size == TEST_END - TEST_DATA,
		"read-only memory reaches up to the data");
	CHECK(image->n_segments == 3 && same_segment(&image->segments[0], 0, 0x1000, false, false) &&
			same_segment(&image->segments[1], TEST_CODE, 0x1000, false, true) &&
			same_segment(&image->segments[2], TEST_DATA, 0x3000, true, false),
		"its segments are known as whole pages with their rights");
	CHECK(image->elf_size == sizeof(program) && memcmp(image->elf, &program, sizeof(program)) == 0,
		"the file is kept");
	check_memory(image, &program);
	check_sealed(image);
	check_functions(image);
	check_symbols(image);
}

/* ---- bad ones ---- */

/** One or two fields of a good program, changed. */
struct change {
	size_t at, size;
	uint64_t value;
};

#define FIELD(member, new)                                                                                             \
	{                                                                                                              \
		AT(member), sizeof(((struct test_program *)0)->member), (uint64_t)(new)                                \
	}

static const struct {
	const char *what, *reason;
	struct change changes[3];
} bad[] = {
	/* the header */
	{"another magic", "no ELF file", {FIELD(header.e_ident[0], 0x7e)}},
	{"a script", "no ELF file", {FIELD(header.e_ident[1], '!')}},
	{"32 bits", "another machine (class 1", {FIELD(header.e_ident[EI_CLASS], ELFCLASS32)}},
	{"big-endian", "another machine (class 2, byte order 2", {FIELD(header.e_ident[EI_DATA], ELFDATA2MSB)}},
	{"aarch64", "machine 183): compile it for x86-64", {FIELD(header.e_machine, EM_AARCH64)}},
	{"a version to come", "another version", {FIELD(header.e_ident[EI_VERSION], 2)}},
	{"a version to come, again", "another version", {FIELD(header.e_version, 2)}},
	{"a larger header", "another version", {FIELD(header.e_ehsize, 80)}},
	{"FreeBSD", "another system's ABI (9)", {FIELD(header.e_ident[EI_OSABI], ELFOSABI_FREEBSD)}},
	{"a program with fixed addresses", "no position-independent executable (ELF type 2): link with -static-pie",
		{FIELD(header.e_type, ET_EXEC)}},
	{"an object file", "ELF type 1", {FIELD(header.e_type, ET_REL)}},
	{"a core file", "ELF type 4", {FIELD(header.e_type, ET_CORE)}},
	{"no program headers", "0 program headers", {FIELD(header.e_phnum, 0)}},
	{"65 program headers", "65 program headers", {FIELD(header.e_phnum, 65)}},
	{"65535 program headers, which mean more", "65535 program headers", {FIELD(header.e_phnum, PN_XNUM)}},
	{"program headers of another size", "program headers lie outside", {FIELD(header.e_phentsize, 32)}},
	{"program headers behind the file", "program headers lie outside",
		{FIELD(header.e_phoff, sizeof(struct test_program))}},
	{"program headers that wrap", "program headers lie outside", {FIELD(header.e_phoff, UINT64_MAX - 8)}},
	{"program headers at the last address", "program headers lie outside", {FIELD(header.e_phoff, UINT64_MAX)}},
	{"an entry of 0, as libraries have", "entry (0) is not in code", {FIELD(header.e_entry, 0)}},
	{"an entry in data", "is not in code", {FIELD(header.e_entry, TEST_DATA)}},
	{"an entry behind the code", "is not in code", {FIELD(header.e_entry, TEST_CODE + 64)}},
	{"an entry far away", "is not in code", {FIELD(header.e_entry, UINT64_MAX)}},
	/* segments */
	{"more in the file than in memory", "segment 1 has more bytes in the file", {FIELD(ph[PH_CODE].p_memsz, 63)}},
	{"more in the file, and nothing in memory", "segment 1 has more bytes in the file",
		{FIELD(ph[PH_CODE].p_memsz, 0)}},
	{"a segment behind the end of the file", "segment 1 ends behind the end of the file",
		{FIELD(ph[PH_CODE].p_offset, 0x100000)}},
	{"a segment whose end wraps", "segment 1 ends behind the end of the file",
		{FIELD(ph[PH_CODE].p_offset, UINT64_MAX - 0xfff)}},
	{"a segment that is longer than the file", "segment 2 ends behind the end of the file",
		{FIELD(ph[PH_DATA].p_filesz, 0x2800)}},
	{"all memory there is", "ends above 256 MiB", {FIELD(ph[PH_DATA].p_memsz, UINT64_MAX)}},
	{"memory that ends at 0", "ends above 256 MiB", {FIELD(ph[PH_DATA].p_memsz, -(uint64_t)TEST_DATA)}},
	{"a byte more than 256 MiB", "segment 2 (0xfffc001 bytes at 0x4000) ends above 256 MiB",
		{FIELD(ph[PH_DATA].p_memsz, (256u << 20) - TEST_DATA + 1)}},
	{"a segment at the end of all addresses", "ends above 256 MiB",
		{FIELD(ph[PH_DATA].p_vaddr, UINT64_MAX - 0xfff)}},
	{"an alignment of 4 MiB", "segment 2 has an alignment of 0x400000", {FIELD(ph[PH_DATA].p_align, 4u << 20)}},
	{"an alignment that is no power of two", "segment 0 has an alignment of 0x1001",
		{FIELD(ph[PH_CONSTANTS].p_align, 4097)}},
	{"an alignment of half of everything", "has an alignment of", {FIELD(ph[PH_DATA].p_align, 1ull << 63)}},
	{"another place in its page than in the file", "segment 2 lies at other places of a page",
		{FIELD(ph[PH_DATA].p_vaddr, TEST_DATA + 8)}},
	{"an alignment that the file has not", "segment 2 lies at other places", {FIELD(ph[PH_DATA].p_align, 0x10000)}},
	{"code that cannot be read", "segment 1 cannot be read", {FIELD(ph[PH_CODE].p_flags, PF_X)}},
	{"a segment without any right", "segment 0 cannot be read", {FIELD(ph[PH_CONSTANTS].p_flags, 0)}},
	{"code that can be written", "segment 1 is writable and executable",
		{FIELD(ph[PH_CODE].p_flags, PF_R | PF_W | PF_X)}},
	{"two segments at one place", "segment 1 is not in pages of its own", {FIELD(ph[PH_CODE].p_vaddr, 0)}},
	{"a segment that reaches into the page of the next", "segment 1 is not in pages of its own",
		{FIELD(ph[PH_CONSTANTS].p_memsz, TEST_CODE + 1)}},
	{"segments in another order", "segment 2 is not in pages of its own", {FIELD(ph[PH_DATA].p_vaddr, 0x1000)}},
	{"constants that are writable, and below the code", "segment 1 is not writable and lies above a writable one",
		{FIELD(ph[PH_CONSTANTS].p_flags, PF_R | PF_W)}},
	{"a program that begins at 2 MiB", "its first segment is at 0x200000",
		{FIELD(ph[PH_CONSTANTS].p_vaddr, 2u << 20), FIELD(ph[PH_CODE].p_vaddr, 3u << 20),
			FIELD(ph[PH_DATA].p_vaddr, 4u << 20)}},
	{"nothing to load", "nothing to load",
		{FIELD(ph[PH_CONSTANTS].p_type, PT_NULL), FIELD(ph[PH_CODE].p_type, PT_NULL),
			FIELD(ph[PH_DATA].p_type, PT_NULL)}},
	{"a dynamic linker", "asks for a dynamic linker", {FIELD(ph[PH_SPARE].p_type, PT_INTERP)}},
	{"thread-local variables", "thread-local variables", {FIELD(ph[PH_SPARE].p_type, PT_TLS)}},
	{"an executable stack", "executable stack", {FIELD(ph[PH_STACK].p_flags, PF_R | PF_W | PF_X)}},
	/* the dynamic section */
	{"two dynamic sections", "two dynamic sections", {FIELD(ph[PH_SPARE].p_type, PT_DYNAMIC)}},
	{"a dynamic section behind everything", "dynamic section", {FIELD(ph[PH_DYNAMIC].p_vaddr, TEST_END)}},
	{"a dynamic section in zeroes", "dynamic section", {FIELD(ph[PH_DYNAMIC].p_vaddr, TEST_DATA + 0x1000)}},
	{"a dynamic section that is longer than its segment", "dynamic section",
		{FIELD(ph[PH_DYNAMIC].p_filesz, 0x1000)}},
	{"a dynamic section whose end wraps", "dynamic section", {FIELD(ph[PH_DYNAMIC].p_filesz, UINT64_MAX)}},
	{"a shared library", "needs a shared library", {FIELD(dynamic[DYN_SPARE].d_tag, DT_NEEDED)}},
	{"relocations without addends", "in the form REL",
		{FIELD(dynamic[DYN_SPARE].d_tag, DT_REL), FIELD(dynamic[DYN_SPARE].d_un.d_val, 8)}},
	{"packed relocations", "packed relocations",
		{FIELD(dynamic[DYN_SPARE].d_tag, DT_RELR), FIELD(dynamic[DYN_SPARE].d_un.d_val, 8)}},
	{"a size of packed relocations", "packed relocations",
		{FIELD(dynamic[DYN_SPARE].d_tag, 35), FIELD(dynamic[DYN_SPARE].d_un.d_val, 8)}},
	{"functions to be found later", "dynamic linker would have to find",
		{FIELD(dynamic[DYN_SPARE].d_tag, DT_PLTRELSZ), FIELD(dynamic[DYN_SPARE].d_un.d_val, 24)}},
	{"code to be relocated", "code would have to be relocated", {FIELD(dynamic[DYN_SPARE].d_tag, DT_TEXTREL)}},
	{"code to be relocated, as a flag", "code would have to be relocated",
		{FIELD(dynamic[DYN_SPARE].d_tag, DT_FLAGS), FIELD(dynamic[DYN_SPARE].d_un.d_val, DF_TEXTREL)}},
	{"relocations of another size", "relocations (0x90 bytes", {FIELD(dynamic[DYN_RELAENT].d_un.d_val, 16)}},
	{"relocations whose size is not told", "0 each", {FIELD(dynamic[DYN_RELAENT].d_tag, DT_DEBUG)}},
	{"half a relocation", "relocations (0x8c bytes", {FIELD(dynamic[DYN_RELASZ].d_un.d_val, 0x8c)}},
	{"relocations behind everything", "relocations (", {FIELD(dynamic[DYN_RELA].d_un.d_val, TEST_END)}},
	{"relocations in zeroes", "relocations (", {FIELD(dynamic[DYN_RELA].d_un.d_val, TEST_DATA + 0x1000)}},
	{"more relocations than there are bytes", "relocations (", {FIELD(dynamic[DYN_RELASZ].d_un.d_val, 24 * 1000)}},
	{"as many relocations as can be", "relocations (",
		{FIELD(dynamic[DYN_RELASZ].d_un.d_val, UINT64_MAX / 24 * 24)}},
	/* relocations */
	{"a relocation for a symbol", "relocation 5 is of type 6 for symbol 3",
		{FIELD(rela[RELA_DATA].r_info, ELF64_R_INFO(3, R_X86_64_GLOB_DAT))}},
	{"a relocation by a function", "relocation 5 is of type 37",
		{FIELD(rela[RELA_DATA].r_info, R_X86_64_IRELATIVE)}},
	{"a relocation that is none", "relocation 5 is of type 0", {FIELD(rela[RELA_DATA].r_info, R_X86_64_NONE)}},
	{"a relocation in a hole", "for 0x1000, where nothing is loaded", {FIELD(rela[RELA_DATA].r_offset, 0x1000)}},
	{"a relocation that reaches over the end", "for 0x6ff9, where nothing is loaded",
		{FIELD(rela[RELA_DATA].r_offset, TEST_END - 7)}},
	{"a relocation that reaches into a hole", "for 0x203a", {FIELD(rela[RELA_DATA].r_offset, TEST_CODE + 58)}},
	{"a relocation that wraps", "for 0xfffffffffffffffc", {FIELD(rela[RELA_DATA].r_offset, UINT64_MAX - 3)}},
	{"a relocation of the library's own pages", "for 0xfffffffffffff000",
		{FIELD(rela[RELA_DATA].r_offset, -4096ull)}},
	/* the note */
	{"no notes", "no program for sandboxes", {FIELD(ph[PH_NOTE].p_type, PT_NULL)}},
	{"a note by another name", "no program for sandboxes", {FIELD(note.name[0], 'H')}},
	{"a note of another type", "no program for sandboxes", {FIELD(note.header.n_type, 2)}},
	{"a note whose name is longer", "no program for sandboxes", {FIELD(note.header.n_namesz, 6)}},
	{"a note whose name is longer than it", "notes (program header 4) are damaged",
		{FIELD(note.header.n_namesz, UINT32_MAX)}},
	{"a note whose contents are longer than it", "notes (program header 4) are damaged",
		{FIELD(note.header.n_descsz, UINT32_MAX)}},
	{"a note whose contents are shorter than they say", "too short",
		{FIELD(note.header.n_descsz, 32), FIELD(ph[PH_NOTE].p_filesz, 56)}},
	{"notes that are not loaded", "notes (program header 4) are damaged", {FIELD(ph[PH_NOTE].p_vaddr, TEST_END)}},
	{"notes that wrap", "notes (program header 4) are damaged", {FIELD(ph[PH_NOTE].p_vaddr, UINT64_MAX)}},
	{"notes that are cut", "notes (program header 4) are damaged", {FIELD(ph[PH_NOTE].p_filesz, 40)}},
	{"a protocol to come", "speaks version 2 of the protocol and this husk 1", {FIELD(note.program.protocol, 2)}},
	{"contents of another size", "too short", {FIELD(note.program.size, 39)}},
	{"contents larger than the note", "too short", {FIELD(note.program.size, 41)}},
	/* exports and imports */
	{"a table that ends before it begins", "end before they begin", {FIELD(note.program.exports_end, -1000)}},
	{"the other table that does", "end before they begin", {FIELD(note.program.imports_end, -1000)}},
	{"a table from the first address to the last", "table of exports has 18446744073709551615 bytes",
		{FIELD(note.program.exports, INT64_MIN), FIELD(note.program.exports_end, INT64_MAX)}},
	{"a table with half an entry", "table of imports has", {FIELD(note.program.imports_end, 1000)}},
	{"a table with 1025 entries", "table of exports has 57400 bytes",
		{FIELD(note.program.exports, 0),
			FIELD(note.program.exports_end, 1025 * sizeof(struct sandbox_export))}},
	{"a table elsewhere", "export 0 is not among its constants",
		{FIELD(note.program.exports, 1 << 20),
			FIELD(note.program.exports_end, (1 << 20) + sizeof(struct sandbox_export))}},
	{"a table in data", "import 0 is not among its constants",
		{FIELD(note.program.imports, TEST_DATA - AT(note.program)),
			FIELD(note.program.imports_end, TEST_DATA - AT(note.program) + sizeof(struct sandbox_import))}},
	{"a table that reaches into a hole", "import 0 is not among its constants",
		{FIELD(note.program.imports, 0x1000 - 40 - AT(note.program)),
			FIELD(note.program.imports_end,
				0x1000 - 40 + sizeof(struct sandbox_import) - AT(note.program))}},
	{"a name without address", "the name of export 0 is not among its constants (0)",
		{FIELD(rela[RELA_ADD].r_offset, TEST_DATA)}},
	{"a name in data", "the name of export 0 is not among its constants",
		{FIELD(rela[RELA_ADD].r_addend, TEST_DATA)}},
	{"a name in a hole", "the name of export 0 is not among its constants",
		{FIELD(rela[RELA_ADD].r_addend, 0x1800)}},
	{"a name in the library's pages", "the name of import 0 is not among its constants",
		{FIELD(rela[RELA_PRINT].r_addend, -8)}},
	{"a name that the end of its segment ends", "the name of export 0 is no C identifier",
		{FIELD(rela[RELA_ADD].r_addend, TEST_CODE + 60), {AT(code[60]), 4, 0x64636261}}},
	{"an empty name", "the name of export 1 is no C identifier", {FIELD(names[1][0], 0)}},
	{"a name with a dot", "the name of export 1 is no C identifier", {FIELD(names[1][2], '.')}},
	{"a name that begins with a digit", "the name of export 1 is no C identifier", {FIELD(names[1][0], '1')}},
	{"two functions with one name", "export 'add' is there twice",
		{FIELD(rela[RELA_GREET].r_addend, AT(names[0]))}},
	{"a function in data", "export 'greet' is not in code (0x100204000)",
		{FIELD(rela[RELA_GREET_THUNK].r_addend, TEST_DATA)}},
	{"a function nowhere", "export 'greet' is not in code", {FIELD(rela[RELA_GREET_THUNK].r_addend, -1)}},
	{"a result of no type", "export 'add' has a result of an unknown type (10)",
		{FIELD(exports[0].result, SANDBOX_TYPES)}},
	{"an argument of no type", "export 'add' has an argument (2) of an unknown type (10)",
		{FIELD(exports[0].args[1], SANDBOX_TYPES)}},
	{"a void argument", "export 'add' has an argument (1) of an unknown type (0)",
		{FIELD(exports[0].args[0], SANDBOX_VOID)}},
	{"33 arguments", "export 'add' has 33 arguments; 32 are the most", {FIELD(exports[0].n_args, 33)}},
	{"as many arguments as a number can say", "export 'add' has 4294967295 arguments",
		{FIELD(exports[0].n_args, UINT32_MAX)}},
	{"an import with an argument of no type", "import 'print' has an argument (1) of an unknown type",
		{FIELD(imports[0].args[0], 200)}},
	{"another print", "import 'print' is not `void print(string)`", {FIELD(imports[0].args[0], SANDBOX_BYTES)}},
	{"a print with a result", "import 'print' is not `void print(string)`",
		{FIELD(imports[0].result, SANDBOX_I32)}},
};

static void change(struct test_program *program, const struct change *changes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		memcpy((uint8_t *)program + changes[i].at, &changes[i].value, changes[i].size);
}

static void test_bad(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct test_program program;
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		struct husk_error err = {0};
		test_program_make(&program);
		change(&program, bad[i].changes, ARRAY_SIZE(bad[i].changes));
		int rc = husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err);
		if (!CHECK(rc == -ENOEXEC && err.code == -ENOEXEC && !image &&
				    strncmp(err.message, "load a program from memory: ", 28) == 0 &&
				    strstr(err.message, bad[i].reason),
			    bad[i].what))
			printf("# %d: %s\n", rc, err.message);
	}
}

/* ---- unusual, and fine ---- */

static const struct {
	const char *what;
	struct change changes[3];
} fine[] = {
	{"a segment without memory", {FIELD(ph[PH_SPARE].p_type, PT_LOAD), FIELD(ph[PH_SPARE].p_flags, PF_R)}},
	{"exactly 256 MiB", {FIELD(ph[PH_DATA].p_memsz, (256u << 20) - TEST_DATA)}},
	{"no dynamic section of use", {FIELD(dynamic[DYN_SPARE].d_tag, DT_RELACOUNT)}},
	{"an unknown tag",
		{FIELD(dynamic[DYN_SPARE].d_tag, 1 << 20), FIELD(dynamic[DYN_SPARE].d_un.d_val, UINT64_MAX)}},
	{"a negative tag", {FIELD(dynamic[DYN_SPARE].d_tag, -1), FIELD(dynamic[DYN_SPARE].d_un.d_val, UINT64_MAX)}},
	{"an unknown program header",
		{FIELD(ph[PH_SPARE].p_type, 0x61234567), FIELD(ph[PH_SPARE].p_vaddr, UINT64_MAX)}},
	{"data without a byte in the file, wherever they would be there",
		{FIELD(ph[PH_DATA].p_filesz, 0), FIELD(ph[PH_DATA].p_offset, UINT64_MAX)}},
	{"no exports", {FIELD(note.program.exports_end, AT(exports) - AT(note.program))}},
	{"a relocation of code, whose last bytes it has", {FIELD(rela[RELA_DATA].r_offset, TEST_CODE + 56)}},
	{"a relocation of the relocations", {FIELD(rela[RELA_ADD].r_offset, AT(rela[RELA_DATA])),
						    FIELD(exports[0].name, SANDBOX_PROGRAM + AT(names[0]))}},
	{"65535 sections", {FIELD(header.e_shnum, 65535)}},
	/* a symbol table is never a reason */
	{"no sections", {FIELD(header.e_shnum, 0)}},
	{"sections behind the file", {FIELD(header.e_shoff, UINT64_MAX - 64)}},
	{"sections of another size", {FIELD(header.e_shentsize, 8)}},
	{"symbols behind the file", {FIELD(sections[1].sh_offset, UINT64_MAX - 24)}},
	{"more symbols than there are bytes", {FIELD(sections[1].sh_size, UINT64_MAX)}},
	{"symbols of another size", {FIELD(sections[1].sh_entsize, 1)}},
	{"symbols without strings", {FIELD(sections[1].sh_link, UINT32_MAX)}},
	{"symbols whose strings are symbols", {FIELD(sections[1].sh_link, 1)}},
	{"strings without an end", {FIELD(sections[2].sh_size, 18)}},
	{"no strings at all", {FIELD(sections[2].sh_size, 0)}},
	{"strings that wrap", {FIELD(sections[2].sh_offset, UINT64_MAX), FIELD(sections[2].sh_size, 2)}},
};

static void test_fine(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
		struct test_program program;
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		struct husk_error err = {0};
		test_program_make(&program);
		change(&program, fine[i].changes, ARRAY_SIZE(fine[i].changes));
		if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) == 0, fine[i].what)) {
			printf("# %s\n", err.message);
			continue;
		}
		if (i >= ARRAY_SIZE(fine) - 11)
			CHECK(image->n_symbols == 0, "and no symbols");
	}
}

/** Symbols that lie are left out, and the others stay. */
static void test_bad_symbols(void)
{
	static const struct {
		const char *what;
		struct change change;
	} lies[] = {
		{"a symbol whose name is behind the strings", FIELD(symbols[1].st_name, 32)},
		{"a symbol without a name", FIELD(symbols[1].st_name, 0)},
		{"a symbol behind the program", FIELD(symbols[1].st_value, TEST_END)},
		{"a symbol that ends behind the program", FIELD(symbols[1].st_size, TEST_END)},
		{"a symbol that wraps", FIELD(symbols[1].st_size, UINT64_MAX)},
		{"a symbol without a size", FIELD(symbols[1].st_size, 0)},
		{"a symbol of a section", FIELD(symbols[1].st_info, STT_SECTION)},
		{"a symbol that is not defined", FIELD(symbols[1].st_shndx, SHN_UNDEF)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct test_program program;
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		test_program_make(&program);
		change(&program, &lies[i].change, 1);
		int rc = husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL);
		CHECK(rc == 0 && image->n_symbols == 2, lies[i].what);
		if (rc == 0 && i == 0)
			check_symbol(image, TEST_CODE + 31, 64, "add+0x1f", "others are found");
	}
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL, *nested = NULL;
	test_program_make(&program);
	program.symbols[2].st_size = 64;
	program.symbols[1].st_size = 8;
	CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &nested, NULL) == 0, "a symbol within another");
	check_symbol(nested, TEST_CODE + 39, 64, "greet+0x7", "the inner one");
	check_symbol(nested, TEST_CODE + 40, 64, "add+0x28", "the outer one, behind the inner");
	memcpy(program.strings + 5, "a\033\x80 e", 5);
	CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL) == 0,
		"a symbol with a strange name");
	check_symbol(image, TEST_CODE + 33, 64, "a???e+0x1", "is made printable");
}

/* ---- files ---- */

static void test_cut(void)
{
	struct test_program program;
	unsigned wrong = 0;

	test_program_make(&program);
	for (size_t n = 0; n < sizeof(program); n += n < 0x800 ? 5 : 61) {
		CLEANUP_FREE uint8_t *copy =
			malloc(n + 1); /* of its own, so that a sanitizer sees what is read behind it */
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		struct husk_error err = {0};
		memcpy(copy, &program, n);
		int rc = husk_sandbox_image_load_bytes(copy, n, &image, &err);
		bool whole = n >= AT(data) + sizeof(program.data);
		if (whole ? rc != 0 : rc != -ENOEXEC || !err.message[0])
			wrong++;
	}
	CHECK(wrong == 0, "a file that is cut off anywhere in what is loaded is refused");
}

static void test_huge(void)
{
	struct husk_error err = {0};
	struct husk_sandbox_image *image = NULL;
	const size_t size = IMAGE_FILE_MAX + 1;
	void *zeroes = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(zeroes != MAP_FAILED && husk_sandbox_image_load_bytes(zeroes, size, &image, &err) == -EFBIG && !image,
		"more than 64 MiB are too much");
	munmap(zeroes, size);
	CHECK(husk_sandbox_image_load_bytes(NULL, 0, &image, &err) == -ENOEXEC, "nothing is no program");
}

static void test_files(void)
{
	char directory[] = "/tmp/husk-image-test-XXXXXX", path[64];
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct husk_sandbox_image *none = NULL;
	struct husk_error err = {0};

	test_program_make(&program);
	if (!CHECK(mkdtemp(directory) != NULL, "a directory for files"))
		return;
	snprintf(path, sizeof(path), "%s/program", directory);
	CHECK(husk_sandbox_image_load(path, &none, &err) == -ENOENT && strstr(err.message, path),
		"a file that is not there");
	CHECK(husk_sandbox_image_load(directory, &none, &err) == -EISDIR, "a directory");
	CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(husk_sandbox_image_load(path, &none, &err) == -ENOEXEC && strstr(err.message, "it is empty"),
		"an empty file");
	CHECK(fd_write_all(fd, &program, sizeof(program)) == 0 && husk_sandbox_image_load(path, &image, &err) == 0,
		"a good file");
	CHECK(ftruncate(fd, IMAGE_FILE_MAX + 1) == 0 && husk_sandbox_image_load(path, &none, &err) == -EFBIG &&
			strstr(err.message, "64 MiB are the most"),
		"a file of more than 64 MiB");
	CHECK(ftruncate(fd, 0) == 0 && image && image->elf_size == sizeof(program) && image->elf[1] == 'E' &&
			image->ro[SANDBOX_SUPPORT_SIZE + 1] == 'E',
		"what was read stays when the file changes");
	CHECK(!none, "failures give no image");
	unlink(path);
	rmdir(directory);
}

static void test_references(void)
{
	struct test_program program;
	struct husk_sandbox_image *image = NULL;

	test_program_make(&program);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL) == 0,
		    "an image with two owners"))
		return;
	CHECK(image_ref(image) == image, "the second owner");
	const int fd = image->fd;
	husk_sandbox_image_free(image);
	CHECK(image->ro[SANDBOX_SUPPORT_SIZE] == 0x7f && fcntl(fd, F_GETFD) >= 0, "it stays when the first has let go");
	image_unref(image);
	CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF, "and goes with the last");
	husk_sandbox_image_free(NULL);
}

/** Whatever this machine has: an open /dev/kvm, or an error that helps. */
static void test_kvm(void)
{
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct husk_error err = {0};
	const struct kvm *kvm = NULL, *again = NULL;
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	const int why = fd < 0 ? errno : 0;

	test_program_make(&program);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) == 0,
		    "an image for /dev/kvm"))
		return;
	int rc = image_kvm(image, &kvm, &err);
	if (!why)
		CHECK(rc == 0 && image_kvm(image, &again, &err) == 0 && kvm->fd >= 0 && again == kvm,
			"/dev/kvm is opened once");
	else
		CHECK(rc == (why == EACCES || why == EPERM ? -EACCES : -ENODEV) && err.code == rc && !kvm &&
				strstr(err.message, "/dev/kvm") && image->kvm.fd < 0,
			"without /dev/kvm the error says what to do");
}

int main(void)
{
	test_good();
	test_bad();
	test_fine();
	test_bad_symbols();
	test_cut();
	test_huge();
	test_files();
	test_references();
	test_kvm();
	return tap_done();
}
