/* SPDX-License-Identifier: Apache-2.0 */
/* program.h - what an ELF file says of itself to husk: exports, imports (protocol.h, struct sandbox_program), and its symbols
 * */
#ifndef SANDBOX_PROGRAM_H
#define SANDBOX_PROGRAM_H

#include "sandbox/elf_file.h"

/** Read exports and imports of the program that lies, relocated, at @memory (vaddr 0 first) into @image, which owns them. Note,
 *  tables and names have to be constant, the names unique C identifiers, and all types known. -ENOEXEC, -ENOMEM. */
int program_read(
	const struct elf *elf, const uint8_t *memory, struct husk_sandbox_image *image, struct husk_error *err);

/** Read the symbol table of image->elf. Without one, or with one that lies, there are fewer symbols, or none. -ENOMEM. */
int program_read_symbols(const struct elf *elf, struct husk_sandbox_image *image, struct husk_error *err);

#endif
