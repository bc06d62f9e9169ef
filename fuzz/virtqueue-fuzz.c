/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue-fuzz.c - libFuzzer target: bytes as a program of a driver and a device on one virtqueue
 *
 * Theory of operation: guest memory is two regions with a hole between them, filled from the program. Its steps write to
 * memory, start the queue anywhere, take chains, give them back or push them, and ask about interrupts and kicks. Each chain
 * is held against what the accessor allows, and its bytes are touched. With CHANGING a second thread copies parts of memory over
 * others all the time, so that the walk meets descriptors that are not what they were.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -pthread -o virtqueue-fuzz \
 *     fuzz/virtqueue-fuzz.c vmm/virtio/queue.c memory/memory.c base/{buffer,error,fd}.c &&
 *     ./virtqueue-fuzz -max_len=1024 fuzz/corpus/virtqueue
 */
#include "base/cleanup.h"
#include "fuzz/fuzz.h"
#include "vmm/virtio/queue.h"

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>

#define REGION 0x4000u
#define HOLE 0x1000u /* behind the first */
#define SECOND (REGION + HOLE)
#define CHANGING 1
#define STEPS 512

static struct {
	struct memory memory;
	struct virtqueue queue;
	struct virtqueue_chain chain;
	struct program program;
	unsigned popped; /* not pushed or given back; as many as can be given back */
	bool changing; /* atomic: the other thread may */
	uint32_t seed; /* of its changes, atomic */
} f;

/* ---- the other thread ---- */

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;

static void change_one(uint64_t *random)
{
	volatile uint16_t *words = (volatile uint16_t *)(void *)f.memory.regions[0].host;
	*random = *random * 6364136223846793005 + 1442695040888963407;
	words[(*random >> 33) % (REGION / 2)] = words[(*random >> 48) % (REGION / 2)];
}

static void *change(void *arg)
{
	for (;;) {
		pthread_mutex_lock(&turn);
		while (!__atomic_load_n(&f.changing, __ATOMIC_ACQUIRE))
			pthread_cond_wait(&turn_changed, &turn);
		uint64_t random = f.seed;
		while (__atomic_load_n(&f.changing, __ATOMIC_ACQUIRE))
			change_one(&random);
		pthread_mutex_unlock(&turn);
	}
	return NULL;
}

static void begin_changing(void)
{
	pthread_mutex_lock(&turn);
	__atomic_store_n(&f.changing, true, __ATOMIC_RELEASE);
	pthread_cond_signal(&turn_changed);
	pthread_mutex_unlock(&turn);
}

static void end_changing(void)
{
	__atomic_store_n(&f.changing, false, __ATOMIC_RELEASE);
	pthread_mutex_lock(&turn); /* it has left its loop when we have it */
	pthread_mutex_unlock(&turn);
}

/* ---- steps ---- */

static void set_up_once(void)
{
	struct husk_error err;
	pthread_t thread;
	int fd;
	if (f.memory.n_regions)
		return;
	must(memory_make_fd(2 * REGION, &fd, &err) == 0 && memory_init(&f.memory, fd, &err) == 0 &&
			memory_add(&f.memory, 0, REGION, REGION, &err) == 0 &&
			memory_add(&f.memory, SECOND, REGION, 0, &err) == 0 &&
			pthread_create(&thread, NULL, change, NULL) == 0,
		"no memory");
}

static void write_memory(void)
{
	uint32_t at = (uint32_t)program_take(&f.program, 2) % (REGION - 64), n = program_byte(&f.program) % 64;
	for (uint32_t i = 0; i < n; i++)
		f.memory.regions[0].host[at + i] = program_byte(&f.program);
}

/** A whole descriptor with a plausible place: table 0 lies at 0, one for indirect ones at 0x800. */
static void write_descriptor(void)
{
	uint8_t index = program_byte(&f.program), how = program_byte(&f.program);
	struct vring_desc d = {.flags = how & 7, .next = program_byte(&f.program)};
	d.addr = how & 8 ? program_take(&f.program, 8) : program_take(&f.program, 2);
	d.len = how & 16 ? (uint32_t)program_take(&f.program, 4) : program_byte(&f.program);
	memcpy(f.memory.regions[0].host + (how & 32 ? 0x800 : 0) + 16u * index % 0x800, &d, sizeof(d));
}

static void offer(void)
{
	if (!f.queue.ready)
		return;
	uint16_t idx = f.queue.avail->idx;
	f.queue.avail->ring[idx & (f.queue.size - 1)] = program_byte(&f.program);
	__atomic_store_n(&f.queue.avail->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

static void start(void)
{
	static const uint32_t sizes[] = {1, 2, 4, 16, 64, 128, 256, 1024};
	struct husk_error err;
	uint8_t how = program_byte(&f.program);
	struct virtqueue_setup setup = {.size = sizes[how & 7],
		.desc = 0,
		.avail = 0x2000,
		.used = 0x3000,
		.features = how & 8 ? UINT64_MAX : 0};
	if (how & 16)
		setup.size = (uint32_t)program_take(&f.program, 4);
	if (how & 32)
		setup.desc = program_take(&f.program, 8);
	if (how & 64)
		setup.avail = program_take(&f.program, 8);
	if (how & 128)
		setup.used = program_take(&f.program, 8);
	setup.base = f.queue.ready ? virtqueue_stop(&f.queue) : 0;
	f.popped = 0;
	must(virtqueue_start(&f.queue, &f.memory, &setup, &err) == 0 ? f.queue.ready : !f.queue.ready,
		"a start that is half one");
}

static void check_chain(const struct virtqueue_chain *c)
{
	uint64_t sums[2] = {0};
	volatile uint8_t sum = 0;
	must(c->n_read + c->n_write > 0 && c->n_read + c->n_write <= f.queue.size, "a chain of too many buffers");
	for (unsigned i = 0; i < c->n_read + c->n_write; i++) {
		uint8_t *base = c->iov[i].iov_base;
		uint64_t gpa = 0, n = c->iov[i].iov_len;
		must(n && memory_gpa(&f.memory, base, &gpa) && memory_at(&f.memory, gpa, n) == base,
			"a buffer that is not in guest memory");
		sum = (uint8_t)(sum + base[0] + base[n - 1]);
		if (i >= c->n_read)
			base[n - 1] = (uint8_t)(base[n - 1] + 1);
		sums[i >= c->n_read] += n;
	}
	must(sums[0] == c->read_bytes && sums[1] == c->write_bytes, "a chain whose bytes do not add up");
}

static void pop(void)
{
	if (!f.queue.ready)
		return;
	const char *before = f.queue.broken;
	int rc = virtqueue_pop(&f.queue, &f.chain);
	must(rc == 1 || rc == 0 || (rc == -EPROTO && f.queue.broken), "a pop that says nothing that it may");
	must(!before || rc == -EPROTO, "a broken queue that mended itself");
	if (rc != 1)
		return;
	check_chain(&f.chain);
	f.popped++;
}

static void unpop(void)
{
	unsigned n = program_byte(&f.program);
	if (!f.queue.ready || !f.popped)
		return;
	n = 1 + n % f.popped;
	virtqueue_unpop(&f.queue, n);
	f.popped -= n;
}

static void push(void)
{
	uint32_t written = (uint32_t)program_take(&f.program, 2);
	if (!f.queue.ready || !f.popped)
		return;
	virtqueue_push(&f.queue, f.chain.head, written);
	f.popped = 0; /* those before it are not the last any more */
	if ((f.program.end - f.program.at) % 2 == 0)
		(void)virtqueue_interrupt(&f.queue);
}

static void ask_for_kicks(void)
{
	if (f.queue.ready && program_byte(&f.program) & 1)
		virtqueue_disable_kicks(&f.queue);
	else if (f.queue.ready)
		(void)virtqueue_enable_kicks(&f.queue);
}

static void slice(void)
{
	static struct iovec out[VIRTQUEUE_SIZE_MAX];
	uint64_t skip = program_take(&f.program, 2), n = program_take(&f.program, 2), total = 0;
	unsigned all = f.chain.n_read + f.chain.n_write;
	if (!f.queue.ready || !f.popped)
		return;
	unsigned count = iov_slice(f.chain.iov, all, skip, n, out);
	must(count <= all, "a slice of more than all");
	for (unsigned i = 0; i < count; i++)
		total += out[i].iov_len;
	uint64_t bytes = f.chain.read_bytes + f.chain.write_bytes, left = skip < bytes ? bytes - skip : 0;
	must(total == (n < left ? n : left), "a slice of another size");
}

static void (*const steps[])(void) = {write_memory, write_descriptor, write_descriptor, offer, offer, start, pop, pop,
	unpop, push, ask_for_kicks, slice};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	set_up_once();
	f.program = (struct program){data, data + size};
	memset(f.memory.regions[0].host, 0, REGION);
	f.queue = (struct virtqueue){0};
	f.popped = 0;
	uint8_t mode = program_byte(&f.program);
	f.seed = mode;
	if (mode & CHANGING)
		begin_changing();
	for (unsigned i = 0; i < STEPS && f.program.at < f.program.end; i++)
		steps[program_byte(&f.program) % ARRAY_SIZE(steps)]();
	if (mode & CHANGING)
		end_changing();
	return 0;
}
