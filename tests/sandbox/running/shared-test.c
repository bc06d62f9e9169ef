/* SPDX-License-Identifier: Apache-2.0 */
/* shared-test.c - regions and cells while the guest runs: who may write what, places, restores, and no torn values */
#include "sandbox/sandbox.h"

#include "tests/sandbox/running/rig.h"
#include "tests/sandbox/torn.h"

#include <pthread.h>

#define ANYWHERE HUSK_SANDBOX_ANYWHERE
#define HOST_BOTH (HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W)
#define FIXED_REGION 0x10000000u
#define FIXED_CELL 0x20000008u

enum { BOTH, CONSTANT, SECRET, FIXED };
enum { LIMIT, USED, PLACED };

/** A started sandbox with all kinds of what can be shared. */
static struct husk_sandbox *begin(struct husk_sandbox_image *image)
{
	struct husk_sandbox *s = NULL;
	int rc = husk_sandbox_create(image, NULL, &s, &rig_error);

	rc = rc < 0 ? rc : husk_sandbox_add_region(s, "both", 8192, 15, ANYWHERE, NULL, &rig_error);
	rc = rc < 0 ? rc
		    : husk_sandbox_add_region(
			      s, "constant", 4096, HOST_BOTH | HUSK_SANDBOX_GUEST_R, ANYWHERE, NULL, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_add_region(s, "secret", 4096, HOST_BOTH, ANYWHERE, NULL, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_add_region(s, "fixed", 4096, 15, FIXED_REGION, NULL, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_add_cell(s, "limit", HUSK_SANDBOX_CELL_HOST, ANYWHERE, NULL, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_add_cell(s, "used", HUSK_SANDBOX_CELL_GUEST, ANYWHERE, NULL, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_add_cell(s, "placed", HUSK_SANDBOX_CELL_HOST, FIXED_CELL, NULL, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_region_write(s, CONSTANT, 7, "c", 1, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_cell_set(s, PLACED, 77, &rig_error);
	rc = rc < 0 ? rc : husk_sandbox_start(s, &rig_error);
	if (rc == 0)
		return s;
	printf("Bail out! %s\n", rig_error.message);
	exit(1);
}

static bool reads(struct husk_sandbox *s, const char *region, uint64_t offset, uint32_t want)
{
	struct husk_sandbox_value r = {0};

	return RIG_CALL(s, &r, "region_read", STRING(region), U64(offset)) == 0 && r.u32 == want;
}

static void test_regions(struct husk_sandbox *s)
{
	char byte = 0;

	CHECK(RIG_U64_IS(s, 8192, "region_size", STRING("both")) && RIG_U64_IS(s, 4096, "region_size", STRING("fixed")),
		"the guest finds regions by name");
	CHECK(RIG_U64_IS(s, 0, "region_size", STRING("secret")) && RIG_U64_IS(s, 0, "region_size", STRING("limit")),
		"and not those it has no right to");
	CHECK(reads(s, "constant", 7, 'c'), "it reads what the host wrote before the start");
	CHECK(husk_sandbox_region_write(s, BOTH, 8191, "h", 1, NULL) == 0 && reads(s, "both", 8191, 'h'),
		"and after it, to the last byte");
	CHECK(RIG_CALL(s, NULL, "region_write", STRING("both"), U64(4096), U32('g')) == 0 &&
			husk_sandbox_region_read(s, BOTH, 4096, &byte, 1, NULL) == 0 && byte == 'g',
		"the host reads what the guest wrote");
	CHECK(RIG_CALL(s, NULL, "region_write", STRING("fixed"), U64(0), U32('f')) == 0 &&
			husk_sandbox_memory_read(s, FIXED_REGION, &byte, 1, NULL) == 0 && byte == 'f',
		"a region is at the address that was chosen");
}

static void test_cells(struct husk_sandbox *s)
{
	uint64_t value = 0;

	CHECK(RIG_U64_IS(s, 77, "cell_load", STRING("placed")), "the guest loads what the host set before the start");
	CHECK(husk_sandbox_cell_add(s, LIMIT, 5, &value, NULL) == 0 && RIG_U64_IS(s, 5, "cell_load", STRING("limit")),
		"and after it");
	CHECK(husk_sandbox_memory_read(s, FIXED_CELL, &value, 8, NULL) == 0 && value == 77,
		"a cell is at the address that was chosen");
	CHECK(RIG_CALL(s, NULL, "cell_store", STRING("used"), U64(9)) == 0 &&
			husk_sandbox_cell_load(s, USED, 9, &value, NULL) == 0 && value == 9,
		"the host loads what the guest stored");
	CHECK(husk_sandbox_cell_load(s, USED, 8, &value, NULL) == -ERANGE && value == 9, "unless it is too much");
}

/** What only the host may write is not written by a guest that tries, which ends its call; a restore mends all. */
static void test_read_only(struct husk_sandbox *s)
{
	struct husk_sandbox_snapshot *snapshot = NULL;
	uint64_t value = 0;
	char byte = 0;

	CHECK(husk_sandbox_snapshot(s, &snapshot, &rig_error) == 0, "a snapshot");
	husk_sandbox_cell_set(s, LIMIT, 1000, NULL);
	husk_sandbox_region_write(s, SECRET, 0, "s", 1, NULL);
	RIG_CALL(s, NULL, "cell_store", STRING("used"), U64(1234));
	CHECK(RIG_CALL(s, NULL, "region_write", STRING("constant"), U64(7), U32('x')) == -EFAULT &&
			husk_sandbox_region_read(s, CONSTANT, 7, &byte, 1, NULL) == 0 && byte == 'c',
		"a guest that writes to a region that it may only read faults, and has not written");
	CHECK(husk_sandbox_restore(s, snapshot, &rig_error) == 0 &&
			husk_sandbox_cell_get(s, LIMIT, &value, NULL) == 0 && value == 5 &&
			RIG_U64_IS(s, 5, "cell_load", STRING("limit")),
		"a restore puts the host's cells back, the copy and the word");
	CHECK(husk_sandbox_cell_load(s, USED, 9, &value, NULL) == 0 && value == 9, "and the guest's");
	CHECK(husk_sandbox_region_read(s, SECRET, 0, &byte, 1, NULL) == 0 && byte == 0 && reads(s, "both", 8191, 'h'),
		"and regions");
	CHECK(RIG_CALL(s, NULL, "cell_store", STRING("limit"), U64(1)) == -EFAULT &&
			husk_sandbox_cell_get(s, LIMIT, &value, NULL) == 0 && value == 5 &&
			husk_sandbox_memory_read(s, s->cells.list[LIMIT].gpa, &value, 8, NULL) == 0 && value == 5,
		"one that writes to a cell of the host's likewise");
	CHECK(husk_sandbox_restore(s, snapshot, &rig_error) == 0 && RIG_U64_IS(s, 5, "cell_load", STRING("limit")),
		"restored again");
	husk_sandbox_snapshot_free(snapshot);
}

/* ---- torn values: both halves of what is written are the same number, which grows ---- */

struct poll {
	struct husk_sandbox *sandbox;
	uint64_t updates;
	struct husk_sandbox_value torn;
	int rc;
};

static uint64_t twice(uint64_t i)
{
	return i << 32 | i;
}

static void *poll_cell(void *data)
{
	struct poll *poll = data;
	const struct husk_sandbox_value args[] = {STRING("limit"), U64(twice(poll->updates))};

	poll->rc = husk_sandbox_call(poll->sandbox, "cell_poll", args, 2, &poll->torn, NULL, NULL);
	return NULL;
}

static void store_cell(void *data, uint64_t value)
{
	if (husk_sandbox_cell_set(data, LIMIT, value, NULL) != 0)
		abort();
}

/** How many torn values the guest sees of HUSK_TEST_UPDATES (environment) or TORN_UPDATES; UINT64_MAX: its call failed. */
static uint64_t write_under_guest(struct husk_sandbox *s, torn_store *store, void *data)
{
	const char *given = getenv("HUSK_TEST_UPDATES");
	struct poll poll = {.sandbox = s, .updates = given ? strtoul(given, NULL, 10) : TORN_UPDATES};
	pthread_t thread;

	store(data, 0);
	if (pthread_create(&thread, NULL, poll_cell, &poll) != 0)
		abort();
	while (husk_sandbox_state(s) != HUSK_SANDBOX_RUNNING)
		sched_yield();
	for (uint64_t i = 1; i <= poll.updates; i++)
		store(data, twice(i));
	pthread_join(thread, NULL);
	printf("# %ju updates under a polling guest: %ju torn\n", (uintmax_t)poll.updates, (uintmax_t)poll.torn.u64);
	return poll.rc == 0 ? poll.torn.u64 : UINT64_MAX;
}

/** By turns, so that the store that is right had every chance to be found out that the wrong one had: on a fast host all may be
 *  written before the guest runs at all. */
static void test_torn(struct husk_sandbox *s)
{
	uint64_t torn = 0, bytewise = 0;

	for (unsigned i = 0; i < 50 && torn == 0 && (i < 3 || bytewise == 0); i++) {
		torn = write_under_guest(s, store_cell, s);
		bytewise = write_under_guest(s, torn_store_bytewise, s->cells.list[LIMIT].word);
	}
	CHECK(torn == 0, "no value is seen torn by a polling guest");
	CHECK(bytewise > 0 && bytewise < UINT64_MAX, "and a store that works byte by byte is found out");
}

int main(int argc, char **argv)
{
	rig_need(argc);
	struct husk_sandbox_image *image = rig_load(argv[1], "basic");
	struct husk_sandbox *s = begin(image);

	test_regions(s);
	test_cells(s);
	test_read_only(s);
	test_torn(s);
	husk_sandbox_free(s);
	husk_sandbox_image_free(image);
	return tap_done();
}
