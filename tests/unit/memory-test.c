/* SPDX-License-Identifier: Apache-2.0 */
/* memory-test.c - guest memory: every edge of a region, holes, straddling, overflow; reading files */
#include "memory/memory.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/mman.h>

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static void test_regions(void)
{
	struct memory m = {0};
	int fd = -1;
	CHECK(memory_make_fd(8 * MIB, &fd, NULL) == 0, "a sealed memfd is made");
	CHECK(ftruncate(fd, MIB) < 0, "it cannot shrink");
	CHECK(memory_init(&m, fd, NULL) == 0, "memory takes it");
	CHECK(memory_at(&m, 0, 1) == NULL, "without regions there is no memory");
	CHECK(memory_add(&m, 4 * GIB, 2 * MIB, 4 * MIB, NULL) == 0, "a region above 4 GiB");
	CHECK(memory_add(&m, 0, 2 * MIB, 0, NULL) == 0, "a region at 0, added later");
	CHECK(memory_add(&m, 2 * MIB, 2 * MIB, 2 * MIB, NULL) == 0, "a region right behind it");

	CHECK(memory_at(&m, 0, 1) != NULL, "the first byte");
	CHECK(memory_at(&m, 0, 0) == NULL, "no bytes are nowhere");
	CHECK(memory_at(&m, 0, 2 * MIB) == memory_at(&m, 0, 1), "a whole region");
	CHECK(memory_at(&m, 0, 2 * MIB + 1) == NULL, "one byte more straddles");
	CHECK(memory_at(&m, 2 * MIB - 1, 1) != NULL, "the last byte");
	CHECK(memory_at(&m, 2 * MIB - 1, 2) == NULL, "two bytes across two regions");
	CHECK(memory_at(&m, 4 * MIB - 1, 2) == NULL, "into the hole");
	CHECK(memory_at(&m, 4 * MIB, 1) == NULL, "the hole's first byte");
	CHECK(memory_at(&m, 4 * GIB - 1, 1) == NULL, "the hole's last byte");
	CHECK(memory_at(&m, 4 * GIB - 1, 2) == NULL, "from the hole into a region");
	CHECK(memory_at(&m, 4 * GIB + 2 * MIB, 1) == NULL, "behind the last region");
	CHECK(memory_at(&m, 4 * GIB, UINT64_MAX) == NULL, "a length that wraps");
	CHECK(memory_at(&m, UINT64_MAX, 1) == NULL, "the last address there is");
	CHECK(memory_at(&m, UINT64_MAX, 2) == NULL, "a range that wraps to 0");
	CHECK(memory_at(&m, 1, UINT64_MAX) == NULL, "a range whose end wraps to its start");

	*(char *)memory_at(&m, 4 * GIB, 1) = 'x';
	char byte = 0;
	CHECK(pread(fd, &byte, 1, 4 * MIB) == 1 && byte == 'x', "a region maps its part of the memfd");
	memory_destroy(&m);
	CHECK(fcntl(fd, F_GETFD) < 0, "destroy closes the memfd");
}

static void test_refusals(void)
{
	struct memory m = {0};
	struct husk_error err = {0};
	int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(memory_init(&m, fd, &err) == -EINVAL && strstr(err.message, "sealed"), "an unsealed memfd is refused");
	close(fd);
	memory_make_fd(4 * MIB, &fd, NULL);
	memory_init(&m, fd, NULL);
	CHECK(memory_add(&m, 0, 0, 0, NULL) == -EINVAL, "an empty region");
	CHECK(memory_add(&m, 1, MIB, 0, NULL) == -EINVAL, "an unaligned address");
	CHECK(memory_add(&m, 0, MIB + 1, 0, NULL) == -EINVAL, "an unaligned size");
	CHECK(memory_add(&m, 0, MIB, 1, NULL) == -EINVAL, "an unaligned offset");
	CHECK(memory_add(&m, 0, 5 * MIB, 0, NULL) == -ERANGE, "beyond the memfd");
	CHECK(memory_add(&m, 0, MIB, 4 * MIB, NULL) == -ERANGE, "behind the memfd");
	CHECK(memory_add(&m, UINT64_MAX - 4095, 4096, 0, NULL) == -ERANGE, "an address range that wraps");
	CHECK(memory_add(&m, 0, MIB, UINT64_MAX - MIB + 1, NULL) == -ERANGE, "an offset range that wraps");
	CHECK(memory_add(&m, MIB, MIB, 0, NULL) == 0, "a good one");
	CHECK(memory_add(&m, 0, 2 * MIB, 0, NULL) == -EEXIST, "overlap at its start");
	CHECK(memory_add(&m, 2 * MIB - 4096, MIB, 0, NULL) == -EEXIST, "overlap at its end");
	for (unsigned i = 1; i < MEMORY_REGIONS_MAX; i++)
		memory_add(&m, (i + 4) * MIB, 4096, 0, NULL);
	CHECK(memory_add(&m, GIB, 4096, 0, NULL) == -ENOSPC, "one region too many");
	memory_destroy(&m);
}

/** True when the page at @gpa reads as @byte from end to end. */
static bool page_is(const struct memory *m, uint64_t gpa, char byte)
{
	const char *p = memory_at(m, gpa, 4096);
	for (unsigned i = 0; i < 4096; i++)
		if (p[i] != byte)
			return false;
	return true;
}

static void test_discard(bool private)
{
	struct memory m = {0};
	int fd = -1, rc = memory_make_fd(8 * MIB, &fd, NULL);
	static char old[4 * MIB];
	memset(old, 'o', sizeof(old));
	rc = rc < 0 || pwrite(fd, old, sizeof(old), 4 * MIB) < 0 ? -1 : memory_init(&m, fd, NULL);
	m.backing = private ? MEMORY_PRIVATE : MEMORY_SHARED;
	CHECK(rc == 0 && memory_add(&m, 0, 2 * MIB, 4 * MIB, NULL) == 0 &&
			memory_add(&m, 4 * GIB, 2 * MIB, 6 * MIB, NULL) == 0,
		private ? "private memory" : "shared memory");
	memset(memory_at(&m, 4 * GIB, 2 * MIB), 'n', 2 * MIB);
	char *page = memory_at(&m, 4 * GIB + 4096, 4096);
	CHECK(memory_discard(&m, 4 * GIB + 4096, 8192, NULL) == 0, "pages are given back");
	CHECK(page_is(&m, 4 * GIB + 4096, 0) && page_is(&m, 4 * GIB + 8192, 0), "they read as zeroes");
	CHECK(page_is(&m, 4 * GIB, 'n') && page_is(&m, 4 * GIB + 3 * 4096, 'n'), "their neighbours are as they were");
	CHECK(page_is(&m, 4096, 'o'), "so is the other region");
	memset(page, 'w', 4096);
	CHECK(page_is(&m, 4 * GIB + 4096, 'w'), "a pointer into them stays valid");
	char byte = 0;
	CHECK(pread(fd, &byte, 1, 6 * MIB + 4096) == 1 && byte == (private ? 'o' : 'w'),
		private ? "the file has not changed" : "the memfd is what was written");
	CHECK(memory_discard(&m, 4 * GIB, 2 * MIB, NULL) == 0 && page_is(&m, 4 * GIB + 2 * MIB - 4096, 0),
		"a whole region");
	CHECK(memory_discard(&m, 0, 4096, NULL) == 0 && page_is(&m, 0, 0) && page_is(&m, 4096, 'o'), "the first page");

	CHECK(memory_discard(&m, 1, 4096, NULL) == -EINVAL, "an address in a page");
	CHECK(memory_discard(&m, 4096, 4095, NULL) == -EINVAL, "a part of a page");
	CHECK(memory_discard(&m, 4096, 0, NULL) == -EFAULT, "no pages");
	CHECK(memory_discard(&m, 2 * MIB - 4096, 8192, NULL) == -EFAULT, "pages into a hole");
	CHECK(memory_discard(&m, 2 * MIB, 4096, NULL) == -EFAULT, "pages of a hole");
	CHECK(memory_discard(&m, 4 * GIB + 2 * MIB, 4096, NULL) == -EFAULT, "pages behind the end");
	CHECK(memory_discard(&m, 4096, UINT64_MAX - 4095, NULL) == -EFAULT, "pages that wrap");
	CHECK(memory_discard(&m, UINT64_MAX - 4095, 8192, NULL) == -EFAULT, "pages at the end of all");
	CHECK(page_is(&m, 4096, 'o') && page_is(&m, 2 * MIB - 4096, 'o'), "nothing has changed");

	uint64_t gpa = 1;
	CHECK(memory_gpa(&m, page, &gpa) && gpa == 4 * GIB + 4096, "where a pointer leads to in the guest");
	CHECK(memory_gpa(&m, memory_at(&m, 2 * MIB - 1, 1), &gpa) && gpa == 2 * MIB - 1, "the last byte");
	CHECK(!memory_gpa(&m, &m, &gpa) && !memory_gpa(&m, NULL, &gpa), "a pointer to elsewhere");
	if (private) {
		m.n_holes = MEMORY_HOLES_MAX;
		CHECK(memory_discard(&m, 4096, 4096, NULL) == -ENOSPC && page_is(&m, 4096, 'o'), "too many pieces");
	}
	memory_destroy(&m);
}

static void test_anonymous(void)
{
	struct memory m;
	memory_init_anonymous(&m, 8 * MIB);
	CHECK(memory_add(&m, 0, 4 * MIB, 0, NULL) == 0 && memory_add(&m, 4 * GIB, 4 * MIB, 4 * MIB, NULL) == 0,
		"anonymous memory");
	CHECK(memory_add(&m, 8 * GIB, 4096, 8 * MIB, NULL) == -ERANGE, "and no more of it than was meant");
	CHECK((uintptr_t)memory_at(&m, 0, 1) % (2 * MIB) == 0 && (uintptr_t)memory_at(&m, 4 * GIB, 1) % (2 * MIB) == 0,
		"it can lie in huge pages");
	memset(memory_at(&m, 0, 4 * MIB), 'a', 4 * MIB);
	memset(memory_at(&m, 4 * GIB, 4 * MIB), 'b', 4 * MIB);
	bool all = true;
	for (uint64_t at = 4096; at < 4 * MIB; at += 8192) /* more pieces than a copy-on-write mapping could have */
		all &= memory_discard(&m, at, 4096, NULL) == 0 && page_is(&m, at, 0) && page_is(&m, at - 4096, 'a');
	CHECK(all, "every second page is given back, and its neighbours stay");
	CHECK(page_is(&m, 4 * GIB, 'b'), "so does the other region");
	CHECK(memory_discard(&m, 4 * MIB - 4096, 8192, NULL) == -EFAULT, "pages into a hole are refused");
	CLEANUP_FD int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CHECK(memory_read_file(&m, 4096, fd, 0, 4, NULL) == 0 && memcmp(memory_at(&m, 4096, 4), "\177ELF", 4) == 0,
		"a file is read into it");
	memory_destroy(&m);
}

/** @m, which is shared memory of its own or nothing yet, takes two mappings of ours. */
static void test_adopt(struct memory *m)
{
	unsigned before = m->n_regions;
	char *ours = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CLEANUP_FD int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct husk_error err = {0};

	CHECK(memory_adopt(m, 4 * GIB, 8192, ours, 7, NULL) == 0, "somebody else's mapping becomes a region");
	CHECK(memory_adopt(m, 4 * GIB - 8192, 8192, ours + 8192, 8, NULL) == 0, "so does one right before it");
	CHECK(memory_at(m, 4 * GIB, 8192) == ours && memory_at(m, 4 * GIB - 1, 1) == ours + 4 * 4096 - 1,
		"both are found");
	CHECK(memory_at(m, 4 * GIB - 1, 2) == NULL, "a range across them is refused, whatever the host's addresses");
	const struct memory_region *r = memory_find(m, 4 * GIB + 8191, 1);
	CHECK(r && r->tag == 7 && r->adopted && r->gpa == 4 * GIB && r->size == 8192, "a region is found with its tag");
	r = memory_find(m, 4 * GIB - 8192, 8192);
	CHECK(r && r->tag == 8, "so is its neighbour");
	CHECK(!memory_find(m, 4 * GIB, 0) && !memory_find(m, 4 * GIB, 8193) && !memory_find(m, 4 * GIB + 8192, 1) &&
			!memory_find(m, 4 * GIB + 1, UINT64_MAX),
		"nothing is found for a range that is not in one");
	CHECK(memory_adopt(m, 4 * GIB + 4096, 4096, ours, 9, NULL) == -EEXIST, "an overlap");
	CHECK(memory_adopt(m, 5 * GIB, 0, ours, 9, NULL) == -EINVAL, "no bytes");
	CHECK(memory_adopt(m, 5 * GIB, 1, ours, 9, NULL) == -EINVAL, "a byte");
	CHECK(memory_adopt(m, 5 * GIB + 1, 4096, ours, 9, NULL) == -EINVAL, "an address in a page");
	CHECK(memory_adopt(m, UINT64_MAX - 4095, 4096, ours, 9, NULL) == -ERANGE, "a range that wraps");
	CHECK(m->n_regions == before + 2, "and nothing of that is a region");
	CHECK(memory_discard(m, 4 * GIB, 4096, &err) == -EINVAL && strstr(err.message, "not ours"),
		"its pages are not given back");
	CHECK(memory_read_file(m, 4 * GIB + 1, file, 0, 4, NULL) == 0 && memcmp(ours + 1, "\177ELF", 4) == 0,
		"a file is read into it");
	for (unsigned i = m->n_regions; i < MEMORY_REGIONS_MAX; i++)
		memory_adopt(m, (6 + i) * GIB, 4096, ours, i, NULL);
	CHECK(m->n_regions == MEMORY_REGIONS_MAX && memory_find(m, (6ull + MEMORY_REGIONS_MAX - 1) * GIB, 4096),
		"the last region there is room for");
	CHECK(memory_adopt(m, 5 * GIB, 4096, ours, 9, NULL) == -ENOSPC, "one more");
	memory_destroy(m);
	CHECK(ours[1] == '\177' && munmap(ours, 4 * 4096) == 0, "the mapping outlives the memory");
}

static void test_adoptions(void)
{
	struct memory none = {0}, own = {0};
	int fd = -1, rc = memory_make_fd(2 * MIB, &fd, NULL);
	CHECK(memory_add(&none, 0, 4096, 0, NULL) == -ERANGE, "memory of nothing has nothing to map");
	test_adopt(&none);
	rc = rc < 0 ? rc : memory_init(&own, fd, NULL);
	CHECK(rc == 0 && memory_add(&own, 0, 2 * MIB, 0, NULL) == 0, "memory with a region of its own");
	test_adopt(&own);
	CHECK(fcntl(fd, F_GETFD) < 0, "its memfd is closed");
}

/** Every length and both alignments up to a few words. */
static void test_copy(void)
{
	char from[64], to[64];
	unsigned wrong = 0;
	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = (char)(i + 1);
	for (unsigned n = 0; n <= 40; n++) {
		for (unsigned at = 0; at < 64; at++) {
			unsigned f = at % 8 + 1, t = at / 8 + 1;
			memset(to, 0, sizeof(to));
			memory_copy(to + t, from + f, n);
			wrong += to[t - 1] != 0 || to[t + n] != 0 || memcmp(to + t, from + f, n) != 0;
		}
	}
	CHECK(wrong == 0, "every length is copied from and to every alignment, and no byte more");
}

/** What memory_at() is to say of [@gpa, @gpa + @size), by asking each region. */
static const void *expected(const struct memory *m, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < m->n_regions; i++) {
		const struct memory_region *r = &m->regions[i];
		__extension__ typedef unsigned __int128 wide; /* in which nothing wraps */
		if (size && gpa >= r->gpa && (wide)gpa + size <= (wide)r->gpa + r->size)
			return r->host + (gpa - r->gpa);
	}
	return NULL;
}

/** Every range that begins and ends at, just before or just behind an edge, and lengths that wrap. */
static void test_every_edge(void)
{
	static const struct {
		uint64_t gpa, size;
	} layout[] = {{4 * GIB, 3 * 4096}, {0, 2 * 4096}, {3 * GIB, GIB / 1024}, {2 * 4096, 4096},
		{UINT64_MAX - 8191, 4096}, {4 * GIB + 4 * 4096, 4096}};
	static const uint64_t sizes[] = {0, 1, 2, 4095, 4096, 4097, 1ULL << 31, 1ULL << 32, 1ULL << 63,
		UINT64_MAX - 4096, UINT64_MAX - 1, UINT64_MAX};
	struct memory m = {0};
	uint64_t points[128], offset = 0;
	unsigned n = 0, wrong = 0, asked = 0, given = 0;
	int fd = -1;
	memory_make_fd(2 * MIB, &fd, NULL);
	memory_init(&m, fd, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(layout); i++) {
		if (memory_add(&m, layout[i].gpa, layout[i].size, offset, NULL) < 0)
			CHECK(false, "the layout is a good one");
		offset += layout[i].size;
		for (uint64_t d = 0; d < 5; d++) {
			points[n++] = layout[i].gpa + d - 2;
			points[n++] = layout[i].gpa + layout[i].size + d - 2;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; j < n + ARRAY_SIZE(sizes); j++, asked++) {
			/* Where the second point lies before the first the length wraps. */
			uint64_t size = j < n ? points[j] - points[i] : sizes[j - n];
			const void *at = memory_at(&m, points[i], size);
			wrong += at != expected(&m, points[i], size);
			given += at != NULL;
		}
	}
	CHECK(wrong == 0 && asked > 4000 && given > 200, "every range around every edge");
	bool sorted = m.n_regions == ARRAY_SIZE(layout);
	for (unsigned i = 1; i < m.n_regions; i++)
		sorted = sorted && m.regions[i - 1].gpa + m.regions[i - 1].size <= m.regions[i].gpa;
	CHECK(sorted, "regions added in any order are sorted");
	memory_destroy(&m);
}

static void test_overlaps(void)
{
	static const struct {
		uint64_t gpa, size;
		int rc;
		const char *what;
	} cases[] = {
		{4 * MIB, 2 * MIB, -EEXIST, "the same region again"},
		{4 * MIB + 4096, 4096, -EEXIST, "one inside it"},
		{3 * MIB, 4 * MIB, -EEXIST, "one around it"},
		{4 * MIB - 4096, 2 * 4096, -EEXIST, "one over its first page"},
		{6 * MIB - 4096, 2 * 4096, -EEXIST, "one over its last page"},
		{4 * MIB - 4096, 4096, 0, "one that ends where it begins"},
		{6 * MIB, 4096, 0, "one that begins where it ends"},
	};
	struct memory m = {0};
	int fd = -1;
	memory_make_fd(8 * MIB, &fd, NULL);
	memory_init(&m, fd, NULL);
	memory_add(&m, 4 * MIB, 2 * MIB, 0, NULL);
	const void *before = memory_at(&m, 4 * MIB, 2 * MIB);
	unsigned regions = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		regions += cases[i].rc == 0;
		CHECK(memory_add(&m, cases[i].gpa, cases[i].size, 0, NULL) == cases[i].rc && m.n_regions == regions &&
				memory_at(&m, 4 * MIB, 2 * MIB) == before,
			cases[i].what);
	}
	memory_destroy(&m);
}

static void test_read_file(void)
{
	enum { N = 3 * 4096 + 17 };
	char bytes[N];
	struct husk_error err = {0};
	CLEANUP_FD int file = memfd_create("file", MFD_CLOEXEC);
	for (unsigned i = 0; i < N; i++)
		bytes[i] = (char)(i * 31 + i / 4096 + 1);
	if (write(file, bytes, N) != N)
		abort();
	for (unsigned private = 0; private < 2; private ++) {
		struct memory m = {0};
		int fd = -1;
		memory_make_fd(4 * MIB, &fd, NULL);
		memory_init(&m, fd, NULL);
		m.backing = private ? MEMORY_PRIVATE : MEMORY_SHARED;
		memory_add(&m, 4 * GIB, 64 * 1024, 2 * MIB, NULL);
		memory_add(&m, 0, 64 * 1024, 0, NULL);
		uint64_t to = 4 * GIB + 64 * 1024 - N; /* its end is the region's */
		CHECK(memory_read_file(&m, to, file, 0, N, &err) == 0 && memcmp(memory_at(&m, to, N), bytes, N) == 0,
			private ? "a file into private memory" : "a file into shared memory");
		char outside;
		CHECK(memory_read_file(&m, 1, file, 4095, 4098, &err) == 0 &&
				memcmp(memory_at(&m, 1, 4098), bytes + 4095, 4098) == 0,
			"a part of it, nothing aligned");
		CHECK(!*(char *)memory_at(&m, 0, 1) && !*(char *)memory_at(&m, 4099, 1) &&
				pread(fd, &outside, 1, 3 * MIB) == 1 && !outside,
			"and no byte more");
		CHECK(pread(fd, &outside, 1, 1) == 1 && (outside == 0) == private,
			"private memory leaves its file alone");
		CHECK(lseek(file, 0, SEEK_CUR) == N, "the file's position is not used");
		CHECK(memory_read_file(&m, to + 1, file, 0, N, &err) == -EFAULT, "a byte past the region");
		CHECK(memory_read_file(&m, GIB, file, 0, 1, &err) == -EFAULT, "into a hole");
		CHECK(memory_read_file(&m, 0, file, 0, 0, &err) == -EFAULT, "nothing");
		CHECK(memory_read_file(&m, 0, file, 0, UINT64_MAX, &err) == -EFAULT, "everything");
		CHECK(memory_read_file(&m, 0, file, 1, N, &err) == -ENODATA && strstr(err.message, "1 bytes too early"),
			"a byte past the file");
		CHECK(memory_read_file(&m, 0, file, N, 1, &err) == -ENODATA, "behind the file");
		CHECK(memory_read_file(&m, 0, file, UINT64_MAX, 1, &err) == -ENODATA, "an offset that is none");
		CHECK(memory_read_file(&m, 0, file, INT64_MAX, 1, &err) == -ENODATA, "one whose end is none");
		CHECK(memory_read_file(&m, 0, -1, 0, 1, &err) == -EBADF, "no file");
		memory_destroy(&m);
	}
	struct memory m = {0};
	int fd = -1, dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	memory_make_fd(MIB, &fd, NULL);
	memory_init(&m, fd, NULL);
	memory_add(&m, 0, MIB, 0, NULL);
	CHECK(memory_read_file(&m, 0, dir, 0, 1, &err) == -EISDIR,
		"what sendfile(2) cannot read is read the other way");
	close(dir);
	memory_destroy(&m);
}

int main(void)
{
	test_discard(false);
	test_discard(true);
	test_anonymous();
	test_adoptions();
	test_copy();
	test_regions();
	test_refusals();
	test_every_edge();
	test_overlaps();
	test_read_file();
	return tap_done();
}
