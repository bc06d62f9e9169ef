/* SPDX-License-Identifier: Apache-2.0 */
/*
 * symbols.c - a program's symbols, for diagnostics
 *
 * Theory of operation: the symbol table is the one thing of the file that is not loaded and may be wrong without harm, so
 * nothing here fails because of it: what does not fit is left out. Functions and objects with a size are kept, sorted by
 * address; of those at the same address the longest counts. Names stay where they are, in the image's copy of the file,
 * behind which the string table's own last byte, a NUL, ends the last one.
 */
#include "sandbox/program.h"

#include "sandbox/layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYMBOLS_MAX (1u << 18)
#define NESTED_MAX 16 /* symbols that are looked at for one that covers an address */

/** Section number @i, if all that it says of its place is true. */
static bool section(const struct elf *elf, const Elf64_Ehdr *header, uint64_t i, Elf64_Shdr *out)
{
	if (i >= header->e_shnum || header->e_shentsize != sizeof(*out) || header->e_shoff > elf->size ||
		(elf->size - header->e_shoff) / sizeof(*out) <= i)
		return false;
	memcpy(out, elf->file + header->e_shoff + i * sizeof(*out), sizeof(*out));
	return out->sh_offset <= elf->size && out->sh_size <= elf->size - out->sh_offset;
}

/** The first symbol table and its strings. */
static bool find_tables(const struct elf *elf, Elf64_Shdr *table, Elf64_Shdr *strings)
{
	Elf64_Ehdr header;

	memcpy(&header, elf->file, sizeof(header));
	for (uint64_t i = 0; i < header.e_shnum; i++)
		if (section(elf, &header, i, table) && table->sh_type == SHT_SYMTAB)
			return table->sh_entsize == sizeof(Elf64_Sym) &&
			       section(elf, &header, table->sh_link, strings) && strings->sh_type == SHT_STRTAB &&
			       strings->sh_size > 0 && elf->file[strings->sh_offset + strings->sh_size - 1] == 0;
	return false;
}

/** Is it one to keep? Then *@out is it. */
static bool take_symbol(
	const struct elf *elf, const Elf64_Sym *symbol, const Elf64_Shdr *strings, struct image_symbol *out)
{
	const unsigned type = ELF64_ST_TYPE(symbol->st_info);
	const uint64_t end = elf->ro_size + elf->data_size;

	if ((type != STT_FUNC && type != STT_OBJECT) || symbol->st_shndx == SHN_UNDEF || symbol->st_size == 0)
		return false;
	if (symbol->st_value >= end || symbol->st_size > end - symbol->st_value || symbol->st_name >= strings->sh_size)
		return false;
	*out = (struct image_symbol){
		.at = SANDBOX_PROGRAM + symbol->st_value,
		.size = symbol->st_size,
		.name = (const char *)elf->file + strings->sh_offset + symbol->st_name,
	};
	return *out->name;
}

static int compare_symbols(const void *a, const void *b)
{
	const struct image_symbol *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->size < y->size ? -1 : x->size > y->size;
}

int program_read_symbols(const struct elf *elf, struct husk_sandbox_image *image, struct husk_error *err)
{
	Elf64_Shdr table, strings;

	if (!find_tables(elf, &table, &strings))
		return 0;
	uint64_t n = table.sh_size / sizeof(Elf64_Sym);
	if (n > SYMBOLS_MAX)
		n = SYMBOLS_MAX;
	image->symbols = calloc(n ? n : 1, sizeof(*image->symbols));
	if (!image->symbols)
		return error_set(err, -ENOMEM, "no memory for %" PRIu64 " symbols", n);
	for (uint64_t i = 0; i < n; i++) {
		Elf64_Sym symbol;
		memcpy(&symbol, elf->file + table.sh_offset + i * sizeof(symbol), sizeof(symbol));
		if (take_symbol(elf, &symbol, &strings, &image->symbols[image->n_symbols]))
			image->n_symbols++;
	}
	qsort(image->symbols, image->n_symbols, sizeof(*image->symbols), compare_symbols);
	return 0;
}

/** The symbol that covers @at and begins last; NULL: none, or only ones with many others inside. */
static const struct image_symbol *find_symbol(const struct husk_sandbox_image *image, uint64_t at)
{
	size_t low = 0, high = image->n_symbols; /* symbols before low begin at or below @at */

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (image->symbols[middle].at <= at)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t i = 0; i < NESTED_MAX && i < low; i++)
		if (at - image->symbols[low - 1 - i].at < image->symbols[low - 1 - i].size)
			return &image->symbols[low - 1 - i];
	return NULL;
}

void image_symbol(const struct husk_sandbox_image *image, uint64_t at, char *text, size_t room)
{
	const struct image_symbol *symbol = find_symbol(image, at);
	char offset[24];

	if (room > 0)
		text[0] = 0;
	if (!symbol)
		return;
	const size_t length = (size_t)snprintf(offset, sizeof(offset), "+0x%" PRIx64, at - symbol->at);
	if (room <= length)
		return;
	const size_t n = strnlen(symbol->name, room - length - 1);
	for (size_t i = 0; i < n; i++)
		text[i] = symbol->name[i] > ' ' && symbol->name[i] < 0x7f ? symbol->name[i] : '?';
	memcpy(text + n, offset, length + 1);
}
