/* SPDX-License-Identifier: Apache-2.0 */
/* bench_devices.c - each device, and an ordinary request to it (theory of operation: bench_driver.h) */
#include "tests/unit/bench_driver.h"

#include "base/cleanup.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/vconsole_internal.h"
#include "vmm/virtio/vsock_internal.h"

#include <linux/virtio_blk.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* ---- blk: a sector is written and read back ---- */

static struct virtio_device *create_blk(struct bench *b)
{
	struct disk *disk = NULL;
	struct blk *blk = NULL;
	int fd = memfd_create("disk", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 1 << 20) < 0 || disk_open_file(fd, false, &disk, NULL) < 0 ||
		blk_create(disk, "bench", 2, &blk, NULL) < 0)
		return NULL;
	b->parts[0] = blk;
	b->parts[1] = disk;
	return blk_device(blk);
}

static void destroy_blk(struct bench *b)
{
	blk_destroy(b->parts[0]);
	disk_close(b->parts[1]);
}

/** Header, data, status; true when its status is OK. */
static bool blk_do(struct bench *b, unsigned queue, uint32_t type, uint32_t data, bool to_guest)
{
	const struct virtio_blk_outhdr header = {.type = type, .sector = 3};
	struct fake_queue *q = &b->d.queues[queue];
	uint8_t *status = b->d.ram + b->page + 64;

	memcpy(b->d.ram + b->page, &header, sizeof(header));
	*status = 0xee;
	fake_desc(q, 0, b->page, sizeof(header), VRING_DESC_F_NEXT, 1);
	fake_desc(q, 1, b->page + data, 512, VRING_DESC_F_NEXT | (to_guest ? VRING_DESC_F_WRITE : 0), 2);
	fake_desc(q, 2, b->page + 64, 1, VRING_DESC_F_WRITE, 0);
	fake_offer(q, 0);
	bench_kick(b, queue);
	return bench_used(b, queue, NULL) && *status == VIRTIO_BLK_S_OK;
}

static bool request_blk(struct bench *b)
{
	uint8_t *out = b->d.ram + b->page + 4096, *in = out + 4096;
	for (unsigned i = 0; i < 512; i++)
		out[i] = (uint8_t)(i * 7 + 1);
	memset(in, 0, 512);
	return blk_do(b, 0, VIRTIO_BLK_T_OUT, 4096, false) && blk_do(b, 1, VIRTIO_BLK_T_IN, 8192, true) &&
	       memcmp(in, out, 512) == 0;
}

/* ---- vsock: a program of the guest connects to the host ---- */

static int accept_guest(void *data, uint32_t port)
{
	struct bench *b = data;
	int pair[2];
	if (port != 5000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -ECONNREFUSED;
	if (b->fd >= 0)
		close(b->fd);
	b->fd = pair[1];
	return pair[0];
}

static struct virtio_device *create_vsock(struct bench *b)
{
	struct vsock *vsock = NULL;
	if (vsock_create(&b->loop, VSOCK_CID_GUEST, accept_guest, b, &vsock, NULL) < 0)
		return NULL;
	b->parts[0] = vsock;
	return vsock_device(vsock);
}

static void destroy_vsock(struct bench *b)
{
	vsock_destroy(b->parts[0]);
}

/** A packet with @n bytes behind its header, which lie at page 2 already. */
static void vsock_put(struct bench *b, uint16_t op, uint32_t n)
{
	const struct virtio_vsock_hdr h = {.src_cid = VSOCK_CID_GUEST,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = 7000,
		.dst_port = 5000,
		.len = n,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = 1 << 16};
	memcpy(b->d.ram + b->page + 8192 - sizeof(h), &h, sizeof(h));
	bench_buffer(b, VSOCK_TX, 8192 - sizeof(h), sizeof(h) + n, false);
}

/** Take packets until one is of operation @op. Over vhost-user a new driver may get what was meant for the last one: that
 *  transport cannot tell a reset from a pause, which connections have to survive. */
static bool vsock_expect(struct bench *b, uint16_t op)
{
	const struct virtio_vsock_hdr *answer = (const void *)(b->d.ram + b->page);
	for (unsigned n = 0; n < 300; n++) {
		memset(b->d.ram + b->page, 0, sizeof(*answer));
		bench_buffer(b, VSOCK_RX, 0, 4096, true);
		if (!bench_used(b, VSOCK_RX, NULL))
			return false;
		if (answer->op == op)
			return true;
	}
	return false;
}

static bool request_vsock(struct bench *b)
{
	char got[8] = "";
	vsock_put(b, VIRTIO_VSOCK_OP_REQUEST, 0);
	if (!vsock_expect(b, VIRTIO_VSOCK_OP_RESPONSE) || b->fd < 0)
		return false;
	memcpy(b->d.ram + b->page + 8192, "hello", 5);
	vsock_put(b, VIRTIO_VSOCK_OP_RW, 5);
	bool fine = recv(b->fd, got, sizeof(got), 0) == 5 && memcmp(got, "hello", 5) == 0;
	vsock_put(b, VIRTIO_VSOCK_OP_RST, 0);
	return fine && recv(b->fd, got, sizeof(got), 0) == 0;
}

/* ---- console: the handshake, and bytes to both ports ---- */

static size_t take_output(void *data, const struct iovec *iov, unsigned n_iov)
{
	struct bench *b = data;
	volatile uint8_t sum = 0;
	size_t n = 0;
	for (unsigned i = 0; i < n_iov; i++) {
		sum = (uint8_t)(sum + *(uint8_t *)iov[i].iov_base + ((uint8_t *)iov[i].iov_base)[iov[i].iov_len - 1]);
		n += iov[i].iov_len;
	}
	b->output += (unsigned)n;
	/* What comes from the host goes in meanwhile. */
	vconsole_input(b->parts[0], VCONSOLE_WORKLOAD, "input", 5);
	return n;
}

static const struct vconsole_end console_end = {.output = take_output};

static struct virtio_device *create_console(struct bench *b)
{
	struct virtio_console *console = NULL;
	if (vconsole_create(&console, NULL) < 0)
		return NULL;
	b->parts[0] = console;
	for (unsigned i = 0; i < VCONSOLE_PORTS; i++)
		vconsole_set_end(console, i, &console_end, b);
	return vconsole_device(console);
}

static void destroy_console(struct bench *b)
{
	vconsole_destroy(b->parts[0]);
}

static bool request_console(struct bench *b)
{
	const struct virtio_console_control ready = {.event = VIRTIO_CONSOLE_DEVICE_READY, .value = 1};
	const struct virtio_console_control *said = (const void *)(b->d.ram + b->page);
	memset(b->d.ram + b->page, 0, 4096);
	b->output = 0;
	bench_buffer(b, VCONSOLE_CONTROL_RX, 0, 64, true);
	memcpy(b->d.ram + b->page + 4096, &ready, sizeof(ready));
	bench_buffer(b, VCONSOLE_CONTROL_TX, 4096, sizeof(ready), false);
	if (!bench_used(b, VCONSOLE_CONTROL_TX, NULL) || !bench_used(b, VCONSOLE_CONTROL_RX, NULL) ||
		said->event != VIRTIO_CONSOLE_PORT_ADD)
		return false;
	bench_buffer(b, 1, 8192, 100, false);
	bench_buffer(b, 5, 8192, 11, false);
	return b->output == 111 && bench_used(b, 1, NULL) && bench_used(b, 5, NULL);
}

/* ---- rng ---- */

static struct virtio_device *create_rng(struct bench *b)
{
	struct rng *rng = NULL;
	if (rng_create(&rng, NULL) < 0)
		return NULL;
	b->parts[0] = rng;
	return rng_device(rng);
}

static void destroy_rng(struct bench *b)
{
	rng_destroy(b->parts[0]);
}

static bool request_rng(struct bench *b)
{
	static const uint8_t zeroes[64];
	uint32_t n = 0;
	memset(b->d.ram + b->page, 0, 64);
	bench_buffer(b, 0, 0, 64, true);
	return bench_used(b, 0, &n) && n == 64 && memcmp(b->d.ram + b->page, zeroes, 64) != 0;
}

/* ---- balloon: a page is given back, and reads as zeroes ---- */

static struct virtio_device *create_balloon(struct bench *b)
{
	struct balloon *balloon = NULL;
	if (balloon_create(&b->d.memory, &balloon, NULL) < 0)
		return NULL;
	b->parts[0] = balloon;
	return balloon_device(balloon);
}

static void destroy_balloon(struct bench *b)
{
	balloon_destroy(b->parts[0]);
}

static bool request_balloon(struct bench *b)
{
	uint8_t *page = b->d.ram + b->page + 8192;
	const uint32_t pfn = (uint32_t)((b->page + 8192) / BENCH_PAGE);
	*page = 1;
	memcpy(b->d.ram + b->page, &pfn, sizeof(pfn));
	bench_buffer(b, 0, 0, sizeof(pfn), false);
	if (*page != 0 || !bench_used(b, 0, NULL))
		return false;
	*page = 1; /* and a report of the same page */
	bench_buffer(b, 4, 8192, BENCH_PAGE, true);
	return *page == 0 && bench_used(b, 4, NULL);
}

const struct bench_device bench_devices[] = {
	{"blk", 2, 0x3, 1ULL << VIRTIO_BLK_F_FLUSH | 1ULL << VIRTIO_BLK_F_MQ, create_blk, destroy_blk, request_blk},
	{"vsock", 3, 1u << VSOCK_TX, 0, create_vsock, destroy_vsock, request_vsock},
	{"console", 6, 1u << 1 | 1u << VCONSOLE_CONTROL_TX | 1u << 5, 1ULL << VIRTIO_CONSOLE_F_MULTIPORT,
		create_console, destroy_console, request_console},
	{"rng", 1, 0x1, 0, create_rng, destroy_rng, request_rng},
	{"balloon", 5, 0x1f, 1ULL << VIRTIO_BALLOON_F_STATS_VQ | 1ULL << VIRTIO_BALLOON_F_REPORTING, create_balloon,
		destroy_balloon, request_balloon},
};
const unsigned bench_n_devices = ARRAY_SIZE(bench_devices);
