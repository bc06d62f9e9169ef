/* SPDX-License-Identifier: Apache-2.0 */
/* test_snapshot.c - a sandbox's snapshot that no sandbox was needed for (test_snapshot.h) */
#include "test_snapshot.h"

#include "base/cleanup.h"
#include "test_program.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define HOST_RW (HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W)
#define GUEST_RW (HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W)

/** Bytes that are nowhere the same. */
static void fill(void *to, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		((uint8_t *)to)[i] = (uint8_t)(seed >> 16);
	}
}

static void put_areas(struct husk_sandbox_snapshot *s)
{
	struct sandbox_places places;

	places_make(&places, s->image, &s->config);
	const struct snapshot_area areas[TEST_AREAS] = {
		[TEST_CORE] = {AREA_CORE, HOST_RW | GUEST_RW, places.core.at, places.core.size},
		[TEST_INFO] = {AREA_INFO, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R, places.info.at, places.info.size},
		[TEST_TABLES] = {AREA_TABLES, HUSK_SANDBOX_HOST_R | GUEST_RW, places.tables.at, places.tables.size},
		[TEST_CELLS_HOST] = {AREA_CELLS_HOST, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R, places.cells.at,
			SANDBOX_PAGE},
		[TEST_CELLS_GUEST] = {AREA_CELLS_GUEST, HUSK_SANDBOX_HOST_R | GUEST_RW, places.cells.at + SANDBOX_PAGE,
			SANDBOX_PAGE},
		[TEST_CHOSEN] = {AREA_REGION, HOST_RW | HUSK_SANDBOX_GUEST_R, TEST_REGION, 3 * SANDBOX_PAGE, 0,
			"configuration"},
		[TEST_LIBRARY] = {AREA_REGION, HUSK_SANDBOX_HOST_W, SANDBOX_REGIONS, SANDBOX_PAGE, 0, "r2"},
		[TEST_CELLS_CHOSEN] = {AREA_CELLS_HOST, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R, TEST_CELL_PAGE,
			SANDBOX_PAGE},
	};
	memcpy(s->areas, areas, sizeof(areas));
	s->n_areas = TEST_AREAS;
	for (unsigned i = 0; i < TEST_AREAS; i++) {
		s->areas[i].offset = s->size;
		s->size += s->areas[i].size;
	}
	const struct snapshot_cell cells[TEST_CELLS] = {
		{"credits", HUSK_SANDBOX_CELL_HOST, places.cells.at, UINT64_MAX},
		{"used", HUSK_SANDBOX_CELL_GUEST, places.cells.at + SANDBOX_PAGE, 0},
		{"fixed", HUSK_SANDBOX_CELL_HOST, TEST_CELL_PAGE + SANDBOX_PAGE - 8, 0x123456789abcdef0},
		{"_", HUSK_SANDBOX_CELL_GUEST, places.cells.at + SANDBOX_PAGE + 8, 0},
	};
	memcpy(s->cells, cells, sizeof(cells));
	s->n_cells = TEST_CELLS;
}

static void put_cpu(struct husk_sandbox_snapshot *s)
{
	struct cpu_state *cpu = &s->cpu;

	fill(&cpu->regs, sizeof(cpu->regs), 1);
	fill(&cpu->sregs, sizeof(cpu->sregs), 2);
	fill(&cpu->debug, sizeof(cpu->debug), 3);
	fill(&cpu->events, sizeof(cpu->events), 4);
	fill(&cpu->xcrs, sizeof(cpu->xcrs), 5);
	cpu->xcrs.nr_xcrs = 1;
	fill(&cpu->xsave, sizeof(cpu->xsave), 6);
	for (cpu->n_msrs = 0; cpu->n_msrs < 3; cpu->n_msrs++)
		cpu->msrs[cpu->n_msrs] =
			(struct kvm_msr_entry){.index = 0xc0000081 + cpu->n_msrs, .data = UINT64_MAX / 3};
	for (s->features.n = 0; s->features.n < 5; s->features.n++) {
		struct kvm_cpuid_entry2 *entry = &s->features.entries[s->features.n];
		fill(entry, sizeof(*entry), 7 + s->features.n);
		memset(entry->padding, 0, sizeof(entry->padding));
	}
}

/** The first and the last page of every area have something in them, except for two. */
static bool put_memory(struct husk_sandbox_snapshot *s)
{
	uint8_t page[SANDBOX_PAGE];

	s->fd = memfd_create("test-snapshot", MFD_CLOEXEC);
	if (s->fd < 0 || ftruncate(s->fd, (off_t)s->size) < 0)
		return false;
	for (unsigned i = 0; i < s->n_areas; i++) {
		const struct snapshot_area *area = &s->areas[i];
		if (i == TEST_CHOSEN || i == TEST_CELLS_GUEST)
			continue;
		fill(page, sizeof(page), i);
		if (pwrite(s->fd, page, sizeof(page), (off_t)area->offset) < 0 ||
			pwrite(s->fd, page, sizeof(page), (off_t)(area->offset + area->size - SANDBOX_PAGE)) < 0)
			return false;
	}
	return snapshot_open_memory(s, NULL) == 0;
}

struct husk_sandbox_snapshot *test_snapshot_make(void)
{
	struct husk_sandbox_snapshot *s = snapshot_new();
	struct test_program program;
	struct husk_error err = {0};

	test_program_make(&program);
	if (!s || husk_sandbox_image_load_bytes(&program, sizeof(program), &s->image, &err) < 0)
		return NULL;
	s->config = (struct husk_sandbox_config){.size = sizeof(s->config),
		.stack = 2 * SANDBOX_PAGE,
		.heap = 3 * SANDBOX_PAGE,
		.input = SANDBOX_PAGE,
		.output = 4 * SANDBOX_PAGE};
	s->areas = calloc(TEST_AREAS, sizeof(*s->areas));
	s->cells = calloc(TEST_CELLS, sizeof(*s->cells));
	if (s->areas && s->cells) {
		put_areas(s);
		put_cpu(s);
		if (put_memory(s))
			return s;
	}
	snapshot_unref(s);
	return NULL;
}

static bool same(const char *what, const void *a, const void *b, size_t n)
{
	if (memcmp(a, b, n) == 0)
		return true;
	printf("# %s differ\n", what);
	return false;
}

static bool same_cells(const struct husk_sandbox_snapshot *a, const struct husk_sandbox_snapshot *b)
{
	for (unsigned i = 0; i < a->n_cells; i++) {
		const struct snapshot_cell *x = &a->cells[i], *y = &b->cells[i];
		if (strcmp(x->name, y->name) != 0 || x->owner != y->owner || x->gpa != y->gpa ||
			x->shadow != y->shadow) {
			printf("# cells number %u differ\n", i);
			return false;
		}
	}
	return true;
}

bool test_snapshot_equal(const struct husk_sandbox_snapshot *a, const struct husk_sandbox_snapshot *b)
{
	return a->n_areas == b->n_areas && a->n_cells == b->n_cells && a->image->elf_size == b->image->elf_size &&
	       a->size == b->size && same("programs", a->image->elf, b->image->elf, a->image->elf_size) &&
	       same("sizes", &a->config, &b->config, sizeof(a->config)) &&
	       same("areas", a->areas, b->areas, a->n_areas * sizeof(*a->areas)) && same_cells(a, b) &&
	       same("features", &a->features, &b->features, sizeof(a->features)) &&
	       same("CPUs", &a->cpu, &b->cpu, sizeof(a->cpu)) && same("memories", a->memory, b->memory, a->size);
}
