/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container.h - the state file of a snapshot: sections in, sections out; it knows no device and no sandbox
 *
 * Theory of operation: a container is one header and the sections behind it, without gaps; all integers are little-endian.
 *
 *   header, 64 bytes, the same in every version:
 *      0  u8[8]  magic "huskSNAP"
 *      8  u32    version of the format: 1
 *     12  u32    architecture: the ELF number of the machine (62: x86-64, 183: AArch64)
 *     16  u8[16] machine kind, padded with NULs: "sandbox", "kvm", "qemu"
 *     32  u64    size of the whole file
 *     40  u32    number of sections
 *     44  u8[16] 0
 *     60  u32    CRC-32 of the 60 bytes before
 *   section, 32 bytes, then its bytes:
 *      0  u8[8]  tag: small letters, digits and '-', padded with NULs
 *      8  u32    version of the section's layout, from 1 on
 *     12  u32    flags: 1: who does not know the tag may leave it out
 *     16  u64    length of its bytes
 *     24  u32    CRC-32 of the 24 bytes before and of the section's bytes
 *     28  u32    0
 *
 * The size in the header and the checksums leave no byte without a witness: a file that was cut, filled up or changed is
 * seen before any of it is used. They are no defence against somebody who means harm: whoever reads a section checks each
 * value.
 *
 * A reader says which sections it knows, and up to which version. Every other section is refused unless its flag allows to
 * leave it out; a tag occurs once. So a newer husk adds what older ones may ignore, and raises a version for what they may
 * not.
 */
#ifndef SNAPSHOT_CONTAINER_H
#define SNAPSHOT_CONTAINER_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define CONTAINER_TAG_MAX 8
#define CONTAINER_MACHINE_MAX 15
#define CONTAINER_SECTIONS_MAX 64 /* in a file */
#define CONTAINER_SIZE_MAX (256ull << 20) /* of a file: RAM is not in it */

#define CONTAINER_X86_64 62u
#define CONTAINER_AARCH64 183u
/** That of this build. */
#ifdef __aarch64__
#define CONTAINER_HERE CONTAINER_AARCH64
#else
#define CONTAINER_HERE CONTAINER_X86_64
#endif

enum container_flags {
	CONTAINER_OPTIONAL = 1, /* who does not know the tag may leave the section out */
};

/* ---- writing ---- The file is put together in memory: begin, put each section, seal, and only then does any of it go to
 * disk. Running out of memory may be ignored until container_seal(). */

struct container_writer {
	struct buffer bytes;
	unsigned n;
	int failed; /* the first error of a put: container_seal() reports it */
};

void container_begin(struct container_writer *writer, uint32_t architecture, const char *machine);
/** -EFBIG: more than a reader takes. */
int container_put(struct container_writer *writer, const char *tag, uint32_t version, unsigned flags, const void *bytes,
	size_t n, struct husk_error *err);
/** Fill in what depends on all of it; writer->bytes is the file then. */
int container_seal(struct container_writer *writer, struct husk_error *err);
void container_writer_free(struct container_writer *writer);

#define CLEANUP_CONTAINER_WRITER CLEANUP(container_writer_free)

/* ---- reading ---- */

/** A section that the reader knows. */
struct container_known {
	const char *tag;
	uint32_t version; /* the newest that it reads */
	bool absent; /* a file may be without it */
};

struct container_section {
	const uint8_t *bytes; /* NULL: the file does not have it */
	size_t size;
	uint32_t version;
};

/** The sections of a file, in the order in which the reader named them. */
struct container {
	struct buffer file; /* what the sections lie in */
	struct container_section sections[CONTAINER_SECTIONS_MAX];
};

/** Check the @size bytes of a file, and find the @n (at most CONTAINER_SECTIONS_MAX) sections that are @known; the sections
 *  lie in @bytes. -EBADMSG (no snapshot, or damaged), -ENOTSUP (newer than this husk, or for something else). The message
 *  says which section and why. */
int container_parse(const void *bytes, size_t size, const char *machine, const struct container_known *known, size_t n,
	struct container *container, struct husk_error *err);
/** Read and check the file @path, whole. As above, and the errors of open(2). */
int container_read(const char *path, const char *machine, const struct container_known *known, size_t n,
	struct container *container, struct husk_error *err);
void container_free(struct container *container);

#define CLEANUP_CONTAINER CLEANUP(container_free)

#endif
