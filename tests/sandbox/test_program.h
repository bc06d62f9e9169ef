/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_program.h - a small program for sandboxes, made byte by byte, so that each of them can be made wrong
 *
 * Theory of operation: the file is one struct, and a place in it is an offsetof(). What is loaded of it:
 *
 *     vaddr 0       headers, note, tables, names, dynamic section, relocations    read-only, at the same offsets
 *           0x1000  a hole
 *           0x2000  code
 *           0x4000  data, and zeroes up to 0x7000
 *
 * Its code does nothing: it is for the loader, not for KVM.
 */
#ifndef TESTS_SANDBOX_TEST_PROGRAM_H
#define TESTS_SANDBOX_TEST_PROGRAM_H

#include "sandbox/protocol.h"

#include <elf.h>
#include <stddef.h>
#include <stdint.h>

#define TEST_CODE 0x2000u
#define TEST_DATA 0x4000u
#define TEST_END 0x7000u /* of all memory */

enum test_headers { PH_CONSTANTS, PH_CODE, PH_DATA, PH_DYNAMIC, PH_NOTE, PH_STACK, PH_SPARE, PH_COUNT };
enum test_tags { DYN_RELA, DYN_RELASZ, DYN_RELAENT, DYN_SPARE, DYN_NULL, DYN_COUNT };
enum test_relocations { RELA_ADD, RELA_ADD_THUNK, RELA_GREET, RELA_GREET_THUNK, RELA_PRINT, RELA_DATA, RELA_COUNT };

struct test_program {
	Elf64_Ehdr header;
	Elf64_Phdr ph[PH_COUNT];
	struct {
		Elf64_Nhdr header;
		char name[8];
		struct sandbox_program program;
	} note;
	struct sandbox_export exports[2]; /* i32 add(i32, i32), void greet(string) */
	struct sandbox_import imports[1]; /* void print(string) */
	char names[3][16];
	Elf64_Dyn dynamic[DYN_COUNT];
	Elf64_Rela rela[RELA_COUNT];
	_Alignas(4096) uint8_t code[64];
	_Alignas(4096) uint8_t data[64];
	Elf64_Sym
		symbols[4]; /* the first is null; add covers the first half of the code, greet the rest, counter data */
	char strings[32];
	Elf64_Shdr sections[3]; /* null, .symtab, .strtab */
};

/** A field that is changed: its place and size, and what it becomes; a size of 0: none. */
struct test_change {
	size_t at, size;
	uint64_t value;
};

#define AT(member) offsetof(struct test_program, member)
#define FIELD(member, new)                                                                                             \
	{                                                                                                              \
		AT(member), sizeof(((struct test_program *)0)->member), (uint64_t)(new)                                \
	}

/** Fill it with nothing wrong. */
void test_program_make(struct test_program *program);
void test_program_change(struct test_program *program, const struct test_change *changes, size_t n);

#endif
