/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - the VM's counters (base/stats.h)
 *
 * Theory of operation: devices and doors count straight into the mapping that everybody else reads. What would cost something
 * to keep is looked for when the supervisor asks: how much of the guest's memory the host holds, what the balloon did, how
 * often the vCPUs came out. Of a memfd the first is in its block count. Anonymous memory has nothing of the kind that a jail
 * without /proc could read, so mincore(2) is asked for each page: it walks the page tables, which with the counting costs
 * 1.4 ms per GiB in small pages (measured), a third of that in huge ones. It goes in steps of STEP bytes, one for each
 * round of the loop, so that no device waits for a large VM's count; whoever asks meanwhile gets the same answer.
 */
#include "base/cleanup.h"
#include "base/rfc3339.h"
#include "vmm/worker.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define STEP (512ull << 20)
#define PAGE 4096

/** Bytes of [@host, @host + @size) that are in memory. */
static uint64_t resident(uint8_t *host, uint64_t size)
{
	static unsigned char pages[STEP / PAGE];
	uint64_t n = 0;

	if (mincore(host, size, pages) < 0)
		return 0;
	for (size_t i = 0; i < size / PAGE; i++)
		n += pages[i] & 1;
	return n * PAGE;
}

/** The memory is counted: the rest of it, and the answers. */
static void finish(struct worker *w)
{
	struct memory_meter *m = &w->stats->memory;

	stats_set(&m->used, w->sample_used);
	if (w->balloon) {
		struct balloon_counts counts = balloon_counts(w->balloon);
		stats_set(&m->given_back, counts.inflated + counts.reported);
		stats_set(&m->balloon_actual, balloon_actual(w->balloon));
	}
	if (w->ops->exits)
		stats_set(&w->stats->exits, w->ops->exits(w->machine));
	stats_set(&w->stats->sampled_ns, clock_realtime_ns());
	for (; w->samples_asked; w->samples_asked--)
		orders_done(w, VM_CONTROL_STATS, 0, "");
}

static void on_step(struct loop_watch *watch, uint32_t events)
{
	struct worker *w = CONTAINER_OF(watch, struct worker, sampling);
	const struct memory_region *r = &w->memory.regions[w->sample_region];

	(void)events;
	loop_timer_set(watch, 0);
	if (w->sample_region == w->memory.n_regions) {
		finish(w);
		return;
	}
	uint64_t left = r->size - w->sample_at, n = left < STEP ? left : STEP;
	w->sample_used += resident(r->host + w->sample_at, n);
	w->sample_at += n;
	if (w->sample_at == r->size) {
		w->sample_at = 0;
		w->sample_region++;
	}
	loop_timer_set(watch, 1);
}

void sample_ask(struct worker *w)
{
	struct stat st;

	if (w->samples_asked++)
		return;
	w->sample_region = 0;
	w->sample_at = w->sample_used = 0;
	if (w->memory.backing == MEMORY_SHARED) {
		if (fstat(w->memory.fd, &st) == 0)
			w->sample_used = (uint64_t)st.st_blocks * 512;
		finish(w);
	} else {
		on_step(&w->sampling, 0);
	}
}

void sample_ballooned(void *data, uint64_t bytes)
{
	struct worker *w = data;
	struct memory_meter *m = &w->stats->memory;

	if (bytes > m->balloon_actual)
		stats_add(&m->given_back, bytes - m->balloon_actual);
	stats_set(&m->balloon_actual, bytes);
}

/** Map what the engine made. */
static int map(struct worker *w, struct husk_error *err)
{
	struct stat st;

	if (fstat(w->config.stats_fd, &st) < 0)
		return error_errno(err, "map the VM's counters");
	if (st.st_size < (off_t)sizeof(*w->stats))
		return error_set(err, -EINVAL, "map the VM's counters: the file has %lld bytes, not %zu",
			(long long)st.st_size, sizeof(*w->stats));
	void *map = mmap(NULL, sizeof(*w->stats), PROT_READ | PROT_WRITE, MAP_SHARED, w->config.stats_fd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, "map the VM's counters");
	close(steal_fd(&w->config.stats_fd));
	w->stats = map;
	w->stats->size = sizeof(*w->stats);
	w->stats->magic = STATS_MAGIC;
	return 0;
}

int sample_open(struct worker *w, struct husk_error *err)
{
	static struct vm_stats unseen;

	w->stats = &unseen;
	int rc = w->config.stats_fd < 0 ? 0 : map(w, err);
	if (rc == 0)
		stats_set(&w->stats->memory.limit, w->config.memory);
	return rc < 0 ? rc : loop_timer_open(&w->loop, &w->sampling, on_step, err);
}
