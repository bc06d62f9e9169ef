/* SPDX-License-Identifier: Apache-2.0 */
/*
 * basic.c - a sandbox program for the tests: values of each type, state, text, memory. Its faults are in basic_faults.c
 *
 * Compiled with -mgeneral-regs-only, so that hosts which interpret guest code run it. It needs no function of the
 * host's but print. Each function says what it does; tests call them by name. Functions of the host's are called by
 * host.c, floating point is in floats.c, and hostile.c breaks the protocol.
 */
#include <husk/sandbox.h>

/* ---- values ---- */

/** Nothing, as fast as it goes. */
static void nothing(void)
{
}
HUSK_EXPORT(void, nothing);

/* Each type in and out. */
#define ECHO(type)                                                                                                     \
	static HUSK_C_##type echo_##type(HUSK_C_##type value)                                                          \
	{                                                                                                              \
		return value;                                                                                          \
	}                                                                                                              \
	HUSK_EXPORT(type, echo_##type, type)

ECHO(i32);
ECHO(u32);
ECHO(i64);
ECHO(u64);
ECHO(string);
ECHO(bytes);

static bool echo_bool(bool value)
{
	return value;
}
HUSK_EXPORT(bool, echo_bool, bool);

/** a + b, around at the end. */
static int32_t add(int32_t a, int32_t b)
{
	return (int32_t)((uint32_t)a + (uint32_t)b);
}
HUSK_EXPORT(i32, add, i32, i32);

/** One of each type: the sum of the numbers and the lengths. */
static int64_t one_of_each(int32_t a, uint32_t b, int64_t c, uint64_t d, bool e, const char *f, struct husk_bytes g)
{
	return a + (int64_t)b + c + (int64_t)d + e + (int64_t)strlen(f) + (int64_t)g.size;
}
HUSK_EXPORT(i64, one_of_each, i32, u32, i64, u64, bool, string, bytes);

/** The most arguments there can be; argument number i, counted from 1, counts i times. */
static int64_t most(int64_t a1, int64_t a2, int64_t a3, int64_t a4, int64_t a5, int64_t a6, int64_t a7, int64_t a8,
	int64_t a9, int64_t a10, int64_t a11, int64_t a12, int64_t a13, int64_t a14, int64_t a15, int64_t a16,
	int64_t a17, int64_t a18, int64_t a19, int64_t a20, int64_t a21, int64_t a22, int64_t a23, int64_t a24,
	int64_t a25, int64_t a26, int64_t a27, int64_t a28, int64_t a29, int64_t a30, int64_t a31, int64_t a32)
{
	const int64_t all[] = {a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19,
		a20, a21, a22, a23, a24, a25, a26, a27, a28, a29, a30, a31, a32};
	int64_t sum = 0;

	for (int i = 0; i < 32; i++)
		sum += all[i] * (i + 1);
	return sum;
}
HUSK_EXPORT(i64, most, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64,
	i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64);

/** Division of 128 bits: the numbers are (high << 64 | low); returns the 64 bits @which: 0, 1 of the quotient, 2, 3
 *  of the rest; 4 to 7 the same of signed ones. */
static uint64_t divide_wide(uint64_t high, uint64_t low, uint64_t d_high, uint64_t d_low, uint32_t which)
{
	const unsigned __int128 n = (unsigned __int128)high << 64 | low, d = (unsigned __int128)d_high << 64 | d_low;
	const __int128 sn = (__int128)n, sd = (__int128)d;
	const unsigned __int128 result = which < 2   ? n / d
					 : which < 4 ? n % d
						     : (unsigned __int128)(which < 6 ? sn / sd : sn % sd);

	return (uint64_t)(which & 1 ? result >> 64 : result);
}
HUSK_EXPORT(u64, divide_wide, u64, u64, u64, u64, u32);

/** How many bits are set. */
static uint32_t count_bits(uint64_t n)
{
	return (uint32_t)__builtin_popcountll(n);
}
HUSK_EXPORT(u32, count_bits, u64);

/** "hello, NAME" */
static const char *hello(const char *name)
{
	static char text[256];

	husk_snprintf(text, sizeof(text), "hello, %s", name);
	return text;
}
HUSK_EXPORT(string, hello, string);

/** The bytes, the last one first; fails with 12 when the heap has not the room. */
static struct husk_bytes reverse(struct husk_bytes in)
{
	static unsigned char *last;
	const unsigned char *from = in.data;

	free(last);
	last = malloc(in.size);
	if (!last)
		husk_fail(12, "no memory for %zu bytes", in.size);
	for (size_t i = 0; last && i < in.size; i++)
		last[i] = from[in.size - 1 - i];
	return (struct husk_bytes){last, last ? in.size : 0};
}
HUSK_EXPORT(bytes, reverse, bytes);

/** Are the bytes 0, 1, 2, … 255, 0, …? */
static bool is_ramp(struct husk_bytes in)
{
	const unsigned char *from = in.data;

	for (size_t i = 0; i < in.size; i++)
		if (from[i] != (unsigned char)i)
			return false;
	return true;
}
HUSK_EXPORT(bool, is_ramp, bytes);

/** @n bytes 0, 1, 2, …, from the heap, which must have the room (code 12). */
static struct husk_bytes ramp(uint64_t n)
{
	static unsigned char *last;

	free(last);
	last = malloc(n);
	if (!last)
		husk_fail(12, "no memory for %llu bytes", (unsigned long long)n);
	for (size_t i = 0; last && i < n; i++)
		last[i] = (unsigned char)i;
	return (struct husk_bytes){last, last ? n : 0};
}
HUSK_EXPORT(bytes, ramp, u64);

/** A NULL string, which is an empty one. */
static const char *null_string(void)
{
	return NULL;
}
HUSK_EXPORT(string, null_string);

/* ---- errors ---- */

/** Fail with @code and @message; the sandbox stays usable. */
static int32_t fail(int32_t code, const char *message)
{
	husk_fail(code, "%s", message);
	return 1;
}
HUSK_EXPORT(i32, fail, i32, string);

/** Abort with @code and @message. */
static void abort_with(int32_t code, const char *message)
{
	husk_abort(code, "%s", message);
}
HUSK_EXPORT(void, abort_with, i32, string);

/* ---- state ---- */

static uint64_t count = 1000;

/** Add @n to a counter, which began at 1000; returns it. */
static uint64_t counter(uint64_t n)
{
	return count += n;
}
HUSK_EXPORT(u64, counter, u64);

static int constructed;

__attribute__((constructor)) static void construct(void)
{
	constructed += 1;
}

void husk_init(void)
{
	constructed += 10;
}

/** 11: the constructor and husk_init() have run once each. */
static int32_t initialized(void)
{
	return constructed;
}
HUSK_EXPORT(i32, initialized);

static unsigned char *pages;

/** Write @value to the first byte of each of @n pages of the heap, always the same ones; code 12 without the room. */
static void touch(uint32_t n, uint32_t value)
{
	const size_t page = 4096;

	if (!pages)
		pages = aligned_alloc(page, n * page);
	if (!pages)
		husk_fail(12, "no memory for %u pages", n);
	for (size_t i = 0; pages && i < n; i++)
		*(volatile unsigned char *)&pages[i * page] = (unsigned char)value;
}
HUSK_EXPORT(void, touch, u32, u32);

/** What touch() wrote to page @i. */
static uint32_t touched(uint32_t i)
{
	return pages ? *(volatile unsigned char *)&pages[i * 4096ull] : 0;
}
HUSK_EXPORT(u32, touched, u32);

/** The sum of everything that can change from data's start to its end, and of the heap's first @n bytes. */
static uint64_t checksum(uint64_t n)
{
	const struct sandbox_range data = husk_info()->data, heap = husk_info()->heap;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < data.size / 8; i++)
		sum = sum * 31 + ((volatile uint64_t *)data.at)[i];
	for (uint64_t i = 0; i < n / 8 && i < heap.size / 8; i++)
		sum = sum * 31 + ((volatile uint64_t *)heap.at)[i];
	return sum;
}
HUSK_EXPORT(u64, checksum, u64);

/* ---- text ---- */

/** Print @text and a line's end. */
static void print(const char *text)
{
	husk_printf("%s\n", text);
}
HUSK_EXPORT(void, print, string);

/** Print a line for each number from 1 to @n. */
static void print_lines(uint32_t n)
{
	for (uint32_t i = 1; i <= n; i++)
		husk_printf("line %u of %u\n", i, n);
}
HUSK_EXPORT(void, print_lines, u32);

/** Print one text of @n bytes, all 'x': what does not fit into the output buffer is cut off. */
static void print_long(uint64_t n)
{
	char *text = malloc(n);

	if (text)
		memset(text, 'x', n);
	else
		husk_fail(12, "no memory for %llu bytes", (unsigned long long)n);
	husk_print(text, text ? n : 0);
	free(text);
}
HUSK_EXPORT(void, print_long, u64);

/* ---- what the host shares ---- */

static volatile unsigned char *region_at(const char *name, uint64_t offset)
{
	size_t size;
	volatile unsigned char *region = husk_region(name, &size);

	if (region && offset < size)
		return region + offset;
	husk_fail(2, "no byte %llu in a region '%s'", (unsigned long long)offset, name);
	return NULL;
}

/** The size of region @name; 0: the program has none of that name, or may not read it. */
static uint64_t region_size(const char *name)
{
	size_t size;

	return husk_region(name, &size) ? size : 0;
}
HUSK_EXPORT(u64, region_size, string);

/** A byte of a region; code 2 when it is not there. */
static uint32_t region_read(const char *name, uint64_t offset)
{
	volatile unsigned char *at = region_at(name, offset);

	return at ? *at : 0;
}
HUSK_EXPORT(u32, region_read, string, u64);

/** Write a byte of a region: a fault, when the program may only read it. */
static void region_write(const char *name, uint64_t offset, uint32_t value)
{
	volatile unsigned char *at = region_at(name, offset);

	if (at)
		*at = (unsigned char)value;
}
HUSK_EXPORT(void, region_write, string, u64, u32);

static volatile uint64_t *cell_at(const char *name)
{
	volatile uint64_t *cell = husk_cell(name);

	if (!cell)
		husk_fail(2, "no cell '%s'", name);
	return cell;
}

/** The value of a cell; code 2 when it is not there. */
static uint64_t cell_load(const char *name)
{
	volatile uint64_t *cell = cell_at(name);

	return cell ? husk_cell_load(cell) : 0;
}
HUSK_EXPORT(u64, cell_load, string);

/** Write a cell; one of the host's is read-only. */
static void cell_store(const char *name, uint64_t value)
{
	volatile uint64_t *cell = cell_at(name);

	if (cell)
		husk_cell_store(cell, value);
}
HUSK_EXPORT(void, cell_store, string, u64);

/** Load cell @name until it is @last; returns how many values had two halves that differ, or were less than the one before.
 *  The host only ever writes values whose halves are equal. */
static uint64_t cell_poll(const char *name, uint64_t last)
{
	volatile uint64_t *cell = cell_at(name);
	uint64_t torn = 0, before = 0, value = 0;

	while (cell && value != last) {
		value = husk_cell_load(cell);
		torn += (uint32_t)value != value >> 32 || value < before;
		before = value;
	}
	return torn;
}
HUSK_EXPORT(u64, cell_poll, string, u64);

/** Write 1, 2, … @n to the guest's cell @name. */
static void cell_count(const char *name, uint64_t n)
{
	volatile uint64_t *cell = cell_at(name);

	for (uint64_t i = 1; cell && i <= n; i++)
		husk_cell_store(cell, i);
}
HUSK_EXPORT(void, cell_count, string, u64);

/* ---- memory ---- */

/** malloc, realloc and free in an order that @seed chooses, @rounds times, each block with a pattern that is checked;
 *  returns how many bytes were wrong. */
static uint64_t heap_stress(uint64_t seed, uint32_t rounds)
{
	static struct {
		unsigned char *at;
		size_t size;
	} blocks[64];
	uint64_t wrong = 0;

	for (uint32_t round = 0; round < rounds; round++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		unsigned i = seed >> 58;
		size_t size = seed >> 32 & 2047, kept = blocks[i].size < size ? blocks[i].size : size;
		unsigned char *at = realloc(blocks[i].at, size);
		if (!at)
			continue;
		for (size_t k = 0; k < kept; k++)
			wrong += at[k] != (unsigned char)(i + k);
		for (size_t k = 0; k < size; k++)
			at[k] = (unsigned char)(i + k);
		blocks[i].at = at;
		blocks[i].size = size;
	}
	for (unsigned i = 0; i < 64; i++) {
		free(blocks[i].at);
		blocks[i].at = NULL;
		blocks[i].size = 0;
	}
	return wrong;
}
HUSK_EXPORT(u64, heap_stress, u64, u32);

/** How much one malloc() gets, to the nearest KiB. */
static uint64_t heap_most(void)
{
	uint64_t low = 0, high = 1ull << 32;

	while (high - low > 1024) {
		uint64_t middle = (low + high) / 2;
		void *block = malloc(middle);
		if (block)
			low = middle;
		else
			high = middle;
		free(block);
	}
	return low;
}
HUSK_EXPORT(u64, heap_most);

/** Free a block twice: aborts. */
static void double_free(void)
{
	void *volatile block = malloc(100);

	free(block);
	free(block);
}
HUSK_EXPORT(void, double_free);

/** Write beyond a block's end: aborts when it is freed. */
static void overrun(void)
{
	void *volatile before = malloc(32), *volatile after = malloc(32);

	memset(before, 'x', 48);
	free(after);
	free(before);
}
HUSK_EXPORT(void, overrun);

/** Where things lie: 0 program, 1 data, 2 heap, 3 stack, 4 input, 5 output. */
static uint64_t where(uint32_t what)
{
	const struct sandbox_info *info = husk_info();
	const struct sandbox_range *all[] = {
		&info->program, &info->data, &info->heap, &info->stack, &info->input, &info->output};

	return what < sizeof(all) / sizeof(all[0]) ? all[what]->at : 0;
}
HUSK_EXPORT(u64, where, u32);
