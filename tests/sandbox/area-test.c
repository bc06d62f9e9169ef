/* SPDX-License-Identifier: Apache-2.0 */
/* area-test.c - areas: edges, rights, dirty pages and memslots; KVM is played by a wrapped ioctl() */
#include "sandbox/area.h"

#include "base/cleanup.h"
#include "tests/sandbox/edges.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define ALL (HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W)

/* ---- a KVM that remembers its slots and has written every third page ---- */

static struct {
	struct kvm_userspace_memory_region slots[AREAS_MAX];
	unsigned n_calls, n_logs;
	int fail; /* errno of the next call */
} played;

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	va_start(list, request);
	void *argument = va_arg(list, void *);
	va_end(list);
	played.n_calls++;
	errno = played.fail ? played.fail : ENOSYS;
	if (played.fail || fd != 77)
		return -1;
	if (request == KVM_SET_USER_MEMORY_REGION) {
		const struct kvm_userspace_memory_region *slot = argument;
		played.slots[slot->slot] = *slot;
		return 0;
	}
	if (request != KVM_GET_DIRTY_LOG)
		return -1;
	const struct kvm_dirty_log *log = argument;
	uint64_t pages = played.slots[log->slot].memory_size / SANDBOX_PAGE;
	memset(log->dirty_bitmap, 0, (pages + 63) / 64 * 8);
	for (uint64_t page = 0; page < pages; page += 3)
		((uint64_t *)log->dirty_bitmap)[page / 64] |= 1ull << page % 64;
	played.n_logs++;
	return 0;
}

/* ---- adding ---- */

static void test_refusals(void)
{
	static const struct {
		uint64_t gpa, size;
		int rc;
		const char *what;
	} cases[] = {
		{4 * MIB, 0, -EINVAL, "no bytes"},
		{4 * MIB + 1, 4096, -EINVAL, "an address in a page"},
		{4 * MIB, 4095, -EINVAL, "a part of a page"},
		{SANDBOX_ADDRESS_MAX, 4096, -ERANGE, "behind the last address"},
		{SANDBOX_ADDRESS_MAX - 4096, 8192, -ERANGE, "across the last address"},
		{4096, UINT64_MAX - 4095, -ERANGE, "a range that wraps"},
		{UINT64_MAX - 4095, 4096, -ERANGE, "the end of all addresses"},
		{MIB, 2 * MIB, -EEXIST, "the same again"},
		{MIB - 4096, 8192, -EEXIST, "over the first page of another"},
		{3 * MIB - 4096, 8192, -EEXIST, "over the last page of another"},
		{0, 4 * MIB, -EEXIST, "around another"},
		{2 * MIB, 4096, -EEXIST, "inside another"},
		{MIB - 4096, 4096, 0, "right before another"},
		{3 * MIB, 4096, 0, "right behind another"},
		{SANDBOX_ADDRESS_MAX - 4096, 4096, 0, "the last page there is"},
	};
	struct areas areas = {0};
	CHECK(areas_add(&areas, AREA_CORE, ALL, MIB, 2 * MIB, -1, 0, NULL, NULL) == 0, "an area");
	void *before = areas_at(&areas, MIB, 2 * MIB);
	unsigned n = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		int rc = areas_add(&areas, AREA_CORE, ALL, cases[i].gpa, cases[i].size, -1, 0, NULL, NULL);
		n += cases[i].rc == 0;
		CHECK(rc == cases[i].rc && areas.n == n && areas.memory.n_regions == n &&
				areas_at(&areas, MIB, 2 * MIB) == before,
			cases[i].what);
	}
	CHECK(areas_add(&areas, AREA_CORE, ALL, 8 * MIB, 4096, 1000, 0, NULL, NULL) == -EBADF && areas.n == n,
		"a descriptor that is none");
	areas_destroy(&areas);
	CHECK(areas.n == 0 && !areas_at(&areas, MIB, 1), "destroyed, there is no area");
}

static void test_limits(void)
{
	struct areas areas = {0};
	struct husk_error err;
	unsigned area = 0, wrong = 0;
	char outside[4096];
	for (unsigned i = 0; i < REGIONS_MAX; i++)
		wrong += areas_add(&areas, AREA_REGION, ALL, (99 - i) * MIB, 4096, -1, 0, &area, NULL) != 0 ||
			 area != i || areas.regions[i] != i;
	CHECK(wrong == 0 && areas.n_regions == REGIONS_MAX, "32 regions, numbered as they were added");
	CHECK(areas_add(&areas, AREA_REGION, ALL, GIB, 4096, -1, 0, &area, &err) == -ENOSPC &&
			strstr(err.message, "32"),
		"one more is refused");
	CHECK(areas_add_borrowed(&areas, AREA_PROGRAM, HUSK_SANDBOX_HOST_R, GIB, 4096, outside, NULL) == 0,
		"another area is not");
	for (unsigned i = areas.n; i < AREAS_MAX; i++)
		wrong += areas_add(&areas, AREA_CELLS_HOST, ALL, 2 * GIB + i * 4096, 4096, -1, 0, NULL, NULL) != 0;
	CHECK(wrong == 0 && areas.n == AREAS_MAX, "80 areas");
	CHECK(areas_add(&areas, AREA_CORE, ALL, 4 * GIB, 4096, -1, 0, NULL, &err) == -ENOSPC &&
			areas_add_borrowed(&areas, AREA_PROGRAM, 0, 4 * GIB, 4096, outside, NULL) == -ENOSPC,
		"one more is refused");
	areas_destroy(&areas);
}

static void test_place(void)
{
	struct areas areas = {0};
	const uint64_t base = SANDBOX_REGIONS;
	CHECK(areas_place(&areas, 4096) == base, "the first place");
	areas_add(&areas, AREA_REGION, ALL, base + 8192, 4096, -1, 0, NULL, NULL);
	areas_add(&areas, AREA_REGION, ALL, base + 4 * 4096, 4096, -1, 0, NULL, NULL);
	CHECK(areas_place(&areas, 4096) == base && areas_place(&areas, 8192) == base, "in front of another");
	CHECK(areas_place(&areas, 3 * 4096) == base + 5 * 4096, "behind all, when no gap is large enough");
	areas_add(&areas, AREA_CORE, ALL, base - 4096, 8192, -1, 0, NULL, NULL);
	CHECK(areas_place(&areas, 4096) == base + 4096 && areas_place(&areas, 8192) == base + 5 * 4096,
		"beside one that reaches across");
	areas_add(&areas, AREA_CORE, ALL, base + 5 * 4096, 4096, -1, 0, NULL, NULL);
	CHECK(areas_place(&areas, 8192) == base + 6 * 4096, "behind two that touch");
	CHECK(areas_place(&areas, SANDBOX_ADDRESS_MAX - base - 6 * 4096) == base + 6 * 4096, "all that is left");
	CHECK(areas_place(&areas, SANDBOX_ADDRESS_MAX - base - 5 * 4096) == 0, "more than is left");
	areas_add(&areas, AREA_CORE, ALL, SANDBOX_ADDRESS_MAX - 4096, 4096, -1, 0, NULL, NULL);
	CHECK(areas_place(&areas, SANDBOX_ADDRESS_MAX - base - 6 * 4096) == 0, "a page more than is left");
	CHECK(areas_place(&areas, UINT64_MAX - 4095) == 0, "far too much");
	areas_destroy(&areas);
}

static bool is_mapped(void *page)
{
	return msync(page, 4096, MS_ASYNC) == 0;
}

static void test_mappings(void)
{
	struct areas areas = {0};
	char page[4096], read_back[4096];
	CLEANUP_FD int fd = memfd_create("image", MFD_CLOEXEC);
	unsigned area;
	for (unsigned i = 0; i < 4; i++) {
		memset(page, 'a' + (int)i, sizeof(page));
		if (write(fd, page, sizeof(page)) != sizeof(page))
			abort();
	}
	CHECK(areas_add(&areas, AREA_CORE, ALL, MIB, 8192, fd, 8192, &area, NULL) == 0, "an area of a file");
	CHECK(areas_copy_out(&areas, MIB, page, 4096, NULL) == 0 && page[0] == 'c' && page[4095] == 'c' &&
			areas_copy_out(&areas, MIB + 4096, page, 4096, NULL) == 0 && page[0] == 'd',
		"has its bytes from the offset on");
	memset(page, 'x', sizeof(page));
	CHECK(areas_copy_in(&areas, MIB, page, 4096, NULL) == 0 && pread(fd, read_back, 4096, 8192) == 4096 &&
			read_back[0] == 'c' && areas_copy_out(&areas, MIB, read_back, 1, NULL) == 0 &&
			read_back[0] == 'x',
		"writing leaves the file as it is");
	CHECK(areas_add(&areas, AREA_CORE, ALL, 4 * MIB, MIB, -1, 0, NULL, NULL) == 0 &&
			areas_copy_out(&areas, 5 * MIB - 4096, page, 4096, NULL) == 0 &&
			edges_is((uint8_t *)page, 0, 4096),
		"anonymous memory reads as zeroes");
	char *lent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(areas_add_borrowed(&areas, AREA_PROGRAM, HUSK_SANDBOX_HOST_R, 8 * MIB, 4096, lent, NULL) == 0 &&
			areas_at(&areas, 8 * MIB, 4096) == lent,
		"a borrowed one");
	void *own = areas_at(&areas, MIB, 1);
	CHECK(is_mapped(own) && is_mapped(lent), "all are mapped");
	areas_destroy(&areas);
	CHECK(!is_mapped(own) && is_mapped(lent), "destroy unmaps its own, and not what was borrowed");
	munmap(lent, 4096);
}

/* ---- access ---- */

static int read_area(void *data, uint64_t gpa, void *buf, size_t n)
{
	return areas_copy_out(data, gpa, buf, n, NULL);
}

static int write_area(void *data, uint64_t gpa, const void *buf, size_t n)
{
	return areas_copy_in(data, gpa, buf, n, NULL);
}

/** Pieces that touch and that do not, at both ends of what there is, between canaries in one mapping. */
static void test_edges(void)
{
	static const struct {
		uint64_t gpa, size;
		unsigned rights;
	} layout[] = {
		{0, 4096, ALL},
		{4096, 8192, HUSK_SANDBOX_HOST_R},
		{3 * 4096, 4096, HUSK_SANDBOX_HOST_W},
		{GIB, 4096, HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W},
		{GIB + 8192, 4096, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W},
		{4 * GIB - 4096, 4096, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W},
		{4 * GIB, 4096, ALL},
		{SANDBOX_ADDRESS_MAX - 4096, 4096, ALL},
	};
	enum { N = ARRAY_SIZE(layout), TOTAL = 40 * 4096 };
	struct edges_piece pieces[N];
	struct areas areas = {0};
	uint8_t *all = mmap(NULL, TOTAL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at = all + 4096;
	memset(all, EDGES_CANARY, TOTAL);
	for (unsigned i = 0; i < N; i++) {
		for (uint64_t j = 0; j < layout[i].size; j++)
			at[j] = (uint8_t)(i * 31 + j * 7 + j / 256);
		if (areas_add_borrowed(&areas, AREA_CORE, layout[i].rights, layout[i].gpa, layout[i].size, at, NULL) <
			0)
			CHECK(false, "the layout is a good one");
		pieces[i] = (struct edges_piece){.gpa = layout[i].gpa,
			.size = layout[i].size,
			.bytes = at,
			.read = layout[i].rights & HUSK_SANDBOX_HOST_R,
			.write = layout[i].rights & HUSK_SANDBOX_HOST_W};
		at += layout[i].size + 4096;
	}
	const struct edges_access access = {.read = read_area, .write = write_area, .data = &areas};
	struct edges_result r = edges_try(&access, pieces, N);
	printf("# %u accesses: %u done, %u refused, %u out of bounds\n", r.asked, r.given, r.refused, r.faulted);
	CHECK(r.wrong == 0 && r.given > 900 && r.refused > 300 && r.faulted > 10000,
		"every range around every edge gets the model's answer");
	CHECK(r.leaked == 0, "exactly the bytes that were asked for move, and none on an error");
	bool whole = true;
	at = all;
	for (unsigned i = 0; i < N; i++, at += 4096) {
		whole &= edges_is(at, EDGES_CANARY, 4096);
		at += layout[i].size;
	}
	CHECK(whole && edges_is(at, EDGES_CANARY, (size_t)(all + TOTAL - at)), "canaries around the areas are whole");
	areas_destroy(&areas);
	munmap(all, TOTAL);
}

static void test_rights(void)
{
	static const char bytes[] = "bytes";
	struct husk_error err;
	unsigned wrong = 0;
	for (unsigned rights = 0; rights <= ALL; rights++) {
		struct areas areas = {0};
		char buf[8] = "canary!";
		bool r = rights & HUSK_SANDBOX_HOST_R, w = rights & HUSK_SANDBOX_HOST_W;
		areas_add(&areas, AREA_CORE, rights, MIB, 4096, -1, 0, NULL, NULL);
		char *at = areas_at(&areas, MIB, 4096);
		wrong += areas_copy_in(&areas, MIB + 4, bytes, 5, NULL) != (w ? 0 : -EACCES);
		wrong += (memcmp(at + 4, bytes, 5) == 0) != w || areas.list[0].dirty[0] != w;
		memcpy(at + 4, bytes, 5);
		wrong += areas_copy_out(&areas, MIB + 4, buf, 5, NULL) != (r ? 0 : -EACCES);
		wrong += memcmp(buf, r ? "bytesy!" : "canary!", 8) != 0;
		wrong += areas_copy_in(&areas, MIB, bytes, 0, NULL) != (w ? 0 : -EACCES);
		wrong += areas_copy_out(&areas, MIB + 4096, buf, 0, NULL) != (r ? 0 : -EACCES);
		wrong += area_read(&areas.list[0], 4096, buf, 1, NULL) != (r ? -ERANGE : -EACCES);
		wrong += area_write(&areas.list[0], 1, bytes, UINT64_MAX, NULL) != (w ? -ERANGE : -EACCES);
		areas_destroy(&areas);
	}
	CHECK(wrong == 0, "each of the 16 sets of rights lets the host do what it says");
	struct areas areas = {0};
	unsigned area;
	areas_add(&areas, AREA_REGION, HUSK_SANDBOX_HOST_R, MIB, 4096, -1, 0, &area, NULL);
	strcpy(areas.list[area].name, "config");
	CHECK(areas_copy_in(&areas, MIB, bytes, 5, &err) == -EACCES &&
			strstr(err.message, "region config at 0x100000 is not for the host to write"),
		"a refusal says of what");
	areas_destroy(&areas);
}

/* ---- dirty pages ---- */

static bool is_dirty(const struct area *area, uint64_t page)
{
	return area->dirty[page / 64] >> page % 64 & 1;
}

static void test_dirty(void)
{
	enum { PAGES = 200 };
	struct areas areas = {0};
	bool model[PAGES] = {0};
	static char bytes[4 * 4096];
	unsigned wrong = 0, seed = 5;
	areas_add(&areas, AREA_CORE, ALL, GIB, PAGES * 4096ull, -1, 0, NULL, NULL);
	areas_add(&areas, AREA_CORE, ALL, GIB + PAGES * 4096ull, 4096, -1, 0, NULL, NULL);
	const struct area *area = &areas.list[0];
	for (unsigned i = 0; i < 2000; i++) {
		if (i % 40 == 0) {
			areas_clean(&areas);
			memset(model, 0, sizeof(model));
		}
		uint64_t at = (seed = seed * 1103515245 + 12345) / 16 % (PAGES * 4096ull);
		uint64_t n = (seed = seed * 1103515245 + 12345) / 16 % sizeof(bytes) + (i % 5 != 0);
		if (i % 3 == 0) /* up to the end of a page */
			n = 4096 - at % 4096;
		int rc = i % 2 ? areas_copy_in(&areas, GIB + at, bytes, n, NULL) : 0;
		if (i % 2 == 0)
			areas_touched(&areas, GIB + at, n);
		bool fits = n && n <= PAGES * 4096ull - at;
		wrong += i % 2 && n && rc != (fits ? 0 : -EFAULT);
		for (uint64_t p = at / 4096; fits && p <= (at + n - 1) / 4096; p++)
			model[p] = true;
		for (unsigned p = 0; p < PAGES; p++)
			wrong += is_dirty(area, p) != model[p];
		uint64_t page = 0, run, seen = 0;
		for (; area_dirty_run(area, &page, &run); page += run, seen += run) {
			wrong += run == 0 || (page && model[page - 1]) || (page + run < PAGES && model[page + run]);
			for (uint64_t p = page; p < page + run; p++)
				wrong += !model[p];
		}
		for (unsigned p = 0; p < PAGES; p++)
			seen -= model[p];
		wrong += seen != 0;
	}
	CHECK(wrong == 0, "writes mark their pages and no other, and runs are those of the bits");
	CHECK(areas.list[1].dirty[0] == 0, "the neighbour is clean");
	areas_destroy(&areas);
}

static void test_large(void)
{
	struct areas areas = {0};
	uint64_t page = 0, n = 0;
	CHECK(areas_add(&areas, AREA_CORE, ALL, 8 * GIB, 4 * GIB, -1, 0, NULL, NULL) == 0, "4 GiB");
	CHECK(!area_dirty_run(&areas.list[0], &page, &n), "are clean at first");
	CHECK(areas_copy_in(&areas, 12 * GIB - 1, "x", 1, NULL) == 0, "the last byte is written");
	page = 0;
	CHECK(area_dirty_run(&areas.list[0], &page, &n) && page == GIB / 1024 - 1 && n == 1, "its page is dirty");
	page += n;
	CHECK(!area_dirty_run(&areas.list[0], &page, &n), "and none behind it");
	areas_touched(&areas, 8 * GIB, 4 * GIB);
	page = 0;
	CHECK(area_dirty_run(&areas.list[0], &page, &n) && page == 0 && n == GIB / 1024, "all of it is one run");
	areas_clean(&areas);
	page = 0;
	CHECK(!area_dirty_run(&areas.list[0], &page, &n), "clean again");
	areas_destroy(&areas);
}

/* ---- memslots ---- */

static const unsigned slot_rights[] = {
	HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W,
	HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R,
	ALL,
	HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W,
};

static void add_all(struct areas *areas, void *lent)
{
	memset(&played, 0, sizeof(played));
	for (unsigned i = 0; i < ARRAY_SIZE(slot_rights); i++)
		areas_add(areas, AREA_CORE, slot_rights[i], (i + 1) * GIB, 70 * 4096, -1, 0, NULL, NULL);
	areas_add_borrowed(areas, AREA_PROGRAM, slot_rights[1], 9 * GIB, 4096, lent, NULL);
}

static bool slot_is(unsigned slot, const struct area *area, unsigned flags)
{
	const struct kvm_userspace_memory_region *r = &played.slots[slot];
	return r->guest_phys_addr == area->gpa && r->memory_size == area->size &&
	       r->userspace_addr == (uintptr_t)area->host && r->flags == flags;
}

static void test_slots(void)
{
	struct areas areas = {0};
	struct kvm kvm = {.fd = -1, .caps.readonly_memory = true};
	struct kvm_vm vm = {.fd = 77};
	struct husk_error err;
	static char lent[4096];
	add_all(&areas, lent);
	CHECK(areas_map(&areas, &kvm, &vm, NULL) == 0 && played.n_calls == 4, "areas become memslots");
	CHECK(played.slots[0].memory_size == 0, "none for one that is not the guest's");
	CHECK(slot_is(1, &areas.list[1], KVM_MEM_READONLY) && slot_is(4, &areas.list[4], KVM_MEM_READONLY),
		"a read-only one for one that the guest may read");
	CHECK(slot_is(2, &areas.list[2], 0) && slot_is(3, &areas.list[3], 0), "a writable one else");
	CHECK(areas_collect(&areas, &vm, NULL) == 0 && played.n_logs == 0, "nothing is logged yet");
	CHECK(areas_log(&areas, &vm, NULL) == 0 && played.n_calls == 6, "then what the guest can write is");
	CHECK(slot_is(2, &areas.list[2], KVM_MEM_LOG_DIRTY_PAGES) &&
			slot_is(3, &areas.list[3], KVM_MEM_LOG_DIRTY_PAGES) &&
			slot_is(1, &areas.list[1], KVM_MEM_READONLY),
		"and nothing else");
	CHECK(areas_log(&areas, &vm, NULL) == 0 && played.n_calls == 6, "once");
	areas_touched(&areas, 3 * GIB + 4096, 1);
	areas_touched(&areas, 2 * GIB + 4096, 1);
	CHECK(areas_collect(&areas, &vm, NULL) == 0 && played.n_logs == 2, "the logs are read");
	CHECK(areas.list[2].dirty[0] == (0x9249249249249249 | 2) && areas.list[2].dirty[1] == 0x24 &&
			areas.list[3].dirty[0] == 0x9249249249249249 && areas.list[1].dirty[0] == 2 &&
			areas.list[0].dirty[0] == 0,
		"and added to what the host has written");
	played.fail = EIO;
	CHECK(areas_collect(&areas, &vm, &err) == -EIO, "a log that cannot be read is an error");
	areas_destroy(&areas);
}

static void test_slots_refused(void)
{
	struct areas areas = {0};
	struct kvm kvm = {.fd = -1};
	struct kvm_vm vm = {.fd = 77};
	struct husk_error err;
	static char lent[4096];
	add_all(&areas, lent);
	CHECK(areas_map(&areas, &kvm, &vm, &err) == -ENOTSUP && strstr(err.message, "KVM_CAP_READONLY_MEM"),
		"a KVM without read-only memory is refused");
	kvm.caps.readonly_memory = true;
	CHECK(areas_log(&areas, &vm, NULL) == 0 && played.n_calls == 0, "a log is wanted before there are slots");
	played.fail = EINVAL;
	CHECK(areas_map(&areas, &kvm, &vm, &err) == -EINVAL && strstr(err.message, "286720 bytes at 0x80000000"),
		"a slot that KVM refuses is an error, which says which");
	played.fail = 0;
	CHECK(areas_map(&areas, &kvm, &vm, NULL) == 0 && played.n_calls == 5 &&
			slot_is(2, &areas.list[2], KVM_MEM_LOG_DIRTY_PAGES),
		"slots are logged from the first");
	areas_destroy(&areas);
	areas = (struct areas){0};
	add_all(&areas, lent);
	areas_map(&areas, &kvm, &vm, NULL);
	played.fail = ENOMEM;
	CHECK(areas_log(&areas, &vm, NULL) == -ENOMEM && !areas.list[2].logged, "a log that KVM refuses is none");
	played.fail = 0;
	CHECK(areas_log(&areas, &vm, NULL) == 0 && areas.list[2].logged && areas.list[3].logged, "the next one is");
	areas_destroy(&areas);
}

int main(void)
{
	test_refusals();
	test_limits();
	test_place();
	test_mappings();
	test_edges();
	test_rights();
	test_dirty();
	test_large();
	test_slots();
	test_slots_refused();
	return tap_done();
}
