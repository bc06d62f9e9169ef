/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.h - a sandbox remembered: registers, cells, and the bytes of every area that can change
 *
 * Theory of operation: the areas' bytes lie one after the other in one file, a memfd or a saved one, with holes for zeroes. A
 * new sandbox maps it copy-on-write; a restore copies dirty pages back out of a mapping of it, or, when the sandbox's dirty
 * pages do not count from this snapshot, maps it anew. A snapshot never changes, and so is shared by any number of threads.
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
	struct snapshot_area *areas; /* malloc'ed, in the order of the sandbox's; AREA_PROGRAM is not among them */
	unsigned n_areas;
	struct snapshot_cell *cells; /* malloc'ed */
	unsigned n_cells;
	struct cpu_features features;
	struct cpu_state cpu;
	int fd; /* of the memory; owned; never written again */
	uint64_t memory_offset; /* where the areas' bytes begin: 0 in a memfd, behind a header in a saved file */
	uint64_t size; /* of all areas */
	const uint8_t *memory; /* mapped read-only from memory_offset on; snapshot_open_memory() */
	unsigned long *data; /* a bit per page: it is not a hole; a page without is zeroes */
};

struct husk_sandbox_snapshot *snapshot_ref(struct husk_sandbox_snapshot *snapshot);
/** NULL is fine. */
void snapshot_unref(struct husk_sandbox_snapshot *snapshot);
/** An empty one with one reference, or NULL. What is filled in later goes with the last reference. */
struct husk_sandbox_snapshot *snapshot_new(void);
/** fd, memory_offset and size are set: map the memory and find its holes. */
int snapshot_open_memory(struct husk_sandbox_snapshot *snapshot, struct husk_error *err);

/** Give a sandbox, which has AREA_PROGRAM only, the snapshot's areas and cells. */
int snapshot_map(struct husk_sandbox_snapshot *snapshot, struct husk_sandbox *sandbox, struct husk_error *err);
/** Its VM has been made: give it the snapshot's CPU. */
int snapshot_begin(struct husk_sandbox_snapshot *snapshot, struct husk_sandbox *sandbox, struct husk_error *err);

#endif
