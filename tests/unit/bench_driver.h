/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_driver.h - a driver of devices, without a guest, over whichever transport: what the device bench and the fuzzers use
 *
 * Theory of operation: the rings are fake_driver.h's. What a driver says to its transport goes through a table, bench_transport,
 * that exists for vhost-user (we are QEMU, on the other end of a socketpair) and for virtio-mmio (register accesses); what a
 * request looks like comes from a table of devices (bench_devices.c). Guest memory lies between pages that nobody may touch.
 */
#ifndef TESTS_BENCH_DRIVER_H
#define TESTS_BENCH_DRIVER_H

#include "tests/unit/fake_driver.h"

#include "vmm/virtio/mmio.h"
#include "vmm/virtio/vhost_user.h"

#define BENCH_QUEUE_SIZE 64
#define BENCH_PAGE 4096u
#define BENCH_PAGES 16 /* of scratch memory for requests, at bench->page */

struct bench;

struct bench_transport {
	const char *name;
	void (*create)(struct bench *b);
	void (*destroy)(struct bench *b);
	/** Reset, negotiate @features and start all queues where b->d has them. */
	bool (*start)(struct bench *b, uint64_t features);
	/** Ring the doorbell of queue @i. */
	void (*kick)(struct bench *b, unsigned i);
	/** Take the interrupts that came. */
	bool (*interrupted)(struct bench *b);
	/** Does the driver see that the device needs a reset? Where it cannot see it (§2.1.2 has no form in vhost-user) the
	 *  transport's owner has to. */
	bool (*needs_reset)(struct bench *b);
};
extern const struct bench_transport bench_vhost_user, bench_mmio;

struct bench_device {
	const char *name;
	unsigned n_queues;
	uint32_t eager; /* queues, a bit each, that the device reads whenever it is kicked */
	uint64_t features; /* that the driver wants, on top of the queue's own */
	struct virtio_device *(*create)(struct bench *b);
	void (*destroy)(struct bench *b);
	/** One ordinary request after a start; true when it is served as it should be. */
	bool (*request)(struct bench *b);
};
extern const struct bench_device bench_devices[];
extern const unsigned bench_n_devices;

struct bench {
	struct fake_driver d;
	struct loop loop;
	const struct bench_transport *transport;
	const struct bench_device *kind;
	struct virtio_device *device;
	void *parts[3]; /* of the device, its own business */
	int fd; /* of the device, or -1 */
	unsigned output; /* bytes that came out of the device on the host's side */
	uint64_t page; /* guest-physical */
	void *guards[2]; /* around guest memory */
	unsigned raised, failures;
	/* one of both */
	struct virtio_mmio *mmio;
	struct vhost_user *vhost;
	int socket, kicks[VIRTIO_QUEUES_MAX], calls[VIRTIO_QUEUES_MAX];
};

/** Memory, loop, device and transport; no queue runs yet. */
void bench_create(struct bench *b, const struct bench_device *kind, const struct bench_transport *transport);
void bench_destroy(struct bench *b);
/** Fresh rings, then transport->start(). */
bool bench_start(struct bench *b);
/** Kick and let the loop run until nothing is left to do. */
void bench_kick(struct bench *b, unsigned i);
/** Rounds of the loop until one brings nothing. */
void bench_settle(struct bench *b);
/** A chain of one buffer at b->page + @offset into queue @i, kicked. */
void bench_buffer(struct bench *b, unsigned i, uint32_t offset, uint32_t n, bool writable);
/** The next used element of queue @i; @n may be NULL. */
bool bench_used(struct bench *b, unsigned i, uint32_t *n);

/** One access to a register of the mmio transport. */
uint32_t bench_read(struct bench *b, uint32_t offset);
void bench_write(struct bench *b, uint32_t offset, uint32_t value);

#endif
