/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - guest memory: regions and the one bounds-checked accessor */
#include "memory/memory.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define HUGE_PAGE (2ull << 20)

int memory_make_fd(uint64_t size, int *out, struct husk_error *err)
{
	CLEANUP_FD int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_errno(err, "make a memfd for guest memory");
	if (size > INT64_MAX || ftruncate(fd, (off_t)size) < 0)
		return error_errno(err, "size guest memory to %" PRIu64 " bytes", size);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return error_errno(err, "seal the guest memory");
	*out = steal_fd(&fd);
	return 0;
}

int memory_init(struct memory *memory, int fd, struct husk_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_errno(err, "look at the guest memory's descriptor");
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return error_errno(err, "read the seals of the guest memory");
	if (!(seals & F_SEAL_SHRINK)) /* another holder could truncate it under our mapping: SIGBUS */
		return error_set(err, -EINVAL, "guest memory is not sealed against shrinking");
	*memory = (struct memory){.backing = MEMORY_SHARED, .fd = fd, .fd_size = (uint64_t)st.st_size};
	return 0;
}

void memory_init_anonymous(struct memory *memory, uint64_t size)
{
	*memory = (struct memory){.backing = MEMORY_ANONYMOUS, .fd = -1, .fd_size = size};
}

static bool ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

/** Anonymous memory that can be huge pages: it begins at a multiple of their size, as guest-physical RAM does. */
static void *map_anonymous(uint64_t size)
{
	uint8_t *host = mmap(
		NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (host == MAP_FAILED)
		return MAP_FAILED;
	uint64_t head = -(uintptr_t)host % HUGE_PAGE;
	if (head)
		munmap(host, head);
	munmap(host + head + size, HUGE_PAGE - head);
	madvise(host + head, size, MADV_HUGEPAGE); /* a kernel without them has small ones */
	return host + head;
}

static void *map_region(const struct memory *memory, uint64_t size, uint64_t fd_offset)
{
	if (memory->backing == MEMORY_ANONYMOUS)
		return map_anonymous(size);
	int kind = memory->backing == MEMORY_PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	return mmap(NULL, size, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE, memory->fd, (off_t)fd_offset);
}

/** Where in the list a region [@gpa, @gpa + @size) belongs, or why it cannot be one. */
static int find_place(const struct memory *memory, uint64_t gpa, uint64_t size, struct husk_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end;
	int place = 0;

	if (!size || (gpa | size) % page)
		return error_set(err, -EINVAL,
			"memory region at 0x%" PRIx64 " of 0x%" PRIx64 " bytes is not whole pages", gpa, size);
	if (__builtin_add_overflow(gpa, size, &end))
		return error_set(err, -ERANGE, "memory region at 0x%" PRIx64 " of 0x%" PRIx64 " bytes is out of range",
			gpa, size);
	if (memory->n_regions == MEMORY_REGIONS_MAX)
		return error_set(err, -ENOSPC, "more than %d memory regions", MEMORY_REGIONS_MAX);
	for (unsigned i = 0; i < memory->n_regions; i++) {
		const struct memory_region *r = &memory->regions[i];
		if (ranges_overlap(gpa, size, r->gpa, r->size))
			return error_set(err, -EEXIST, "memory region at 0x%" PRIx64 " overlaps the one at 0x%" PRIx64,
				gpa, r->gpa);
		if (r->gpa < gpa)
			place = (int)i + 1;
	}
	return place;
}

static void insert(struct memory *memory, unsigned place, const struct memory_region *region)
{
	for (unsigned i = memory->n_regions; i > place; i--)
		memory->regions[i] = memory->regions[i - 1];
	memory->regions[place] = *region;
	memory->n_regions++;
}

int memory_add(struct memory *memory, uint64_t gpa, uint64_t size, uint64_t fd_offset, struct husk_error *err)
{
	uint64_t fd_end;
	int place = find_place(memory, gpa, size, err);

	if (place < 0)
		return place;
	if (fd_offset % (uint64_t)sysconf(_SC_PAGESIZE))
		return error_set(err, -EINVAL, "memory region at 0x%" PRIx64 " begins in a page of its file", gpa);
	if (__builtin_add_overflow(fd_offset, size, &fd_end) || fd_end > memory->fd_size)
		return error_set(err, -ERANGE, "memory region at 0x%" PRIx64 " of 0x%" PRIx64 " bytes is out of range",
			gpa, size);
	void *host = map_region(memory, size, fd_offset);
	if (host == MAP_FAILED)
		return error_errno(err, "map %" PRIu64 " bytes of guest memory", size);
	madvise(host, size, MADV_DONTDUMP);
	insert(memory, (unsigned)place,
		&(struct memory_region){.gpa = gpa, .size = size, .host = host, .fd_offset = fd_offset});
	return 0;
}

int memory_adopt(struct memory *memory, uint64_t gpa, uint64_t size, void *host, unsigned tag, struct husk_error *err)
{
	int place = find_place(memory, gpa, size, err);

	if (place < 0)
		return place;
	insert(memory, (unsigned)place,
		&(struct memory_region){.gpa = gpa, .size = size, .host = host, .adopted = true, .tag = tag});
	return 0;
}

void memory_destroy(struct memory *memory)
{
	for (unsigned i = 0; i < memory->n_regions; i++)
		if (!memory->regions[i].adopted)
			munmap(memory->regions[i].host, memory->regions[i].size);
	if (memory->backing == MEMORY_SHARED || memory->backing == MEMORY_PRIVATE)
		close(memory->fd);
	*memory = (struct memory){.fd = -1};
}

const struct memory_region *memory_find(const struct memory *memory, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < memory->n_regions; i++) {
		const struct memory_region *r = &memory->regions[i];
		if (gpa >= r->gpa && gpa - r->gpa < r->size)
			return size && size <= r->size - (gpa - r->gpa) ? r : NULL;
	}
	return NULL;
}

void *memory_at(const struct memory *memory, uint64_t gpa, uint64_t size)
{
	const struct memory_region *r = memory_find(memory, gpa, size);
	return r ? r->host + (gpa - r->gpa) : NULL;
}

/** A word at any address, of any type. */
typedef uint64_t __attribute__((aligned(1), may_alias)) loose_word;

void memory_copy(void *to, const void *from, size_t n)
{
	volatile uint8_t *t = to;
	const volatile uint8_t *f = from;
	size_t i = 0;

	for (; n - i >= sizeof(loose_word); i += sizeof(loose_word))
		*(volatile loose_word *)(t + i) = *(const volatile loose_word *)(f + i);
	for (; i < n; i++)
		t[i] = f[i];
}

bool memory_gpa(const struct memory *memory, const void *host, uint64_t *gpa)
{
	uintptr_t at = (uintptr_t)host;
	for (unsigned i = 0; i < memory->n_regions; i++) {
		const struct memory_region *r = &memory->regions[i];
		uintptr_t start = (uintptr_t)r->host;
		if (at >= start && at - start < r->size) {
			*gpa = r->gpa + (at - start);
			return true;
		}
	}
	return false;
}

int memory_discard(struct memory *memory, uint64_t gpa, uint64_t size, struct husk_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const struct memory_region *r = memory_find(memory, gpa, size);
	if (!r)
		return error_set(err, -EFAULT, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not guest memory", size, gpa);
	if ((gpa | size) % page)
		return error_set(err, -EINVAL, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not whole pages", size, gpa);
	if (r->adopted)
		return error_set(err, -EINVAL, "the pages at 0x%" PRIx64 " are not ours to give back", gpa);
	uint64_t at = gpa - r->gpa;
	if (memory->backing == MEMORY_SHARED) {
		int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		if (fallocate(memory->fd, mode, (off_t)(r->fd_offset + at), (off_t)size) < 0)
			return error_errno(err, "give back 0x%" PRIx64 " bytes of guest memory", size);
		return 0;
	}
	if (memory->backing == MEMORY_ANONYMOUS)
		return madvise(r->host + at, size, MADV_DONTNEED) < 0
			       ? error_errno(err, "give back 0x%" PRIx64 " bytes of guest memory", size)
			       : 0;
	if (memory->n_holes == MEMORY_HOLES_MAX)
		return error_set(err, -ENOSPC, "guest memory has %d holes already", MEMORY_HOLES_MAX);
	void *host = mmap(r->host + at, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	if (host == MAP_FAILED)
		return error_errno(err, "give back 0x%" PRIx64 " bytes of guest memory", size);
	madvise(host, size, MADV_DONTDUMP);
	memory->n_holes++;
	return 0;
}

/** One step of memory_read_file(): bytes read, 0 at the end of the file, -1 with errno. */
static ssize_t read_some(
	const struct memory *memory, const struct memory_region *r, uint64_t at, int fd, off_t offset, size_t n)
{
	/* Into the memfd and not through the mapping: the kernel then makes its pages in one go, where a mapping faults for
	 * each, which costs several times the copy. */
	if (memory->backing == MEMORY_SHARED && !r->adopted &&
		lseek(memory->fd, (off_t)(r->fd_offset + at), SEEK_SET) >= 0) {
		ssize_t got = sendfile(memory->fd, fd, &offset, n);
		if (got >= 0 || (errno != EINVAL && errno != ENOSYS)) /* not every file system can */
			return got;
	}
	return pread(fd, r->host + at, n, offset);
}

int memory_read_file(
	const struct memory *memory, uint64_t gpa, int fd, uint64_t offset, uint64_t n, struct husk_error *err)
{
	const struct memory_region *r = memory_find(memory, gpa, n);

	if (!r)
		return error_set(err, -EFAULT, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not guest memory", n, gpa);
	if (offset > INT64_MAX || n > INT64_MAX - offset)
		return error_set(err, -ENODATA, "no file has 0x%" PRIx64 " bytes at 0x%" PRIx64, n, offset);
	for (uint64_t done = 0; done < n;) {
		ssize_t got = read_some(memory, r, gpa - r->gpa + done, fd, (off_t)(offset + done), n - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(err, "read the file");
		if (got == 0)
			return error_set(err, -ENODATA, "the file ends at 0x%" PRIx64 ", 0x%" PRIx64 " bytes too early",
				offset + done, n - done);
		done += (uint64_t)got;
	}
	return 0;
}
