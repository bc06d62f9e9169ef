/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.h - a sandbox remembered: registers, cells, and the bytes of every area that can change
 *
 * Theory of operation: the areas' bytes lie one after the other in one file, a memfd or a saved one, with holes for zeroes. A new sandbox maps
 * it copy-on-write; a restore copies dirty pages back out of a mapping of it. A snapshot never changes, and so is shared by any number of threads.
 */
#ifndef SANDBOX_SNAPSHOT_H
#define SANDBOX_SNAPSHOT_H

#include "sandbox/sandbox.h"

/** An area as it was. */
struct snapshot_area {
	enum area_kind kind;
	unsigned rights;
	uint64_t gpa, size;
	uint64_t offset; /* of its bytes, in memory from memory_offset on */
	char name[SANDBOX_NAME_MAX + 1];
};

struct snapshot_cell {
	char name[SANDBOX_NAME_MAX + 1];
	enum husk_sandbox_cell_owner owner;
	uint64_t gpa;
	uint64_t shadow;
};

struct husk_sandbox_snapshot {
	unsigned refs; /* atomic */
	struct husk_sandbox_image *image; /* owned reference */
	struct husk_sandbox_config config; /* the sizes are what counts */
	struct snapshot_area *areas; /* AREA_PROGRAM is not among them */
	unsigned n_areas;
	struct snapshot_cell *cells;
	unsigned n_cells;
	struct signature *functions; /* [0] is print */
	unsigned n_functions;
	struct cpu_features features;
	struct cpu_state cpu;
	int fd; /* of the memory; never written again */
	uint64_t memory_offset; /* where the areas' bytes begin: 0 in a memfd, behind a header in a saved file */
	uint64_t size; /* of all areas */
	const uint8_t *memory; /* mapped read-only from memory_offset on */
};

struct husk_sandbox_snapshot *snapshot_ref(struct husk_sandbox_snapshot *snapshot);
void snapshot_unref(struct husk_sandbox_snapshot *snapshot);
/** An empty one with one reference, all pointers NULL and fd -1; what is filled in later is freed with the last reference. */
struct husk_sandbox_snapshot *snapshot_new(void);

#endif
