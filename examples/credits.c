/* SPDX-License-Identifier: Apache-2.0 */
/*
 * credits.c - give work to a guest while it runs, and no more of it than it has room for
 *
 *	cc credits.c $(pkg-config --cflags --libs husk) && ./a.out credits_guest.elf
 *
 * Two cells that only grow make a window of credits: `produced` is the host's, `consumed` the guest's, and their difference is
 * the number of slots in use, at most SLOTS. Whoever writes a cell makes what it wrote to a region before visible to whoever
 * has read the cell: no lock, no exit from the guest, and nothing of the guest's is believed. A `consumed` that is above
 * `produced` cannot be, and is refused by the library.
 */
#include <husk.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define ITEMS 2000
#define SLOTS 512 /* a page of 64-bit words */

struct job {
	struct husk_sandbox *sandbox;
	unsigned items, results, produced, consumed; /* numbers of the regions and the cells */
	atomic_bool ended; /* the call, which runs in a thread of its own */
	int rc; /* how */
	uint64_t polls;
	struct husk_error err;
};

static void *run(void *data)
{
	struct job *job = data;
	struct husk_sandbox_value total = {.type = HUSK_SANDBOX_U64, .u64 = ITEMS}, polls = {0};
	struct husk_sandbox_call_options options;

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = 60000000000;
	job->rc = husk_sandbox_call(job->sandbox, "work", &total, 1, &polls, &options, &job->err);
	job->polls = polls.u64;
	atomic_store(&job->ended, true);
	return NULL;
}

/** The region of items is the guest's to read, that of results its to write. */
static int share(struct job *job, struct husk_error *err)
{
	struct husk_sandbox *s = job->sandbox;
	const uint64_t bytes = SLOTS * sizeof(uint64_t);
	const unsigned in = HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R,
		       out = HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W;
	int rc = husk_sandbox_add_region(s, "items", bytes, in, HUSK_SANDBOX_ANYWHERE, &job->items, err);

	if (rc == 0)
		rc = husk_sandbox_add_region(s, "results", bytes, out, HUSK_SANDBOX_ANYWHERE, &job->results, err);
	if (rc == 0)
		rc = husk_sandbox_add_cell(
			s, "produced", HUSK_SANDBOX_CELL_HOST, HUSK_SANDBOX_ANYWHERE, &job->produced, err);
	if (rc == 0)
		rc = husk_sandbox_add_cell(
			s, "consumed", HUSK_SANDBOX_CELL_GUEST, HUSK_SANDBOX_ANYWHERE, &job->consumed, err);
	return rc;
}

static uint64_t item(uint64_t i)
{
	return 1 + i * 7919 % 100003;
}

static uint64_t expected(uint64_t n)
{
	uint64_t count = 0;

	for (; n > 1; count++)
		n = n % 2 ? 3 * n + 1 : n / 2;
	return count;
}

/** Give out items while there is credit, and take results as credit comes back. Ends early when the call does. */
static int feed(struct job *job, struct husk_error *err)
{
	uint64_t produced = 0, taken = 0, consumed, closed = 0, sum = 0;
	int rc = 0;

	while (rc == 0 && taken < ITEMS && !(atomic_load(&job->ended) && job->rc < 0)) {
		while (rc == 0 && produced < ITEMS && produced - taken < SLOTS) {
			const uint64_t value = item(produced);
			rc = husk_sandbox_region_write(
				job->sandbox, job->items, produced % SLOTS * sizeof(value), &value, sizeof(value), err);
			if (rc == 0)
				rc = husk_sandbox_cell_add(job->sandbox, job->produced, 1, &produced, err);
		}
		closed += produced < ITEMS;
		if (rc == 0)
			rc = husk_sandbox_cell_load(job->sandbox, job->consumed, produced, &consumed, err);
		if (rc == 0 && consumed == taken)
			sched_yield();
		for (; rc == 0 && taken < consumed; taken++) {
			uint64_t result;
			rc = husk_sandbox_region_read(job->sandbox, job->results, taken % SLOTS * sizeof(result),
				&result, sizeof(result), err);
			if (rc == 0 && result != expected(item(taken))) {
				snprintf(err->message, sizeof(err->message), "result %" PRIu64 " is wrong", taken);
				rc = -1;
			}
			sum += rc == 0 ? result : 0;
		}
	}
	if (rc == 0 && taken == ITEMS)
		printf("%d items of work through a window of %d: %" PRIu64 " steps; without credit %" PRIu64 " times\n",
			ITEMS, SLOTS, sum, closed);
	return rc;
}

static int work(struct job *job, struct husk_error *err)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, job) != 0) {
		snprintf(err->message, sizeof(err->message), "no thread can be made");
		return -1;
	}
	int rc = feed(job, err);
	while (rc < 0 && !atomic_load(&job->ended)) { /* the guest waits for more; the call may not have begun yet */
		husk_sandbox_cancel(job->sandbox, NULL);
		sched_yield();
	}
	pthread_join(thread, NULL);
	if (rc == 0 && job->rc < 0)
		memcpy(err, &job->err, sizeof(*err));
	return rc < 0 ? rc : job->rc;
}

int main(int argc, char **argv)
{
	struct husk_sandbox_image *image = NULL;
	struct job job = {0};
	struct husk_error err = {0};
	struct husk_sandbox_stats stats = {.size = sizeof(stats)};
	int rc = -1;

	if (argc != 2) {
		fprintf(stderr, "usage: %s credits_guest.elf\n", argv[0]);
		return 2;
	}
	rc = husk_sandbox_image_load(argv[1], &image, &err);
	if (rc == 0)
		rc = husk_sandbox_create(image, NULL, &job.sandbox, &err);
	if (rc == 0)
		rc = share(&job, &err);
	if (rc == 0)
		rc = husk_sandbox_start(job.sandbox, &err);
	if (rc == 0)
		rc = work(&job, &err);
	if (rc == 0)
		rc = husk_sandbox_stats(job.sandbox, &stats, &err);
	if (rc == 0)
		printf("the guest looked for work %" PRIu64 " times, and left for the host %" PRIu64 " times\n",
			job.polls, stats.exits);
	else
		fprintf(stderr, "credits: %s\n", err.message);
	husk_sandbox_free(job.sandbox);
	husk_sandbox_image_free(image);
	return rc < 0;
}
