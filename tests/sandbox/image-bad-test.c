/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image-bad-test.c - every way in which a program for sandboxes can be bad
 *
 * Theory of operation: a row is a good program with one field changed, or up to three, and the reason that has to be given.
 */
#include "base/cleanup.h"
#include "sandbox/image.h"
#include "test_program.h"
#include "tests/tap.h"

static void cleanup_image(struct husk_sandbox_image **image)
{
	husk_sandbox_image_free(*image);
}
#define CLEANUP_IMAGE CLEANUP(cleanup_image)

static const struct {
	const char *what, *reason;
	struct test_change changes[3];
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

static void test_bad(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct test_program program;
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		struct husk_error err = {0};
		test_program_make(&program);
		test_program_change(&program, bad[i].changes, ARRAY_SIZE(bad[i].changes));
		int rc = husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err);
		if (!CHECK(rc == -ENOEXEC && err.code == -ENOEXEC && !image &&
				    strncmp(err.message, "load a program from memory: ", 28) == 0 &&
				    strstr(err.message, bad[i].reason),
			    bad[i].what))
			printf("# %d: %s\n", rc, err.message);
	}
}

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

int main(void)
{
	test_bad();
	test_cut();
	return tap_done();
}
