/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-blk.c - 4 KiB random reads of a cached file through the block device, against a bare preadv loop, without a guest
 *
 * The guest's side fills a ring with a batch of requests, as Linux does: an indirect table of header, page and status each.
 * It rings an eventfd, as the kvm machine's ioeventfd does, the loop brings the kick to the device, the device answers through
 * another eventfd, the guest's side takes the answers and checks them. All of that is in one thread and counts. Bare: one
 * preadv per page, into the same guest pages, at the same offsets. Bare and device in turns; of the pairs' ratios the median
 * and the worst hundredth. With --raw, a line per case for bench.py: its name, what is wanted, the ratio of each round. The
 * name of a directory decides where the file lies (TMPDIR, else /tmp).
 */
#include "tests/unit/fake_driver.h"

#include "base/cleanup.h"
#include "base/loop.h"
#include "vmm/virtio/blk.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#define FILE_BYTES (128ULL << 20)
#define PAGE 4096
#define READS 16384 /* of a round */
#define ROUNDS 41
#define RING 128
#define PAGES 2048 /* of the guest, taken in turns */

static struct fake_driver d;
static struct loop loop;
static struct loop_watch kick_watch;
static int call_fd;
static uint64_t offsets[READS], tables[RING], headers[RING], status, pages;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void ring(int fd)
{
	uint64_t one = 1;
	if (write(fd, &one, sizeof(one)) < 0)
		die("write an eventfd");
}

static void answer(int fd)
{
	uint64_t count;
	if (read(fd, &count, sizeof(count)) < 0)
		die("read an eventfd");
}

/** This thread's time: nothing here waits for another one, so on an idle machine it is the clock's, and on a busy one it does
 *  not count the others. */
static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- the transport ---- */

static void notify(void *transport, unsigned queue)
{
	ring(call_fd);
}

static void again(void *transport, unsigned queue)
{
	ring(kick_watch.fd);
}

static void needs_reset(void *transport, const char *why)
{
	fprintf(stderr, "device broken: %s\n", why);
	exit(1);
}

static const struct virtio_transport_ops ops = {.notify = notify, .again = again, .needs_reset = needs_reset};

static void on_kick(struct loop_watch *watch, uint32_t events)
{
	answer(watch->fd);
	d.device->ops->kick(d.device, 0);
}

/* ---- the guest ---- */

/** Header, page and status of request @i of a batch. */
static void lay_out(unsigned i)
{
	struct vring_desc *table = (struct vring_desc *)(void *)(d.ram + tables[i]);
	table[0] = (struct vring_desc){.addr = headers[i], .len = 16, .flags = VRING_DESC_F_NEXT, .next = 1};
	table[1] = (struct vring_desc){.len = PAGE, .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, .next = 2};
	table[2] = (struct vring_desc){.addr = status + i, .len = 1, .flags = VRING_DESC_F_WRITE};
	fake_desc(&d.queues[0], (uint16_t)i, tables[i], 3 * sizeof(*table), VRING_DESC_F_INDIRECT, 0);
}

static void submit(unsigned i, uint64_t offset, uint64_t page)
{
	struct virtio_blk_outhdr *header = (void *)(d.ram + headers[i]);
	struct vring_desc *table = (struct vring_desc *)(void *)(d.ram + tables[i]);
	*header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = offset / 512};
	table[1].addr = page;
	d.ram[status + i] = 0xff;
	fake_offer(&d.queues[0], (uint16_t)i);
}

static void reap(unsigned depth)
{
	uint32_t id, n;
	struct fake_queue *q = &d.queues[0];
	answer(call_fd);
	for (unsigned i = 0; i < depth; i++)
		if (!fake_used(q, &id, &n) || n != PAGE + 1 || d.ram[status + id] != VIRTIO_BLK_S_OK)
			die("a request has failed");
	/* used_event (virtio 1.2 §2.7.7): an interrupt for the next answer */
	__atomic_store_n(&q->avail->ring[q->size], q->used_idx, __ATOMIC_RELAXED);
}

static double run_device(unsigned depth)
{
	uint64_t begun = now_ns();
	for (unsigned n = 0; n < READS; n += depth) {
		for (unsigned i = 0; i < depth; i++)
			submit(i, offsets[n + i], pages + (n + i) % PAGES * PAGE);
		ring(kick_watch.fd);
		if (loop_round(&loop, -1, NULL) < 0)
			die("wait");
		reap(depth);
	}
	return (double)(now_ns() - begun);
}

static double run_bare(int fd)
{
	uint64_t begun = now_ns();
	for (unsigned n = 0; n < READS; n++) {
		struct iovec iov = {.iov_base = d.ram + pages + n % PAGES * PAGE, .iov_len = PAGE};
		if (preadv(fd, &iov, 1, (off_t)offsets[n]) != PAGE)
			die("preadv");
	}
	return (double)(now_ns() - begun);
}

/** What was read last lies where it belongs. */
static void check(void)
{
	for (unsigned n = READS - PAGES; n < READS; n++) {
		uint64_t mark;
		memcpy(&mark, d.ram + pages + n % PAGES * PAGE, sizeof(mark));
		if (mark != offsets[n])
			die("wrong bytes");
	}
	memset(d.ram + pages, 0, PAGES * PAGE);
}

/* ---- the cases ---- */

static int make_file(const char *directory)
{
	static uint64_t page[PAGE / sizeof(uint64_t)];
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		die(directory);
	for (uint64_t at = 0; at < FILE_BYTES; at += PAGE) {
		page[0] = at;
		if (pwrite(fd, page, PAGE, (off_t)at) != PAGE)
			die("write the file");
	}
	uint64_t random = 88172645463325252ULL;
	for (unsigned n = 0; n < READS; n++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		offsets[n] = random % (FILE_BYTES / PAGE) * PAGE;
	}
	return fd;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void measure(const char *name, const char *wanted, unsigned depth, int fd, bool raw)
{
	double bare[ROUNDS], device[ROUNDS], ratio[ROUNDS];
	for (int i = -1; i < ROUNDS; i++) { /* the first warms up */
		double a = run_bare(fd), b;
		check();
		b = run_device(depth);
		check();
		if (i >= 0) {
			bare[i] = a / READS;
			device[i] = b / READS;
			ratio[i] = a / b;
		}
	}
	if (raw) {
		printf("%s\t%s", name, wanted);
		for (unsigned i = 0; i < ROUNDS; i++)
			printf("\t%.4f", ratio[i]);
		printf("\n");
		return;
	}
	qsort(bare, ROUNDS, sizeof(double), compare_doubles);
	qsort(device, ROUNDS, sizeof(double), compare_doubles);
	qsort(ratio, ROUNDS, sizeof(double), compare_doubles);
	printf("%-28s bare %5.0f ns, device %5.0f ns a read (p50), ratio p50 %.3f p99 %.3f, n %d, wanted %s\n", name,
		bare[ROUNDS / 2], device[ROUNDS / 2], ratio[ROUNDS / 2], ratio[0], ROUNDS, wanted);
}

static void start(struct blk *blk)
{
	struct husk_error err;
	fake_init(&d);
	fake_queue(&d, 0, RING);
	fake_attach(&d, blk_device(blk), 1, VIRTIO_QUEUE_FEATURES);
	d.device->transport = &ops;
	for (unsigned i = 0; i < RING; i++) {
		tables[i] = fake_alloc(&d, 64);
		headers[i] = fake_alloc(&d, 16);
	}
	status = fake_alloc(&d, RING);
	pages = (fake_alloc(&d, (PAGES + 1) * PAGE) + PAGE - 1) / PAGE * PAGE;
	for (unsigned i = 0; i < RING; i++)
		lay_out(i);
	call_fd = eventfd(0, EFD_CLOEXEC);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop_init(&loop, &err) < 0 || loop_add(&loop, &kick_watch, fd, EPOLLIN, on_kick, &err) < 0)
		die("make a loop");
}

int main(int argc, char **argv)
{
	bool raw = argc > 1 && !strcmp(argv[1], "--raw");
	const char *directory = argc > 1 + raw ? argv[1 + raw] : getenv("TMPDIR");
	struct disk *disk = NULL;
	struct blk *blk = NULL;
	int fd = make_file(directory ? directory : "/tmp");
	if (disk_open_file(fcntl(fd, F_DUPFD_CLOEXEC, 0), true, &disk, NULL) < 0 ||
		blk_create(disk, "bench", 1, &blk, NULL) < 0)
		die("make the device");
	start(blk);
	measure("32 at once", "0.8", 32, fd, raw);
	measure("one at a time", "0", 1, fd, raw);
	return 0;
}
