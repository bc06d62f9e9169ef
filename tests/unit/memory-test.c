/* SPDX-License-Identifier: Apache-2.0 */
/* memory-test.c - guest memory: every edge of a region, holes, straddling, overflow */
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
	m.private = private;
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

int main(void)
{
	test_discard(false);
	test_discard(true);
	test_regions();
	test_refusals();
	return tap_done();
}
