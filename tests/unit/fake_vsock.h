/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_vsock.h - a guest's vsock driver for tests: one muxer, its packets written and read by hand
 *
 * One guest per process, as everything is in `guest`. Packets of the device are taken in order by guest_get(), which gives the
 * buffer back at once; packets to it are put one at a time.
 */
#ifndef TESTS_FAKE_VSOCK_H
#define TESTS_FAKE_VSOCK_H

#include "tests/unit/fake_driver.h"
#include "vmm/virtio/vsock_internal.h"

#define RX_SIZE 64
#define RX_BUFFER 4096
#define HEADER sizeof(struct virtio_vsock_hdr)
#define GUEST_PORT 7000u /* of the guest's program in connections that it makes */
#define HOST_PORT 5000u /* the only one of the host that accepts them */

struct fake_vsock {
	struct fake_driver driver;
	struct loop loop;
	struct vsock *vsock;
	struct fake_queue *rx, *tx;
	uint64_t rx_gpa[RX_SIZE], tx_gpa; /* tx_gpa: room for a header and 1 MiB */
	uint32_t buf_alloc, fwd_cnt; /* the credit that guest_make() writes into packets */
	int host_end; /* the test's end of the last accepted connection, -1: none */
};
extern struct fake_vsock guest;

/** A muxer, its driver up with @rx_buffers receive buffers. */
void guest_start(unsigned rx_buffers);
/** The same without a driver yet; guest_attach() brings it up. */
void guest_start_without_driver(void);
void guest_attach(unsigned rx_buffers);
/** Destroy the muxer, close host_end. */
void guest_stop(void);
/** @n rounds of the loop and a kick. */
void guest_rounds(unsigned n);
/** Offer the first @n receive buffers. */
void guest_fill_rx(unsigned n);

/** The next packet of the device; false when there is none. @payload (may be NULL): room for RX_BUFFER bytes. */
bool guest_get(struct virtio_vsock_hdr *h, void *payload);
/** True when the next packet is of operation @op (@h may be NULL). */
bool guest_expect(uint16_t op, struct virtio_vsock_hdr *h);
/** True when there is no packet. */
bool guest_quiet(void);
/** Take what there is; how many were of operation @op. */
unsigned guest_count(uint16_t op);

struct virtio_vsock_hdr guest_make(uint16_t op, uint32_t src, uint32_t dst, uint32_t n);
void guest_put_raw(const struct virtio_vsock_hdr *h, const void *payload, uint32_t n);
/** A packet of the connection GUEST_PORT - HOST_PORT. */
void guest_put(uint16_t op, uint32_t flags, const void *payload, uint32_t n);
/** A packet in answer to @h, one of the device's. */
void guest_answer(const struct virtio_vsock_hdr *h, uint16_t op, uint32_t flags, const void *payload, uint32_t n);
/** Connect GUEST_PORT to HOST_PORT. */
bool guest_open(void);

#endif
