/* SPDX-License-Identifier: Apache-2.0 */
/* bus.c - who answers at which address (theory of operation: bus.h) */
#include "vmm/machine/kvm/bus.h"

#include <inttypes.h>
#include <string.h>

int bus_add(
	struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *data, struct husk_error *err)
{
	unsigned at = 0;

	if (!size || base + (size - 1) < base)
		return error_set(err, -EINVAL, "a bus window at 0x%" PRIx64 " of 0x%" PRIx64 " bytes", base, size);
	if (bus->n == BUS_WINDOWS_MAX)
		return error_set(err, -ENOSPC, "more than %d windows on a bus", BUS_WINDOWS_MAX);
	for (unsigned i = 0; i < bus->n; i++) {
		const struct bus_window *w = &bus->windows[i];
		if (base <= w->base + (w->size - 1) && w->base <= base + (size - 1))
			return error_set(err, -EEXIST, "a bus window at 0x%" PRIx64 " overlaps the one at 0x%" PRIx64,
				base, w->base);
		if (w->base < base)
			at = i + 1;
	}
	memmove(&bus->windows[at + 1], &bus->windows[at], (bus->n - at) * sizeof(bus->windows[0]));
	bus->windows[at] = (struct bus_window){.base = base, .size = size, .ops = ops, .data = data};
	bus->n++;
	return 0;
}

/** The window that [@address, @address + @n) lies in, or NULL. */
static const struct bus_window *find(struct bus *bus, uint64_t address, unsigned n)
{
	unsigned low = 0, high = bus->n;

	while (low < high) {
		unsigned middle = (low + high) / 2;
		const struct bus_window *w = &bus->windows[middle];
		if (address < w->base)
			high = middle;
		else if (address - w->base >= w->size)
			low = middle + 1;
		else if (n && n <= BUS_ACCESS_MAX && n <= w->size - (address - w->base))
			return w;
		else
			break;
	}
	__atomic_fetch_add(&bus->unclaimed, 1, __ATOMIC_RELAXED);
	return NULL;
}

/** The lock that an access at @offset of @w needs, taken; or NULL. */
static pthread_mutex_t *lock_for(struct bus *bus, const struct bus_window *w, uint64_t offset)
{
	if (!bus->lock || (w->ops->needs_lock && !w->ops->needs_lock(offset)))
		return NULL;
	pthread_mutex_lock(bus->lock);
	return bus->lock;
}

static void unlock(pthread_mutex_t *lock)
{
	if (lock)
		pthread_mutex_unlock(lock);
}

void bus_read(struct bus *bus, uint64_t address, void *bytes, unsigned n)
{
	const struct bus_window *w = find(bus, address, n);

	if (!w) {
		memset(bytes, 0xff, n);
		return;
	}
	pthread_mutex_t *lock = lock_for(bus, w, address - w->base);
	w->ops->read(w->data, address - w->base, bytes, n);
	unlock(lock);
}

void bus_write(struct bus *bus, uint64_t address, const void *bytes, unsigned n)
{
	const struct bus_window *w = find(bus, address, n);

	if (!w)
		return;
	pthread_mutex_t *lock = lock_for(bus, w, address - w->base);
	w->ops->write(w->data, address - w->base, bytes, n);
	unlock(lock);
}
