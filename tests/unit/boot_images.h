/* SPDX-License-Identifier: Apache-2.0 */
/* boot_images.h - small kernels with nothing wrong with them, for tests to break */
#ifndef TESTS_UNIT_BOOT_IMAGES_H
#define TESTS_UNIT_BOOT_IMAGES_H

#include <stddef.h>
#include <stdint.h>

struct image {
	uint8_t *bytes;
	size_t size;
};

/* A bzImage: relocatable, boot protocol 2.15, may be loaded above 4 GiB. */
#define BZ_SETUP 1024 /* boot sector and one sector of setup code */
#define BZ_PAYLOAD 4096
#define BZ_ADDRESS 0x1000000 /* pref_address */
#define BZ_ALIGNMENT 0x200000
#define BZ_INIT_SIZE 0x200000
struct image make_bzimage(void);

/* An ELF file: two segments and one of notes, in which another note, of an odd length, comes first. */
#define ELF_NOTES_AT 0x200
#define ELF_PVH_NOTE_AT (ELF_NOTES_AT + 20)
#define ELF_TEXT_AT 0x400
#define ELF_TEXT_SIZE 0x300
#define ELF_TEXT 0x1000000
#define ELF_DATA_AT 0x800
#define ELF_DATA_SIZE 0x123
#define ELF_DATA_MEMORY 0x100000
#define ELF_DATA 0x1100000
#define ELF_PVH_ENTRY (ELF_TEXT + 0x10)
/** Without @pvh its note is another one's, and e_entry counts. */
struct image make_elf(int pvh);

void image_free(struct image *image);

#endif
