/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - guest memory: where it lies in the worker, and the one accessor that everything goes through
 *
 * Theory of operation: a guest's RAM is one or more ranges of guest-physical addresses (regions), each a mapping of a part of
 * one memfd, or anonymous memory where no other process has to see it: that can lie in huge pages, which spares a machine in
 * this process most of the faults of a boot. The machine decides on the layout (QEMU's q35 splits RAM around the hole below
 * 4 GiB) and adds the regions before any device runs; after that they never change. Whoever wants guest bytes asks
 * memory_at() for a pointer to (address, length) and gets one only when the whole range lies within one region: arithmetic
 * overflow, holes and ranges that straddle two regions are refused. The memfd is sealed against shrinking, so a valid pointer
 * stays valid and never faults, whatever another holder of the memfd does.
 *
 * Pages that the guest gives back (memory_discard()) become holes of the memfd, and anonymous ones are dropped. Private memory,
 * a copy-on-write mapping of a file that must not change, gets anonymous memory in their place: dropping the copies would
 * bring the file's old bytes back.
 *
 * What a pointer leads to belongs to the guest, which may change it at any moment: copy once, check the copy, use the copy.
 */
#ifndef MEMORY_MEMORY_H
#define MEMORY_MEMORY_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMORY_REGIONS_MAX 80
#define MEMORY_HOLES_MAX 16384 /* of private memory; each may cost two of the process's 65530 mappings */

/** What memory_add() maps. */
enum memory_backing {
	MEMORY_NONE = 0,
	MEMORY_SHARED, /* the memfd, so that other processes see what the guest writes */
	MEMORY_PRIVATE, /* a file that must not change, copy-on-write */
	MEMORY_ANONYMOUS,
};

/** Guest-physical [gpa, gpa + size) lies at host, and at fd_offset of the memfd unless it was adopted. */
struct memory_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t fd_offset;
	uint8_t *host;
	bool adopted; /* the mapping is somebody else's */
	unsigned tag; /* what whoever adopted it calls it */
};

/** Regions are sorted by gpa and do not overlap. */
struct memory {
	/* Set by the init functions; MEMORY_SHARED may become MEMORY_PRIVATE before regions are added. */
	enum memory_backing backing;
	int fd; /* owned; of SHARED and PRIVATE memory */
	uint64_t fd_size; /* of the memfd, or of all anonymous memory */
	unsigned n_holes; /* of private memory: pages given back since */
	unsigned n_regions;
	struct memory_region regions[MEMORY_REGIONS_MAX];
};

/** Make a memfd of @size bytes for guest RAM, sealed against growing, shrinking and further seals; CLOEXEC. */
int memory_make_fd(uint64_t size, int *out, struct husk_error *err);

/** Start without regions over @fd, which must be sealed against shrinking; taken on success. */
int memory_init(struct memory *memory, int fd, struct husk_error *err);

/** Start without regions over @size bytes of anonymous memory. */
void memory_init_anonymous(struct memory *memory, uint64_t size);

/** Map [@fd_offset, @fd_offset + @size) of the memfd as guest-physical [@gpa, @gpa + @size). All page-aligned. */
int memory_add(struct memory *memory, uint64_t gpa, uint64_t size, uint64_t fd_offset, struct husk_error *err);

/** Let the mapping of @size bytes at @host, which somebody else made, unmaps, and keeps until then, be guest-physical
 *  [@gpa, @gpa + @size), as a region called @tag. Page-aligned. A struct of zeroes takes regions in this way, too. */
int memory_adopt(struct memory *memory, uint64_t gpa, uint64_t size, void *host, unsigned tag, struct husk_error *err);

/** Unmap everything that was not adopted and close the memfd; fine after a memory_init() that failed on a zeroed struct. */
void memory_destroy(struct memory *memory);

/** Where [@gpa, @gpa + @size) lies, or NULL: not wholly in one region, or @size is 0. */
void *memory_at(const struct memory *memory, uint64_t gpa, uint64_t size);

/** The region that [@gpa, @gpa + @size) lies in, or NULL as above; valid until the next one is added. */
const struct memory_region *memory_find(const struct memory *memory, uint64_t gpa, uint64_t size);

/** Copy @n bytes that the guest may be reading or writing meanwhile: each is read once and written once, which memcpy(3) does
 *  not promise. The ranges do not overlap. */
void memory_copy(void *to, const void *from, size_t n);

/** The guest-physical address of @host, which memory_at() gave; false when it is no guest memory. */
bool memory_gpa(const struct memory *memory, const void *host, uint64_t *gpa);

/** Give the pages [@gpa, @gpa + @size) back to the host: from then on they read as zeroes until they are written. -EFAULT
 *  when memory_at() would refuse them, -EINVAL when they are not whole pages or of an adopted region, -ENOSPC when private
 *  memory is in too many pieces by now; then nothing has changed. Pointers into them stay valid. */
int memory_discard(struct memory *memory, uint64_t gpa, uint64_t size, struct husk_error *err);

/**
 * Read @n bytes at @offset of the file @fd, which keeps its own position, into guest memory at @gpa. -EFAULT: not wholly in
 * one region; -ENODATA: the file ends before; or what reading gave. Part of the bytes may then have been read. One thread at
 * a time: the position of the memfd is used.
 */
int memory_read_file(
	const struct memory *memory, uint64_t gpa, int fd, uint64_t offset, uint64_t n, struct husk_error *err);

#endif
