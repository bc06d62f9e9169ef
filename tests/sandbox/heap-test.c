/* SPDX-License-Identifier: Apache-2.0 */
/* heap-test.c - the allocator of sandbox programs, against a model, and what it finds wrong. It is compiled with its
 * names changed. */
#include "guest/sandbox/runtime.h"
#include "tests/tap.h"

#include <setjmp.h>
#include <stdio.h>

#define HEAP (1u << 20)
#define BLOCKS 200

static _Alignas(4096) unsigned char memory[HEAP];
static struct sandbox_info info = {.heap = {.size = HEAP}};
struct runtime husk_runtime = {.info = &info};

static jmp_buf aborted;
static char abort_message[256];

void husk_abort(int32_t code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(abort_message, sizeof(abort_message), format, args);
	va_end(args);
	longjmp(aborted, code == 0 ? 1 : code);
}

static struct {
	unsigned char *at;
	size_t size;
	unsigned char pattern;
} blocks[BLOCKS];
static unsigned wrong, refused;

static uint64_t next(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 20;
}

/** Sizes as programs have them: mostly small, some large, some none. */
static size_t some_size(uint64_t *seed)
{
	static const size_t limits[] = {1, 16, 64, 64, 300, 300, 4096, 60000};

	return next(seed) % limits[next(seed) % 8];
}

static void check_pattern(unsigned i, size_t n)
{
	for (size_t k = 0; k < n; k++)
		wrong += blocks[i].at[k] != blocks[i].pattern;
}

static void fill(unsigned i, unsigned char *at, size_t size, uint64_t *seed)
{
	wrong += at < memory || at + size > memory + HEAP || (uintptr_t)at % 16 != 0;
	blocks[i].at = at;
	blocks[i].size = size;
	blocks[i].pattern = (unsigned char)next(seed);
	memset(at, blocks[i].pattern, size);
}

static void let_go(unsigned i)
{
	if (blocks[i].at)
		check_pattern(i, blocks[i].size);
	free(blocks[i].at);
	blocks[i].at = NULL;
	blocks[i].size = 0;
}

static void resize(unsigned i, size_t size, uint64_t *seed)
{
	unsigned char *at = realloc(blocks[i].at, size);

	if (!at) {
		refused++;
		return;
	}
	size_t kept = blocks[i].size < size ? blocks[i].size : size;
	if (blocks[i].at) {
		blocks[i].at = at;
		check_pattern(i, kept);
	}
	fill(i, at, size, seed);
}

/** One step: which is for the seed to say. */
static void step(uint64_t *seed)
{
	unsigned i = (unsigned)(next(seed) % BLOCKS);
	size_t size = some_size(seed), alignment = 16ull << next(seed) % 9;
	unsigned char *at = NULL;

	switch (next(seed) % 8) {
	case 0:
	case 1:
		let_go(i);
		at = malloc(size);
		break;
	case 2:
		let_go(i);
		at = calloc(size / 8, 8);
		size = size / 8 * 8;
		for (size_t k = 0; at && k < size; k++)
			wrong += at[k] != 0;
		break;
	case 3:
		let_go(i);
		at = aligned_alloc(alignment, size);
		wrong += (uintptr_t)at % alignment != 0;
		break;
	case 4:
	case 5:
		resize(i, size, seed);
		return;
	default:
		let_go(i);
		return;
	}
	if (at)
		fill(i, at, size, seed);
	else
		refused++;
}

static size_t largest(void)
{
	size_t low = 0, high = HEAP;

	while (high - low > 1) {
		size_t middle = (low + high) / 2;
		void *block = malloc(middle);
		if (block)
			low = middle;
		else
			high = middle;
		free(block);
	}
	return low;
}

static void test_model(void)
{
	size_t before = largest();

	CHECK(before == HEAP - 16, "one block can be the whole heap, its head excepted");
	for (uint64_t seed = 1; seed <= 20; seed++) {
		uint64_t state = seed;
		for (int i = 0; i < 20000; i++)
			step(&state);
		for (unsigned i = 0; i < BLOCKS; i++)
			let_go(i);
	}
	CHECK(wrong == 0, "blocks are aligned, within the heap, keep their bytes, and calloc's are zero");
	printf("# %u times there was no room\n", refused);
	CHECK(refused > 0, "the heap has been full");
	CHECK(largest() == before, "everything comes together again");
}

static void test_limits(void)
{
	CHECK(!malloc(HEAP) && !malloc(SIZE_MAX) && !malloc(1ull << 32) && !malloc((1ull << 36) + 16),
		"what is too much is NULL");
	CHECK(!calloc(SIZE_MAX / 2, 3) && !calloc(1ull << 33, 1ull << 33), "also when the product overflows");
	CHECK(!aligned_alloc(48, 10) && !aligned_alloc(0, 10), "alignments are powers of two");
	CHECK(!aligned_alloc(1ull << 63, 10) && !aligned_alloc(HEAP * 2, 10) && !aligned_alloc(16, SIZE_MAX) &&
			!aligned_alloc(4096, SIZE_MAX - 100),
		"and have an end");
	void *a = malloc(0), *b = malloc(0);
	CHECK(a && b && a != b, "blocks of no bytes are blocks");
	free(a);
	free(b);
	free(NULL);
	char *text = strdup("a copy");
	CHECK_STRING(text, "a copy", "strdup");
	CHECK(!realloc(text, SIZE_MAX) && strcmp(text, "a copy") == 0, "a realloc that fails leaves the block");
	free(text);
}

/** Does @f abort, and say @what? */
static void check_abort(void (*f)(unsigned char *block), const char *what, const char *name)
{
	abort_message[0] = 0;
	info.heap = (struct sandbox_range){.at = (uint64_t)memory, .size = HEAP};
	unsigned char *block = malloc(40), *after = malloc(40);
	memset(block, 0, 40);
	memset(after, 0, 40);
	if (setjmp(aborted) == 0)
		f(block);
	if (!CHECK(strstr(abort_message, what), name))
		printf("# '%s'\n", abort_message);
}

static void free_twice(unsigned char *block)
{
	free(block);
	free(block);
}

static void free_inside(unsigned char *block)
{
	free(block + 16);
}

static void free_crooked(unsigned char *block)
{
	free(block + 1);
}

static void free_elsewhere(unsigned char *block)
{
	static _Alignas(16) unsigned char elsewhere[64];

	(void)block;
	free(elsewhere + 32);
}

static void resize_freed(unsigned char *block)
{
	free(block);
	wrong += realloc(block, 100) != NULL;
}

static void overrun_by_one(unsigned char *block)
{
	block[48] = 1; /* 40 bytes take 48 */
	free(block);
}

static void underrun(unsigned char *block)
{
	block[-12] ^= 1;
	free(block);
}

int main(void)
{
	info.heap.at = (uint64_t)memory;
	test_model();
	test_limits();
	check_abort(free_twice, "it was freed before", "a block that is freed twice is found");
	check_abort(free_inside, "the heap is damaged", "so is the middle of a block");
	check_abort(free_crooked, "no block of the heap", "a pointer that is not aligned");
	check_abort(free_elsewhere, "no block of the heap", "one outside of the heap");
	check_abort(resize_freed, "it was freed before", "realloc of what was freed");
	check_abort(underrun, "the heap is damaged", "a write in front of a block");
	check_abort(overrun_by_one, "the heap is damaged", "a write behind one");
	return tap_done();
}
