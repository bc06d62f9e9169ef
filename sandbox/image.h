/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - a program for sandboxes: an ELF file, checked, relocated, and laid out for sharing
 *
 * Theory of operation: the file is read once into memory of our own and never looked at again on disk. Its segments are
 * relocated to SANDBOX_PROGRAM (layout.h) and written into one sealed memfd, in the order of their addresses:
 *
 *     the library's own pages (cpu.h) | what is read-only | data: what is writable, its zeroes included
 *
 * so that every sandbox of the program maps the first two parts as they are, and the third copy-on-write. A byte at guest
 * address A is at A - SANDBOX_SUPPORT of the memfd; pages between segments are zeroes there, and not the guest's (segments[]
 * says which are). What the program says of itself (protocol.h, struct sandbox_program) is parsed here, too: exports,
 * imports, symbols.
 *
 * Everything in the file is a stranger's: sizes, offsets and counts are checked before they are used, in 64 bits
 * (elf_file.h). All non-writable PT_LOADs lie below all writable ones; pages do not have two owners; no segment is writable
 * and executable; relocations are R_X86_64_RELATIVE only, and are done before the memfd is sealed, so that constants with
 * addresses in them can be read-only; nothing is left to a dynamic linker. The first segment begins below 2 MiB. A symbol
 * table that lies costs names in diagnostics and nothing else.
 *
 * Files: elf_file.c (the format), program.c (exports and imports), symbols.c, image.c (all together, and /dev/kvm).
 */
#ifndef SANDBOX_IMAGE_H
#define SANDBOX_IMAGE_H

#include "kvm/kvm.h"
#include "sandbox/signature.h"

#include <pthread.h>

#define IMAGE_FILE_MAX (64ull << 20)
#define IMAGE_MEMORY_MAX (256ull << 20) /* of all segments, zeroes included */
#define IMAGE_SEGMENTS_MAX 16

/** Pages of the program that have the same rights, by guest address (base added). write and execute exclude each other. */
struct image_segment {
	uint64_t at, size; /* whole pages */
	bool write, execute;
};

struct image_symbol {
	uint64_t at, size;
	const char *name; /* in the copy of the file */
};

struct husk_sandbox_image {
	unsigned refs; /* atomic: the caller's, and one per sandbox and snapshot */
	uint8_t *elf; /* the file, unchanged; malloc'ed */
	size_t elf_size;
	int fd; /* the memfd, sealed against everything */
	uint64_t ro_size; /* bytes of the library's pages and the read-only part, from offset 0 */
	uint64_t data_size; /* bytes of the writable part, which begins at ro_size; may be 0 */
	uint8_t *ro; /* the first ro_size bytes, mapped PROT_READ; the memfd's own pages, as nobody can write */
	uint64_t entry; /* guest address; in an executable segment */
	struct image_segment segments[IMAGE_SEGMENTS_MAX]; /* sorted by address, without the library's pages */
	unsigned n_segments;
	struct signature *exports, *imports;
	unsigned n_exports, n_imports;
	unsigned *by_name; /* numbers of exports, sorted by their names */
	struct image_symbol *symbols; /* functions and objects with a size, sorted by address (base added) */
	size_t n_symbols;
	pthread_mutex_t lock; /* of what follows */
	struct kvm kvm; /* fd -1 until the first start */
};

struct husk_sandbox_image *image_ref(struct husk_sandbox_image *image);
/** Same as husk_sandbox_image_free(). */
void image_unref(struct husk_sandbox_image *image);
/** Number of the export called @name, or -ENOENT. */
int image_find_export(const struct husk_sandbox_image *image, const char *name);
/** "name+0x1c", or "" when no symbol covers @at. A name that does not fit into @room is cut, and printable always. */
void image_symbol(const struct husk_sandbox_image *image, uint64_t at, char *text, size_t room);
/** /dev/kvm, opened when first asked for and shared by all sandboxes of the image. -ENODEV, -EACCES, -ENOTSUP. */
int image_kvm(struct husk_sandbox_image *image, const struct kvm **kvm, struct husk_error *err);

#endif
