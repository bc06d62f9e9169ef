/* SPDX-License-Identifier: Apache-2.0 */
/* bench_driver.c - a driver of devices over either transport (theory of operation: bench_driver.h) */
#include "tests/unit/bench_driver.h"

#include "base/fd.h"
#include "vmm/virtio/vhost_user_protocol.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define QEMU_ADDRESS 0x7f0000000000u /* where QEMU has guest memory */

static void must(bool fine, const char *what)
{
	if (fine)
		return;
	printf("Bail out! %s\n", what);
	abort();
}

/* ---- virtio-mmio ---- */

uint32_t bench_read(struct bench *b, uint32_t offset)
{
	uint32_t value;
	virtio_mmio_read(b->mmio, offset, &value, sizeof(value));
	return value;
}

void bench_write(struct bench *b, uint32_t offset, uint32_t value)
{
	virtio_mmio_write(b->mmio, offset, &value, sizeof(value));
}

static void on_interrupt(void *data)
{
	((struct bench *)data)->raised++;
}

static void on_mmio_failed(void *data, const char *why)
{
	((struct bench *)data)->failures++;
}

static void mmio_create(struct bench *b)
{
	const struct virtio_mmio_setup setup = {.loop = &b->loop,
		.memory = &b->d.memory,
		.interrupt = on_interrupt,
		.failed = on_mmio_failed,
		.data = b};
	must(virtio_mmio_create(&setup, b->device, &b->mmio, NULL) == 0, "no slot");
}

static void mmio_destroy(struct bench *b)
{
	virtio_mmio_destroy(b->mmio);
}

static void write_address(struct bench *b, uint32_t low, uint64_t gpa)
{
	bench_write(b, low, (uint32_t)gpa);
	bench_write(b, low + 4, (uint32_t)(gpa >> 32));
}

static bool mmio_start(struct bench *b, uint64_t features)
{
	uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	bench_write(b, VIRTIO_MMIO_STATUS, 0);
	bench_write(b, VIRTIO_MMIO_STATUS, status);
	for (uint32_t i = 0; i < 2; i++) {
		bench_write(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		bench_write(b, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * i));
	}
	bench_write(b, VIRTIO_MMIO_STATUS, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	if (bench_read(b, VIRTIO_MMIO_STATUS) != status)
		return false;
	for (unsigned i = 0; i < b->kind->n_queues; i++) {
		const struct fake_queue *q = &b->d.queues[i];
		bench_write(b, VIRTIO_MMIO_QUEUE_SEL, i);
		bench_write(b, VIRTIO_MMIO_QUEUE_NUM, q->size);
		write_address(b, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc_gpa);
		write_address(b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->avail_gpa);
		write_address(b, VIRTIO_MMIO_QUEUE_USED_LOW, q->used_gpa);
		bench_write(b, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	bench_write(b, VIRTIO_MMIO_STATUS, status |= VIRTIO_CONFIG_S_DRIVER_OK);
	return bench_read(b, VIRTIO_MMIO_STATUS) == status;
}

static void mmio_kick(struct bench *b, unsigned i)
{
	bench_write(b, VIRTIO_MMIO_QUEUE_NOTIFY, i);
}

static bool mmio_interrupted(struct bench *b)
{
	uint32_t why = bench_read(b, VIRTIO_MMIO_INTERRUPT_STATUS);
	bench_write(b, VIRTIO_MMIO_INTERRUPT_ACK, why);
	bool raised = b->raised;
	b->raised = 0;
	return raised && why;
}

static bool mmio_needs_reset(struct bench *b)
{
	return bench_read(b, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

const struct bench_transport bench_mmio = {
	.name = "mmio",
	.create = mmio_create,
	.destroy = mmio_destroy,
	.start = mmio_start,
	.kick = mmio_kick,
	.interrupted = mmio_interrupted,
	.needs_reset = mmio_needs_reset,
};

/* ---- vhost-user ---- */

static void on_vhost_failed(void *data, struct husk_error *err)
{
	must(err->code == -EBADMSG, err->message); /* everything else would be our own fault */
	((struct bench *)data)->failures++;
}

static void vhost_create(struct bench *b)
{
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "no sockets");
	must(vhost_user_create(&b->loop, &b->d.memory, b->device, pair[0], on_vhost_failed, b, &b->vhost, NULL) == 0,
		"no transport");
	b->socket = pair[1];
	for (unsigned i = 0; i < b->kind->n_queues; i++) {
		b->kicks[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		b->calls[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
}

static void vhost_destroy(struct bench *b)
{
	vhost_user_destroy(b->vhost);
	close(b->socket);
	for (unsigned i = 0; i < b->kind->n_queues; i++) {
		close(b->kicks[i]);
		close(b->calls[i]);
	}
}

static void send_message(struct bench *b, uint32_t request, const void *payload, uint32_t n, int fd)
{
	uint8_t bytes[512];
	const struct vhost_user_header h = {.request = request, .flags = 1, .size = n};
	memcpy(bytes, &h, sizeof(h));
	memcpy(bytes + sizeof(h), payload, n);
	fd_send(b->socket, bytes, sizeof(h) + n, &fd, fd >= 0);
	bench_settle(b);
}

static void send_state(struct bench *b, uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_user_vring_state state = {index, num};
	send_message(b, request, &state, sizeof(state), -1);
}

static void vhost_stop(struct bench *b)
{
	uint8_t reply[64];
	for (unsigned i = 0; i < b->kind->n_queues; i++) {
		send_state(b, VHOST_USER_GET_VRING_BASE, i, 0);
		must(read(b->socket, reply, sizeof(reply)) > 0, "no answer");
		must(read(b->socket, reply, sizeof(reply)) < 0, "an answer too many");
	}
}

static bool vhost_start(struct bench *b, uint64_t features)
{
	const struct vhost_user_memory table = {.n_regions = 1, .regions = {{0, FAKE_RAM, QEMU_ADDRESS, 0}}};

	vhost_stop(b);
	features |= VHOST_USER_F_PROTOCOL_FEATURES;
	send_message(b, VHOST_USER_SET_FEATURES, &features, sizeof(features), -1);
	send_message(b, VHOST_USER_SET_MEM_TABLE, &table, 8 + 32, b->d.memory.fd);
	for (unsigned i = 0; i < b->kind->n_queues; i++) {
		const struct fake_queue *q = &b->d.queues[i];
		const uint64_t index = i;
		const struct vhost_user_vring_addr addr = {.index = i,
			.desc = QEMU_ADDRESS + q->desc_gpa,
			.avail = QEMU_ADDRESS + q->avail_gpa,
			.used = QEMU_ADDRESS + q->used_gpa};
		send_state(b, VHOST_USER_SET_VRING_NUM, i, q->size);
		send_state(b, VHOST_USER_SET_VRING_BASE, i, 0);
		send_message(b, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
		send_message(b, VHOST_USER_SET_VRING_KICK, &index, sizeof(index), b->kicks[i]);
		send_message(b, VHOST_USER_SET_VRING_CALL, &index, sizeof(index), b->calls[i]);
		send_state(b, VHOST_USER_SET_VRING_ENABLE, i, 1);
	}
	for (unsigned i = 0; i < b->kind->n_queues; i++)
		if (!b->device->queues[i].ready)
			return false;
	return true;
}

static void vhost_kick(struct bench *b, unsigned i)
{
	uint64_t one = 1;
	must(write(b->kicks[i], &one, sizeof(one)) == sizeof(one), "no kick");
}

static bool vhost_interrupted(struct bench *b)
{
	uint64_t count;
	bool any = false;
	for (unsigned i = 0; i < b->kind->n_queues; i++)
		any |= read(b->calls[i], &count, sizeof(count)) == sizeof(count);
	return any;
}

static bool vhost_needs_reset(struct bench *b)
{
	return b->failures;
}

const struct bench_transport bench_vhost_user = {
	.name = "vhost-user",
	.create = vhost_create,
	.destroy = vhost_destroy,
	.start = vhost_start,
	.kick = vhost_kick,
	.interrupted = vhost_interrupted,
	.needs_reset = vhost_needs_reset,
};

/* ---- either ---- */

/** Pages before and behind guest memory that nobody may touch; where something else lies already it is left alone. */
static void guard(struct bench *b)
{
	uint8_t *const places[] = {b->d.ram - BENCH_PAGE, b->d.ram + FAKE_RAM};
	for (unsigned i = 0; i < 2; i++) {
		void *at = mmap(
			places[i], BENCH_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		b->guards[i] = at == MAP_FAILED ? NULL : at;
	}
}

static void unguard(struct bench *b)
{
	for (unsigned i = 0; i < 2; i++)
		if (b->guards[i])
			munmap(b->guards[i], BENCH_PAGE);
}

void bench_create(struct bench *b, const struct bench_device *kind, const struct bench_transport *transport)
{
	*b = (struct bench){.kind = kind, .transport = transport, .fd = -1};
	fake_init(&b->d);
	guard(b);
	must(loop_init(&b->loop, NULL) == 0, "no loop");
	b->d.allocated = BENCH_PAGE;
	b->page = fake_alloc(&b->d, BENCH_PAGE * BENCH_PAGES);
	b->d.allocated = (b->d.allocated + BENCH_PAGE - 1) & ~(uint64_t)(BENCH_PAGE - 1);
	b->device = kind->create(b);
	must(b->device && b->device->n_queues == kind->n_queues, "no device");
	transport->create(b);
}

void bench_destroy(struct bench *b)
{
	b->transport->destroy(b);
	b->kind->destroy(b);
	if (b->fd >= 0)
		close(b->fd);
	loop_destroy(&b->loop);
	unguard(b);
	fake_destroy(&b->d);
}

bool bench_start(struct bench *b)
{
	uint64_t rings = b->page + BENCH_PAGE * BENCH_PAGES;

	b->d.allocated = rings;
	for (unsigned i = 0; i < b->kind->n_queues; i++)
		fake_queue(&b->d, i, BENCH_QUEUE_SIZE);
	memset(b->d.ram + rings, 0, b->d.allocated - rings);
	bool started = b->transport->start(b, VIRTIO_QUEUE_FEATURES | b->kind->features);
	b->failures = b->raised = 0;
	bench_settle(b);
	(void)b->transport->interrupted(b);
	return started;
}

void bench_settle(struct bench *b)
{
	for (unsigned i = 0; i < 3; i++)
		must(loop_round(&b->loop, 0, NULL) >= 0, "no round");
}

void bench_kick(struct bench *b, unsigned i)
{
	b->transport->kick(b, i);
	bench_settle(b);
}

void bench_buffer(struct bench *b, unsigned i, uint32_t offset, uint32_t n, bool writable)
{
	struct fake_queue *q = &b->d.queues[i];
	fake_desc(q, q->avail_idx % q->size, b->page + offset, n, writable ? VRING_DESC_F_WRITE : 0, 0);
	fake_offer(q, q->avail_idx % q->size);
	bench_kick(b, i);
}

bool bench_used(struct bench *b, unsigned i, uint32_t *n)
{
	uint32_t id, size;
	return fake_used(&b->d.queues[i], &id, n ? n : &size);
}
