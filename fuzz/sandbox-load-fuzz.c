/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-load-fuzz.c - libFuzzer target: bytes as a sandbox's snapshot from a stranger
 *
 * Theory of operation: an input is a list of changes to the sections of a good one (tests/sandbox/test_snapshot.h): values
 * at a place, fields that become like those of other records, records copied over others, or fewer or more bytes. The
 * container around them is right, and so are, in every other input, the places of areas' bytes: what is tried is what load.c
 * believes. A snapshot that it takes gets memory of the size it asks for, and then a sandbox has to come of it, whose regions
 * and cells work.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -DHUSK_VERSION='"0"' -I. -Iinclude -pthread \
 *     -o sandbox-load-fuzz fuzz/sandbox-load-fuzz.c tests/sandbox/test_{program,snapshot}.c sandbox/[a-z]*.c \
 *     snapshot/[a-z]*.c kvm/kvm.c memory/memory.c base/{adopt,buffer,error,fd,path,tlv}.c &&
 *     ./sandbox-load-fuzz -max_len=256 fuzz/corpus/sandbox-load
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "fuzz/fuzz.h"
#include "sandbox/saved.h"
#include "tests/sandbox/test_snapshot.h"

#include <string.h>
#include <sys/mman.h>

enum change { PUT, COPY, RESIZE, CHANGES };
#define GROWS_MAX 4096

/** The good one, encoded. */
static struct container_writer good;
static struct container parts;

static void make_good(void)
{
	static const uint8_t identity[MEMORY_FILE_IDENTITY] = {1};
	struct husk_sandbox_snapshot *snapshot = test_snapshot_make();

	container_begin(&good, CONTAINER_X86_64, SAVED_MACHINE);
	must(snapshot && saved_encode(snapshot, identity, &good, NULL) == 0 && container_seal(&good, NULL) == 0 &&
			container_parse(buffer_bytes(&good.bytes), good.bytes.size, SAVED_MACHINE, saved_sections,
				SAVED_SECTIONS, &parts, NULL) == 0,
		"there is a good snapshot");
	snapshot_unref(snapshot);
}

struct section {
	uint8_t *bytes;
	size_t size;
};

/** A field of an area or a cell becomes a number that has to do with another one. */
static void change_field(struct program *p, struct section *s, unsigned which)
{
	static const uint8_t area_fields[] = {0, 4, 8, 16}, cell_fields[] = {64, 72, 80};
	bool cells = which == SAVED_AT_CELLS;
	size_t record = cells ? SAVED_CELL : SAVED_AREA, n = s->size / record;
	unsigned field = program_byte(p), how = program_byte(p);

	if (!n)
		return;
	uint8_t *to = s->bytes + program_byte(p) % n * record;
	const uint8_t *from = s->bytes + program_byte(p) % n * record;
	to += cells ? cell_fields[field % ARRAY_SIZE(cell_fields)] : area_fields[field % ARRAY_SIZE(area_fields)];
	uint64_t at = get_le64(from + (cells ? 72 : 8)), size = cells ? 8 : get_le64(from + 16);
	const uint64_t values[] = {at, at + size, at - SANDBOX_PAGE, at + SANDBOX_PAGE, at - 8, at + 8, size,
		size + SANDBOX_PAGE, size - SANDBOX_PAGE, how >> 4, SANDBOX_SUPPORT, SANDBOX_ADDRESS_MAX, 1ull << 30};
	uint64_t value = values[how % 16 % ARRAY_SIZE(values)];
	if (!cells && field % ARRAY_SIZE(area_fields) < 2)
		put_le32(to, (uint32_t)value);
	else
		put_le64(to, value);
}

/** Let the areas' bytes follow each other, and the memory have their size. */
static void tidy(struct section *areas, struct section *memory)
{
	uint64_t offset = 0;

	for (uint8_t *at = areas->bytes; at + SAVED_AREA <= areas->bytes + areas->size; at += SAVED_AREA) {
		put_le64(at + 24, offset);
		offset += get_le64(at + 16);
	}
	if (memory->size == SAVED_MEMORY)
		put_le64(memory->bytes + MEMORY_FILE_IDENTITY, offset);
}

static void change(struct program *p, struct section *s)
{
	enum change what = program_byte(p) % CHANGES;
	size_t at = program_take(p, 2), n = 1 + program_byte(p) % 8, size = s->size;

	if (what == RESIZE) {
		/* By what is a record of some section, or by any number. */
		static const uint16_t steps[] = {SAVED_AREA, SAVED_CELL, SAVED_CPUID, SAVED_MSR, 1, 8};
		size_t by = at % 64 * steps[n % ARRAY_SIZE(steps)];
		s->size = at & 0x8000 ? size - (by < size ? by : size) : size + (by < GROWS_MAX ? by : GROWS_MAX);
		uint8_t *bytes = calloc(1, s->size + 1);
		memcpy(bytes, s->bytes, size < s->size ? size : s->size);
		free(s->bytes);
		s->bytes = bytes;
	} else if (what == COPY && size) {
		size_t from = program_take(p, 2) % size, to = at % size, length = n * 12;
		size_t room = size - (from > to ? from : to);
		memmove(s->bytes + to, s->bytes + from, length < room ? length : room);
	} else {
		for (size_t i = 0; i < n && size; i++)
			s->bytes[(at + i) % size] = program_byte(p);
	}
}

static void check_areas(const struct husk_sandbox_snapshot *s)
{
	uint64_t program_end = SANDBOX_SUPPORT + s->image->ro_size, offset = 0;

	for (unsigned i = 0; i < s->n_areas; i++) {
		const struct snapshot_area *a = &s->areas[i];
		must(a->gpa + a->size > a->gpa && a->gpa + a->size <= SANDBOX_ADDRESS_MAX, "areas are in memory");
		must(a->gpa + a->size <= SANDBOX_SUPPORT || a->gpa >= program_end, "and not over the program");
		must(a->offset == offset, "their bytes follow each other");
		must(a->kind != AREA_CELLS_HOST || !(a->rights & HUSK_SANDBOX_GUEST_W), "the host's cells are its own");
		must(a->kind == AREA_CORE || a->kind == AREA_REGION || !(a->rights & HUSK_SANDBOX_HOST_W),
			"the host writes what is for it to write");
		offset += a->size;
	}
	must(offset == s->size, "and have all the bytes that there are");
}

/** Of what was taken a sandbox can be made, and it works as far as it can without KVM. */
static void check_sandbox(struct husk_sandbox_snapshot *s)
{
	struct husk_sandbox *sandbox = NULL;
	struct husk_error err = {0};
	unsigned number;
	uint64_t value;
	char byte;

	s->fd = memfd_create("fuzz", MFD_CLOEXEC);
	must(s->fd >= 0 && ftruncate(s->fd, (off_t)s->size) == 0 && snapshot_open_memory(s, &err) == 0,
		"memory is made");
	int rc = husk_sandbox_create_from(s, NULL, &sandbox, &err);
	must(rc == 0, rc == 0 ? NULL : err.message);
	for (unsigned i = 0; i < s->n_areas; i++) {
		const struct snapshot_area *a = &s->areas[i];
		if (a->kind != AREA_REGION)
			continue;
		must(husk_sandbox_find_region(sandbox, a->name, &number, NULL, NULL, &err) == 0, "regions are found");
		rc = husk_sandbox_region_read(sandbox, number, a->size - 1, &byte, 1, &err);
		must(rc == (a->rights & HUSK_SANDBOX_HOST_R ? 0 : -EACCES), "and read as far as they may be");
		must(husk_sandbox_region_read(sandbox, number, a->size, &byte, 1, &err) < 0, "and no further");
	}
	for (unsigned i = 0; i < s->n_cells; i++) {
		const struct snapshot_cell *c = &s->cells[i];
		must(husk_sandbox_find_cell(sandbox, c->name, &number, NULL, &err) == 0 && number == i,
			"cells are found");
		if (c->owner == HUSK_SANDBOX_CELL_HOST)
			must(husk_sandbox_cell_get(sandbox, i, &value, &err) == 0 && value == c->shadow,
				"host's are read");
		else
			must(husk_sandbox_cell_load(sandbox, i, UINT64_MAX, &value, &err) == 0 && value == 0,
				"guest's are loaded");
	}
	husk_sandbox_free(sandbox);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program p = {data, data + size};
	struct section sections[SAVED_SECTIONS];
	struct husk_sandbox_snapshot *snapshot = NULL;
	struct container container = {0};
	uint8_t identity[MEMORY_FILE_IDENTITY];
	struct husk_error err = {0};

	if (!good.bytes.size)
		make_good();
	for (unsigned i = 0; i < SAVED_SECTIONS; i++) {
		sections[i] = (struct section){malloc(parts.sections[i].size + 1), parts.sections[i].size};
		memcpy(sections[i].bytes, parts.sections[i].bytes, sections[i].size);
	}
	bool tidied = program_byte(&p) & 1;
	while (p.at < p.end) {
		uint8_t which = program_byte(&p);
		if (which & 0x80)
			change_field(&p, &sections[which & 1 ? SAVED_AT_CELLS : SAVED_AT_AREAS],
				which & 1 ? SAVED_AT_CELLS : SAVED_AT_AREAS);
		else
			change(&p, &sections[which % SAVED_SECTIONS]);
	}
	if (tidied)
		tidy(&sections[SAVED_AT_AREAS], &sections[SAVED_AT_MEMORY]);
	for (unsigned i = 0; i < SAVED_SECTIONS; i++)
		container.sections[i] = (struct container_section){sections[i].bytes, sections[i].size, 1};
	int rc = saved_decode(&container, &snapshot, identity, &err);
	must(rc == 0 || rc == -EBADMSG, rc == 0 ? NULL : err.message);
	must((rc == 0) == (snapshot != NULL) && (rc == 0 || err.message[0]), "a snapshot, or why there is none");
	for (unsigned i = 0; i < SAVED_SECTIONS; i++)
		free(sections[i].bytes);
	if (snapshot) {
		check_areas(snapshot);
		check_sandbox(snapshot);
	}
	snapshot_unref(snapshot);
	return 0;
}
