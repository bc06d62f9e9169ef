/* SPDX-License-Identifier: Apache-2.0 */
/* region-test.c - regions and memory by address: names, places, rights, every edge, every state, many threads; without KVM */
#include "sandbox/access.h"

#include "base/cleanup.h"
#include "tests/sandbox/edges.h"
#include "tests/sandbox/make.h"
#include "tests/tap.h"

#include <pthread.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define HOST_R HUSK_SANDBOX_HOST_R
#define HOST_W HUSK_SANDBOX_HOST_W
#define GUEST_R HUSK_SANDBOX_GUEST_R
#define GUEST_W HUSK_SANDBOX_GUEST_W
#define ALL (HOST_R | HOST_W | GUEST_R | GUEST_W)
#define ANYWHERE HUSK_SANDBOX_ANYWHERE

/* ---- adding ---- */

static void test_names(void)
{
	static const char *const bad[] = {"", "1st", "a-b", "a b", "\xc3\xa4", "a.b", "a\n",
		"a123456789012345678901234567890123456789012345678901234567890123"};
	struct husk_sandbox *s = make_small_sandbox();
	const char *longest = bad[ARRAY_SIZE(bad) - 1] + 1;
	unsigned region = 77, cell, wrong = 0, areas = s->areas.n;
	uint64_t gpa = 1, bytes = 1;
	struct husk_error err;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		wrong += husk_sandbox_add_region(s, bad[i], 4096, ALL, ANYWHERE, &region, &err) != -EINVAL ||
			 husk_sandbox_add_cell(s, bad[i], HUSK_SANDBOX_CELL_HOST, ANYWHERE, &cell, &err) != -EINVAL;
	wrong += husk_sandbox_add_region(s, NULL, 4096, ALL, ANYWHERE, &region, NULL) != -EINVAL;
	CHECK(wrong == 0 && region == 77 && s->areas.n == areas, "names that are no identifiers are refused");
	CHECK(strlen(longest) == 63 && husk_sandbox_add_region(s, "a", 4096, ALL, ANYWHERE, NULL, NULL) == 0 &&
			husk_sandbox_add_region(s, "_b2", 8192, ALL, ANYWHERE, &region, NULL) == 0 && region == 1,
		"identifiers are not, and regions are numbered");
	CHECK(husk_sandbox_add_cell(s, "_cell", HUSK_SANDBOX_CELL_HOST, ANYWHERE, NULL, NULL) == 0, "a cell");
	CHECK(husk_sandbox_add_region(s, "_b2", 4096, ALL, ANYWHERE, &region, &err) == -EEXIST &&
			strstr(err.message, "region called '_b2'"),
		"a region's name is taken for regions");
	CHECK(husk_sandbox_add_cell(s, "_b2", HUSK_SANDBOX_CELL_HOST, ANYWHERE, &cell, NULL) == -EEXIST,
		"and for cells");
	CHECK(husk_sandbox_add_region(s, "_cell", 4096, ALL, ANYWHERE, &region, &err) == -EEXIST &&
			strstr(err.message, "cell called '_cell'"),
		"a cell's for both");
	CHECK(husk_sandbox_find_region(s, "_b2", &region, &gpa, &bytes, NULL) == 0 && region == 1 && bytes == 8192 &&
			gpa == SANDBOX_REGIONS + 4096,
		"a region is found by its name");
	CHECK(husk_sandbox_find_region(s, NULL, &region, &gpa, &bytes, &err) == -EINVAL &&
			husk_sandbox_find_cell(s, NULL, NULL, &gpa, NULL) == -EINVAL,
		"NULL is no name");
	CHECK(husk_sandbox_find_region(s, "_b2", NULL, NULL, NULL, NULL) == 0, "whoever wants to know nothing of it");
	region = 5;
	CHECK(husk_sandbox_find_region(s, "_b", &region, &gpa, &bytes, &err) == -ENOENT &&
			husk_sandbox_find_region(s, "_cell", &region, &gpa, &bytes, &err) == -ENOENT && region == 5 &&
			gpa == SANDBOX_REGIONS + 4096,
		"another name is not");
	husk_sandbox_free(s);
}

static void test_places(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	const uint64_t end = s->places.end, guard = s->places.core.at + s->places.data.size;
	const struct {
		uint64_t gpa, bytes;
		unsigned rights;
		int rc;
		const char *what;
	} cases[] = {
		{ANYWHERE, 0, ALL, -EINVAL, "no bytes"},
		{ANYWHERE, 1, ALL, -EINVAL, "a byte"},
		{ANYWHERE, 4097, ALL, -EINVAL, "a page and a byte"},
		{ANYWHERE, GIB + 4096, ALL, -EINVAL, "a page more than 1 GiB"},
		{ANYWHERE, UINT64_MAX - 4095, ALL, -EINVAL, "nearly all bytes"},
		{ANYWHERE, 4096, 16, -EINVAL, "a right that there is not"},
		{ANYWHERE, 4096, GUEST_W, -EINVAL, "writing without reading, for the guest"},
		{ANYWHERE, 4096, HOST_R | HOST_W | GUEST_W, -EINVAL, "the same with all rights for the host"},
		{1, 4096, ALL, -EINVAL, "an address in a page"},
		{ANYWHERE - 1, 4096, ALL, -EINVAL, "the address before anywhere"},
		{SANDBOX_ADDRESS_MAX, 4096, ALL, -EINVAL, "512 GiB"},
		{SANDBOX_ADDRESS_MAX - 4096, 8192, ALL, -EINVAL, "across 512 GiB"},
		{UINT64_MAX - 4095, 4096, ALL, -EINVAL, "the last page of all addresses"},
		{SANDBOX_SUPPORT, 4096, ALL, -EEXIST, "over the library's pages"},
		{SANDBOX_SUPPORT - 4096, 8192, ALL, -EEXIST, "over the first of them"},
		{guard, 4096, ALL, -EEXIST, "over a guard"},
		{s->places.cells.at, 4096, ALL, -EEXIST, "where cells would go"},
		{end - 4096, 4096, ALL, -EEXIST, "over the last of the library's"},
		{SANDBOX_SUPPORT - 4096, 4096, ALL, 0, "right before the library's"},
		{end, 4096, ALL, 0, "right behind the library's"},
		{0, 4096, ALL, 0, "at 0"},
		{0, 4096, ALL, -EEXIST, "at 0 again"},
		{SANDBOX_ADDRESS_MAX - 4096, 4096, ALL, 0, "the last page there is"},
		{SANDBOX_REGIONS, 4096, ALL, 0, "where regions go by themselves"},
		{SANDBOX_REGIONS + 2 * 4096, GIB, ALL, 0, "1 GiB"},
		{ANYWHERE, 4096, 0, 0, "without rights, between those"},
		{SANDBOX_REGIONS + 4096, 4096, ALL, -EEXIST, "which is now taken"},
	};
	unsigned n = 0, region;
	char name[] = "r00";
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned areas = s->areas.n;
		name[1] = (char)('0' + i / 10);
		name[2] = (char)('0' + i % 10);
		region = 99;
		int rc = husk_sandbox_add_region(s, name, cases[i].bytes, cases[i].rights, cases[i].gpa, &region, NULL);
		bool ok = rc == 0;
		CHECK(rc == cases[i].rc && s->areas.n == areas + ok && region == (ok ? n : 99), cases[i].what);
		n += ok;
	}
	for (; n < REGIONS_MAX; n++) {
		name[0] = (char)('A' + n % 26);
		if (husk_sandbox_add_region(s, name, 4096, ALL, ANYWHERE, &region, NULL) < 0 || region != n)
			CHECK(false, "there is room for 32 regions");
	}
	CHECK(husk_sandbox_add_region(s, "more", 4096, ALL, ANYWHERE, &region, NULL) == -ENOSPC, "and no more than 32");
	husk_sandbox_free(s);
}

/* ---- bounds and rights ---- */

/** Regions of each of the sets of rights that there can be, side by side; *@n of them. */
static void add_all_rights(struct husk_sandbox *s, unsigned *regions, unsigned *n)
{
	char name[] = "ra";
	*n = 0;
	for (unsigned rights = 0; rights <= ALL; rights++, name[1]++) {
		if ((rights & GUEST_W) && !(rights & GUEST_R))
			continue;
		if (husk_sandbox_add_region(s, name, 4096ull << (rights % 3), rights, ANYWHERE, &regions[*n], NULL) < 0)
			CHECK(false, "a region of each set of rights");
		++*n;
	}
}

/** Every offset and length around the edges of one region, by a model that does not wrap. */
static unsigned try_region(struct husk_sandbox *s, unsigned region, const struct area *area, unsigned *done)
{
	const uint64_t points[] = {0, 1, 2, 4095, 4096, 4097, area->size - 1, area->size, area->size + 1, 1ull << 32,
		1ull << 63, UINT64_MAX - area->size, UINT64_MAX - 1, UINT64_MAX};
	static uint8_t room[4 * 4096 + 2 * EDGES_MARGIN], from[4 * 4096], should[4 * 4096];
	unsigned wrong = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(points) * ARRAY_SIZE(points); i++) {
		uint64_t offset = points[i / ARRAY_SIZE(points)], n = points[i % ARRAY_SIZE(points)];
		bool inside = (edges_wide)offset + n <= area->size;
		int want_read = !(area->rights & HOST_R) ? -EACCES : inside ? 0 : -ERANGE;
		int want_write = !(area->rights & HOST_W) ? -EACCES : inside ? 0 : -ERANGE;
		size_t moved = want_read == 0 ? n : 0;
		memset(room, EDGES_CANARY, sizeof(room));
		wrong += husk_sandbox_region_read(s, region, offset, room + EDGES_MARGIN, n, NULL) != want_read;
		wrong += !edges_is(room, EDGES_CANARY, EDGES_MARGIN) ||
			 (moved && memcmp(room + EDGES_MARGIN, area->host + offset, moved) != 0) ||
			 !edges_is(room + EDGES_MARGIN + moved, EDGES_CANARY, sizeof(room) - EDGES_MARGIN - moved);
		memcpy(should, area->host, area->size);
		memset(from, (int)i + 1, sizeof(from));
		wrong += husk_sandbox_region_write(s, region, offset, from, n, NULL) != want_write;
		if (want_write == 0)
			memcpy(should + offset, from, n);
		wrong += memcmp(should, area->host, area->size) != 0;
		*done += (want_read == 0) + (want_write == 0);
	}
	return wrong;
}

static void test_region_edges(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	unsigned regions[16], n, wrong = 0, done = 0;
	add_all_rights(s, regions, &n);
	for (unsigned i = 0; i < n; i++) {
		struct area *area = &s->areas.list[s->areas.regions[regions[i]]];
		wrong += !edges_is(area->host, 0, area->size);
		for (uint64_t j = 0; j < area->size; j++)
			area->host[j] = (uint8_t)(j * 5 + j / 256 + i);
	}
	CHECK(n == 12 && wrong == 0, "regions of every set of rights read as zeroes at first");
	for (unsigned i = 0; i < n; i++)
		wrong += try_region(s, regions[i], &s->areas.list[s->areas.regions[regions[i]]], &done);
	CHECK(wrong == 0 && done == 387, "every offset and length around the edges of each is as its rights say");
	char byte = 'c';
	struct husk_error err;
	CHECK(husk_sandbox_region_read(s, n, 0, &byte, 1, &err) == -ENOENT && strstr(err.message, "number 12") &&
			husk_sandbox_region_write(s, UINT32_MAX, 0, &byte, 1, &err) == -ENOENT && byte == 'c',
		"a number that no region has");
	husk_sandbox_free(s);
}

static int read_memory(void *data, uint64_t gpa, void *buf, size_t n)
{
	return husk_sandbox_memory_read(data, gpa, buf, n, NULL);
}

static int write_memory(void *data, uint64_t gpa, const void *buf, size_t n)
{
	return husk_sandbox_memory_write(data, gpa, buf, n, NULL);
}

/** What husk.h says of each kind of memory. */
static bool host_may(const struct area *area, unsigned right)
{
	switch (area->kind) {
	case AREA_CORE:
		return true;
	case AREA_REGION:
		return area->rights & right;
	default:
		return right == HOST_R;
	}
}

static void test_memory_edges(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	struct edges_piece pieces[EDGES_PIECES_MAX];
	uint64_t gpa;
	husk_sandbox_add_region(s, "low", 4096, ALL, 0, NULL, NULL);
	husk_sandbox_add_region(s, "secret", 4096, HOST_W | GUEST_R, 4096, NULL, NULL);
	husk_sandbox_add_region(s, "fixed", 8192, HOST_R | GUEST_R, 8192, NULL, NULL);
	husk_sandbox_add_region(s, "guests", 4096, GUEST_R | GUEST_W, SANDBOX_SUPPORT - 4096, NULL, NULL);
	husk_sandbox_add_region(s, "high", 4096, ALL, SANDBOX_ADDRESS_MAX - 4096, NULL, NULL);
	husk_sandbox_add_cell(s, "host", HUSK_SANDBOX_CELL_HOST, ANYWHERE, NULL, NULL);
	husk_sandbox_add_cell(s, "guest", HUSK_SANDBOX_CELL_GUEST, ANYWHERE, NULL, NULL);
	husk_sandbox_add_cell(s, "placed", HUSK_SANDBOX_CELL_HOST, 16384 + 8, NULL, NULL);
	unsigned n = s->areas.n, dirty = 0;
	for (unsigned i = 0; i < n && n <= EDGES_PIECES_MAX; i++) {
		const struct area *area = &s->areas.list[i];
		pieces[i] = (struct edges_piece){.gpa = area->gpa,
			.size = area->size,
			.read = host_may(area, HOST_R),
			.write = host_may(area, HOST_W),
			.bytes = area->host};
	}
	const struct edges_access access = {.read = read_memory, .write = write_memory, .data = s};
	struct edges_result r = edges_try(&access, pieces, n);
	printf("# %u accesses: %u done, %u refused, %u out of bounds\n", r.asked, r.given, r.refused, r.faulted);
	CHECK(n == 12 && r.wrong == 0 && r.given > 1000 && r.refused > 800 && r.faulted > 10000,
		"every range around every edge of a sandbox's memory is as its kind says");
	CHECK(r.leaked == 0, "exactly the bytes that were asked for move, and none on an error");
	for (unsigned i = 0; i < n; i++)
		if (!pieces[i].write && s->areas.list[i].dirty)
			for (uint64_t w = 0; w < s->areas.list[i].size / 4096; w += 64)
				dirty += s->areas.list[i].dirty[w / 64] != 0;
	CHECK(dirty == 0, "what cannot be written stays clean");
	husk_sandbox_find_region(s, "fixed", NULL, &gpa, NULL, NULL);
	CHECK(gpa == 8192, "a region is where it was put");
#ifdef HUSK_UNSAFE_RAW_MEMORY
	void *raw = &gpa;
	CHECK(husk_sandbox_memory_ptr_unsafe(s, 4096, 4096, &raw, NULL) == 0 && raw == areas_at(&s->areas, 4096, 1),
		"a raw pointer, whatever the rights");
	CHECK(husk_sandbox_memory_ptr_unsafe(s, 4095, 2, &raw, NULL) == -EFAULT &&
			husk_sandbox_memory_ptr_unsafe(s, 4096, UINT64_MAX, &raw, NULL) == -EFAULT &&
			husk_sandbox_memory_ptr_unsafe(s, 4096, 0, &raw, NULL) == -EFAULT &&
			raw == areas_at(&s->areas, 4096, 1),
		"and none for what is not in one piece");
#else
	/* husk.h does not declare it, or this would be another declaration of it. */
	static const char husk_sandbox_memory_ptr_unsafe[] = "free";
	CHECK(strcmp(husk_sandbox_memory_ptr_unsafe, "free") == 0, "there is no raw pointer, and its name is free");
#endif
	husk_sandbox_free(s);
}

/* ---- states and threads ---- */

static void test_states(void)
{
	static const struct {
		enum husk_sandbox_state state;
		int rc;
	} states[] = {{HUSK_SANDBOX_READY, -EINVAL}, {HUSK_SANDBOX_RUNNING, -EINVAL},
		{HUSK_SANDBOX_POISONED, -ENOTRECOVERABLE}};
	struct husk_sandbox *s = make_small_sandbox();
	unsigned region, cell, wrong = 0;
	uint64_t value;
	char byte = 'b';
	husk_sandbox_add_region(s, "r", 4096, ALL, ANYWHERE, &region, NULL);
	husk_sandbox_add_cell(s, "c", HUSK_SANDBOX_CELL_HOST, ANYWHERE, &cell, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
		sandbox_set_state(s, states[i].state);
		wrong += husk_sandbox_add_region(s, "r2", 4096, ALL, ANYWHERE, NULL, NULL) != states[i].rc;
		wrong += husk_sandbox_add_cell(s, "c2", HUSK_SANDBOX_CELL_HOST, ANYWHERE, NULL, NULL) != states[i].rc;
		wrong += husk_sandbox_region_write(s, region, i, &byte, 1, NULL) != 0;
		wrong += husk_sandbox_memory_read(s, SANDBOX_REGIONS + i, &byte, 1, NULL) != 0 || byte != 'b';
		wrong += husk_sandbox_cell_add(s, cell, 1, &value, NULL) != 0 || value != i + 1;
		wrong += husk_sandbox_find_region(s, "r", NULL, NULL, NULL, NULL) != 0;
	}
	CHECK(wrong == 0, "once it has started nothing can be added, and all can be used");
	sandbox_set_state(s, HUSK_SANDBOX_CONFIGURED);
	s->owned = true;
	CHECK(husk_sandbox_add_region(s, "r2", 4096, ALL, ANYWHERE, NULL, NULL) == -EBUSY &&
			husk_sandbox_region_write(s, region, 0, &byte, 1, NULL) == 0,
		"while somebody is in, likewise");
	s->owned = false;
	CHECK(husk_sandbox_destroy(s, NULL) == 0, "destroyed");
	char buf[2] = "x";
	wrong += husk_sandbox_add_region(s, "r2", 4096, ALL, ANYWHERE, &region, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_add_cell(s, "c2", HUSK_SANDBOX_CELL_HOST, ANYWHERE, &cell, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_find_region(s, "r", NULL, NULL, NULL, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_find_cell(s, "c", NULL, NULL, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_region_read(s, 0, 0, buf, 1, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_region_write(s, 0, 0, buf, 1, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_memory_read(s, SANDBOX_REGIONS, buf, 1, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_memory_write(s, SANDBOX_REGIONS, buf, 1, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_cell_set(s, 0, 1, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_cell_add(s, 0, 1, &value, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_cell_sub(s, 0, 1, &value, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_cell_get(s, 0, &value, NULL) != -ESHUTDOWN;
	wrong += husk_sandbox_cell_load(s, 0, 1, &value, NULL) != -ESHUTDOWN;
	CHECK(wrong == 0 && buf[0] == 'x' && value == 3, "everything is refused then, and nothing is copied");
	husk_sandbox_free(s);
}

enum { THREADS = 4, ROUNDS = 2000 };

struct worker {
	struct husk_sandbox *sandbox;
	unsigned id, torn;
	int last;
};

/** Fill a page with one byte, and read it: it is of one byte, whoever wrote it. */
static void *write_pages(void *data)
{
	struct worker *w = data;
	uint8_t page[4096];
	for (unsigned i = 0; i < ROUNDS; i++) {
		memset(page, (int)(w->id + i * THREADS), sizeof(page));
		w->last = husk_sandbox_region_write(w->sandbox, 0, 100, page, sizeof(page), NULL);
		w->last = w->last < 0 ? w->last
				      : husk_sandbox_memory_read(
						w->sandbox, SANDBOX_REGIONS + 100, page, sizeof(page), NULL);
		w->torn += w->last != 0 || !edges_is(page, page[0], sizeof(page));
	}
	return NULL;
}

/** Use it until it is gone. */
static void *use_until_dead(void *data)
{
	struct worker *w = data;
	char byte = 0;
	uint64_t value;
	do {
		w->last = w->id % 2 ? husk_sandbox_region_read(w->sandbox, 0, 8191, &byte, 1, NULL)
				    : husk_sandbox_cell_add(w->sandbox, 0, 1, &value, NULL);
	} while (w->last == 0);
	return NULL;
}

static void run_workers(struct husk_sandbox *s, void *(*work)(void *), struct worker *workers, bool destroy)
{
	pthread_t threads[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.sandbox = s, .id = i};
		if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
			abort();
	}
	if (destroy) {
		/* All that matters is that they are at it: the cell tells. */
		uint64_t value = 0;
		while (husk_sandbox_cell_get(s, 0, &value, NULL) == 0 && value < 1000)
			sched_yield();
		CHECK(husk_sandbox_destroy(s, NULL) == 0, "destroyed under four threads");
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void test_threads(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	struct worker workers[THREADS];
	husk_sandbox_add_region(s, "shared", 8192, ALL, ANYWHERE, NULL, NULL);
	husk_sandbox_add_cell(s, "count", HUSK_SANDBOX_CELL_HOST, ANYWHERE, NULL, NULL);
	run_workers(s, write_pages, workers, false);
	unsigned torn = 0, dead = 0;
	for (unsigned i = 0; i < THREADS; i++)
		torn += workers[i].torn;
	CHECK(torn == 0, "what one thread of the host writes another reads whole");
	run_workers(s, use_until_dead, workers, true);
	for (unsigned i = 0; i < THREADS; i++)
		dead += workers[i].last == -ESHUTDOWN;
	CHECK(dead == THREADS, "each of them is told that it is dead, and nothing else");
	husk_sandbox_free(s);
}

int main(void)
{
	test_names();
	test_places();
	test_region_edges();
	test_memory_edges();
	test_states();
	test_threads();
	return tap_done();
}
