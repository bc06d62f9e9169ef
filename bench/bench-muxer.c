/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-muxer.c - the vsock muxer against a bare unix socketpair, without a guest
 *
 * Each way: one thread writes, one reads. Bare: write(2) of the given size into a socketpair, read(2) of 64 KiB. Muxer: the
 * guest's side is a thread that fills (or empties) the rings as a Linux guest would, packets of the write's size (towards
 * the guest buffers of 4 KiB, as its driver posts them), and a host thread at the socketpair; the device runs in a third,
 * kicked by eventfds only when the ring asks for it, with a meter as a door's connection has.
 *
 * Three busy threads on a machine of few cores scatter: short rounds, bare and muxer in turns, and of the pairs' ratios the
 * median and the worst hundredth. What the scheduler has no part in is the CPU time: of the bare pair's two threads, and of
 * the device's one, per GiB. With --raw, a line per case for bench.py: its name, what is wanted, the ratio of each round.
 */
#include "tests/unit/fake_driver.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/virtio/vsock.h"

#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#define BYTES (96ULL << 20) /* of a round: 20 to 100 ms */
#define ROUNDS 25
#define SIZE 128
#define HEADER sizeof(struct virtio_vsock_hdr)
#define RX_BUFFER 4096

static struct fake_driver d;
static struct fake_queue *rx, *tx;
static uint64_t rx_gpa[SIZE], tx_gpa[SIZE];
static size_t chunk;
static int kick[2], call[2];
static uint32_t host_port; /* of the connection */

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

static double cpu_seconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/** @arg: where the CPU time goes that it took. */
static void *device_thread(void *arg)
{
	loop.stopped = false;
	loop_run(&loop, NULL);
	*(double *)arg = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static int accept_guest(void *data, uint32_t port)
{
	return -ECONNREFUSED;
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
		.dst_port = host_port,
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
		host_port = h.src_port;
		fake_offer(rx, (uint16_t)id);
	}
	if (old != rx->avail_idx && guest_kick(rx, old))
		signal_fd(kick[0]);
	return bytes;
}

/** The guest accepts the connect that the muxer has asked for already. */
static void open_connection(void)
{
	uint32_t fwd, id, size;
	take_packets(&fwd);
	put_packet(0, VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
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

/** What a round took. */
struct cost {
	double rate; /* MB/s */
	double cpu; /* seconds per GiB */
};

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

static double per_gib(double seconds)
{
	return seconds * (double)(1ULL << 30) / (double)BYTES;
}

static struct cost bare(void)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	struct host writer = {pair[0], chunk}, reader = {pair[1], 65536};
	double begun = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
	double rate = run(host_writes, host_reads, &writer, &reader);
	close(pair[0]);
	close(pair[1]);
	return (struct cost){rate, per_gib(cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - begun)};
}

static struct cost muxer(bool to_guest)
{
	static struct door_meter meter;
	struct vsock *vsock;
	struct husk_error err;
	pthread_t device;
	double device_cpu;
	int pair[2], done = eventfd(0, EFD_CLOEXEC);
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
	fake_attach(&d, vsock_device(vsock), 2, VIRTIO_QUEUE_FEATURES);
	vsock_device(vsock)->transport = &ops;
	for (uint16_t i = 0; i < SIZE; i++) {
		rx_gpa[i] = fake_alloc(&d, RX_BUFFER);
		tx_gpa[i] = fake_alloc(&d, HEADER + 65536);
		fake_desc(rx, i, rx_gpa[i], RX_BUFFER, VRING_DESC_F_WRITE, 0);
		fake_offer(rx, i);
	}
	const struct vsock_dial dial = {.port = 7, .meter = &meter, .begun_ns = clock_monotonic_ns()};
	if (vsock_dial(vsock, pair[0], &dial, NULL, &err) < 0)
		abort();
	loop_add(&loop, &watches[0], kick[0], EPOLLIN, on_kick, &err);
	loop_add(&loop, &watches[1], kick[1], EPOLLIN, on_kick, &err);
	loop_add(&loop, &done_watch, done, EPOLLIN, on_done, &err);
	pthread_create(&device, NULL, device_thread, &device_cpu);
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
	return (struct cost){rate, per_gib(device_cpu)};
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/** The @per_hundred-th of ROUNDS values, which get sorted. */
static double quantile(double *values, int per_hundred)
{
	qsort(values, ROUNDS, sizeof(*values), compare);
	return values[(ROUNDS - 1) * per_hundred / 100];
}

static void compare_case(bool to_guest, bool raw)
{
	double b[ROUNDS], m[ROUNDS], ratio[ROUNDS], b_cpu[ROUNDS], m_cpu[ROUNDS];
	const char *name = to_guest ? "host to guest" : "guest to host";
	double wanted = to_guest ? 0.5 : 0.8;
	for (int i = -1; i < ROUNDS; i++) { /* the first one warms up */
		struct cost without = {0}, with;
		if (i & 1)
			without = bare();
		with = muxer(to_guest);
		if (!(i & 1))
			without = bare();
		if (i < 0)
			continue;
		b[i] = without.rate;
		m[i] = with.rate;
		ratio[i] = with.rate / without.rate;
		b_cpu[i] = without.cpu;
		m_cpu[i] = with.cpu;
	}
	if (raw) {
		printf("%s, %zu KiB\t%.1f", name, chunk >> 10, wanted);
		for (int i = 0; i < ROUNDS; i++)
			printf("\t%.3f", ratio[i]);
		printf("\n");
	} else {
		double median = quantile(ratio, 50);
		printf("%-14s %6zu %9.0f %9.0f %7.2f %7.2f %5d %7.1f %4s %10.0f %10.0f\n", name, chunk, quantile(b, 50),
			quantile(m, 50), median, quantile(ratio, 1), ROUNDS, wanted, median >= wanted ? "yes" : "NO",
			quantile(b_cpu, 50) * 1e3, quantile(m_cpu, 50) * 1e3);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	bool raw = argc > 1 && !strcmp(argv[1], "--raw");
	if (!raw)
		printf("%-14s %6s %9s %9s %7s %7s %5s %7s %4s %10s %10s\n", "direction", "write", "bare MB/s", "muxer",
			"ratio", "worst %", "n", "wanted", "met", "bare ms/Gi", "device");
	for (int to_guest = 0; to_guest < 2; to_guest++)
		for (chunk = 4096; chunk <= 65536; chunk *= 16)
			compare_case(to_guest, raw);
	return 0;
}
