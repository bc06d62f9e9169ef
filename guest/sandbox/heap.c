/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.c - malloc and its like
 *
 * Theory of operation: the heap is a row of blocks, each a head of 16 bytes and its payload; heads know their own
 * size and that of the block before, so that neighbours are found both ways. Behind the last block is what was not
 * touched yet: it costs no memory, and is zero. A free block is in the list of its size class, eight classes to each
 * doubling, and never next to another free one; the classes that have any are one bit each.
 *
 * Each head has a seal made of its place, its sizes and its use. It is looked at whenever the head is, so a pointer
 * that malloc() did not give, a block that is freed twice and a write beyond a block's end are found by the next
 * free() or realloc() of it or a neighbour, and abort.
 */
#include "runtime.h"

#define UNIT 16u
#define CLASSES 256u
#define BIN_WORDS (CLASSES / 64)
#define USED 0x5eedu
#define FREE 0xf1eeu

/** Sizes are in units and have the head in them: a heap of 4 GiB has 2^28. */
struct block {
	uint32_t units, before; /* of this block, and of the one before; 0: this is the first */
	uint32_t use; /* USED or FREE */
	uint32_t seal;
};

/** The payload of a free block. */
struct links {
	struct block *next, *previous;
};

#define UNITS_MIN ((uint32_t)((sizeof(struct block) + sizeof(struct links)) / UNIT))

/** first..end: the heap; top: behind the last block; last_units: of that block; clean: nothing from here on was ever written */
static struct {
	char *first, *top, *clean, *end;
	uint32_t last_units;
	uint64_t bins[BIN_WORDS];
	struct block *free[CLASSES];
} heap;

static uint32_t seal_of(const struct block *block)
{
	uint64_t x = (uint64_t)block ^ ((uint64_t)block->units << 32 | block->before) ^ (uint64_t)block->use << 16;

	x *= 0x9e3779b97f4a7c15; /* 2^64 / golden ratio: mixes low bits into high ones */
	return (uint32_t)(x >> 32);
}

static void seal(struct block *block)
{
	block->seal = seal_of(block);
}

static void *payload(struct block *block)
{
	return block + 1;
}

static struct block *behind(const struct block *block)
{
	return (struct block *)((char *)block + (uint64_t)block->units * UNIT);
}

/** Class of a size: its highest bit and the three below; sizes below 8 have a class each. */
static unsigned class_of(uint32_t units)
{
	if (units < 8)
		return units;
	unsigned top = 31 - (unsigned)__builtin_clz(units);
	return (top - 2) * 8 + (units >> (top - 3) & 7);
}

static void check(const struct block *block)
{
	if (block->seal != seal_of(block))
		husk_abort(-1,
			"the heap is damaged at %p: a write beyond the end of the block before it, or after free()",
			(void *)block);
}

static void list_free(struct block *block)
{
	unsigned class = class_of(block->units);
	struct links *links = payload(block);

	block->use = FREE;
	seal(block);
	*links = (struct links){.next = heap.free[class]};
	if (links->next)
		((struct links *)payload(links->next))->previous = block;
	heap.free[class] = block;
	heap.bins[class / 64] |= 1ull << class % 64;
}

static void unlist_free(struct block *block)
{
	unsigned class = class_of(block->units);
	struct links *links = payload(block);

	check(block);
	if (links->next)
		((struct links *)payload(links->next))->previous = links->previous;
	if (links->previous)
		((struct links *)payload(links->previous))->next = links->next;
	else
		heap.free[class] = links->next;
	if (!heap.free[class])
		heap.bins[class / 64] &= ~(1ull << class % 64);
}

/** The block behind @block is told what is before it; or the top is. */
static void tell_behind(const struct block *block)
{
	struct block *next = behind(block);

	if ((char *)next == heap.top) {
		heap.last_units = block->units;
		return;
	}
	next->before = block->units;
	seal(next);
}

/** Give back @block, which is in no list: as part of free neighbours, or of the top. */
static void release(struct block *block)
{
	if (block->before) {
		struct block *before = (struct block *)((char *)block - (uint64_t)block->before * UNIT);
		check(before);
		if (before->use == FREE) {
			unlist_free(before);
			before->units += block->units;
			block = before;
		}
	}
	if ((char *)behind(block) != heap.top) {
		struct block *next = behind(block);
		check(next);
		if (next->use == FREE) {
			unlist_free(next);
			block->units += next->units;
		}
	}
	if ((char *)behind(block) == heap.top) {
		heap.top = (char *)block;
		heap.last_units = block->before;
		return;
	}
	tell_behind(block);
	list_free(block);
}

/** Cut @block, in use, down to @units, and give back the rest when it is worth a block. */
static void trim(struct block *block, uint32_t units)
{
	uint32_t rest = block->units - units;

	if (rest < UNITS_MIN)
		return;
	block->units = units;
	seal(block);
	struct block *cut = behind(block);
	*cut = (struct block){.units = rest, .before = units, .use = USED};
	seal(cut);
	tell_behind(cut);
	release(cut);
}

/** The first class from @class on that has blocks; CLASSES: none. */
static unsigned next_class(unsigned class)
{
	for (unsigned word = class / 64; word < BIN_WORDS; word++) {
		uint64_t bits = heap.bins[word];
		if (word == class / 64)
			bits &= ~0ull << class % 64;
		if (bits)
			return word * 64 + (unsigned)__builtin_ctzll(bits);
	}
	return CLASSES;
}

/** A free block of at least @units: of its own class the first that is large enough, of a larger one any. */
static struct block *take_free(uint32_t units)
{
	unsigned class = class_of(units);
	struct block *block = heap.free[class];

	while (block && block->units < units)
		block = ((struct links *)payload(block))->next;
	if (!block) {
		class = next_class(class + 1);
		if (class == CLASSES)
			return NULL;
		block = heap.free[class];
	}
	unlist_free(block);
	return block;
}

static struct block *take_top(uint32_t units)
{
	struct block *block = (struct block *)heap.top;

	if ((uint64_t)units * UNIT > (uint64_t)(heap.end - heap.top))
		return NULL;
	block->units = units;
	block->before = heap.last_units;
	heap.top = (char *)behind(block);
	heap.last_units = units;
	return block;
}

/** Units of a block with a payload of @size; 0: more than any heap has. */
static uint32_t units_for(size_t size)
{
	if (size > (1ull << 32))
		return 0;
	uint32_t units = (uint32_t)((size + sizeof(struct block) + UNIT - 1) / UNIT);
	return units < UNITS_MIN ? UNITS_MIN : units;
}

static void set_up(void)
{
	const struct sandbox_range *range = &husk_runtime.info->heap;

	heap.first = heap.top = heap.clean = (char *)range->at;
	heap.end = heap.first + (range->size & ~(uint64_t)(UNIT - 1));
}

static struct block *take(size_t size)
{
	uint32_t units = units_for(size);

	if (!heap.end)
		set_up();
	if (!units)
		return NULL;
	struct block *block = take_free(units);
	if (!block)
		block = take_top(units);
	if (!block)
		return NULL;
	block->use = USED;
	seal(block);
	trim(block, units);
	return block;
}

/** From now on what is below the top may have been written. @return: how much of @block's payload may have been before. */
static uint64_t soil(const struct block *block)
{
	const char *from = (const char *)(block + 1), *clean = heap.clean;

	if (heap.clean < heap.top)
		heap.clean = heap.top;
	if (clean <= from)
		return 0;
	return clean < (const char *)behind(block) ? (uint64_t)(clean - from)
						   : (uint64_t)((const char *)behind(block) - from);
}

static struct block *block_of(void *pointer, const char *what)
{
	struct block *block = (struct block *)pointer - 1;

	if ((uint64_t)pointer % UNIT || (char *)block < heap.first || (char *)pointer > heap.clean)
		husk_abort(-1, "%s(%p): no block of the heap", what, pointer);
	bool given_back = (char *)pointer > heap.top; /* to what is behind the last block */
	if (!given_back)
		check(block);
	if (given_back || block->use != USED)
		husk_abort(-1, "%s(%p): it was freed before", what, pointer);
	if ((char *)behind(block) != heap.top)
		check(behind(block));
	return block;
}

void *malloc(size_t size)
{
	struct block *block = take(size);

	if (!block)
		return NULL;
	soil(block);
	return payload(block);
}

void *calloc(size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	struct block *block = take(bytes);
	if (!block)
		return NULL;
	uint64_t written = soil(block);
	memset(payload(block), 0, written < bytes ? written : bytes);
	return payload(block);
}

void free(void *pointer)
{
	if (pointer)
		release(block_of(pointer, "free"));
}

/** Let @block have at least @units by what is free behind it. */
static bool grow(struct block *block, uint32_t units)
{
	struct block *next = behind(block);

	if ((char *)next == heap.top) {
		uint64_t more = (uint64_t)(units - block->units) * UNIT;
		if (more > (uint64_t)(heap.end - heap.top))
			return false;
		block->units = units;
		heap.top += more;
	} else {
		if (next->use != FREE || block->units + next->units < units)
			return false;
		unlist_free(next);
		block->units += next->units;
	}
	seal(block);
	tell_behind(block);
	soil(block);
	trim(block, units);
	return true;
}

void *realloc(void *pointer, size_t size)
{
	if (!pointer)
		return malloc(size);
	struct block *block = block_of(pointer, "realloc");
	uint32_t units = units_for(size);
	if (!units)
		return NULL;
	if (units <= block->units) {
		trim(block, units);
		return pointer;
	}
	if (grow(block, units))
		return pointer;
	void *moved = malloc(size);
	if (!moved)
		return NULL;
	memcpy(moved, pointer, (uint64_t)block->units * UNIT - sizeof(*block));
	release(block);
	return moved;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	if (!alignment || alignment & (alignment - 1) || alignment > (1ull << 32) || size > (1ull << 32))
		return NULL;
	if (alignment <= UNIT)
		return malloc(size);
	struct block *block = take(size + alignment + UNITS_MIN * UNIT);
	if (!block)
		return NULL;
	soil(block);
	uint64_t at = (uint64_t)payload(block);
	if (at % alignment) { /* the front becomes a block of its own, and is given back */
		at = (at + UNITS_MIN * UNIT + alignment - 1) & ~(uint64_t)(alignment - 1);
		struct block *back = (struct block *)at - 1;
		uint32_t front = (uint32_t)(((uint64_t)back - (uint64_t)block) / UNIT);
		*back = (struct block){.units = block->units - front, .before = front, .use = USED};
		seal(back);
		tell_behind(back);
		block->units = front;
		seal(block);
		release(block);
		block = back;
	}
	trim(block, units_for(size));
	return payload(block);
}

char *strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	char *copy = malloc(n);

	if (copy)
		memcpy(copy, s, n);
	return copy;
}
