/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - a VM's counters: a file in its runtime directory that the worker maps and everybody else reads
 *
 * Made by the engine with its full size before the worker starts, written by the worker alone through a shared mapping
 * (relaxed 64-bit stores), read with pread(2), so that a worker that truncates it hurts nobody. A VM that is started begins
 * with zeroes. Counts only grow, but for `active`, `waiting`, `used` and the balloon's; a reader sees each number whole and no
 * two of them at the same instant. Host byte order, one build; another magic is another husk's.
 *
 * What costs nothing is counted as it happens. What has to be looked for is as of `sampled_ns`, which VM_CONTROL_STATS makes now.
 */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include "base/state.h"

#define STATS_MAGIC 0x32534b48u /* "HKS2" */
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

/** The guest's memory, bytes. */
struct memory_meter {
	uint64_t limit; /* what the guest was given */
	uint64_t used; /* of it, what the host holds for it: what was touched and not given back; sampled */
	uint64_t given_back; /* through balloon and (`kvm`: QEMU does not tell) free page reports, ever; the guest may have touched
				it since; sampled */
	uint64_t balloon_target; /* what it is asked to give back in all; 0: nothing */
	uint64_t balloon_actual; /* what it says it has given back of that; on QEMU's word where QEMU has the balloon */
};

/** All disks together: what the guest asked for, and got. */
struct block_meter {
	uint64_t reads, writes, flushes, discards; /* requests; discards: with zeroing */
	uint64_t read_bytes, write_bytes;
	uint64_t errors; /* requests that were answered with an error */
};

/** The payload of all vsock streams, the agent's with them: there is no NIC. */
struct net_meter {
	uint64_t in_bytes, out_bytes; /* to the guest, from the guest */
};

/** The file. door[id - 1] belongs to the door of that id; a new door of that id begins with zeroes. */
struct vm_stats {
	uint32_t magic, size;
	uint64_t sampled_ns; /* CLOCK_REALTIME of the last sample; 0: none yet */
	struct memory_meter memory;
	struct block_meter block;
	struct net_meter net;
	uint64_t exits; /* of all vCPUs to the worker (KVM handles others itself), `kvm` machine; sampled; 0: not counted */
	struct door_meter door[VM_DOORS_MAX];
};

/** Add to a counter of the worker's own, which only one thread at a time writes. */
static inline void stats_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline void stats_set(uint64_t *value, uint64_t n)
{
	__atomic_store_n(value, n, __ATOMIC_RELAXED);
}

/** Add one duration. */
void histogram_add(struct histogram *histogram, uint64_t ns);
/** The upper bound of the bucket in which the @per_mille-th thousandth lies (500: median); 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, unsigned per_mille);

#endif
