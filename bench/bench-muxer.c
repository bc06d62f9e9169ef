/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-muxer.c - the vsock muxer against a bare unix socketpair, without a guest
 *
 * Each way: one thread writes, one reads. Bare: write(2) of the given size into a socketpair, read(2) of 64 KiB. Muxer: the
 * guest's side is a thread that fills (or empties) the rings as a Linux guest would, packets of the write's size (towards
 * the guest buffers of 4 KiB, as its driver posts them), and a host thread at the socketpair; the device runs in a third,
 * kicked by eventfds only when the ring asks for it. Prints MB/s and the ratio; alternating rounds, the median of them.
 */
#include "tests/unit/fake_driver.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/virtio/vsock.h"

#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <string.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define BYTES (512ULL << 20)
#define ROUNDS 5
#define SIZE 128
#define HEADER sizeof(struct virtio_vsock_hdr)
#define RX_BUFFER 4096

static struct fake_driver d;
static struct fake_queue *rx, *tx;
static uint64_t rx_gpa[SIZE], tx_gpa[SIZE];
static size_t chunk;
static int kick[2], call[2], accepted;

static void signal_fd(int fd)
{
	uint64_t one = 1;
	if (write(fd, &one, sizeof(one)) < 0)
		abort();
}

static void wait_fd(int fd)
{
	uint64_t count;
	if (read(fd, &count, sizeof(count)) < 0)
		abort();
}

/* ---- the transport: its eventfds are those of vhost-user ---- */

static void notify(void *transport, unsigned queue)
{
	signal_fd(call[queue]);
}

static void again(void *transport, unsigned queue)
{
	signal_fd(kick[queue]);
}

static void needs_reset(void *transport, const char *why)
{
	fprintf(stderr, "device broken: %s\n", why);
	exit(1);
}

static const struct virtio_transport_ops ops = {.notify = notify, .again = again, .needs_reset = needs_reset};
static struct loop loop;
static struct loop_watch watches[2], done_watch;

static void on_kick(struct loop_watch *watch, uint32_t events)
{
	wait_fd(watch->fd);
	d.device->ops->kick(d.device, (unsigned)(watch - watches));
}

static void on_done(struct loop_watch *watch, uint32_t events)
{
	wait_fd(watch->fd);
	loop_stop(&loop);
}

static void *device_thread(void *arg)
{
	loop.stopped = false;
	loop_run(&loop, NULL);
	return NULL;
}

static int accept_guest(void *data, uint32_t port)
{
	return accepted;
}

/* ---- the guest's driver ---- */

static bool guest_kick(struct fake_queue *q, uint16_t old)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uint16_t *event = (uint16_t *)(void *)((uint8_t *)q->used + 4 + 8 * q->size);
	return vring_need_event(__atomic_load_n(event, __ATOMIC_RELAXED), q->avail_idx, old);
}

/** Ask for an interrupt at the @ahead-th used buffer from here and sleep until it comes, unless something is there. */
static void guest_wait(struct fake_queue *q, int fd, uint16_t ahead)
{
	__atomic_store_n(&q->avail->ring[q->size], (uint16_t)(q->used_idx + ahead), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((uint16_t)(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) - q->used_idx) <= ahead)
		wait_fd(fd);
}

static void put_packet(uint16_t i, uint16_t op, uint32_t n, uint32_t fwd_cnt)
{
	struct virtio_vsock_hdr h = {.src_cid = 3,
		.dst_cid = 2,
		.src_port = 7,
		.dst_port = 5000,
		.len = n,
		.type = 1,
		.op = op,
		.buf_alloc = 262144,
		.fwd_cnt = fwd_cnt};
	memcpy(d.ram + tx_gpa[i], &h, HEADER);
	fake_desc(tx, i, tx_gpa[i], (uint32_t)(HEADER + n), 0, 0);
	uint16_t old = tx->avail_idx;
	fake_offer(tx, i);
	if (guest_kick(tx, old))
		signal_fd(kick[1]);
}

/** Take the device's packets; bytes of payload, and what it tells of our credit. */
static uint64_t take_packets(uint32_t *peer_fwd)
{
	uint32_t id, size;
	uint64_t bytes = 0;
	uint16_t old = rx->avail_idx;
	while (fake_used(rx, &id, &size)) {
		struct virtio_vsock_hdr h;
		static char sink[RX_BUFFER];
		memcpy(&h, d.ram + rx_gpa[id], HEADER);
		memcpy(sink, d.ram + rx_gpa[id] + HEADER, size - HEADER);
		bytes += h.len;
		*peer_fwd = h.fwd_cnt;
		fake_offer(rx, (uint16_t)id);
	}
	if (old != rx->avail_idx && guest_kick(rx, old))
		signal_fd(kick[0]);
	return bytes;
}

static void open_connection(void)
{
	uint32_t fwd;
	put_packet(0, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
	guest_wait(rx, call[0], 0);
	take_packets(&fwd);
	uint32_t id, size;
	while (!fake_used(tx, &id, &size))
		usleep(100);
}

static void *guest_sends(void *arg)
{
	uint16_t free_slots[SIZE], n_free = 0;
	uint32_t sent = 0, fwd = 0, id, size;
	for (uint16_t i = 0; i < SIZE; i++)
		free_slots[n_free++] = i;
	for (uint64_t left = BYTES; left;) {
		take_packets(&fwd);
		while (fake_used(tx, &id, &size))
			free_slots[n_free++] = (uint16_t)id;
		bool credit = sent - fwd + chunk <= 262144;
		if (credit && n_free) {
			put_packet(free_slots[--n_free], VIRTIO_VSOCK_OP_RW, (uint32_t)chunk, 0);
			sent += (uint32_t)chunk;
			left -= chunk;
		} else if (!credit) {
			guest_wait(rx, call[0], 0);
		} else {
			guest_wait(tx, call[1], SIZE / 2);
		}
	}
	return NULL;
}

static void *guest_receives(void *arg)
{
	uint32_t fwd = 0, told = 0, got = 0, id, size;
	for (uint64_t left = BYTES; left;) {
		uint64_t n = take_packets(&fwd);
		left -= n;
		got += (uint32_t)n;
		if (got - told >= 65536) {
			while (fake_used(tx, &id, &size))
				;
			put_packet((uint16_t)(tx->avail_idx % SIZE), VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, got);
			told = got;
		}
		if (!n)
			guest_wait(rx, call[0], 0);
	}
	return NULL;
}

/* ---- the host's program ---- */

struct host {
	int fd;
	size_t size;
};

static void *host_reads(void *arg)
{
	const struct host *h = arg;
	static char bytes[65536];
	for (uint64_t left = BYTES; left;) {
		ssize_t n = read(h->fd, bytes, h->size);
		if (n <= 0)
			abort();
		left -= (uint64_t)n;
	}
	return NULL;
}

static void *host_writes(void *arg)
{
	const struct host *h = arg;
	static char bytes[65536];
	for (uint64_t left = BYTES; left; left -= h->size)
		fd_write_all(h->fd, bytes, h->size);
	return NULL;
}

static double run(void *(*a)(void *), void *(*b)(void *), struct host *ha, struct host *hb)
{
	pthread_t threads[2];
	uint64_t start = clock_monotonic_ns();
	pthread_create(&threads[0], NULL, a, ha);
	pthread_create(&threads[1], NULL, b, hb);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return (double)BYTES * 1e3 / (double)(clock_monotonic_ns() - start);
}

static double bare(void)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	struct host writer = {pair[0], chunk}, reader = {pair[1], 65536};
	double rate = run(host_writes, host_reads, &writer, &reader);
	close(pair[0]);
	close(pair[1]);
	return rate;
}

static double muxer(bool to_guest)
{
	struct vsock *vsock;
	struct husk_error err;
	pthread_t device;
	int pair[2], done = eventfd(0, EFD_CLOEXEC);
	uint64_t features = VIRTIO_QUEUE_FEATURES;
	fake_init(&d);
	for (unsigned i = 0; i < 2; i++) {
		fake_queue(&d, i, SIZE);
		kick[i] = eventfd(0, EFD_CLOEXEC);
		call[i] = eventfd(0, EFD_CLOEXEC);
	}
	rx = &d.queues[0];
	tx = &d.queues[1];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || loop_init(&loop, &err) < 0 ||
		vsock_create(&loop, 3, accept_guest, NULL, &vsock, &err) < 0)
		abort();
	fd_set_nonblocking(pair[0], true);
	accepted = pair[0];
	fake_attach(&d, vsock_device(vsock), 2, features);
	vsock_device(vsock)->transport = &ops;
	for (uint16_t i = 0; i < SIZE; i++) {
		rx_gpa[i] = fake_alloc(&d, RX_BUFFER);
		tx_gpa[i] = fake_alloc(&d, HEADER + 65536);
		fake_desc(rx, i, rx_gpa[i], RX_BUFFER, VRING_DESC_F_WRITE, 0);
		fake_offer(rx, i);
	}
	loop_add(&loop, &watches[0], kick[0], EPOLLIN, on_kick, &err);
	loop_add(&loop, &watches[1], kick[1], EPOLLIN, on_kick, &err);
	loop_add(&loop, &done_watch, done, EPOLLIN, on_done, &err);
	pthread_create(&device, NULL, device_thread, NULL);
	open_connection();
	struct host host = {pair[1], to_guest ? chunk : 65536};
	double rate =
		to_guest ? run(host_writes, guest_receives, &host, NULL) : run(host_reads, guest_sends, &host, NULL);
	signal_fd(done);
	pthread_join(device, NULL);
	vsock_destroy(vsock);
	loop_destroy(&loop);
	for (unsigned i = 0; i < 2; i++) {
		close(kick[i]);
		close(call[i]);
	}
	close(done);
	close(pair[1]);
	fake_destroy(&d);
	return rate;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

int main(void)
{
	printf("%-16s %8s %12s %12s %7s\n", "direction", "write", "bare MB/s", "muxer MB/s", "ratio");
	for (int to_guest = 0; to_guest < 2; to_guest++)
		for (chunk = 4096; chunk <= 65536; chunk *= 16) {
			double b[ROUNDS], m[ROUNDS], ratio[ROUNDS];
			for (int i = 0; i < ROUNDS; i++) {
				b[i] = bare();
				m[i] = muxer(to_guest);
				ratio[i] = m[i] / b[i];
			}
			qsort(b, ROUNDS, sizeof(*b), compare);
			qsort(m, ROUNDS, sizeof(*m), compare);
			qsort(ratio, ROUNDS, sizeof(*ratio), compare);
			printf("%-16s %8zu %12.0f %12.0f %7.2f\n", to_guest ? "host to guest" : "guest to host", chunk,
				b[ROUNDS / 2], m[ROUNDS / 2], ratio[ROUNDS / 2]);
			fflush(stdout);
		}
	return 0;
}
