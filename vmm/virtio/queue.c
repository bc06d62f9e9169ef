/* SPDX-License-Identifier: Apache-2.0 */
/* queue.c - split virtqueues, the device's side */
#include "vmm/virtio/queue.h"

#include <endian.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define LOAD_ACQUIRE(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define LOAD(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define STORE_RELEASE(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
/** Orders our store before our later load, against the driver's mirror image of it (§2.7.7.2, §2.7.10.1). */
#define FULL_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* The two event words lie behind the rings (§2.7.6, §2.7.8). */
static uint16_t *used_event(const struct virtqueue *q)
{
	return &q->avail->ring[q->size];
}

static uint16_t *avail_event(const struct virtqueue *q)
{
	return (uint16_t *)(void *)((uint8_t *)q->used + sizeof(struct vring_used) +
				    sizeof(struct vring_used_elem) * q->size);
}

int virtqueue_start(
	struct virtqueue *q, const struct memory *memory, const struct virtqueue_setup *setup, struct husk_error *err)
{
	uint32_t size = setup->size;
	if (!size || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)))
		return error_set(err, -EINVAL, "a virtqueue of %" PRIu32 " entries", size);
	if (setup->desc % 16 || setup->avail % 2 || setup->used % 4) /* §2.7 */
		return error_set(err, -EINVAL, "a virtqueue part is not aligned");
	void *desc = memory_at(memory, setup->desc, sizeof(struct vring_desc) * (uint64_t)size);
	void *avail = memory_at(memory, setup->avail, sizeof(struct vring_avail) + 2ULL * size + 2);
	void *used = memory_at(
		memory, setup->used, sizeof(struct vring_used) + sizeof(struct vring_used_elem) * (uint64_t)size + 2);
	if (!desc || !avail || !used)
		return error_set(err, -EFAULT, "a virtqueue part lies outside of guest memory");
	*q = (struct virtqueue){
		.ready = true,
		.event_idx = setup->features & (1ULL << VIRTIO_RING_F_EVENT_IDX),
		.indirect = setup->features & (1ULL << VIRTIO_RING_F_INDIRECT_DESC),
		.size = (uint16_t)size,
		.next_avail = setup->base,
		.seen_avail = setup->base,
		.memory = memory,
		.desc = desc,
		.avail = avail,
		.used = used,
	};
	q->next_used = le16toh(LOAD(&q->used->idx));
	virtqueue_enable_kicks(q);
	return 0;
}

uint16_t virtqueue_stop(struct virtqueue *q)
{
	uint16_t base = q->next_avail;
	*q = (struct virtqueue){0};
	return base;
}

static int broken(struct virtqueue *q, const char *why)
{
	q->broken = why;
	return -EPROTO;
}

/** The driver's index, when it stands ahead of ours: how many chains wait, or -EPROTO. */
static int waiting(struct virtqueue *q)
{
	q->seen_avail = le16toh(LOAD_ACQUIRE(&q->avail->idx));
	uint16_t n = (uint16_t)(q->seen_avail - q->next_avail);
	return n > q->size ? broken(q, "the available index ran ahead of the queue") : n;
}

/** The only read of a descriptor: what follows uses the copy. The barrier keeps the compiler from reading again. */
static struct vring_desc copy_descriptor(const struct vring_desc *from)
{
	struct vring_desc d;
	memcpy(&d, from, sizeof(d));
	__asm__ volatile("" : : "r"(&d) : "memory");
	return (struct vring_desc){
		.addr = le64toh(d.addr), .len = le32toh(d.len), .flags = le16toh(d.flags), .next = le16toh(d.next)};
}

static int add_buffer(struct virtqueue *q, struct virtqueue_chain *chain, const struct vring_desc *d)
{
	unsigned at = chain->n_read + chain->n_write;
	if (at == q->size)
		return broken(q, "a chain is longer than its queue");
	void *host = memory_at(q->memory, d->addr, d->len);
	if (!host)
		return broken(q, d->len ? "a descriptor leads out of guest memory" : "a descriptor of no bytes");
	chain->iov[at] = (struct iovec){.iov_base = host, .iov_len = d->len};
	if (d->flags & VRING_DESC_F_WRITE) {
		chain->n_write++;
		chain->write_bytes += d->len;
	} else if (chain->n_write) {
		return broken(q, "a readable descriptor follows a writable one");
	} else {
		chain->n_read++;
		chain->read_bytes += d->len;
	}
	return 0;
}

/** Walk the table @table of @n descriptors from @at on; *@indirect takes the descriptor of an indirect table that ends the
 *  walk, and is NULL inside of one (no nesting, §2.7.5.3.1). A walk of more than @n steps is a loop. */
static int walk(struct virtqueue *q, struct virtqueue_chain *chain, const struct vring_desc *table, uint32_t n,
	uint32_t at, struct vring_desc *indirect)
{
	for (uint32_t steps = 0; steps < n; steps++) {
		if (at >= n)
			return broken(q, "a descriptor's index is out of range");
		struct vring_desc d = copy_descriptor(&table[at]);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (!indirect || !q->indirect)
				return broken(q, "an indirect table where none may be");
			if (d.flags & VRING_DESC_F_NEXT)
				return broken(q, "an indirect table with a next descriptor");
			*indirect = d;
			return 0;
		}
		int rc = add_buffer(q, chain, &d);
		if (rc < 0)
			return rc;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		at = d.next;
	}
	return broken(q, "a chain of descriptors is a loop");
}

int virtqueue_pop(struct virtqueue *q, struct virtqueue_chain *chain)
{
	if (q->broken)
		return -EPROTO;
	if (q->seen_avail == q->next_avail) {
		int n = waiting(q);
		if (n <= 0)
			return n;
	}
	chain->n_read = chain->n_write = 0;
	chain->read_bytes = chain->write_bytes = 0;
	chain->head = le16toh(LOAD(&q->avail->ring[q->next_avail & (q->size - 1)]));

	struct vring_desc indirect = {0};
	int rc = walk(q, chain, q->desc, q->size, chain->head, &indirect);
	if (rc == 0 && (indirect.flags & VRING_DESC_F_INDIRECT)) {
		if (!indirect.len || indirect.len % sizeof(struct vring_desc))
			return broken(q, "an indirect table of a wrong size");
		const void *table = memory_at(q->memory, indirect.addr, indirect.len);
		if (!table)
			return broken(q, "an indirect table outside of guest memory");
		rc = walk(q, chain, table, indirect.len / sizeof(struct vring_desc), 0, NULL);
	}
	if (rc < 0)
		return rc;
	q->next_avail++;
	return 1;
}

void virtqueue_unpop(struct virtqueue *q, unsigned n)
{
	q->next_avail = (uint16_t)(q->next_avail - n);
}

void virtqueue_push(struct virtqueue *q, uint16_t head, uint32_t written)
{
	struct vring_used_elem *elem = &q->used->ring[q->next_used & (q->size - 1)];
	STORE(&elem->id, htole32(head));
	STORE(&elem->len, htole32(written));
	q->next_used++;
	STORE_RELEASE(&q->used->idx, htole16(q->next_used));
}

bool virtqueue_interrupt(struct virtqueue *q)
{
	uint16_t old = q->signalled, new = q->next_used;
	bool valid = q->signalled_valid;
	if (valid && old == new)
		return false;
	FULL_FENCE();
	q->signalled = new;
	q->signalled_valid = true;
	if (!q->event_idx)
		return !(le16toh(LOAD(&q->avail->flags)) & VRING_AVAIL_F_NO_INTERRUPT);
	return !valid || vring_need_event(le16toh(LOAD(used_event(q))), new, old);
}

bool virtqueue_enable_kicks(struct virtqueue *q)
{
	if (q->event_idx)
		STORE(avail_event(q), htole16(q->next_avail));
	else
		STORE(&q->used->flags, 0);
	FULL_FENCE();
	return le16toh(LOAD_ACQUIRE(&q->avail->idx)) != q->next_avail;
}

void virtqueue_disable_kicks(struct virtqueue *q)
{
	/* With EVENT_IDX there is nothing to do: the driver kicks only when it passes avail_event. */
	if (!q->event_idx)
		STORE(&q->used->flags, htole16(VRING_USED_F_NO_NOTIFY));
}

size_t iov_gather(const struct iovec *iov, unsigned n_iov, void *bytes, size_t n)
{
	size_t done = 0;
	for (unsigned i = 0; i < n_iov && done < n; i++) {
		size_t part = iov[i].iov_len < n - done ? iov[i].iov_len : n - done;
		memcpy((uint8_t *)bytes + done, iov[i].iov_base, part);
		done += part;
	}
	return done;
}

size_t iov_scatter(const struct iovec *iov, unsigned n_iov, const void *bytes, size_t n)
{
	size_t done = 0;
	for (unsigned i = 0; i < n_iov && done < n; i++) {
		size_t part = iov[i].iov_len < n - done ? iov[i].iov_len : n - done;
		memcpy(iov[i].iov_base, (const uint8_t *)bytes + done, part);
		done += part;
	}
	return done;
}

unsigned iov_slice(const struct iovec *iov, unsigned n_iov, uint64_t skip, uint64_t n, struct iovec *out)
{
	unsigned count = 0;
	for (unsigned i = 0; i < n_iov && n; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t part = iov[i].iov_len - skip < n ? iov[i].iov_len - skip : n;
		out[count++] = (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + skip, .iov_len = part};
		n -= part;
		skip = 0;
	}
	return count;
}
