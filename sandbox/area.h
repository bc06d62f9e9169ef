/* SPDX-License-Identifier: Apache-2.0 */
/*
 * area.h - the pieces of a sandbox's memory, and the rights that guest and host have to each
 *
 * Theory of operation: an area is a range of guest-physical addresses, one mapping of this process, and one memslot. Guest
 * rights are the memslot's: not set, KVM_MEM_READONLY, or writable. Host rights are kept by areas_copy_out() and
 * areas_copy_in(), the only ways by which the API reaches guest memory; struct memory finds the bytes and checks bounds. A
 * range has to lie in one area: every edge is an end.
 *
 * What the host writes is noted in the area's dirty bits, one per page; what the guest writes KVM notes (a dirty log), once
 * somebody has asked for it. areas_collect() brings both together, so that a restore copies back what was touched and nothing
 * else. A heap can have a million pages: whoever looks at bits looks at words of them.
 *
 * No function here locks: the caller holds the sandbox's memory lock. A struct of zeroes has no areas.
 */
#ifndef SANDBOX_AREA_H
#define SANDBOX_AREA_H

#include "kvm/kvm.h"
#include "memory/memory.h"
#include "sandbox/layout.h"
#include "sandbox/protocol.h"

#define AREAS_MAX 80 /* of these at most 32 regions and 32 pages of cells at chosen places */
#define REGIONS_MAX 32
#define REGION_BYTES_MAX (1ull << 30)

enum area_kind {
	/* The library's pages and what is read-only of the program; shared by all sandboxes of an image. */
	AREA_PROGRAM = 1,
	AREA_CORE = 2, /* data, heap, stack, buffers */
	AREA_INFO = 3,
	AREA_TABLES = 4,
	AREA_CELLS_HOST = 5,
	AREA_CELLS_GUEST = 6,
	AREA_REGION = 7,
};

struct area {
	enum area_kind kind;
	unsigned rights; /* enum husk_sandbox_rights */
	uint64_t gpa, size;
	uint8_t *host;
	bool borrowed; /* the mapping is not ours: AREA_PROGRAM's is the image's */
	bool lost; /* there is no mapping any more, and whatever is at host is not ours: area_map_over() */
	bool logged; /* KVM keeps a dirty log of it */
	unsigned long *dirty; /* one bit per page, since the last sync; NULL: never changes (AREA_PROGRAM) */
	char name[SANDBOX_NAME_MAX + 1]; /* of a region */
};

/** The number of an area is its place in list, its memslot, and the tag of its region in memory. A region's public number
 *  counts regions only, in the order of adding. */
struct areas {
	struct memory memory;
	struct area list[AREAS_MAX];
	unsigned n;
	unsigned n_regions;
	unsigned regions[REGIONS_MAX]; /* areas of the regions, by public number */
	bool mapped; /* memslots exist */
	unsigned long *log; /* room for the dirty log of the largest logged area */
	uint64_t log_size; /* in bytes */
};

/** Add an area. @fd, @offset: map that file, which has these bytes and keeps them, copy-on-write; -1: anonymous memory, which
 *  reads as zeroes. *@area (may be NULL): its number. Not once areas_map() has been called. -EINVAL (not whole pages), -ERANGE
 *  (above SANDBOX_ADDRESS_MAX), -EEXIST (overlap), -ENOSPC, -ENOMEM. */
int areas_add(struct areas *areas, enum area_kind kind, unsigned rights, uint64_t gpa, uint64_t size, int fd,
	uint64_t offset, unsigned *area, struct husk_error *err);
/** Add an area whose mapping at @host is somebody else's and stays so. */
int areas_add_borrowed(struct areas *areas, enum area_kind kind, unsigned rights, uint64_t gpa, uint64_t size,
	void *host, struct husk_error *err);
/** Map the first @size bytes of @area anew, as @fd has them from @offset on; what it held is gone. On failure it may read as
 *  zeroes, or be lost: then nothing may touch it, but areas_destroy() may be called. */
int area_map_over(struct area *area, uint64_t size, int fd, uint64_t offset, struct husk_error *err);
/** The first free place of @size bytes, whole pages, from SANDBOX_REGIONS on; 0: there is none. */
uint64_t areas_place(const struct areas *areas, uint64_t size);
/** Unmap all. */
void areas_destroy(struct areas *areas);

/** Copy @n bytes at @gpa to or from @buf. -EFAULT: not in one area; -EACCES: not for the host. Each byte is touched once. n may
 *  be 0, and then @gpa has to be in an area or at its end. */
int areas_copy_out(const struct areas *areas, uint64_t gpa, void *buf, size_t n, struct husk_error *err);
int areas_copy_in(struct areas *areas, uint64_t gpa, const void *buf, size_t n, struct husk_error *err);
/** The same by offset from the start of one area. -EACCES, -ERANGE. */
int area_read(const struct area *area, uint64_t offset, void *buf, size_t n, struct husk_error *err);
int area_write(struct area *area, uint64_t offset, const void *buf, size_t n, struct husk_error *err);
/** Where [@gpa, @gpa + @n) lies, rights or not; NULL: not in one area. For the library's own frames, tables and names. */
void *areas_at(const struct areas *areas, uint64_t gpa, uint64_t n);
/** The host has written [@gpa, @gpa + @n), which areas_at() gave. */
void areas_touched(struct areas *areas, uint64_t gpa, uint64_t n);

/** Make the memslots of all areas the guest has any right to. -ENOTSUP: one is to be read-only, and this KVM cannot. */
int areas_map(struct areas *areas, const struct kvm *kvm, const struct kvm_vm *vm, struct husk_error *err);
/** Let KVM keep a dirty log of what the guest can write; nothing for areas that have one. Before areas_map() it is only noted,
 *  and cheaper. */
int areas_log(struct areas *areas, const struct kvm_vm *vm, struct husk_error *err);
/** Add KVM's dirty logs to the dirty bits, and start them anew. */
int areas_collect(struct areas *areas, const struct kvm_vm *vm, struct husk_error *err);
/** Forget all dirty bits. */
void areas_clean(struct areas *areas);
/** The next run of dirty pages of @area that begins at page *@at or later: *@at, *@n; false: there is none. To go on, add. */
bool area_dirty_run(const struct area *area, uint64_t *at, uint64_t *n);

#endif
