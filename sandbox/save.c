/* SPDX-License-Identifier: Apache-2.0 */
/* save.c - snapshots into files (layout and theory of operation: saved.h) */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "sandbox/saved.h"
#include "snapshot/new_file.h"

#include <stddef.h>
#include <string.h>

const struct container_known saved_sections[SAVED_SECTIONS] = {
	[SAVED_AT_PROGRAM] = {.tag = "program", .version = 1},
	[SAVED_AT_SIZES] = {.tag = "sizes", .version = 1},
	[SAVED_AT_AREAS] = {.tag = "areas", .version = 1},
	[SAVED_AT_CELLS] = {.tag = "cells", .version = 1},
	[SAVED_AT_CPUID] = {.tag = "cpuid", .version = 1},
	[SAVED_AT_MSRS] = {.tag = "msrs", .version = 1},
	[SAVED_AT_MEMORY] = {.tag = "memory", .version = 1},
	[SAVED_AT_CPU] = {.tag = "regs", .version = 1},
	[SAVED_AT_CPU + 1] = {.tag = "sregs", .version = 1},
	[SAVED_AT_CPU + 2] = {.tag = "debug", .version = 1},
	[SAVED_AT_CPU + 3] = {.tag = "events", .version = 1},
	[SAVED_AT_CPU + 4] = {.tag = "xcrs", .version = 1},
	[SAVED_AT_CPU + 5] = {.tag = "xsave", .version = 1},
};

#define PART(member)                                                                                                   \
	{                                                                                                              \
		offsetof(struct cpu_state, member), sizeof(((struct cpu_state *)0)->member)                            \
	}

const struct saved_part saved_parts[SAVED_PARTS] = {
	PART(regs), PART(sregs), PART(debug), PART(events), PART(xcrs), PART(xsave)};

_Static_assert(sizeof(struct kvm_regs) == 144 && sizeof(struct kvm_sregs) == 312 &&
		       sizeof(struct kvm_debugregs) == 128 && sizeof(struct kvm_vcpu_events) == 64 &&
		       sizeof(struct kvm_xcrs) == 392 && sizeof(struct kvm_xsave) == 4096,
	"the sections have version 1 of their layout");
_Static_assert(SAVED_AT_AREAS < SAVED_SECTIONS && SAVED_SECTIONS <= CONTAINER_SECTIONS_MAX, "a file has room for them");

static void put_name(uint8_t *to, const char *name)
{
	memcpy(to, name, strnlen(name, SANDBOX_NAME_MAX));
}

static void put_area(uint8_t *to, const struct snapshot_area *area)
{
	put_le32(to, area->kind);
	put_le32(to + 4, area->rights);
	put_le64(to + 8, area->gpa);
	put_le64(to + 16, area->size);
	put_le64(to + 24, area->offset);
	put_name(to + 32, area->name);
}

static void put_cell(uint8_t *to, const struct snapshot_cell *cell)
{
	put_name(to, cell->name);
	put_le32(to + 64, cell->owner);
	put_le64(to + 72, cell->gpa);
	put_le64(to + 80, cell->shadow);
}

static void put_cpuid(uint8_t *to, const struct kvm_cpuid_entry2 *entry)
{
	const uint32_t words[] = {
		entry->function, entry->index, entry->flags, entry->eax, entry->ebx, entry->ecx, entry->edx};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		put_le32(to + 4 * i, words[i]);
}

static void put_msr(uint8_t *to, const struct kvm_msr_entry *msr)
{
	put_le32(to, msr->index);
	put_le64(to + 8, msr->data);
}

/** A section of @n records of @size bytes, each made by @put_one of one of the @stride bytes long elements of @list. */
#define PUT_RECORDS(writer, at, list, n, size, put_one, err)                                                           \
	({                                                                                                             \
		CLEANUP_FREE uint8_t *records_ = calloc((size_t)(n) + 1, size);                                        \
		for (unsigned i_ = 0; records_ && i_ < (n); i_++)                                                      \
			put_one(records_ + (size_t)i_ * (size), &(list)[i_]);                                          \
		put_section(writer, at, records_, (size_t)(n) * (size), err);                                          \
	})

static int put_section(
	struct container_writer *writer, unsigned at, const void *bytes, size_t n, struct husk_error *err)
{
	const struct container_known *section = &saved_sections[at];

	if (!bytes)
		return error_set(err, -ENOMEM, "save a snapshot: out of memory");
	return container_put(writer, section->tag, section->version, 0, bytes, n, err);
}

static int encode_small(const struct husk_sandbox_snapshot *snapshot, const uint8_t identity[MEMORY_FILE_IDENTITY],
	struct container_writer *writer, struct husk_error *err)
{
	const struct husk_sandbox_config *config = &snapshot->config;
	uint8_t sizes[SAVED_SIZES], memory[SAVED_MEMORY];

	put_le64(sizes, config->stack);
	put_le64(sizes + 8, config->heap);
	put_le64(sizes + 16, config->input);
	put_le64(sizes + 24, config->output);
	memcpy(memory, identity, MEMORY_FILE_IDENTITY);
	put_le64(memory + MEMORY_FILE_IDENTITY, snapshot->size);
	int rc = put_section(writer, SAVED_AT_PROGRAM, snapshot->image->elf, snapshot->image->elf_size, err);
	rc = rc < 0 ? rc : put_section(writer, SAVED_AT_SIZES, sizes, sizeof(sizes), err);
	return rc < 0 ? rc : put_section(writer, SAVED_AT_MEMORY, memory, sizeof(memory), err);
}

int saved_encode(const struct husk_sandbox_snapshot *snapshot, const uint8_t identity[MEMORY_FILE_IDENTITY],
	struct container_writer *writer, struct husk_error *err)
{
	const struct cpu_state *cpu = &snapshot->cpu;
	int rc = encode_small(snapshot, identity, writer, err);

	if (rc == 0)
		rc = PUT_RECORDS(writer, SAVED_AT_AREAS, snapshot->areas, snapshot->n_areas, SAVED_AREA, put_area, err);
	if (rc == 0)
		rc = PUT_RECORDS(writer, SAVED_AT_CELLS, snapshot->cells, snapshot->n_cells, SAVED_CELL, put_cell, err);
	if (rc == 0)
		rc = PUT_RECORDS(writer, SAVED_AT_CPUID, snapshot->features.entries, snapshot->features.n, SAVED_CPUID,
			put_cpuid, err);
	if (rc == 0)
		rc = PUT_RECORDS(writer, SAVED_AT_MSRS, cpu->msrs, cpu->n_msrs, SAVED_MSR, put_msr, err);
	for (unsigned i = 0; rc == 0 && i < SAVED_PARTS; i++)
		rc = put_section(
			writer, SAVED_AT_CPU + i, (const uint8_t *)cpu + saved_parts[i].at, saved_parts[i].size, err);
	return rc;
}

/** Write both files where nobody finds them yet, to disk. */
static int write_both(const struct husk_sandbox_snapshot *snapshot, struct new_file *memory, struct new_file *state,
	struct husk_error *err)
{
	CLEANUP_CONTAINER_WRITER struct container_writer writer;
	uint8_t identity[MEMORY_FILE_IDENTITY];

	container_begin(&writer, CONTAINER_X86_64, SAVED_MACHINE);
	int rc = memory_file_identify(identity, err);
	rc = rc < 0 ? rc : saved_encode(snapshot, identity, &writer, err);
	rc = rc < 0 ? rc : container_seal(&writer, err);
	rc = rc < 0 ? rc : memory_file_begin(memory->fd, identity, snapshot->size, err);
	if (rc == 0)
		rc = memory_file_copy(memory->fd, 0, snapshot->fd, snapshot->memory_offset, snapshot->size, err);
	rc = rc < 0 ? rc : new_file_sync(memory, err);
	if (rc < 0)
		return rc;
	rc = fd_write_all(state->fd, buffer_bytes(&writer.bytes), writer.bytes.size);
	if (rc < 0)
		return error_set(err, rc, "write %s: %s", state->path, strerror(-rc));
	return new_file_sync(state, err);
}

int husk_sandbox_snapshot_save(struct husk_sandbox_snapshot *snapshot, const char *path, struct husk_error *err)
{
	CLEANUP_FREE char *memory_path = path_format("%s" SAVED_MEMORY_SUFFIX, path);
	CLEANUP_NEW_FILE struct new_file memory = NEW_FILE_NONE, state = NEW_FILE_NONE;

	if (!memory_path)
		return error_set(err, -ENOMEM, "save a snapshot to %s: out of memory", path);
	int rc = new_file_create(&state, path, err);
	rc = rc < 0 ? rc : new_file_create(&memory, memory_path, err);
	rc = rc < 0 ? rc : write_both(snapshot, &memory, &state, err);
	/* The memory first: a state file that is there has all that it needs. */
	rc = rc < 0 ? rc : new_file_place(&memory, err);
	rc = rc < 0 ? rc : new_file_place(&state, err);
	if (rc < 0) {
		new_file_withdraw(&memory);
		error_prefix(err, rc, "save a snapshot to %s", path);
	}
	return rc;
}
