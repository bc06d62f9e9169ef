/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.c - change a VM that exists
 *
 * Theory of operation: vm.json is written anew under the record's lock, so that a start that comes in between sees the one or the
 * other. A VM that runs is told first: what it refuses is not written down either. Its supervisor knows the name that the VM
 * had when it was started, and tells its events by that.
 */
#include "engine/change.h"

#include "base/event.h"
#include "base/path.h"
#include "engine/control.h"
#include "engine/status.h"

#include <string.h>

static void tell(
	const struct vm_record *record, const struct husk *husk, const char *event, const struct event_field *field)
{
	CLEANUP_FREE char *events = path_join(husk->home, "events");
	if (events)
		event_tell(events, event, record->id, record->name, field, 1);
}

int change_name(const struct husk *husk, const char *id, const char *name, struct husk_error *err)
{
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	int rc = name ? vm_name_check(name, err) : 0;
	rc = rc < 0 ? rc : vm_record_open_within(husk, id, VM_LOCK_MS, &record, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *old = record.name ? strdup(record.name) : NULL;
	rc = vm_record_rename(husk, &record, name, err);
	if (rc == 0)
		tell(&record, husk, "renamed", &(struct event_field){.key = "old", .text = old ? old : ""});
	return rc;
}

/** Tell a VM that runs; fine when it does not. */
static int tell_balloon(const struct husk *husk, const char *id, uint64_t bytes, bool must_run, struct husk_error *err)
{
	const struct vm_message message = {.kind = VM_CONTROL_BALLOON, .number = bytes};
	struct status now;
	int rc = status_read(husk, id, &now, err);
	if (rc < 0 || (!must_run && (!now.alive || now.ending)))
		return rc;
	return control_request(husk, id, &message, -1, CONTROL_ANSWER_MS, err);
}

/** What the VM was made with. */
static int read_memory(
	const struct vm_record *record, json_t **json, uint64_t memory, uint64_t *made, struct husk_error *err)
{
	int rc = vm_record_read(record, json, err);
	json_int_t all = json_integer_value(json_object_get(*json, "memory"));
	if (rc < 0)
		return rc;
	if (memory < CHANGE_MEMORY_MIN || memory > (uint64_t)all)
		return error_set(err, -ERANGE,
			"memory: %llu is out of range: 32 MiB to the %lld MiB that VM %s was made with",
			(unsigned long long)memory, (long long)all >> 20, record->id);
	*made = (uint64_t)all;
	return 0;
}

int change_memory(const struct husk *husk, const char *id, uint64_t memory, bool recorded, struct husk_error *err)
{
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = NULL;
	uint64_t made = 0;
	int rc = 0;
	if (recorded) {
		rc = vm_record_open_within(husk, id, VM_LOCK_MS, &record, err);
	} else {
		snprintf(record.id, sizeof(record.id), "%s", id);
		record.directory = path_format("%s/vms/%s", husk->home, id);
		rc = record.directory ? 0 : error_set(err, -ENOMEM, "change VM %s: out of memory", id);
	}
	rc = rc < 0 ? rc : read_memory(&record, &json, memory, &made, err);
	rc = rc < 0 ? rc : tell_balloon(husk, id, made - memory, !recorded, err);
	if (rc < 0 || !recorded)
		return rc;
	json_object_set_new(json, "memory_allowed", json_integer((json_int_t)memory));
	rc = vm_record_write(&record, json, err);
	if (rc == 0)
		tell(&record, husk, "updated", &(struct event_field){.key = "memory", .number = (int64_t)memory});
	return rc;
}
