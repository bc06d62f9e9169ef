/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - snapshots out of files, which a stranger may have made (layout and theory of operation: saved.h) */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/saved.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define GUEST_RW (HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W)
#define HOST_RW (HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W)

static void cleanup_snapshot(struct husk_sandbox_snapshot **snapshot)
{
	snapshot_unref(*snapshot);
}

/** How many records of @size bytes a section has; -EBADMSG: not whole ones, or not @least to @most. */
static int count(const struct container *container, enum saved_section which, size_t size, unsigned least,
	unsigned most, unsigned *n, struct husk_error *err)
{
	const struct container_section *section = &container->sections[which];

	if (section->size % size || section->size / size < least || section->size / size > most)
		return error_set(err, -EBADMSG, "section '%s' has %zu bytes, and %u to %u records of %zu are possible",
			saved_sections[which].tag, section->size, least, most, size);
	*n = (unsigned)(section->size / size);
	return 0;
}

/** Copy a name, which is a C identifier padded with NULs. */
static bool get_name(char name[SAVED_NAME], const uint8_t *from)
{
	memcpy(name, from, SAVED_NAME);
	if (!signature_name_fits(name, SAVED_NAME))
		return false;
	for (size_t i = strlen(name); i < SAVED_NAME; i++)
		if (name[i])
			return false;
	return true;
}

/* ---- program and sizes ---- */

static int get_program(
	const struct container *container, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	const struct container_section *program = &container->sections[SAVED_AT_PROGRAM];
	const struct container_section *sizes = &container->sections[SAVED_AT_SIZES];
	struct husk_sandbox_config *config = &snapshot->config;
	struct husk_error why = {0};

	if (sizes->size != SAVED_SIZES)
		return error_set(err, -EBADMSG, "section 'sizes' has %zu bytes, not %d", sizes->size, SAVED_SIZES);
	*config = (struct husk_sandbox_config){
		.size = sizeof(*config),
		.stack = get_le64(sizes->bytes),
		.heap = get_le64(sizes->bytes + 8),
		.input = get_le64(sizes->bytes + 16),
		.output = get_le64(sizes->bytes + 24),
	};
	const struct husk_sandbox_config given = *config;
	if (places_round(config, &why) < 0)
		return error_set(err, -EBADMSG, "section 'sizes': %s", why.message);
	if (config->stack != given.stack || config->heap != given.heap || config->input != given.input ||
		config->output != given.output)
		return error_set(err, -EBADMSG, "section 'sizes': not all are whole pages");
	int rc = husk_sandbox_image_load_bytes(program->bytes, program->size, &snapshot->image, &why);
	if (rc < 0)
		return error_set(
			err, rc == -ENOEXEC || rc == -EFBIG ? -EBADMSG : rc, "section 'program': %s", why.message);
	return 0;
}

/* ---- areas ---- */

/** What each kind of area has to be. */
static const struct {
	unsigned rights; /* 0: those that a caller chose */
	unsigned most; /* of them */
	bool own; /* every sandbox has it, and its place is a member of struct sandbox_places */
	size_t place;
} kinds[] = {
	[AREA_CORE] = {HOST_RW | GUEST_RW, 1, true, offsetof(struct sandbox_places, core)},
	[AREA_INFO] = {HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R, 1, true, offsetof(struct sandbox_places, info)},
	[AREA_TABLES] = {HUSK_SANDBOX_HOST_R | GUEST_RW, 1, true, offsetof(struct sandbox_places, tables)},
	[AREA_CELLS_HOST] = {HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R, CELL_PAGES_MAX + 1},
	[AREA_CELLS_GUEST] = {HUSK_SANDBOX_HOST_R | GUEST_RW, CELL_PAGES_MAX + 1},
	[AREA_REGION] = {0, REGIONS_MAX},
};

static bool rights_fit(enum area_kind kind, unsigned rights)
{
	if (kinds[kind].rights)
		return rights == kinds[kind].rights;
	/* As husk_sandbox_add_region() takes them. */
	return !(rights & ~(HOST_RW | GUEST_RW)) && (rights & GUEST_RW) != HUSK_SANDBOX_GUEST_W;
}

/** Could @area be where it is? */
static bool place_fits(const struct snapshot_area *area, const struct sandbox_places *places)
{
	if (kinds[area->kind].own) {
		const struct sandbox_range *place =
			(const struct sandbox_range *)((const char *)places + kinds[area->kind].place);
		return area->gpa == place->at && area->size == place->size;
	}
	if (area->kind == AREA_REGION ? area->size > REGION_BYTES_MAX : area->size != SANDBOX_PAGE)
		return false;
	if (area->kind == AREA_CELLS_HOST && area->gpa == places->cells.at)
		return true;
	if (area->kind == AREA_CELLS_GUEST && area->gpa == places->cells.at + SANDBOX_PAGE)
		return true;
	/* Where a caller could have put it. What has no place of its own the library puts there, too. */
	return area->gpa + area->size <= SANDBOX_SUPPORT || area->gpa >= places->end;
}

static int get_area(
	const uint8_t *from, struct snapshot_area *area, const struct sandbox_places *places, struct husk_error *err)
{
	static const uint8_t no_name[SAVED_NAME];
	uint32_t kind = get_le32(from);

	*area = (struct snapshot_area){
		.kind = kind,
		.rights = get_le32(from + 4),
		.gpa = get_le64(from + 8),
		.size = get_le64(from + 16),
		.offset = get_le64(from + 24),
	};
	if (kind >= ARRAY_SIZE(kinds) || !kinds[kind].most)
		return error_set(err, -EBADMSG, "an area of no kind (%u)", kind);
	if (!area->size || area->size % SANDBOX_PAGE || area->gpa % SANDBOX_PAGE || area->size > SANDBOX_ADDRESS_MAX ||
		area->gpa > SANDBOX_ADDRESS_MAX - area->size)
		return error_set(err, -EBADMSG, "an area of 0x%" PRIx64 " bytes at 0x%" PRIx64, area->size, area->gpa);
	if (!rights_fit(kind, area->rights))
		return error_set(err, -EBADMSG, "the area at 0x%" PRIx64 " has rights (%u) that its kind has not",
			area->gpa, area->rights);
	if (!place_fits(area, places))
		return error_set(
			err, -EBADMSG, "the area at 0x%" PRIx64 " (kind %u) is where it cannot be", area->gpa, kind);
	if (kind == AREA_REGION ? !get_name(area->name, from + 32) : memcmp(from + 32, no_name, SAVED_NAME) != 0)
		return error_set(err, -EBADMSG, "the area at 0x%" PRIx64 " has a wrong name", area->gpa);
	return 0;
}

/** Does area number @i go with those before it? */
static int check_area(const struct husk_sandbox_snapshot *snapshot, unsigned i, struct husk_error *err)
{
	const struct snapshot_area *area = &snapshot->areas[i];
	unsigned same = 1;

	if (area->offset != snapshot->size)
		return error_set(err, -EBADMSG, "the area at 0x%" PRIx64 " has its bytes at %" PRIu64 ", not %" PRIu64,
			area->gpa, area->offset, snapshot->size);
	for (unsigned j = 0; j < i; j++) {
		const struct snapshot_area *other = &snapshot->areas[j];
		if (area->gpa < other->gpa + other->size && other->gpa < area->gpa + area->size)
			return error_set(err, -EBADMSG, "the areas at 0x%" PRIx64 " and 0x%" PRIx64 " overlap",
				other->gpa, area->gpa);
		if (area->name[0] && strcmp(area->name, other->name) == 0)
			return error_set(err, -EBADMSG, "two regions are called '%s'", area->name);
		same += area->kind == other->kind;
	}
	if (same > kinds[area->kind].most)
		return error_set(err, -EBADMSG, "more than %u areas of kind %u", kinds[area->kind].most, area->kind);
	return 0;
}

static int get_areas(const struct container *container, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	const uint8_t *from = container->sections[SAVED_AT_AREAS].bytes;
	struct sandbox_places places;
	unsigned n = 0, own = 0;

	/* One of AREAS_MAX is the program's. */
	int rc = count(container, SAVED_AT_AREAS, SAVED_AREA, 3, AREAS_MAX - 1, &n, err);
	if (rc < 0)
		return rc;
	snapshot->areas = calloc(n, sizeof(*snapshot->areas));
	if (!snapshot->areas)
		return error_set(err, -ENOMEM, "out of memory");
	places_make(&places, snapshot->image, &snapshot->config);
	for (; snapshot->n_areas < n; snapshot->n_areas++) {
		struct snapshot_area *area = &snapshot->areas[snapshot->n_areas];
		rc = get_area(from + (size_t)snapshot->n_areas * SAVED_AREA, area, &places, err);
		rc = rc < 0 ? rc : check_area(snapshot, snapshot->n_areas, err);
		if (rc < 0)
			return rc;
		snapshot->size += area->size; /* at most 79 times SANDBOX_ADDRESS_MAX */
		own += kinds[area->kind].own;
	}
	return own == 3 ? 0 : error_set(err, -EBADMSG, "an area that every sandbox has is missing");
}

/* ---- cells ---- */

/** Is the word at @gpa in a page of cells of @owner? */
static bool in_cells(const struct husk_sandbox_snapshot *snapshot, uint64_t gpa, uint32_t owner)
{
	enum area_kind kind = owner == HUSK_SANDBOX_CELL_HOST ? AREA_CELLS_HOST : AREA_CELLS_GUEST;

	for (unsigned i = 0; i < snapshot->n_areas; i++) {
		const struct snapshot_area *area = &snapshot->areas[i];
		if (area->kind == kind && gpa >= area->gpa && gpa - area->gpa < area->size)
			return true;
	}
	return false;
}

static int get_cell(
	const uint8_t *from, struct husk_sandbox_snapshot *snapshot, struct snapshot_cell *cell, struct husk_error *err)
{
	uint32_t owner = get_le32(from + 64);

	*cell = (struct snapshot_cell){.owner = owner, .gpa = get_le64(from + 72), .shadow = get_le64(from + 80)};
	if (!get_name(cell->name, from))
		return error_set(err, -EBADMSG, "a cell at 0x%" PRIx64 " has a wrong name", cell->gpa);
	if ((owner != HUSK_SANDBOX_CELL_HOST && owner != HUSK_SANDBOX_CELL_GUEST) || get_le32(from + 68))
		return error_set(err, -EBADMSG, "cell '%s' has no owner (%u)", cell->name, owner);
	if (cell->gpa % sizeof(uint64_t) || !in_cells(snapshot, cell->gpa, owner))
		return error_set(err, -EBADMSG, "cell '%s' is at 0x%" PRIx64 ", which is no place for one of its owner",
			cell->name, cell->gpa);
	for (const struct snapshot_cell *other = snapshot->cells; other < cell; other++)
		if (other->gpa == cell->gpa || strcmp(other->name, cell->name) == 0)
			return error_set(err, -EBADMSG, "cells '%s' and '%s' are one", other->name, cell->name);
	return 0;
}

static int get_cells(const struct container *container, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	const uint8_t *from = container->sections[SAVED_AT_CELLS].bytes;
	unsigned n = 0;
	int rc = count(container, SAVED_AT_CELLS, SAVED_CELL, 0, CELLS_MAX, &n, err);

	if (rc < 0)
		return rc;
	snapshot->cells = calloc((size_t)n + 1, sizeof(*snapshot->cells));
	if (!snapshot->cells)
		return error_set(err, -ENOMEM, "out of memory");
	for (; rc == 0 && snapshot->n_cells < n; snapshot->n_cells++)
		rc = get_cell(from + (size_t)snapshot->n_cells * SAVED_CELL, snapshot,
			&snapshot->cells[snapshot->n_cells], err);
	return rc;
}

/* ---- the CPU ---- */

static int get_cpu(const struct container *container, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	struct cpu_state *cpu = &snapshot->cpu;
	struct cpu_features *features = &snapshot->features;
	const uint8_t *from = container->sections[SAVED_AT_CPUID].bytes;

	int rc = count(container, SAVED_AT_CPUID, SAVED_CPUID, 0, CPU_CPUID_MAX, &features->n, err);
	for (unsigned i = 0; rc == 0 && i < features->n; i++, from += SAVED_CPUID)
		features->entries[i] = (struct kvm_cpuid_entry2){
			.function = get_le32(from),
			.index = get_le32(from + 4),
			.flags = get_le32(from + 8),
			.eax = get_le32(from + 12),
			.ebx = get_le32(from + 16),
			.ecx = get_le32(from + 20),
			.edx = get_le32(from + 24),
		};
	from = container->sections[SAVED_AT_MSRS].bytes;
	rc = rc < 0 ? rc : count(container, SAVED_AT_MSRS, SAVED_MSR, 0, CPU_MSRS_MAX, &cpu->n_msrs, err);
	for (unsigned i = 0; rc == 0 && i < cpu->n_msrs; i++, from += SAVED_MSR) {
		cpu->msrs[i] = (struct kvm_msr_entry){.index = get_le32(from), .data = get_le64(from + 8)};
		/* The host's hand reaches registers that the guest's does not. */
		if (!cpu_msr_known(cpu->msrs[i].index) || get_le32(from + 4))
			rc = error_set(
				err, -EBADMSG, "section 'msrs' has register 0x%x, which none has", cpu->msrs[i].index);
	}
	for (unsigned i = 0; rc == 0 && i < SAVED_PARTS; i++) {
		const struct container_section *section = &container->sections[SAVED_AT_CPU + i];
		if (section->size != saved_parts[i].size)
			return error_set(err, -EBADMSG, "section '%s' has %zu bytes, not %zu",
				saved_sections[SAVED_AT_CPU + i].tag, section->size, saved_parts[i].size);
		memcpy((uint8_t *)cpu + saved_parts[i].at, section->bytes, section->size);
	}
	if (rc == 0 && cpu->xcrs.nr_xcrs > KVM_MAX_XCRS)
		rc = error_set(err, -EBADMSG, "section 'xcrs' has %u registers", cpu->xcrs.nr_xcrs);
	return rc;
}

/* ---- all of it ---- */

static int get_memory(const struct container *container, const struct husk_sandbox_snapshot *snapshot,
	uint8_t identity[MEMORY_FILE_IDENTITY], struct husk_error *err)
{
	const struct container_section *memory = &container->sections[SAVED_AT_MEMORY];

	if (memory->size != SAVED_MEMORY)
		return error_set(err, -EBADMSG, "section 'memory' has %zu bytes, not %d", memory->size, SAVED_MEMORY);
	if (get_le64(memory->bytes + MEMORY_FILE_IDENTITY) != snapshot->size)
		return error_set(err, -EBADMSG, "the areas have %" PRIu64 " bytes, and the memory %" PRIu64,
			snapshot->size, get_le64(memory->bytes + MEMORY_FILE_IDENTITY));
	memcpy(identity, memory->bytes, MEMORY_FILE_IDENTITY);
	return 0;
}

int saved_decode(const struct container *container, struct husk_sandbox_snapshot **out,
	uint8_t identity[MEMORY_FILE_IDENTITY], struct husk_error *err)
{
	CLEANUP(cleanup_snapshot) struct husk_sandbox_snapshot *snapshot = snapshot_new();

	if (!snapshot)
		return error_set(err, -ENOMEM, "out of memory");
	int rc = get_program(container, snapshot, err);
	rc = rc < 0 ? rc : get_areas(container, snapshot, err);
	rc = rc < 0 ? rc : get_cells(container, snapshot, err);
	rc = rc < 0 ? rc : get_cpu(container, snapshot, err);
	rc = rc < 0 ? rc : get_memory(container, snapshot, identity, err);
	if (rc == 0)
		*out = steal_pointer(&snapshot);
	return rc;
}

static int map_memory(const char *path, const uint8_t identity[MEMORY_FILE_IDENTITY],
	struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	CLEANUP_FREE char *memory_path = path_format("%s" SAVED_MEMORY_SUFFIX, path);

	if (!memory_path)
		return error_set(err, -ENOMEM, "load snapshot %s: out of memory", path);
	int rc = memory_file_open(memory_path, identity, snapshot->size, &snapshot->fd, err);
	if (rc < 0)
		return rc;
	snapshot->memory_offset = MEMORY_FILE_HEADER;
	rc = snapshot_open_memory(snapshot, err);
	if (rc < 0)
		error_prefix(err, rc, "load snapshot %s", path);
	return rc;
}

int husk_sandbox_snapshot_load(const char *path, struct husk_sandbox_snapshot **out, struct husk_error *err)
{
	CLEANUP(cleanup_snapshot) struct husk_sandbox_snapshot *snapshot = NULL;
	CLEANUP_CONTAINER struct container container = {0};
	uint8_t identity[MEMORY_FILE_IDENTITY];
	struct husk_error why = {0};

	int rc = container_read(path, SAVED_MACHINE, saved_sections, SAVED_SECTIONS, &container, err);
	if (rc < 0)
		return rc;
	rc = saved_decode(&container, &snapshot, identity, &why);
	if (rc < 0)
		return error_set(err, rc, "snapshot %s: %s", path, why.message);
	rc = map_memory(path, identity, snapshot, err);
	if (rc == 0)
		*out = steal_pointer(&snapshot);
	return rc;
}
