/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.c - what a running VM uses, and what went through it
 *
 * Theory of operation: its processes' time is the host's to tell, in /proc, of those very processes that the state names. The rest
 * are the worker's counters (base/stats.h), which lie in a file that is read as it is at that moment. What the worker has to look
 * for is asked for by way of the supervisor before, with a short deadline: of a VM that hangs the numbers of the last time are given.
 * The worker may have been captured by its guest: its counters are numbers and nothing else, and too large ones are cut.
 */
#include "engine/usage.h"

#include "base/path.h"
#include "base/stats.h"
#include "engine/control.h"
#include "engine/inspect.h"
#include "engine/status.h"

#include <fcntl.h>
#include <string.h>

#define REFRESH_MS 500

static json_t *count(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

static json_t *microseconds(uint64_t ns)
{
	return json_real((double)ns / 1000);
}

static json_t *describe_stage(const struct histogram *h)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "count", count(h->count), "mean_us",
		microseconds(h->count ? h->sum_ns / h->count : 0), "p50_us", microseconds(histogram_quantile(h, 500)),
		"p90_us", microseconds(histogram_quantile(h, 900)), "p99_us", microseconds(histogram_quantile(h, 990)));
}

static void add_counts(json_t *json, const struct door_meter *m)
{
	json_object_set_new(json, "connections", count(m->connections));
	json_object_set_new(json, "active", count(m->active));
	json_object_set_new(json, "waiting", count(m->waiting));
	json_object_set_new(json, "refused", count(m->refused));
	json_object_set_new(json, "bytes_in", count(m->bytes_in));
	json_object_set_new(json, "bytes_out", count(m->bytes_out));
}

static json_t *describe_meter(const struct vm_door *door, const struct door_meter *m)
{
	static const char *const names[DOOR_STAGES] = {
		[DOOR_ACCEPT] = "accept",
		[DOOR_CONNECT] = "connect",
		[DOOR_FIRST_BYTE] = "first_byte",
		[DOOR_READ] = "read",
		[DOOR_WRITE] = "write",
	};
	json_t *json = inspect_door(door), *stages = json_object();
	add_counts(json, m);
	for (size_t i = 0; i < DOOR_STAGES; i++)
		json_object_set_new(stages, names[i], describe_stage(&m->stage[i]));
	json_object_set_new(json, "stages", stages);
	return json;
}

static void add_up(struct door_meter *total, const struct door_meter *m)
{
	total->connections += m->connections;
	total->active += m->active;
	total->waiting += m->waiting;
	total->refused += m->refused;
	total->bytes_in += m->bytes_in;
	total->bytes_out += m->bytes_out;
}

static int read_stats(const struct husk *husk, const char *id, struct vm_stats *stats, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_format("%s/%s/" STATS_NAME, husk->runtime, id);
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd < 0)
		return path && errno == ENOENT ? error_set(err, -ESRCH, "VM %s does not run", id)
					       : error_errno(err, "open the counters of VM %s", id);
	ssize_t n = pread(fd, stats, sizeof(*stats), 0);
	if (n < 0)
		return error_errno(err, "read the counters of VM %s", id);
	if (n != sizeof(*stats) || stats->magic != STATS_MAGIC || stats->size != sizeof(*stats))
		return error_set(err, -EPROTO, "the counters of VM %s are another version's, or damaged", id);
	return 0;
}

/* ---- processes ---- */

/** What a VM's processes have used. */
struct processes {
	uint64_t cpu_ns;
	uint64_t tasks; /* processes and their threads, now */
};

/** Field @n, from 3 on, of a /proc/PID/stat whose field 2 ended at @at: proc(5). */
static uint64_t field(const char *at, int n)
{
	for (int i = 2; at && i < n; i++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

/** Add what @id has used, and the children that it has waited for, as long as it is that very process. */
static void add_process(struct processes *p, const struct process_id *id)
{
	char path[32], text[1024];
	uint64_t tick_ns = 1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK);

	if (id->pid <= 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)id->pid);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return;
	text[n] = 0;
	const char *at = strrchr(text, ')');
	if (!at || field(at, 22) != id->start_time)
		return;
	for (int i = 14; i <= 17; i++)
		p->cpu_ns += field(at, i) * tick_ns;
	p->tasks += field(at, 20);
}

static json_t *describe_memory(const struct memory_meter *m)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "limit", count(m->limit), "used", count(m->used), "given_back",
		count(m->given_back), "target", count(m->balloon_target), "actual", count(m->balloon_actual));
}

static json_t *describe_block(const struct block_meter *m)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "reads", count(m->reads), "writes", count(m->writes),
		"read_bytes", count(m->read_bytes), "write_bytes", count(m->write_bytes), "flushes", count(m->flushes),
		"discards", count(m->discards), "errors", count(m->errors));
}

static json_t *describe_usage(const struct vm_state_record *state, const struct vm_stats *stats)
{
	struct processes p = {0};

	add_process(&p, &state->supervisor);
	add_process(&p, &state->worker);
	add_process(&p, &state->machine);
	return json_pack("{s:o, s:o, s:o, s:{s:o, s:o}, s:o, s:o}", "cpu_ns", count(p.cpu_ns), "memory",
		describe_memory(&stats->memory), "block", describe_block(&stats->block), "net", "in_bytes",
		count(stats->net.in_bytes), "out_bytes", count(stats->net.out_bytes), "exits", count(stats->exits),
		"pids", count(p.tasks));
}

static json_t *describe_doors(
	const struct vm_state_record *state, const struct vm_stats *stats, struct door_meter *total)
{
	json_t *doors = json_array();

	for (size_t i = 0; i < VM_DOORS_MAX; i++) {
		if (!state->doors[i].id)
			continue;
		json_array_append_new(doors, describe_meter(&state->doors[i], &stats->door[i]));
		add_up(total, &stats->door[i]);
	}
	return doors;
}

/** The name is the engine's to know, in vm.json. */
static json_t *read_name(const struct husk *husk, const char *id)
{
	struct vm_record record = VM_RECORD_INIT;
	CLEANUP_FREE char *directory = path_format("%s/vms/%s", husk->home, id);
	CLEANUP_JSON json_t *json = NULL;

	snprintf(record.id, sizeof(record.id), "%s", id);
	record.directory = directory;
	if (!directory || vm_record_read(&record, &json, NULL) < 0)
		return json_null();
	json_t *name = json_object_get(json, "name");
	return name ? json_incref(name) : json_null();
}

int usage_vm(const struct husk *husk, const char *id, json_t **out, struct husk_error *err)
{
	const struct vm_message refresh = {.kind = VM_CONTROL_STATS};
	struct door_meter total = {0};
	struct status status;
	CLEANUP_FREE struct vm_stats *stats = malloc(sizeof(*stats));

	if (!stats)
		return error_set(err, -ENOMEM, "read the counters of VM %s: out of memory", id);
	int rc = status_read(husk, id, &status, err);
	if (rc < 0)
		return rc;
	if (!status_runs(status.state.state))
		return error_set(err, -ESRCH, "VM %s does not run", id);
	if (status.state.state != VM_STARTING)
		(void)control_request(husk, id, &refresh, -1, REFRESH_MS, NULL);
	rc = read_stats(husk, id, stats, err);
	if (rc < 0)
		return rc;
	json_t *json = json_pack("{s:s, s:o}", "id", id, "name", read_name(husk, id));
	CLEANUP_JSON json_t *usage = describe_usage(&status.state, stats);
	if (!json || !usage || json_object_update(json, usage) < 0) {
		json_decref(json);
		return error_set(err, -ENOMEM, "read the counters of VM %s: out of memory", id);
	}
	json_object_set_new(json, "doors", describe_doors(&status.state, stats, &total));
	json_object_set_new(json, "total", json_object());
	add_counts(json_object_get(json, "total"), &total);
	*out = json;
	return 0;
}
