/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_file.h - an ELF file, checked, as what it puts into memory
 *
 * Theory of operation: elf_parse() looks at the header, the program headers and the dynamic section, refuses whatever is not a
 * self-contained static PIE, and keeps what is needed to lay the program out: segments and relocations. The bytes are ours and
 * do not change, so a field that was checked once stays checked. Addresses here are the file's own (`vaddr`, from 0 on); the
 * memory they are in is what elf_lay_out() fills, vaddr 0 first.
 *
 * What a table or a note says is found by its address in memory, never by a second offset in the file that might say something
 * else: elf_bytes() is the one way from an address to bytes of the file.
 */
#ifndef SANDBOX_ELF_FILE_H
#define SANDBOX_ELF_FILE_H

#include "base/error.h"
#include "sandbox/image.h"

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>

/** A PT_LOAD that takes memory. */
struct elf_segment {
	uint64_t vaddr, memsz; /* vaddr + memsz <= IMAGE_MEMORY_MAX */
	uint64_t offset, filesz; /* in the file; filesz <= memsz */
	bool write, execute;
};

struct elf {
	const uint8_t *file;
	size_t size;
	uint64_t entry; /* in an executable segment */
	struct elf_segment
		segments[IMAGE_SEGMENTS_MAX]; /* rising; no two have a page in common; non-writable ones first */
	unsigned n_segments;
	uint64_t ro_size; /* whole pages from vaddr 0 to the first writable segment, or to the end */
	uint64_t data_size; /* whole pages from there to the end */
	const uint8_t *rela; /* in the file */
	uint64_t n_rela;
};

/** Check @file and describe it. The struct leads into @file. -ENOEXEC: why not, and what to do about it. */
int elf_parse(const uint8_t *file, size_t size, struct elf *elf, struct husk_error *err);

/** The bytes of the file that [@vaddr, @vaddr + @n) is loaded from; NULL: not wholly from one segment of the file. */
const uint8_t *elf_bytes(const struct elf *elf, uint64_t vaddr, uint64_t n);

/** Where the contents of the note @name (@type) lie in memory. -ENOEXEC: there is none, or more than one. */
int elf_find_note(const struct elf *elf, const char *name, uint32_t type, uint64_t *vaddr, uint64_t *size,
	struct husk_error *err);

/** Fill @memory, ro_size + data_size zeroes, and relocate it to @base. On failure it is half filled. */
int elf_lay_out(const struct elf *elf, uint8_t *memory, uint64_t base, struct husk_error *err);

/** How many bytes from @vaddr on are in one segment that the program cannot write; 0: @vaddr is in none. */
uint64_t elf_constant(const struct elf *elf, uint64_t vaddr);
/** Is there code at @vaddr? */
bool elf_is_code(const struct elf *elf, uint64_t vaddr);

#endif
