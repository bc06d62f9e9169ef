/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - a VM's counters: a file in its runtime directory that the worker maps and everybody else reads
 *
 * Made by the engine with its full size before the worker starts, written by the worker alone through a shared mapping
 * (relaxed 64-bit stores), read with pread(2), so that a worker that truncates it hurts nobody. Counts only grow, but for
 * `active` and `waiting`; a reader sees each number whole and no two of them at the same instant. Host byte order, one
 * build; another magic is another husk's.
 */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include "base/state.h"

#define STATS_MAGIC 0x31534b48u /* "HKS1" */
#define STATS_NAME "stats" /* in the runtime directory */

#define HISTOGRAM_FIRST 10 /* the first bucket holds everything below 2^10 ns */
#define HISTOGRAM_STEPS 4 /* buckets per power of two: a quantile is off by at most a quarter */
#define HISTOGRAM_BUCKETS 112

/** How often something took how long. */
struct histogram {
	uint64_t count, sum_ns;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

enum door_stage {
	DOOR_ACCEPT, /* the worker's own work from the wake-up for a connection until it is on its way or waits */
	DOOR_CONNECT, /* from asking the guest until it has connected to its port */
	DOOR_FIRST_BYTE, /* from the accept (or the end of waiting for the workload) to the guest's first byte */
	DOOR_READ, /* one read of the host stream into the guest's buffers */
	DOOR_WRITE, /* one write of the guest's bytes to the host stream */
	DOOR_STAGES
};

/** One door's counters. */
struct door_meter {
	uint64_t connections; /* accepted, ever */
	uint64_t active; /* tied to a stream in the guest now */
	uint64_t waiting; /* for the workload, or for its port to be listened on, now */
	uint64_t refused; /* closed without having reached a program in the guest, ever */
	uint64_t bytes_in, bytes_out; /* to the guest, from the guest */
	struct histogram stage[DOOR_STAGES];
};

/** The file. door[id - 1] belongs to the door of that id; a new door of that id begins with zeroes. */
struct vm_stats {
	uint32_t magic, size;
	struct door_meter door[VM_DOORS_MAX];
};

/** Add one duration. */
void histogram_add(struct histogram *histogram, uint64_t ns);
/** The upper bound of the bucket in which the @per_mille-th thousandth lies (500: median); 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, unsigned per_mille);

#endif
