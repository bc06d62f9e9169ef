/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.c - what is known of a VM
 *
 * Theory of operation: vm.json says what was asked for, the state record what is so (status.h), the directory which logs there
 * are. Each is read as it is at that moment; nothing is asked of the VM, so one that hangs is inspected like any other, and one
 * that has ended, too.
 */
#include "engine/inspect.h"

#include "base/path.h"
#include "base/rfc3339.h"
#include "engine/config_json.h"
#include "engine/phrase.h"
#include "engine/status.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static bool leads_to_port(const struct vm_door *door)
{
	return door->kind != VM_DOOR_EXEC && door->kind != VM_DOOR_VSOCK;
}

json_t *inspect_door(const struct vm_door *door)
{
	json_t *json = json_pack("{s:i, s:s, s:o}", "id", (int)door->id, "kind", vm_door_kind_name(door->kind),
		"endpoint", config_json_text(door->endpoint));
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

/** RFC 3339, or null: never. */
static json_t *time_or_null(uint64_t ns)
{
	char text[RFC3339_SIZE];

	if (!ns)
		return json_null();
	rfc3339_format(ns, text);
	return json_string(text);
}

/** What the state says. */
static json_t *describe_state(const struct status *status)
{
	const struct vm_state_record *s = &status->state;
	bool over = s->state == VM_STOPPED || s->state == VM_ERROR;
	char phrase[PHRASE_SIZE];

	phrase_status(status, clock_realtime_ns(), phrase);
	return json_pack("{s:s, s:o, s:s, s:I, s:i, s:o, s:o, s:o, s:o, s:b, s:o, s:I, s:I, s:{s:o, s:o, s:o}}",
		"state", vm_state_name(s->state), "reason", config_json_text(s->reason), "status", phrase, "generation",
		(json_int_t)s->generation, "starts", (int)s->starts, "changed", time_or_null(s->changed_ns), "started",
		time_or_null(s->started_ns), "ended", time_or_null(over ? s->ended_ns : 0), "exit_code",
		over && s->end ? json_integer(vm_end_exit_code(s->end, s->value)) : json_null(), "oom",
		(s->flags & VM_STATE_OOM) != 0, "console", s->console[0] ? config_json_text(s->console) : json_null(),
		"duration_ns", (json_int_t)s->duration_ns, "peak_rss", (json_int_t)s->peak_rss, "pids", "supervisor",
		process_or_null(&s->supervisor), "worker", process_or_null(&s->worker), "machine",
		process_or_null(&s->machine));
}

/** The files of its logs that are there, with their sizes. */
static json_t *describe_logs(const char *directory)
{
	static const char *const names[] = {"output.0", "output.1", "console.0", "console.1", "log"};
	json_t *logs = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP_FREE char *path = path_join(directory, names[i]);
		struct stat st;
		if (path && lstat(path, &st) == 0)
			json_array_append_new(logs, json_pack("{s:o, s:I}", "path", config_json_text(path), "size",
							    (json_int_t)st.st_size));
	}
	return logs;
}

static json_t *describe_doors(const struct vm_state_record *state)
{
	json_t *doors = json_array();

	for (size_t i = 0; i < VM_DOORS_MAX; i++)
		if (state->doors[i].id)
			json_array_append_new(doors, inspect_door(&state->doors[i]));
	return doors;
}

int inspect_vm(const struct husk *husk, const char *id, json_t **out, struct husk_error *err)
{
	struct status status;
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *configuration = NULL;
	snprintf(record.id, sizeof(record.id), "%s", id);
	record.directory = path_format("%s/vms/%s", husk->home, id);
	if (!record.directory)
		return error_set(err, -ENOMEM, "inspect VM %s: out of memory", id);
	int rc = status_read(husk, id, &status, err);
	rc = rc < 0 ? rc : vm_record_read(&record, &configuration, err);
	if (rc < 0)
		return rc;
	json_object_del(configuration, "schema");
	CLEANUP_JSON json_t *json = json_pack("{s:O?, s:O?}", "id", json_object_get(configuration, "id"), "name",
		json_object_get(configuration, "name"));
	CLEANUP_JSON json_t *state = describe_state(&status);
	/* What the state says goes before what the record may have by the same name. */
	if (!json || !state || json_object_update(json, state) < 0 ||
		json_object_update_missing(json, configuration) < 0)
		return error_set(err, -ENOMEM, "inspect VM %s: out of memory", id);
	json_object_set_new(json, "doors", describe_doors(&status.state));
	json_object_set_new(json, "logs", describe_logs(record.directory));
	*out = steal_pointer(&json);
	return 0;
}
