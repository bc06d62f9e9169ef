/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus.h - who answers at which address: guest-physical addresses without memory, and I/O ports
 *
 * Theory of operation: a bus is a sorted list of windows that do not overlap. An access belongs to a window when it lies
 * wholly within; what belongs to none is answered as an empty bus does, reads with all ones, writes with nothing, and
 * counted. Addresses and widths are the guest's: a device gets the offset in its window and 1 to 8 bytes.
 */
#ifndef VMM_MACHINE_KVM_BUS_H
#define VMM_MACHINE_KVM_BUS_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define BUS_WINDOWS_MAX 32
#define BUS_ACCESS_MAX 8 /* bytes of one access */

/** @n: 1 to BUS_ACCESS_MAX bytes. A read fills all of them. */
struct bus_ops {
	void (*read)(void *data, uint64_t offset, void *bytes, unsigned n);
	void (*write)(void *data, uint64_t offset, const void *bytes, unsigned n);
	/** False for an offset that may be accessed without the bus's lock; NULL: none may. */
	bool (*needs_lock)(uint64_t offset);
};

struct bus_window {
	uint64_t base, size;
	const struct bus_ops *ops;
	void *data;
};

/** Zero-initialised is empty. Its windows do not change once it is used. */
struct bus {
	pthread_mutex_t *lock; /* taken for each access that needs it; NULL: one thread alone uses the bus */
	unsigned n;
	struct bus_window windows[BUS_WINDOWS_MAX];
	uint64_t unclaimed; /* accesses that nobody answered; atomic */
};

/** -EINVAL: an empty window or one that wraps; -EEXIST: it overlaps another; -ENOSPC. */
int bus_add(
	struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *data, struct husk_error *err);
void bus_read(struct bus *bus, uint64_t address, void *bytes, unsigned n);
void bus_write(struct bus *bus, uint64_t address, const void *bytes, unsigned n);

#endif
