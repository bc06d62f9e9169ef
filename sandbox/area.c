/* SPDX-License-Identifier: Apache-2.0 */
/* area.c - the pieces of a sandbox's memory, and the rights that guest and host have to each (theory of operation: area.h) */
#include "sandbox/area.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define WORD_BITS 64u

_Static_assert(sizeof(unsigned long) * 8 == WORD_BITS, "dirty bits are KVM's: in words of 64");
_Static_assert(AREAS_MAX <= MEMORY_REGIONS_MAX, "every area is a region of the memory");

static const char *const kind_names[] = {
	[AREA_PROGRAM] = "the program's code",
	[AREA_CORE] = "the program's memory",
	[AREA_INFO] = "the info page",
	[AREA_TABLES] = "the page tables",
	[AREA_CELLS_HOST] = "the page of host-owned cells",
	[AREA_CELLS_GUEST] = "the page of guest-owned cells",
	[AREA_REGION] = "region",
};

static uint64_t words_of(uint64_t size)
{
	return (size / SANDBOX_PAGE + WORD_BITS - 1) / WORD_BITS;
}

/* ---- adding and taking away ---- */

static int check_range(uint64_t gpa, uint64_t size, struct husk_error *err)
{
	if (!size || (gpa | size) % SANDBOX_PAGE)
		return error_set(
			err, -EINVAL, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not whole pages of memory", size, gpa);
	if (gpa >= SANDBOX_ADDRESS_MAX || size > SANDBOX_ADDRESS_MAX - gpa)
		return error_set(err, -ERANGE,
			"0x%" PRIx64 " bytes at 0x%" PRIx64 " are not below the end of a sandbox's memory, 0x%llx",
			size, gpa, SANDBOX_ADDRESS_MAX);
	return 0;
}

static int insert(struct areas *areas, const struct area *area, struct husk_error *err)
{
	if (areas->n == AREAS_MAX)
		return error_set(err, -ENOSPC, "a sandbox has at most %d pieces of memory", AREAS_MAX);
	if (area->kind == AREA_REGION && areas->n_regions == REGIONS_MAX)
		return error_set(err, -ENOSPC, "a sandbox has at most %d regions", REGIONS_MAX);
	int rc = memory_adopt(&areas->memory, area->gpa, area->size, area->host, areas->n, err);

	if (rc < 0)
		return rc;
	if (area->kind == AREA_REGION)
		areas->regions[areas->n_regions++] = areas->n;
	areas->list[areas->n++] = *area;
	return 0;
}

/** Memory of our own: pages of 4 KiB, which is what dirty bits and "costs what has been touched" are about, and not for core
 *  files of the caller's process. */
static void *map(uint64_t size, int fd, uint64_t offset)
{
	int flags = MAP_PRIVATE | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);
	void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);

	if (host == MAP_FAILED)
		return NULL;
	madvise(host, size, MADV_DONTDUMP);
	if (fd < 0)
		madvise(host, size, MADV_NOHUGEPAGE);
	return host;
}

int areas_add(struct areas *areas, enum area_kind kind, unsigned rights, uint64_t gpa, uint64_t size, int fd,
	uint64_t offset, unsigned *area, struct husk_error *err)
{
	int rc = check_range(gpa, size, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE unsigned long *dirty = calloc(words_of(size), sizeof(*dirty));
	if (!dirty)
		return error_set(err, -ENOMEM, "no memory to note what changes in 0x%" PRIx64 " bytes", size);
	void *host = map(size, fd, offset);
	if (!host)
		return error_errno(err, "map 0x%" PRIx64 " bytes of a sandbox's memory", size);
	const struct area new = {
		.kind = kind, .rights = rights, .gpa = gpa, .size = size, .host = host, .dirty = dirty};
	rc = insert(areas, &new, err);
	if (rc < 0) {
		munmap(host, size);
		return rc;
	}
	steal_pointer(&dirty);
	if (area)
		*area = areas->n - 1;
	return 0;
}

int areas_add_borrowed(struct areas *areas, enum area_kind kind, unsigned rights, uint64_t gpa, uint64_t size,
	void *host, struct husk_error *err)
{
	const struct area new = {
		.kind = kind, .rights = rights, .gpa = gpa, .size = size, .host = host, .borrowed = true};
	int rc = check_range(gpa, size, err);

	return rc < 0 ? rc : insert(areas, &new, err);
}

/** An mmap() over @area has failed with the old mapping gone already (Linux unmaps first): zeroes in its place, so that what is
 *  there stays ours. When that fails, too, another thread may map what it likes there. */
static void mend(struct area *area, uint64_t size)
{
	if (madvise(area->host, size, MADV_DONTDUMP) == 0 || errno != ENOMEM)
		return; /* it is still there: madvise(2) tells a hole by ENOMEM */
	void *host = mmap(area->host, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
	area->lost = host != area->host;
	if (area->lost && host != MAP_FAILED)
		munmap(host, size); /* kernels before 4.17 do not know the flag */
	if (!area->lost)
		madvise(host, size, MADV_DONTDUMP);
}

int area_map_over(struct area *area, uint64_t size, int fd, uint64_t offset, struct husk_error *err)
{
	void *host = mmap(
		area->host, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset);

	if (host == MAP_FAILED) {
		int rc = error_errno(err, "map 0x%" PRIx64 " bytes of a sandbox's memory anew", size);
		mend(area, size);
		return rc;
	}
	madvise(host, size, MADV_DONTDUMP); /* as map() has it; a new mapping forgets */
	return 0;
}

uint64_t areas_place(const struct areas *areas, uint64_t size)
{
	uint64_t at = SANDBOX_REGIONS;

	for (unsigned i = 0; i < areas->memory.n_regions; i++) { /* sorted by address */
		const struct memory_region *r = &areas->memory.regions[i];
		if (r->gpa >= at && r->gpa - at >= size)
			break;
		if (r->gpa + r->size > at)
			at = r->gpa + r->size;
	}
	return at < SANDBOX_ADDRESS_MAX && size <= SANDBOX_ADDRESS_MAX - at ? at : 0;
}

void areas_destroy(struct areas *areas)
{
	for (unsigned i = 0; i < areas->n; i++) {
		struct area *area = &areas->list[i];
		if (!area->borrowed && !area->lost)
			munmap(area->host, area->size);
		free(area->dirty);
	}
	memory_destroy(&areas->memory);
	free(areas->log);
	*areas = (struct areas){0};
}

/* ---- access ---- */

void *areas_at(const struct areas *areas, uint64_t gpa, uint64_t n)
{
	return memory_at(&areas->memory, gpa, n);
}

/** The area that [@gpa, @gpa + @n) lies in, or NULL. No bytes lie in an area and at its end. */
static struct area *find(const struct areas *areas, uint64_t gpa, uint64_t n)
{
	const struct memory_region *r = memory_find(&areas->memory, gpa, n ? n : 1);

	if (r)
		return (struct area *)&areas->list[r->tag];
	for (unsigned i = 0; n == 0 && i < areas->n; i++)
		if (areas->list[i].gpa + areas->list[i].size == gpa)
			return (struct area *)&areas->list[i];
	return NULL;
}

static int not_found(uint64_t gpa, size_t n, struct husk_error *err)
{
	return error_set(
		err, -EFAULT, "0x%zx bytes at 0x%" PRIx64 " are not in one piece of the sandbox's memory", n, gpa);
}

/** May the host do with @n bytes at @offset of @area what @right allows and @verb says? */
static int check_access(
	const struct area *area, uint64_t offset, size_t n, unsigned right, const char *verb, struct husk_error *err)
{
	if (!(area->rights & right))
		return error_set(err, -EACCES, "%s%s%s at 0x%" PRIx64 " is not for the host to %s",
			kind_names[area->kind], area->name[0] ? " " : "", area->name, area->gpa, verb);
	if (offset > area->size || n > area->size - offset)
		return error_set(err, -ERANGE,
			"0x%zx bytes at offset 0x%" PRIx64 " are not in %s%s%s, which has 0x%" PRIx64, n, offset,
			kind_names[area->kind], area->name[0] ? " " : "", area->name, area->size);
	return 0;
}

/** Note that [@offset, @offset + @n) of @area was written; @n is not 0. */
static void mark(struct area *area, uint64_t offset, uint64_t n)
{
	for (uint64_t page = offset / SANDBOX_PAGE, last = (offset + n - 1) / SANDBOX_PAGE; page <= last; page++)
		area->dirty[page / WORD_BITS] |= 1ul << page % WORD_BITS;
}

int area_read(const struct area *area, uint64_t offset, void *buf, size_t n, struct husk_error *err)
{
	int rc = check_access(area, offset, n, HUSK_SANDBOX_HOST_R, "read", err);

	if (rc == 0)
		memory_copy(buf, area->host + offset, n);
	return rc;
}

int area_write(struct area *area, uint64_t offset, const void *buf, size_t n, struct husk_error *err)
{
	int rc = check_access(area, offset, n, HUSK_SANDBOX_HOST_W, "write", err);

	if (rc < 0)
		return rc;
	memory_copy(area->host + offset, buf, n);
	if (n && area->dirty)
		mark(area, offset, n);
	return 0;
}

int areas_copy_out(const struct areas *areas, uint64_t gpa, void *buf, size_t n, struct husk_error *err)
{
	const struct area *area = find(areas, gpa, n);

	return area ? area_read(area, gpa - area->gpa, buf, n, err) : not_found(gpa, n, err);
}

int areas_copy_in(struct areas *areas, uint64_t gpa, const void *buf, size_t n, struct husk_error *err)
{
	struct area *area = find(areas, gpa, n);

	return area ? area_write(area, gpa - area->gpa, buf, n, err) : not_found(gpa, n, err);
}

void areas_touched(struct areas *areas, uint64_t gpa, uint64_t n)
{
	struct area *area = n ? find(areas, gpa, n) : NULL;

	if (area && area->dirty)
		mark(area, gpa - area->gpa, n);
}

/* ---- memslots and dirty pages ---- */

static int set_slot(
	const struct areas *areas, unsigned at, const struct kvm_vm *vm, bool logged, struct husk_error *err)
{
	const struct area *area = &areas->list[at];
	uint32_t flags =
		(area->rights & HUSK_SANDBOX_GUEST_W ? 0 : KVM_MEM_READONLY) | (logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);

	return kvm_vm_memslot(vm, at, area->gpa, area->size, area->host, flags, err);
}

int areas_map(struct areas *areas, const struct kvm *kvm, const struct kvm_vm *vm, struct husk_error *err)
{
	for (unsigned i = 0; i < areas->n; i++) {
		const struct area *area = &areas->list[i];
		if (!(area->rights & HUSK_SANDBOX_GUEST_R))
			continue;
		if (!(area->rights & HUSK_SANDBOX_GUEST_W) && !kvm->caps.readonly_memory)
			return error_set(err, -ENOTSUP,
				"this host's KVM cannot make memory read-only for a guest (KVM_CAP_READONLY_MEM)");
		int rc = set_slot(areas, i, vm, area->logged, err);
		if (rc < 0)
			return rc;
	}
	areas->mapped = true;
	return 0;
}

/** Can the guest change it, and does anybody want to know? */
static bool to_be_logged(const struct area *area)
{
	return (area->rights & HUSK_SANDBOX_GUEST_R) && (area->rights & HUSK_SANDBOX_GUEST_W) && area->dirty;
}

int areas_log(struct areas *areas, const struct kvm_vm *vm, struct husk_error *err)
{
	uint64_t room = areas->log_size;

	for (unsigned i = 0; i < areas->n; i++) {
		uint64_t need = words_of(areas->list[i].size) * sizeof(*areas->log);
		room = to_be_logged(&areas->list[i]) && need > room ? need : room;
	}
	if (room > areas->log_size) {
		unsigned long *log = malloc(room);
		if (!log)
			return error_set(err, -ENOMEM, "no memory for a log of dirty pages");
		free(areas->log);
		areas->log = log;
		areas->log_size = room;
	}
	for (unsigned i = 0; i < areas->n; i++) {
		struct area *area = &areas->list[i];
		if (area->logged || !to_be_logged(area))
			continue;
		int rc = areas->mapped ? set_slot(areas, i, vm, true, err) : 0;
		if (rc < 0)
			return rc;
		area->logged = true;
	}
	return 0;
}

int areas_collect(struct areas *areas, const struct kvm_vm *vm, struct husk_error *err)
{
	for (unsigned i = 0; areas->mapped && i < areas->n; i++) {
		struct area *area = &areas->list[i];
		if (!area->logged)
			continue;
		struct kvm_dirty_log log = {.slot = i, .dirty_bitmap = areas->log}; /* API 4.8 */
		long rc = kvm_ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log, "read what the guest has changed", err);
		if (rc < 0)
			return (int)rc;
		for (uint64_t w = 0, end = words_of(area->size); w < end; w++)
			if (areas->log[w])
				area->dirty[w] |= areas->log[w];
	}
	return 0;
}

void areas_clean(struct areas *areas)
{
	for (unsigned i = 0; i < areas->n; i++)
		if (areas->list[i].dirty)
			memset(areas->list[i].dirty, 0, words_of(areas->list[i].size) * sizeof(unsigned long));
}

/** The first page from @at on whose bit is @set, or @end. */
static uint64_t next_bit(const unsigned long *bits, uint64_t at, uint64_t end, bool set)
{
	while (at < end) {
		unsigned long word = (set ? bits[at / WORD_BITS] : ~bits[at / WORD_BITS]) >> at % WORD_BITS;
		if (word) {
			at += (unsigned)__builtin_ctzl(word);
			return at < end ? at : end;
		}
		at = (at / WORD_BITS + 1) * WORD_BITS;
	}
	return end;
}

bool area_dirty_run(const struct area *area, uint64_t *at, uint64_t *n)
{
	uint64_t end = area->size / SANDBOX_PAGE;

	if (!area->dirty)
		return false;
	*at = next_bit(area->dirty, *at, end, true);
	*n = next_bit(area->dirty, *at, end, false) - *at;
	return *at < end;
}
