/* SPDX-License-Identifier: Apache-2.0 */
/* test_program.c - a small program for sandboxes with nothing wrong with it (test_program.h) */
#include "test_program.h"

#include <string.h>

static void put_headers(struct test_program *p)
{
	p->header = (Elf64_Ehdr){
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = TEST_CODE,
		.e_phoff = AT(ph),
		.e_shoff = AT(sections),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = PH_COUNT,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = 3,
		.e_shstrndx = 2,
	};
	const Elf64_Phdr headers[PH_COUNT] = {
		[PH_CONSTANTS] = {.p_type = PT_LOAD,
			.p_flags = PF_R,
			.p_filesz = AT(code),
			.p_memsz = AT(code),
			.p_align = 4096},
		[PH_CODE] = {.p_type = PT_LOAD,
			.p_flags = PF_R | PF_X,
			.p_offset = AT(code),
			.p_vaddr = TEST_CODE,
			.p_filesz = sizeof(p->code),
			.p_memsz = sizeof(p->code),
			.p_align = 4096},
		[PH_DATA] = {.p_type = PT_LOAD,
			.p_flags = PF_R | PF_W,
			.p_offset = AT(data),
			.p_vaddr = TEST_DATA,
			.p_filesz = sizeof(p->data),
			.p_memsz = TEST_END - TEST_DATA,
			.p_align = 4096},
		[PH_DYNAMIC] = {.p_type = PT_DYNAMIC,
			.p_flags = PF_R,
			.p_offset = AT(dynamic),
			.p_vaddr = AT(dynamic),
			.p_filesz = sizeof(p->dynamic),
			.p_memsz = sizeof(p->dynamic),
			.p_align = 8},
		[PH_NOTE] = {.p_type = PT_NOTE,
			.p_flags = PF_R,
			.p_offset = AT(note),
			.p_vaddr = AT(note),
			.p_filesz = sizeof(p->note),
			.p_memsz = sizeof(p->note),
			.p_align = 8},
		[PH_STACK] = {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W},
		[PH_SPARE] = {.p_type = PT_NULL},
	};
	memcpy(p->ph, headers, sizeof(headers));
}

static void put_functions(struct test_program *p)
{
	const int64_t here = AT(note.program);

	p->note.header = (Elf64_Nhdr){.n_namesz = 5, .n_descsz = sizeof(p->note.program), .n_type = SANDBOX_NOTE_TYPE};
	strcpy(p->note.name, SANDBOX_NOTE_NAME);
	p->note.program = (struct sandbox_program){
		.protocol = SANDBOX_PROTOCOL,
		.size = sizeof(p->note.program),
		.exports = (int64_t)AT(exports) - here,
		.exports_end = (int64_t)AT(exports[2]) - here,
		.imports = (int64_t)AT(imports) - here,
		.imports_end = (int64_t)AT(imports[1]) - here,
	};
	strcpy(p->names[0], "add");
	strcpy(p->names[1], "greet");
	strcpy(p->names[2], "print");
	p->exports[0] = (struct sandbox_export){.result = SANDBOX_I32, .n_args = 2, .args = {SANDBOX_I32, SANDBOX_I32}};
	p->exports[1] = (struct sandbox_export){.result = SANDBOX_VOID, .n_args = 1, .args = {SANDBOX_STRING}};
	p->imports[0] = (struct sandbox_import){.result = SANDBOX_VOID, .n_args = 1, .args = {SANDBOX_STRING}};
}

static void put_relocations(struct test_program *p)
{
	const struct {
		uint64_t at;
		int64_t value;
	} list[RELA_COUNT] = {
		[RELA_ADD] = {AT(exports[0].name), AT(names[0])},
		[RELA_ADD_THUNK] = {AT(exports[0].thunk), TEST_CODE},
		[RELA_GREET] = {AT(exports[1].name), AT(names[1])},
		[RELA_GREET_THUNK] = {AT(exports[1].thunk), TEST_CODE + 32},
		[RELA_PRINT] = {AT(imports[0].name), AT(names[2])},
		[RELA_DATA] = {TEST_DATA + 8, TEST_DATA + 16},
	};
	for (unsigned i = 0; i < RELA_COUNT; i++)
		p->rela[i] =
			(Elf64_Rela){.r_offset = list[i].at, .r_info = R_X86_64_RELATIVE, .r_addend = list[i].value};
	p->dynamic[DYN_RELA] = (Elf64_Dyn){.d_tag = DT_RELA, .d_un.d_val = AT(rela)};
	p->dynamic[DYN_RELASZ] = (Elf64_Dyn){.d_tag = DT_RELASZ, .d_un.d_val = sizeof(p->rela)};
	p->dynamic[DYN_RELAENT] = (Elf64_Dyn){.d_tag = DT_RELAENT, .d_un.d_val = sizeof(Elf64_Rela)};
	p->dynamic[DYN_SPARE] = (Elf64_Dyn){.d_tag = DT_DEBUG};
}

static void put_symbols(struct test_program *p)
{
	const unsigned char function = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
			    object = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT);

	memcpy(p->strings, "\0add\0greet\0counter", 19);
	p->symbols[1] = (Elf64_Sym){
		.st_name = 5, .st_info = function, .st_shndx = 1, .st_value = TEST_CODE + 32, .st_size = 32};
	p->symbols[2] =
		(Elf64_Sym){.st_name = 1, .st_info = function, .st_shndx = 1, .st_value = TEST_CODE, .st_size = 32};
	p->symbols[3] =
		(Elf64_Sym){.st_name = 11, .st_info = object, .st_shndx = 1, .st_value = TEST_DATA, .st_size = 8};
	p->sections[1] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
		.sh_offset = AT(symbols),
		.sh_size = sizeof(p->symbols),
		.sh_link = 2,
		.sh_entsize = sizeof(Elf64_Sym)};
	p->sections[2] = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = AT(strings), .sh_size = sizeof(p->strings)};
}

void test_program_make(struct test_program *program)
{
	memset(program, 0, sizeof(*program));
	put_headers(program);
	put_functions(program);
	put_relocations(program);
	put_symbols(program);
	memset(program->code, 0xf4, sizeof(program->code)); /* hlt */
	memset(program->data, 0xda, sizeof(program->data));
}

void test_program_change(struct test_program *program, const struct test_change *changes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		memcpy((uint8_t *)program + changes[i].at, &changes[i].value, changes[i].size);
}
