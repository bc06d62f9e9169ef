/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-user-test.c - the transport, with a socketpair in QEMU's place: a whole life, and messages nobody should send */
#include "tests/unit/fake_driver.h"

#include "base/fd.h"
#include "tests/tap.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/vhost_user.h"
#include "vmm/virtio/vhost_user_protocol.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define USER 0x7f0000000000u /* where QEMU has guest memory */

static struct loop loop;
static struct fake_driver d;
static struct disk *disk;
static struct blk *blk;
static struct vhost_user *transport;
static int sock, kick_fd, call_fd, failures, failure;

static void failed(void *data, struct husk_error *err)
{
	failures++;
	failure = err->code;
}

static void start(void)
{
	int pair[2], fd = memfd_create("disk", MFD_CLOEXEC);
	if (ftruncate(fd, 1 << 20) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		printf("Bail out! no disk\n");
	fake_init(&d);
	fake_queue(&d, 0, 64);
	disk_open_file(fd, false, &disk, NULL);
	blk_create(disk, "x", 1, &blk, NULL);
	failures = failure = 0;
	sock = pair[1];
	CHECK(vhost_user_create(&loop, &d.memory, blk_device(blk), pair[0], failed, NULL, &transport, NULL) == 0,
		"start");
}

static void stop(void)
{
	vhost_user_destroy(transport);
	blk_destroy(blk);
	disk_close(disk);
	fake_destroy(&d);
	close(sock);
}

static void rounds(void)
{
	for (int i = 0; i < 4; i++)
		loop_round(&loop, 0, NULL);
}

static void send_raw(
	uint32_t request, uint32_t flags, uint32_t size, const void *payload, size_t n, const int *fds, size_t n_fds)
{
	uint8_t bytes[1024];
	struct vhost_user_header h = {.request = request, .flags = flags, .size = size};
	memcpy(bytes, &h, sizeof(h));
	if (n)
		memcpy(bytes + sizeof(h), payload, n);
	fd_send(sock, bytes, sizeof(h) + n, fds, n_fds);
	rounds();
}

static void send_u64(uint32_t request, uint64_t value)
{
	send_raw(request, 1, 8, &value, 8, NULL, 0);
}

static void send_state(uint32_t request, uint32_t index, uint32_t num)
{
	struct vhost_user_vring_state state = {index, num};
	send_raw(request, 1, sizeof(state), &state, sizeof(state), NULL, 0);
}

static void send_fd(uint32_t request, uint64_t index, int fd)
{
	send_raw(request, 1, 8, &index, 8, &fd, 1);
}

/** The payload of a reply; its size, or -1. */
static ssize_t get(uint32_t request, void *payload, size_t room)
{
	struct vhost_user_header h;
	if (read(sock, &h, sizeof(h)) != sizeof(h) || h.request != request || h.flags != 5 || h.size > room)
		return -1;
	return read(sock, payload, h.size);
}

static void send_table(uint64_t user, uint32_t n_regions, size_t n_fds)
{
	struct vhost_user_memory table = {.n_regions = n_regions, .regions = {{0, FAKE_RAM, user, 0}}};
	int fds[8];
	for (size_t i = 0; i < n_fds; i++)
		fds[i] = d.memory.fd;
	send_raw(VHOST_USER_SET_MEM_TABLE, 1, 8 + 32 * (n_regions <= 8 ? n_regions : 8), &table,
		8 + 32 * (n_regions <= 8 ? n_regions : 8), fds, n_fds);
}

static void send_addr(uint32_t index, uint64_t offset)
{
	const struct fake_queue *q = &d.queues[0];
	struct vhost_user_vring_addr addr = {.index = index,
		.desc = USER + q->desc_gpa + offset,
		.avail = USER + q->avail_gpa,
		.used = USER + q->used_gpa};
	send_raw(VHOST_USER_SET_VRING_ADDR, 1, sizeof(addr), &addr, sizeof(addr), NULL, 0);
}

static void run_queue(void)
{
	send_u64(VHOST_USER_SET_FEATURES, VIRTIO_QUEUE_FEATURES | VHOST_USER_F_PROTOCOL_FEATURES);
	send_table(USER, 1, 1);
	send_state(VHOST_USER_SET_VRING_NUM, 0, 64);
	send_state(VHOST_USER_SET_VRING_BASE, 0, 0);
	send_addr(0, 0);
	kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	send_fd(VHOST_USER_SET_VRING_KICK, 0, kick_fd);
	send_fd(VHOST_USER_SET_VRING_CALL, 0, call_fd);
	send_state(VHOST_USER_SET_VRING_ENABLE, 0, 1);
}

static void test_life(void)
{
	uint64_t value = 0, one = 1;
	struct vhost_user_config config = {.size = 8};
	struct vhost_user_vring_state state;
	start();
	send_raw(VHOST_USER_GET_FEATURES, 1, 0, NULL, 0, NULL, 0);
	CHECK(get(VHOST_USER_GET_FEATURES, &value, 8) == 8 && (value & VHOST_F_LOG_ALL) &&
			(value & VHOST_USER_F_PROTOCOL_FEATURES) && (value & 1ULL << VIRTIO_BLK_F_FLUSH),
		"features");
	send_raw(VHOST_USER_GET_PROTOCOL_FEATURES, 1, 0, NULL, 0, NULL, 0);
	CHECK(get(VHOST_USER_GET_PROTOCOL_FEATURES, &value, 8) == 8 && (value & VHOST_USER_PROTOCOL_F_CONFIG),
		"protocol features");
	send_u64(VHOST_USER_SET_PROTOCOL_FEATURES, value);
	value = VIRTIO_QUEUE_FEATURES;
	send_raw(VHOST_USER_SET_OWNER, 9, 0, NULL, 0, NULL, 0);
	CHECK(get(VHOST_USER_SET_OWNER, &value, 8) == 8 && value == 0, "an acknowledgement where one is asked for");
	send_raw(VHOST_USER_GET_CONFIG, 1, 12 + 8, &config, 12 + 8, NULL, 0);
	CHECK(get(VHOST_USER_GET_CONFIG, &config, sizeof(config)) == 20 && config.bytes[1] == 8, "configuration");
	struct vhost_user_log log = {4096, 0};
	send_raw(VHOST_USER_SET_LOG_BASE, 1, sizeof(log), &log, sizeof(log), &d.memory.fd, 1);
	CHECK(get(VHOST_USER_SET_LOG_BASE, &value, 8) == 8, "the log's base is answered");
	run_queue();
	CHECK(blk_device(blk)->queues[0].ready && !failures, "the queue runs");

	uint64_t header = fake_alloc(&d, 64);
	struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_FLUSH};
	memcpy(d.ram + header, &h, sizeof(h));
	d.ram[header + 32] = 0xee;
	fake_desc(&d.queues[0], 0, header, 16, VRING_DESC_F_NEXT, 1);
	fake_desc(&d.queues[0], 1, header + 32, 1, VRING_DESC_F_WRITE, 0);
	fake_offer(&d.queues[0], 0);
	CHECK(write(kick_fd, &one, 8) == 8, "a kick");
	rounds();
	CHECK(d.ram[header + 32] == 0 && read(call_fd, &value, 8) == 8, "is served, with an interrupt");
	send_addr(0, 0);
	CHECK(!failures, "the same addresses again are fine");
	send_state(VHOST_USER_GET_VRING_BASE, 0, 0);
	CHECK(get(VHOST_USER_GET_VRING_BASE, &state, 8) == 8 && state.num == 1 && !blk_device(blk)->queues[0].ready,
		"stopping tells where it stands");
	close(kick_fd);
	close(call_fd);
	run_queue();
	fake_desc(&d.queues[0], 0, FAKE_RAM, 16, 0, 0);
	fake_offer(&d.queues[0], 0);
	CHECK(write(kick_fd, &one, 8) == 8, "a kick for a malformed chain");
	rounds();
	CHECK(failures == 1 && failure == -EBADMSG, "is reported, once");
	send_raw(VHOST_USER_GET_FEATURES, 1, 0, NULL, 0, NULL, 0);
	CHECK(get(VHOST_USER_GET_FEATURES, &value, 8) == 8, "the transport lives on");
	close(sock);
	sock = -1;
	rounds();
	CHECK(failures == 2 && failure == -EPIPE, "the socket's end is reported");
	close(kick_fd);
	close(call_fd);
	stop();
}

/** One hostile message: the device fails with -EPROTO (or another error), the process lives. */
#define HOSTILE(what, statement)                                                                                       \
	do {                                                                                                           \
		start();                                                                                               \
		statement;                                                                                             \
		rounds();                                                                                              \
		CHECK(failures == 1 && failure != -EPIPE && failure != -EBADMSG, what);                                \
		stop();                                                                                                \
	} while (0)

static void test_hostile(void)
{
	struct vhost_user_config config = {.offset = UINT32_MAX, .size = 8};
	uint64_t value = 0;
	int fds[9];
	for (int i = 0; i < 9; i++)
		fds[i] = 2;
	HOSTILE("an unknown request", send_raw(99, 1, 0, NULL, 0, NULL, 0));
	HOSTILE("request 0", send_raw(0, 1, 0, NULL, 0, NULL, 0));
	HOSTILE("another version", send_raw(1, 2, 0, NULL, 0, NULL, 0));
	HOSTILE("a reply", send_raw(1, 5, 0, NULL, 0, NULL, 0));
	HOSTILE("a payload of 4 GiB", send_raw(2, 1, UINT32_MAX, NULL, 0, NULL, 0));
	HOSTILE("a payload too short", send_raw(2, 1, 4, &value, 4, NULL, 0));
	HOSTILE("a payload where none belongs", send_raw(1, 1, 8, &value, 8, NULL, 0));
	HOSTILE("descriptors where none belong", send_raw(1, 1, 0, NULL, 0, fds, 1));
	HOSTILE("nine descriptors", send_raw(1, 1, 0, NULL, 0, fds, 9));
	HOSTILE("features that were not offered", send_u64(VHOST_USER_SET_FEATURES, UINT64_MAX));
	HOSTILE("protocol features that were not offered", send_u64(VHOST_USER_SET_PROTOCOL_FEATURES, UINT64_MAX));
	HOSTILE("nine regions", send_table(USER, 9, 8));
	HOSTILE("a region without its descriptor", send_table(USER, 1, 0));
	HOSTILE("a region that wraps", send_table(UINT64_MAX - 4095, 1, 1));
	HOSTILE("a configuration offset that wraps", send_raw(VHOST_USER_GET_CONFIG, 1, 20, &config, 20, NULL, 0));
	HOSTILE("a queue that does not exist", send_state(VHOST_USER_SET_VRING_NUM, 1, 8));
	HOSTILE("a queue of 2^31", send_state(VHOST_USER_SET_VRING_NUM, 0, 1u << 31));
	HOSTILE("a base beyond 2^16", send_state(VHOST_USER_SET_VRING_BASE, 0, 65536));
	HOSTILE("the base of a queue that does not exist", send_state(VHOST_USER_GET_VRING_BASE, UINT32_MAX, 0));
	HOSTILE("enabling a queue that does not exist", send_state(VHOST_USER_SET_VRING_ENABLE, 7, 1));
	HOSTILE("addresses without a table", send_addr(0, 0));
	HOSTILE("a kick without a descriptor", send_u64(VHOST_USER_SET_VRING_KICK, 0));
	HOSTILE("a queue to be polled", send_u64(VHOST_USER_SET_VRING_KICK, VHOST_USER_VRING_NOFD));
	HOSTILE("a regular file as a kick", send_fd(VHOST_USER_SET_VRING_KICK, 0, disk->segments[0].fd));
	HOSTILE("a kick for a queue that does not exist", send_fd(VHOST_USER_SET_VRING_KICK, 200, 2));
	HOSTILE("descriptors that are not aligned", {
		send_table(USER, 1, 1);
		send_state(VHOST_USER_SET_VRING_NUM, 0, 64);
		send_addr(0, 1);
		kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		send_fd(VHOST_USER_SET_VRING_KICK, 0, kick_fd);
		close(kick_fd);
		send_state(VHOST_USER_SET_VRING_ENABLE, 0, 1);
	});
	HOSTILE("another size for a queue that runs", {
		run_queue();
		close(kick_fd);
		close(call_fd);
		send_state(VHOST_USER_SET_VRING_NUM, 0, 8);
	});
	HOSTILE("another place for a queue that runs", {
		run_queue();
		close(kick_fd);
		close(call_fd);
		send_addr(0, 16);
	});
}

static int count_fds(void)
{
	int n = 0;
	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int main(void)
{
	loop_init(&loop, NULL);
	int before = count_fds();
	test_life();
	test_hostile();
	CHECK(count_fds() == before, "no descriptor is left behind");
	loop_destroy(&loop);
	return tap_done();
}
