/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device-fuzz.c - libFuzzer target: bytes as a guest that drives one device over virtio-mmio
 *
 * Theory of operation: the first byte chooses the device (bench_devices.c). The steps write and read registers in any width,
 * write descriptors, rings and memory, ring the doorbell, start the driver as it should be, save and load the slot, and do what
 * the host's side does meanwhile: sizes, input, targets, streams. What a guest can do to itself is fine; held against the
 * invariants are what the transport says of a broken device, that a state which was saved can be loaded, and that after all of
 * it a reset and an ordinary request work, in the end without a descriptor left behind.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -pthread -o device-fuzz fuzz/device-fuzz.c \
 *     tests/unit/{bench_driver,bench_devices,fake_driver}.c vmm/virtio/[!p]*.c memory/memory.c \
 *     base/{buffer,error,fd,loop,stats,tlv}.c && ./device-fuzz -max_len=1024 fuzz/corpus/device
 */
#include "base/cleanup.h"
#include "fuzz/fuzz.h"
#include "tests/descriptors.h"
#include "tests/unit/bench_driver.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/vconsole.h"
#include "vmm/virtio/vsock.h"

#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/socket.h>

#define STEPS 200
#define CHAIN_MAX 5

static struct bench b;
static struct program program;

static void write_register(void)
{
	uint8_t at = program_byte(&program), how = program_byte(&program);
	uint64_t value = program_take(&program, how & 8 ? 8 : how & 16 ? 4 : 1);
	unsigned n = how & 64 ? 1 + how % 8 : 4;
	virtio_mmio_write(b.mmio, how & 64 ? at * 2u : at / 4 * 4u, &value, n);
}

static void read_register(void)
{
	uint8_t at = program_byte(&program), n = program_byte(&program) % 8;
	uint8_t bytes[10];
	memset(bytes, 0x77, sizeof(bytes));
	virtio_mmio_read(b.mmio, at * 2u, bytes, n + 1u);
	must(bytes[n + 1] == 0x77, "a read of more than was asked");
}

static void config(void)
{
	uint8_t at = program_byte(&program), how = program_byte(&program);
	uint64_t value = how & 8 ? program_take(&program, 8) : program_byte(&program);
	virtio_mmio_write(b.mmio, VIRTIO_MMIO_CONFIG + at % 80u, &value, 1 + how % 8u);
}

static void start(void)
{
	must(bench_start(&b), "a device that does not start");
}

static struct fake_queue *any_queue(void)
{
	return &b.d.queues[program_byte(&program) % b.kind->n_queues];
}

/** A chain of some buffers that may be all right: small, in the scratch pages, readable before writable. */
static void chain(void)
{
	struct fake_queue *q = any_queue();
	uint8_t how = program_byte(&program);
	unsigned n = 1 + (how & 7) % CHAIN_MAX, writable = (how >> 3 & 7) % (n + 1), first = how >> 6;
	for (unsigned i = 0; i < n && q->size; i++)
		fake_desc(q, (uint16_t)((first + i) % q->size), b.page + program_take(&program, 2) % (BENCH_PAGE * 15),
			program_byte(&program), (i + 1 < n ? 1 : 0) | (i >= n - writable ? 2 : 0),
			(uint16_t)((first + i + 1) % q->size));
	if (q->size)
		fake_offer(q, (uint16_t)first);
}

/** One descriptor of any kind. */
static void descriptor(void)
{
	struct fake_queue *q = any_queue();
	uint8_t index = program_byte(&program), how = program_byte(&program);
	uint64_t at = how & 8 ? program_take(&program, 8) : b.page + program_take(&program, 2);
	uint32_t n = (uint32_t)program_take(&program, how & 16 ? 4 : 2);
	uint16_t next = program_byte(&program);
	if (q->size)
		fake_desc(q, index % q->size, at, n, how & 7, next);
}

static void offer(void)
{
	struct fake_queue *q = any_queue();
	uint16_t head = program_byte(&program);
	if (q->size)
		fake_offer(q, head);
}

static void jump(void)
{
	struct fake_queue *q = any_queue();
	uint16_t by = (uint16_t)program_take(&program, 2);
	if (!q->size)
		return;
	q->avail_idx = (uint16_t)(q->avail_idx + by);
	__atomic_store_n(&q->avail->idx, q->avail_idx, __ATOMIC_RELEASE);
}

/** Bytes into scratch pages or rings. */
static void memory(void)
{
	uint64_t room = b.d.allocated - b.page - 64, at = program_take(&program, 2) % room;
	unsigned n = program_byte(&program) % 64;
	for (unsigned i = 0; i < n; i++)
		b.d.ram[b.page + at + i] = program_byte(&program);
}

static void kick(void)
{
	bench_kick(&b, program_byte(&program) % b.kind->n_queues);
}

static void save_and_load(void)
{
	CLEANUP_BUFFER struct buffer state = {0}, again = {0};
	struct husk_error err = {0};
	must(virtio_mmio_save(b.mmio, &state) == 0, "a slot that cannot be saved");
	int rc = virtio_mmio_load(b.mmio, buffer_bytes(&state), state.size, &err);
	must(rc == 0, rc == 0 ? NULL : err.message);
	must(virtio_mmio_save(b.mmio, &again) == 0, "a slot that cannot be saved again");
	bench_settle(&b);
}

static void on_connected(void *data, int error)
{
}

static void from_host_vsock(uint8_t what)
{
	char bytes[256] = "";
	int pair[2];
	if (what & 1 && b.fd >= 0) {
		ssize_t n = what & 2 ? send(b.fd, bytes, 1u << (what >> 4 & 7), MSG_DONTWAIT | MSG_NOSIGNAL)
				     : recv(b.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		must(n < 0 || n <= (ssize_t)sizeof(bytes), "a stream of its own");
	} else if (what & 4 && b.fd >= 0) {
		close(steal_fd(&b.fd));
	} else if (what & 8 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0) {
		if (b.fd >= 0)
			close(b.fd);
		b.fd = pair[1];
		(void)vsock_connect(b.parts[0], pair[0], what >> 4, what & 2, on_connected, NULL, NULL);
	}
}

static void from_host_console(uint8_t what)
{
	if (what & 1)
		(void)vconsole_input(b.parts[0], what >> 1 & 1, "from the host", 13);
	else if (what & 2)
		vconsole_resize(b.parts[0], what, what);
	else
		vconsole_resume(b.parts[0], what >> 2 & 1);
}

static void from_host(void)
{
	uint8_t what = program_byte(&program);
	if (b.device->ops->id == VIRTIO_ID_VSOCK)
		from_host_vsock(what);
	else if (b.device->ops->id == VIRTIO_ID_CONSOLE)
		from_host_console(what);
	else if (b.device->ops->id == VIRTIO_ID_BALLOON && what & 1)
		(void)balloon_ask_stats(b.parts[0]);
	else if (b.device->ops->id == VIRTIO_ID_BALLOON)
		balloon_set_target(b.parts[0], (uint64_t)what << 16);
	bench_settle(&b);
}

static void (*const steps[])(void) = {write_register, read_register, config, start, chain, chain, descriptor, offer,
	jump, memory, memory, kick, kick, save_and_load, from_host};

static void check(void)
{
	must(bench_mmio.needs_reset(&b) == (b.device->broken != NULL),
		"a broken device that does not say so, or the reverse");
	for (unsigned i = 0; i < b.kind->n_queues; i++)
		must(!b.device->queues[i].ready || b.device->queues[i].memory == &b.d.memory, "a queue half started");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned descriptors = count_descriptors();
	program = (struct program){data, data + size};
	bench_create(&b, &bench_devices[program_byte(&program) % bench_n_devices], &bench_mmio);
	for (unsigned i = 0; i < STEPS && program.at < program.end; i++) {
		steps[program_byte(&program) % ARRAY_SIZE(steps)]();
		check();
	}
	must(bench_start(&b) && b.kind->request(&b), "a device that a reset does not mend");
	bench_destroy(&b);
	must(count_descriptors() == descriptors, "descriptors have leaked");
	return 0;
}
