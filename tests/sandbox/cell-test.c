/* SPDX-License-Identifier: Apache-2.0 */
/* cell-test.c - cells: places, owners, arithmetic, what a snapshot gives back, many threads, and no torn values; without KVM */
#include "sandbox/access.h"
#include "sandbox/info.h"

#include "base/cleanup.h"
#include "tests/sandbox/make.h"
#include "tests/sandbox/torn.h"
#include "tests/tap.h"

#include <pthread.h>

#define MIB (1ull << 20)
#define HOST HUSK_SANDBOX_CELL_HOST
#define GUEST HUSK_SANDBOX_CELL_GUEST
#define ANYWHERE HUSK_SANDBOX_ANYWHERE

static struct area *area_of(struct husk_sandbox *s, uint64_t gpa)
{
	const struct memory_region *r = memory_find(&s->areas.memory, gpa, 8);
	return r ? &s->areas.list[r->tag] : NULL;
}

/** The word of a cell, as the guest sees it. */
static uint64_t word_of(struct husk_sandbox *s, unsigned cell)
{
	return *(uint64_t *)areas_at(&s->areas, s->cells.list[cell].gpa, 8);
}

/** A guest that writes @value into its cell. */
static void guest_writes(struct husk_sandbox *s, unsigned cell, uint64_t value)
{
	*(uint64_t *)areas_at(&s->areas, s->cells.list[cell].gpa, 8) = value;
}

/* ---- places ---- */

static void test_default_pages(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	const uint64_t host_page = s->places.cells.at, guest_page = host_page + 4096;
	unsigned cell, wrong = 0, areas = s->areas.n;
	uint64_t gpa;
	CHECK(!areas_at(&s->areas, host_page, 1) && !areas_at(&s->areas, guest_page, 1),
		"without cells there is no page");
	CHECK(husk_sandbox_add_cell(s, "g0", GUEST, ANYWHERE, &cell, NULL) == 0 && cell == 0 &&
			husk_sandbox_find_cell(s, "g0", &cell, &gpa, NULL) == 0 && cell == 0 && gpa == guest_page,
		"the first of the guest's is at the start of a page of its own");
	CHECK(s->areas.n == areas + 1 && !areas_at(&s->areas, host_page, 1), "which is the only one");
	CHECK(husk_sandbox_add_cell(s, "h0", HOST, ANYWHERE, &cell, NULL) == 0 && cell == 1 &&
			husk_sandbox_find_cell(s, "h0", &cell, &gpa, NULL) == 0 && cell == 1 && gpa == host_page,
		"the first of the host's likewise");
	char name[] = "n000";
	for (unsigned i = 2; i < CELLS_MAX; i++) {
		name[1] = (char)('0' + i / 100);
		name[2] = (char)('0' + i / 10 % 10);
		name[3] = (char)('0' + i % 10);
		wrong += husk_sandbox_add_cell(s, name, HOST, ANYWHERE, &cell, NULL) != 0 || cell != i ||
			 husk_sandbox_find_cell(s, name, &cell, &gpa, NULL) != 0 || gpa != host_page + (i - 1) * 8ull;
	}
	CHECK(wrong == 0 && s->areas.n == areas + 2, "510 more share its page, in order");
	CHECK(husk_sandbox_add_cell(s, "more", HOST, ANYWHERE, NULL, NULL) == -ENOSPC &&
			husk_sandbox_add_cell(s, "more", GUEST, MIB, NULL, NULL) == -ENOSPC && s->areas.n == areas + 2,
		"512 are the most");
	const unsigned host_rights = HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R;
	CHECK(area_of(s, host_page)->rights == host_rights &&
			area_of(s, guest_page)->rights == (host_rights | HUSK_SANDBOX_GUEST_W),
		"the guest may write its own page only");
	CHECK(info_write(s) == 0, "all names fit into the info page");
	husk_sandbox_free(s);
}

static void test_places(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	struct husk_error err;
	husk_sandbox_add_region(s, "region", 4096, 15, 2 * MIB, NULL, NULL);
	const struct {
		enum husk_sandbox_cell_owner owner;
		uint64_t gpa;
		int rc;
		unsigned pages; /* made by it */
		const char *what;
	} cases[] = {
		{HOST, MIB, 0, 1, "the host's at a page of its own"},
		{HOST, MIB, -EEXIST, 0, "the same word again"},
		{GUEST, MIB, -EEXIST, 0, "the same word for the guest"},
		{GUEST, MIB + 8, -EEXIST, 0, "the next word for the guest"},
		{HOST, MIB + 8, 0, 0, "the next word"},
		{HOST, MIB + 4088, 0, 0, "the last word of the page"},
		{HOST, MIB + 4, -EINVAL, 0, "no multiple of 8"},
		{HOST, MIB + 17, -EINVAL, 0, "nor that"},
		{HOST, MIB + 4096, 0, 1, "the next page"},
		{GUEST, MIB - 8, 0, 1, "the page before, for the guest"},
		{GUEST, 0, 0, 1, "address 0"},
		{GUEST, 2 * MIB, -EEXIST, 0, "in a region"},
		{GUEST, 2 * MIB + 4088, -EEXIST, 0, "at the end of a region"},
		{GUEST, 2 * MIB + 4096, 0, 1, "right behind it"},
		{HOST, SANDBOX_SUPPORT, -EEXIST, 0, "in the library's pages"},
		{HOST, s->places.core.at, -EEXIST, 0, "in the program's memory"},
		{HOST, s->places.cells.at, -EEXIST, 0, "where cells go by themselves"},
		{HOST, s->places.cells.at + 4096, -EEXIST, 0, "where the guest's go"},
		{HOST, s->places.end - 8, -EEXIST, 0, "the last word of the library's"},
		{HOST, SANDBOX_SUPPORT - 8, 0, 1, "the word before the library's"},
		{HOST, SANDBOX_ADDRESS_MAX - 8, 0, 1, "the last word there is"},
		{HOST, SANDBOX_ADDRESS_MAX, -EINVAL, 0, "the one behind it"},
		{HOST, UINT64_MAX - 7, -EINVAL, 0, "the last address"},
		{0, ANYWHERE, -EINVAL, 0, "nobody's"},
		{3, ANYWHERE, -EINVAL, 0, "somebody else's"},
	};
	unsigned n = 0;
	char name[] = "c00";
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned areas = s->areas.n, cell = 999;
		uint64_t gpa = 1;
		name[1] = (char)('0' + i / 10);
		name[2] = (char)('0' + i % 10);
		int rc = husk_sandbox_add_cell(s, name, cases[i].owner, cases[i].gpa, &cell, NULL);
		bool ok = rc == 0;
		CHECK(rc == cases[i].rc && s->areas.n == areas + cases[i].pages && s->cells.n == n + ok &&
				cell == (ok ? n : 999) &&
				husk_sandbox_find_cell(s, name, NULL, &gpa, NULL) == (ok ? 0 : -ENOENT) &&
				gpa == (ok ? cases[i].gpa : 1),
			cases[i].what);
		n += ok;
	}
	CHECK(husk_sandbox_add_region(s, "over", 8192, 15, MIB - 4096, NULL, &err) == -EEXIST, "a region over cells");
	unsigned pages = 0;
	for (unsigned i = 0; i < s->areas.n; i++)
		pages += s->areas.list[i].kind == AREA_CELLS_HOST || s->areas.list[i].kind == AREA_CELLS_GUEST;
	for (; pages < CELL_PAGES_MAX; pages++) {
		name[0] = (char)('A' + pages % 26);
		if (husk_sandbox_add_cell(s, name, HOST, 16 * MIB + pages * 4096, NULL, NULL) < 0)
			CHECK(false, "there is room for 32 pages");
	}
	CHECK(husk_sandbox_add_cell(s, "more", HOST, 32 * MIB, NULL, &err) == -ENOSPC &&
			strstr(err.message, "32 pages"),
		"32 pages at chosen places are the most");
	CHECK(husk_sandbox_add_cell(s, "h", HOST, ANYWHERE, NULL, NULL) == 0 &&
			husk_sandbox_add_cell(s, "g", GUEST, ANYWHERE, NULL, NULL) == 0 &&
			husk_sandbox_add_cell(s, "same", HOST, MIB + 16, NULL, NULL) == 0,
		"default pages, and words in pages that there are, are not counted");
	husk_sandbox_free(s);
}

/* ---- values ---- */

static void test_arithmetic(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	struct husk_error err;
	unsigned cell, other;
	uint64_t value = 7;
	husk_sandbox_add_cell(s, "limit", HOST, ANYWHERE, &cell, NULL);
	husk_sandbox_add_cell(s, "other", HOST, ANYWHERE, &other, NULL);
	CHECK(husk_sandbox_cell_get(s, cell, &value, NULL) == 0 && value == 0 && word_of(s, cell) == 0, "0 at first");
	CHECK(husk_sandbox_cell_add(s, cell, 5, &value, NULL) == 0 && value == 5 && word_of(s, cell) == 5, "add");
	CHECK(husk_sandbox_cell_sub(s, cell, 2, &value, NULL) == 0 && value == 3 && word_of(s, cell) == 3, "sub");
	CHECK(husk_sandbox_cell_sub(s, cell, 4, &value, &err) == -EOVERFLOW && value == 3 && word_of(s, cell) == 3 &&
			strstr(err.message, "'limit', which is 3"),
		"below 0 is refused, and nothing changes");
	CHECK(husk_sandbox_cell_sub(s, cell, 3, NULL, NULL) == 0 && word_of(s, cell) == 0, "to 0");
	CHECK(husk_sandbox_cell_sub(s, cell, 1, &value, NULL) == -EOVERFLOW && word_of(s, cell) == 0, "and no further");
	CHECK(husk_sandbox_cell_set(s, cell, UINT64_MAX - 1, NULL) == 0 && word_of(s, cell) == UINT64_MAX - 1, "set");
	CHECK(husk_sandbox_cell_add(s, cell, 2, &value, NULL) == -EOVERFLOW && value == 3 &&
			husk_sandbox_cell_get(s, cell, &value, NULL) == 0 && value == UINT64_MAX - 1,
		"above the largest is refused");
	CHECK(husk_sandbox_cell_add(s, cell, 1, &value, NULL) == 0 && value == UINT64_MAX &&
			word_of(s, cell) == UINT64_MAX,
		"to the largest");
	CHECK(husk_sandbox_cell_add(s, cell, UINT64_MAX, NULL, NULL) == -EOVERFLOW &&
			husk_sandbox_cell_add(s, cell, 0, NULL, NULL) == 0 && word_of(s, cell) == UINT64_MAX,
		"by nothing");
	CHECK(word_of(s, other) == 0, "the neighbour has not changed");
	guest_writes(s, cell, 99); /* it cannot; if it could, it would not be believed */
	CHECK(husk_sandbox_cell_get(s, cell, &value, NULL) == 0 && value == UINT64_MAX &&
			husk_sandbox_cell_sub(s, cell, 1, &value, NULL) == 0 && value == UINT64_MAX - 1 &&
			word_of(s, cell) == UINT64_MAX - 1 && husk_sandbox_cell_get(s, cell, &value, NULL) == 0 &&
			value == UINT64_MAX - 1,
		"the host's own copy is the truth");
	husk_sandbox_free(s);
}

static void test_load(void)
{
	static const struct {
		uint64_t guest, max;
		bool ok;
	} cases[] = {{0, 0, true}, {1, 0, false}, {1, 1, true}, {5, 4, false}, {5, 5, true},
		{UINT64_MAX, UINT64_MAX, true}, {UINT64_MAX, UINT64_MAX - 1, false},
		{1ull << 63, (1ull << 63) - 1, false}};
	struct husk_sandbox *s = make_small_sandbox();
	struct husk_error err;
	unsigned cell, wrong = 0;
	husk_sandbox_add_cell(s, "used", GUEST, ANYWHERE, &cell, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 42;
		guest_writes(s, cell, cases[i].guest);
		wrong += husk_sandbox_cell_load(s, cell, cases[i].max, &value, &err) != (cases[i].ok ? 0 : -ERANGE);
		wrong += value != (cases[i].ok ? cases[i].guest : 42);
	}
	CHECK(wrong == 0, "what the guest says is taken up to the maximum, and not above");
	CHECK(strstr(err.message, "'used'") != NULL, "and the refusal says of which");
	CHECK(area_of(s, s->cells.list[cell].gpa)->dirty[0] == 0, "loading leaves the page clean");
	husk_sandbox_free(s);
}

static void test_owners(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	unsigned host, guest, none = 2, wrong = 0;
	uint64_t value = 42;
	husk_sandbox_add_cell(s, "h", HOST, ANYWHERE, &host, NULL);
	husk_sandbox_add_cell(s, "g", GUEST, ANYWHERE, &guest, NULL);
	wrong += husk_sandbox_cell_set(s, guest, 1, NULL) != -EACCES;
	wrong += husk_sandbox_cell_add(s, guest, 1, &value, NULL) != -EACCES;
	wrong += husk_sandbox_cell_sub(s, guest, 0, &value, NULL) != -EACCES;
	wrong += husk_sandbox_cell_get(s, guest, &value, NULL) != -EACCES;
	wrong += husk_sandbox_cell_load(s, host, UINT64_MAX, &value, NULL) != -EACCES;
	CHECK(wrong == 0 && value == 42 && word_of(s, guest) == 0, "each owner's are for one side to write");
	wrong += husk_sandbox_cell_set(s, none, 1, NULL) != -ENOENT;
	wrong += husk_sandbox_cell_add(s, none, 1, &value, NULL) != -ENOENT;
	wrong += husk_sandbox_cell_sub(s, none, 0, &value, NULL) != -ENOENT;
	wrong += husk_sandbox_cell_get(s, UINT32_MAX, &value, NULL) != -ENOENT;
	wrong += husk_sandbox_cell_load(s, none, UINT64_MAX, &value, NULL) != -ENOENT;
	CHECK(wrong == 0 && value == 42, "numbers that no cell has");
	wrong += husk_sandbox_memory_write(s, s->cells.list[host].gpa, &value, 8, NULL) != -EACCES;
	wrong += husk_sandbox_memory_write(s, s->cells.list[guest].gpa, &value, 8, NULL) != -EACCES;
	husk_sandbox_cell_set(s, host, 0x1122, NULL);
	CHECK(wrong == 0 && word_of(s, guest) == 0, "pages of cells are not written by address");
	CHECK(husk_sandbox_memory_read(s, s->cells.list[host].gpa, &value, 8, NULL) == 0 && value == 0x1122,
		"and can be read");
	husk_sandbox_free(s);
}

static void test_snapshots(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	unsigned a, b, g;
	husk_sandbox_add_cell(s, "a", HOST, ANYWHERE, &a, NULL);
	husk_sandbox_add_cell(s, "b", HOST, MIB, &b, NULL);
	husk_sandbox_add_cell(s, "g", GUEST, ANYWHERE, &g, NULL);
	struct area *page = area_of(s, MIB);
	husk_sandbox_cell_set(s, b, 5, NULL);
	CHECK(page->dirty[0] == 1 && area_of(s, s->places.cells.at)->dirty[0] == 0, "a store makes its page dirty");
	areas_clean(&s->areas);
	cells_publish(&s->cells, &s->areas);
	CHECK(page->dirty[0] == 0, "publishing what is there already does not");
	s->cells.list[b].shadow = 6; /* as a restore does */
	guest_writes(s, g, 9);
	cells_publish(&s->cells, &s->areas);
	CHECK(word_of(s, b) == 6 && word_of(s, a) == 0 && word_of(s, g) == 9 && page->dirty[0] == 1,
		"publishing writes the host's words that differ, and not the guest's");

	/* The same areas, and cells as a file that a stranger wrote has them. */
	struct cells back = {0};
	const uint64_t words = s->places.cells.at;
	unsigned wrong = 0;
	wrong += cells_add_back(&back, &s->areas, "b", HOST, MIB, 77, NULL) != 0;
	wrong += cells_add_back(&back, &s->areas, "last", HOST, words + 4088, 1, NULL) != 0;
	wrong += cells_add_back(&back, &s->areas, "g", GUEST, words + 4096, 3, NULL) != 0;
	CHECK(wrong == 0 && back.n == 3 && back.list[0].shadow == 77 && word_of(s, b) == 6, "cells come back");
	wrong += cells_add_back(&back, &s->areas, "x", HOST, MIB, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", HOST, words + 4096 + 8, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", GUEST, words, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", HOST, MIB + 12, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", HOST, MIB + 4096, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", HOST, MIB + 4089, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", HOST, s->places.core.at, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", 0, MIB + 8, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", 3, MIB + 8, 0, NULL) != -EINVAL;
	wrong += cells_add_back(&back, &s->areas, "x", HOST, UINT64_MAX, 0, NULL) != -EINVAL;
	CHECK(wrong == 0 && back.n == 3, "and those that cannot be do not");
	cells_publish(&back, &s->areas);
	CHECK(word_of(s, b) == 77 && word_of(s, g) == 9, "their values are published");
	unsigned cell = 0;
	CHECK(cells_add(&back, &s->areas, "new", HOST, ANYWHERE, words, &cell, NULL) == 0 && cell == 3 &&
			back.list[3].gpa == words,
		"one that is added then gets the first word that is free");
	cells_destroy(&back);
	CHECK(back.n == 0 && cells_find(&back, "b") == -ENOENT, "and none is left");
	husk_sandbox_free(s);
}

/* ---- the info page ---- */

static void test_info(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	husk_sandbox_add_region(s, "both", 8192, 15, ANYWHERE, NULL, NULL);
	husk_sandbox_add_region(s, "hosts", 4096, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W, ANYWHERE, NULL, NULL);
	husk_sandbox_add_region(s, "constant", 4096, HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R, MIB, NULL, NULL);
	husk_sandbox_add_cell(s, "limit", HOST, ANYWHERE, NULL, NULL);
	husk_sandbox_add_cell(s, "used", GUEST, 2 * MIB + 8, NULL, NULL);
	static const struct {
		const char *name;
		uint64_t size;
		unsigned rights, cell;
	} names[] = {{"both", 8192, 15, 0}, {"constant", 4096, 6, 0}, {"limit", 8, 5, 1}, {"used", 8, 13, 1}};
	CHECK(info_write(s) == 0, "the info page is written");
	const struct sandbox_info *info = areas_at(&s->areas, s->places.info.at, SANDBOX_INFO_SIZE);
	CHECK(info->magic == SANDBOX_INFO_MAGIC && info->protocol == SANDBOX_PROTOCOL && info->size == sizeof(*info),
		"its head");
	CHECK(info->program.at == SANDBOX_PROGRAM &&
			info->program.at + info->program.size == SANDBOX_SUPPORT + s->image->ro_size &&
			memcmp(&info->data, &s->places.data, sizeof(info->data)) == 0 &&
			memcmp(&info->heap, &s->places.heap, sizeof(info->heap)) == 0 &&
			memcmp(&info->stack, &s->places.stack, sizeof(info->stack)) == 0 &&
			memcmp(&info->input, &s->places.input, sizeof(info->input)) == 0 &&
			memcmp(&info->output, &s->places.output, sizeof(info->output)) == 0,
		"where everything is");
	unsigned wrong = info->n_names != ARRAY_SIZE(names);
	for (unsigned i = 0; i < ARRAY_SIZE(names) && !wrong; i++) {
		const struct sandbox_named *to = &info->names[i];
		wrong += strcmp(to->name, names[i].name) != 0 || to->size != names[i].size ||
			 to->rights != names[i].rights || to->cell != names[i].cell;
	}
	CHECK(wrong == 0, "the names of what the guest may read, and not of what it may not");
	CHECK(info->names[1].at == MIB && info->names[3].at == 2 * MIB + 8 && info->names[2].at == s->places.cells.at,
		"and their places");
	CHECK(area_of(s, s->places.info.at)->dirty[0] == 1, "its pages are dirty");
	husk_sandbox_free(s);
	struct husk_sandbox none = {0};
	CHECK(info_write(&none) == -EFAULT, "without its area it is not written");
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 25000 };

static void *add_many(void *data)
{
	uint64_t last = 0, value;
	for (unsigned i = 0; i < ROUNDS; i++, last = value)
		if (husk_sandbox_cell_add(data, 0, 3, &value, NULL) != 0 || value <= last ||
			husk_sandbox_cell_sub(data, 0, 1, NULL, NULL) != 0)
			return data;
	return NULL;
}

static void test_threads(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	pthread_t threads[THREADS];
	uint64_t value = 0;
	void *failed = NULL, *result;
	husk_sandbox_add_cell(s, "count", HOST, ANYWHERE, NULL, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, add_many, s) != 0)
			abort();
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &result);
		failed = result ? result : failed;
	}
	CHECK(!failed && husk_sandbox_cell_get(s, 0, &value, NULL) == 0 && value == 2ull * THREADS * ROUNDS &&
			word_of(s, 0) == value,
		"no addition of four threads is lost");
	husk_sandbox_free(s);
}

struct reader {
	const uint64_t *word;
	struct torn_seen seen;
};

static void *poll_word(void *data)
{
	struct reader *reader = data;
	torn_poll(reader->word, &reader->seen);
	return NULL;
}

/** At least TORN_UPDATES, and on until the reader, which may have to share a CPU with us, has seen @changes or @torn; how many. */
static uint64_t write_under_poll(torn_store *store, void *data, struct reader *reader, uint64_t changes, uint64_t torn)
{
	enum { BATCH = 1000, MANY = 500 };
	pthread_t thread;
	uint64_t n = 0;
	store(data, 0);
	if (pthread_create(&thread, NULL, poll_word, reader) != 0)
		abort();
	while (torn_look(&reader->seen.polls) == 0)
		sched_yield();
	for (; n < MANY * (uint64_t)TORN_UPDATES; n += BATCH) {
		bool enough = torn_look(&reader->seen.changes) >= changes && torn_look(&reader->seen.torn) >= torn;
		if (enough && n >= TORN_UPDATES)
			break;
		torn_write(store, data, n, BATCH);
	}
	store(data, TORN_END);
	pthread_join(thread, NULL);
	printf("# %ju updates: %ju polls saw %ju changes, %ju torn\n", (uintmax_t)n, (uintmax_t)reader->seen.polls,
		(uintmax_t)reader->seen.changes, (uintmax_t)reader->seen.torn);
	return n;
}

static void store_cell(void *data, uint64_t value)
{
	if (husk_sandbox_cell_set(data, 0, value, NULL) != 0)
		abort();
}

static void test_torn(void)
{
	struct husk_sandbox *s = make_small_sandbox();
	husk_sandbox_add_cell(s, "word", HOST, ANYWHERE, NULL, NULL);
	uint64_t *word = areas_at(&s->areas, s->cells.list[0].gpa, 8);
	struct reader reader = {.word = word}, bytewise = {.word = word};
	CHECK(write_under_poll(store_cell, s, &reader, 50, 0) >= TORN_UPDATES && reader.seen.changes >= 50 &&
			reader.seen.torn == 0,
		"no value of a million updates is seen torn");
	write_under_poll(torn_store_bytewise, word, &bytewise, 0, 1);
	CHECK(bytewise.seen.torn > 0, "and a store that works byte by byte is found out");
	husk_sandbox_free(s);
}

int main(void)
{
	test_default_pages();
	test_places();
	test_arithmetic();
	test_load();
	test_owners();
	test_snapshots();
	test_info();
	test_threads();
	test_torn();
	return tap_done();
}
