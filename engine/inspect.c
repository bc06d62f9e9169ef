/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.c - what is known of a VM
 *
 * Theory of operation: vm.json says what was asked for, the state record what is so, the counters' file what went through the
 * doors. Each is read as it is at that moment; nothing is asked of the VM, so a VM that hangs is inspected like any other. The
 * counters are the worker's, which a guest may have captured: they are numbers and nothing else, and too large ones are cut.
 */
#include "engine/inspect.h"

#include "base/path.h"
#include "base/stats.h"
#include "engine/status.h"

#include <fcntl.h>
#include <string.h>

static int read_state(const struct husk *husk, const char *id, struct vm_state_record *state, struct husk_error *err)
{
	struct status status;
	int rc = status_read(husk, id, &status, err);
	*state = status.state;
	return rc;
}

static bool leads_to_port(const struct vm_door *door)
{
	return door->kind != VM_DOOR_EXEC && door->kind != VM_DOOR_VSOCK;
}

/** Kind and endpoint; and the port, where a door leads to one. */
static json_t *describe_door(const struct vm_door *door)
{
	json_t *json = json_pack("{s:i, s:s, s:s}", "id", (int)door->id, "kind", vm_door_kind_name(door->kind),
		"endpoint", door->endpoint);
	if (leads_to_port(door))
		json_object_set_new(json, "guest_port", json_integer(door->guest_port));
	if (door->kind == VM_DOOR_TLS)
		json_object_set_new(json, "alpn", json_string(door->alpn));
	return json;
}

static json_t *process_or_null(const struct process_id *id)
{
	return id->pid > 0 ? json_integer(id->pid) : json_null();
}

int inspect_vm(const struct husk *husk, const char *id, json_t **out, struct husk_error *err)
{
	struct vm_state_record state;
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *configuration = NULL;
	snprintf(record.id, sizeof(record.id), "%s", id);
	record.directory = path_format("%s/vms/%s", husk->home, id);
	if (!record.directory)
		return error_set(err, -ENOMEM, "inspect VM %s: out of memory", id);
	int rc = read_state(husk, id, &state, err);
	rc = rc < 0 ? rc : vm_record_read(&record, &configuration, err);
	if (rc < 0)
		return rc;
	json_object_del(configuration, "schema");
	CLEANUP_JSON json_t *json =
		json_pack("{s:O?, s:O?, s:s, s:s, s:{s:o, s:o, s:o}}", "id", json_object_get(configuration, "id"),
			"name", json_object_get(configuration, "name"), "state", vm_state_name(state.state), "reason",
			state.reason, "pids", "supervisor", process_or_null(&state.supervisor),
			"worker", process_or_null(&state.worker), "machine", process_or_null(&state.machine));
	if (!json || json_object_update_missing(json, configuration) < 0)
		return error_set(err, -ENOMEM, "inspect VM %s: out of memory", id);
	json_t *doors = json_array();
	for (size_t i = 0; i < VM_DOORS_MAX; i++)
		if (state.doors[i].id)
			json_array_append_new(doors, describe_door(&state.doors[i]));
	json_object_set_new(json, "doors", doors);
	*out = steal_pointer(&json);
	return 0;
}

/* ---- counters ---- */

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
	json_t *json = describe_door(door), *stages = json_object();
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
		return path && errno == ENOENT ? error_set(err, -ESRCH, "VM %s has ended", id)
					       : error_errno(err, "open the counters of VM %s", id);
	ssize_t n = pread(fd, stats, sizeof(*stats), 0);
	if (n < 0)
		return error_errno(err, "read the counters of VM %s", id);
	if (n != sizeof(*stats) || stats->magic != STATS_MAGIC || stats->size != sizeof(*stats))
		return error_set(err, -EPROTO, "the counters of VM %s are another version's, or damaged", id);
	return 0;
}

int inspect_stats(const struct husk *husk, const char *id, json_t **out, struct husk_error *err)
{
	struct vm_state_record state;
	struct door_meter total = {0};
	CLEANUP_FREE struct vm_stats *stats = malloc(sizeof(*stats));
	if (!stats)
		return error_set(err, -ENOMEM, "read the counters of VM %s: out of memory", id);
	int rc = read_state(husk, id, &state, err);
	rc = rc < 0 ? rc : read_stats(husk, id, stats, err);
	if (rc < 0)
		return rc;
	json_t *doors = json_array();
	for (size_t i = 0; i < VM_DOORS_MAX; i++) {
		if (!state.doors[i].id)
			continue;
		json_array_append_new(doors, describe_meter(&state.doors[i], &stats->door[i]));
		add_up(&total, &stats->door[i]);
	}
	json_t *json = json_pack("{s:s, s:o, s:{}}", "id", id, "doors", doors, "total");
	add_counts(json_object_get(json, "total"), &total);
	*out = json;
	return 0;
}
