/* SPDX-License-Identifier: Apache-2.0 */
/* fake_vsock.c - a guest's vsock driver for tests */
#include "tests/unit/fake_vsock.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fake_vsock guest;

static int accept_guest(void *data, uint32_t port)
{
	int pair[2];
	if (port != HOST_PORT || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -ECONNREFUSED;
	guest.host_end = pair[1];
	return pair[0];
}

void guest_fill_rx(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		fake_desc(guest.rx, (uint16_t)i, guest.rx_gpa[i], RX_BUFFER, VRING_DESC_F_WRITE, 0);
		fake_offer(guest.rx, (uint16_t)i);
	}
}

void guest_start_without_driver(void)
{
	struct husk_error err;
	struct fake_driver *d = &guest.driver;
	fake_init(d);
	fake_queue(d, VSOCK_RX, RX_SIZE);
	fake_queue(d, VSOCK_TX, 256);
	guest.rx = &d->queues[VSOCK_RX];
	guest.tx = &d->queues[VSOCK_TX];
	for (unsigned i = 0; i < RX_SIZE; i++)
		guest.rx_gpa[i] = fake_alloc(d, RX_BUFFER);
	guest.tx_gpa = fake_alloc(d, HEADER + (1u << 20));
	guest.buf_alloc = 1 << 20;
	guest.fwd_cnt = 0;
	guest.host_end = -1;
	if (loop_init(&guest.loop, &err) < 0 ||
		vsock_create(&guest.loop, VSOCK_CID_GUEST, accept_guest, NULL, &guest.vsock, &err) < 0)
		abort();
}

void guest_attach(unsigned rx_buffers)
{
	fake_attach(&guest.driver, vsock_device(guest.vsock), 2, VIRTIO_QUEUE_FEATURES);
	guest_fill_rx(rx_buffers);
	fake_kick(&guest.driver, VSOCK_RX);
}

void guest_start(unsigned rx_buffers)
{
	guest_start_without_driver();
	guest_attach(rx_buffers);
}

void guest_stop(void)
{
	vsock_destroy(guest.vsock);
	loop_destroy(&guest.loop);
	fake_destroy(&guest.driver);
	if (guest.host_end >= 0)
		close(guest.host_end);
}

void guest_rounds(unsigned n)
{
	while (n--)
		loop_round(&guest.loop, 0, NULL);
	fake_kick(&guest.driver, VSOCK_RX);
}

bool guest_get(struct virtio_vsock_hdr *h, void *payload)
{
	uint32_t id, size;
	if (!fake_used(guest.rx, &id, &size))
		return false;
	memcpy(h, guest.driver.ram + guest.rx_gpa[id], HEADER);
	if (payload)
		memcpy(payload, guest.driver.ram + guest.rx_gpa[id] + HEADER, size - HEADER);
	fake_offer(guest.rx, (uint16_t)id);
	return size == HEADER + h->len;
}

bool guest_expect(uint16_t op, struct virtio_vsock_hdr *h)
{
	struct virtio_vsock_hdr mine;
	h = h ? h : &mine;
	return guest_get(h, NULL) && h->op == op && h->src_cid == VSOCK_CID_HOST && h->dst_cid == VSOCK_CID_GUEST;
}

bool guest_quiet(void)
{
	struct virtio_vsock_hdr h;
	return !guest_get(&h, NULL);
}

unsigned guest_count(uint16_t op)
{
	struct virtio_vsock_hdr h;
	unsigned n = 0;
	while (guest_get(&h, NULL))
		n += h.op == op;
	return n;
}

void guest_put_raw(const struct virtio_vsock_hdr *h, const void *payload, uint32_t n)
{
	uint32_t id, size;
	memcpy(guest.driver.ram + guest.tx_gpa, h, HEADER);
	if (payload)
		memcpy(guest.driver.ram + guest.tx_gpa + HEADER, payload, n);
	fake_desc(guest.tx, 0, guest.tx_gpa, (uint32_t)HEADER + n, 0, 0);
	fake_offer(guest.tx, 0);
	fake_kick(&guest.driver, VSOCK_TX);
	while (fake_used(guest.tx, &id, &size))
		;
}

struct virtio_vsock_hdr guest_make(uint16_t op, uint32_t src, uint32_t dst, uint32_t n)
{
	return (struct virtio_vsock_hdr){.src_cid = VSOCK_CID_GUEST,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = src,
		.dst_port = dst,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.len = n,
		.buf_alloc = guest.buf_alloc,
		.fwd_cnt = guest.fwd_cnt};
}

void guest_put(uint16_t op, uint32_t flags, const void *payload, uint32_t n)
{
	struct virtio_vsock_hdr h = guest_make(op, GUEST_PORT, HOST_PORT, n);
	h.flags = flags;
	guest_put_raw(&h, payload, n);
}

void guest_answer(const struct virtio_vsock_hdr *h, uint16_t op, uint32_t flags, const void *payload, uint32_t n)
{
	struct virtio_vsock_hdr answer = guest_make(op, h->dst_port, h->src_port, n);
	answer.flags = flags;
	guest_put_raw(&answer, payload, n);
}

bool guest_open(void)
{
	guest_put(VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	return guest_expect(VIRTIO_VSOCK_OP_RESPONSE, NULL);
}
