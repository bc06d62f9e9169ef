/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_record.c - what was chosen, written down in vm.json, and read again for a further start
 *
 * Theory of operation: the record's "config" is the configuration in effect, which the reader of any configuration takes
 * (effective.h). Beside it stand what is no configuration, the image by its id, the port that was found, the wall, and what the
 * user changed since: the name and the memory that the balloon leaves the guest.
 */
#include "base/cleanup.h"
#include "base/event.h"
#include "base/path.h"
#include "engine/config_fields.h"
#include "engine/config_json.h"
#include "engine/effective.h"
#include "engine/exec.h"
#include "engine/start_internal.h"

#include <string.h>

static json_t *configuration(const struct start *s)
{
	const struct husk_vm_config *c = s->config;
	const struct effective effective = {.config = c,
		.machine = &s->machine,
		.boot = &s->boot,
		.disks = &s->disks,
		.memory = start_memory(c),
		.scratch = start_scratch(c),
		.listen_wait_ms = start_listen_wait(s),
		.vsock_port = s->vsock_port};
	json_t *config = effective_write(&effective);
	if (!config)
		return NULL;
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:I, s:b, s:b, s:b, s:I, s:I, s:i, s:o, s:o}", "image",
		c->image, "image_id", s->image.id, "lifetime", start_is_detached(s) ? "detached" : "caller", "machine",
		machine_name(s->machine.kind), "wall", s->machine.hardware ? "hardware" : "software", "memory",
		(json_int_t)effective.memory, "cpus", (int)c->cpus, "scratch", (json_int_t)effective.scratch,
		"read_only", c->read_only, "tty", c->tty, "init", c->init, "timeout_ms", (json_int_t)c->timeout_ms,
		"start_timeout_ms", (json_int_t)c->start_timeout_ms, "stop_signal",
		exec_stop_signal(s->image.stop_signal), "vsock_port",
		s->vsock_port ? json_integer(s->vsock_port) : json_null(), "config", config);
}

int start_record(struct start *s, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = configuration(s);
	if (!json || json_object_set_new(json, "shell", shell_json(&s->shell)) < 0 ||
		json_object_set_new(json, "command", exec_arguments(&s->exec)) < 0)
		return error_set(err, -EINVAL, "describe the VM: a value is not valid UTF-8");
	int rc = vm_record_create(s->husk, s->config->name, json, &s->record, err);
	if (rc < 0)
		return rc;
	const struct event_field image = {.key = "image", .text = s->config->image};
	CLEANUP_FREE char *events = path_join(s->husk->home, "events");
	if (events)
		event_tell(events, "created", s->record.id, s->record.name, &image, 1);
	return 0;
}

/** What stands beside the configuration. */
static int read_rest(struct start *s, const json_t *json, struct husk_error *err)
{
	const char *image = json_string_value(json_object_get(json, "image_id"));
	json_int_t port = json_integer_value(json_object_get(json, "vsock_port"));
	json_int_t allowed = json_integer_value(json_object_get(json, "memory_allowed"));
	if (!image || port < 0 || port > UINT32_MAX || allowed < 0)
		return error_set(err, -EBADMSG, "the record of VM %s is not valid", s->record.id);
	s->vsock_port = (uint32_t)port;
	s->memory_allowed = (uint64_t)allowed;
	/* By its id: the reference may mean another image by now. */
	return image_find(s->husk->home, image, s->own.platform, &s->image, err);
}

int start_read(struct start *s, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = NULL;
	int rc = vm_record_read(&s->record, &json, err);
	CLEANUP_FREE char *text = rc == 0 ? json_dumps(json_object_get(json, "config"), 0) : NULL;
	if (rc == 0 && !text)
		return error_set(err, -EBADMSG, "the record of VM %s has no configuration", s->record.id);
	s->own = config_defaults;
	rc = rc < 0 ? rc : config_json_read(&s->own, text, strlen(text), &s->json, err);
	if (rc < 0)
		return error_prefix(err, rc, "read the configuration of VM %s", s->record.id);
	s->config = &s->own;
	s->again = true;
	s->own.name = s->record.name;
	s->own.lifetime = HUSK_LIFETIME_DETACHED;
	rc = read_rest(s, json, err);
	return rc == -ENOENT ? error_prefix(err, rc, "the image of VM %s is gone", s->record.id) : rc;
}
