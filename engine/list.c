/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - all VMs of a home as JSON, fast
 *
 * Theory of operation: for each record two small files are read, `state` and vm.json, and a line of JSON is written straight
 * away: what vm.json has is copied as the bytes that stand there (skim.h), what the state says is formatted. Nothing is parsed
 * into a tree, nothing is locked and nobody is asked, so a thousand records cost a few ten milliseconds. Then the lines are put
 * into order, the newest first.
 *
 * A record that vanishes meanwhile was removed. One that cannot be read is listed all the same, in state `error` and with the
 * reason: a VM is never lost from sight, and one damaged record keeps nobody from seeing the others.
 */
#include "engine/list.h"

#include "base/path.h"
#include "base/rfc3339.h"
#include "base/skim.h"
#include "engine/json_out.h"
#include "vmm/config.h"
#include "engine/phrase.h"
#include "engine/status.h"

#include <fcntl.h>
#include <string.h>

#define RECORD_TEXT_MAX (1u << 20) /* of a vm.json */

/** A VM's object, as it lies in the text. */
struct row {
	size_t at, n;
	char created[RFC3339_SIZE]; /* sorts as text; "": not known */
	char id[VM_ID_SIZE];
};

struct list {
	const struct husk *husk;
	int folder; /* HOME/vms */
	bool all;
	uint64_t now_ns;
	struct json_out out; /* the objects, in the order of the directory */
	struct row *rows;
	size_t n, room;
	char record[RECORD_TEXT_MAX];
};

enum member { SCHEMA, NAME, IMAGE, IMAGE_ID, COMMAND, CREATED, LIFETIME, WALL, MEMBERS };

static const char *const keys[MEMBERS] = {
	[SCHEMA] = "schema",
	[NAME] = "name",
	[IMAGE] = "image",
	[IMAGE_ID] = "image_id",
	[COMMAND] = "command",
	[CREATED] = "created",
	[LIFETIME] = "lifetime",
	[WALL] = "wall",
};

/* ---- writing ---- */

static void put_ports(struct json_out *out, const struct vm_state_record *state)
{
	size_t n = 0;

	json_out_key(out, "ports");
	json_out_text(out, "[");
	for (size_t i = 0; i < VM_DOORS_MAX && status_runs(state->state); i++) {
		const struct vm_door *door = &state->doors[i];
		if (!door->id || door->kind == VM_DOOR_EXEC || door->kind == VM_DOOR_VSOCK)
			continue;
		json_out_text(out, n++ ? ", {\"kind\": " : "{\"kind\": ");
		json_out_string(out, vm_door_kind_name(door->kind));
		json_out_string_member(out, "endpoint", door->endpoint);
		json_out_number_member(out, "guest_port", door->guest_port);
		json_out_text(out, "}");
	}
	json_out_text(out, "]");
}

static void put_state(struct list *l, const struct status *status)
{
	const struct vm_state_record *state = &status->state;
	struct json_out *out = &l->out;
	char phrase[PHRASE_SIZE];

	phrase_status(status, l->now_ns, phrase);
	json_out_string_member(out, "state", vm_state_name(state->state));
	json_out_string_member(out, "reason", state->reason);
	json_out_string_member(out, "status", phrase);
	if (state->end)
		json_out_number_member(out, "exit_code", (uint64_t)vm_end_exit_code(state->end, state->value));
	json_out_number_member(out, "generation", state->generation);
	json_out_number_member(out, "starts", state->starts);
	json_out_time_member(out, "started", state->started_ns);
	json_out_time_member(out, "ended", state->ended_ns);
	put_ports(out, state);
}

/** What is to be said of a record that cannot be read. */
static void put_error(struct list *l, const char *reason)
{
	char phrase[PHRASE_SIZE];

	phrase_error(reason, phrase);
	json_out_string_member(&l->out, "state", vm_state_name(VM_ERROR));
	json_out_string_member(&l->out, "reason", reason);
	json_out_string_member(&l->out, "status", phrase);
	json_out_key(&l->out, "ports");
	json_out_text(&l->out, "[]");
}

/* ---- reading ---- */

/** vm.json of @id into l->record: its size, or -errno. */
static ssize_t read_record(struct list *l, const char *id)
{
	char path[VM_ID_SIZE + 16];

	snprintf(path, sizeof(path), "%s/vm.json", id);
	CLEANUP_FD int fd = openat(l->folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, l->record, sizeof(l->record)); /* a file's end is the only reason for less */
	return n < 0 ? -errno : n == sizeof(l->record) ? -EFBIG : n;
}

/** It is put into our text as it stands. */
static bool is_valid(const struct skim *value)
{
	if (skim_is_plain(value))
		return true;
	json_t *json = json_loadb(value->text, value->n, JSON_DECODE_ANY, NULL);
	json_decref(json);
	return json != NULL;
}

/** Skim vm.json of @id. @err says what is wrong; -ENOENT: the record is gone. */
static int skim_record(struct list *l, const char *id, struct skim members[MEMBERS], struct husk_error *err)
{
	for (size_t i = 0; i < MEMBERS; i++)
		members[i] = (struct skim){.key = keys[i]};
	ssize_t n = read_record(l, id);
	if (n < 0)
		return error_set(err, (int)n, "its vm.json cannot be read: %s", strerror((int)-n));
	bool valid = skim_object(l->record, (size_t)n, members, MEMBERS);
	for (size_t i = 0; i < MEMBERS && valid; i++)
		valid = !members[i].text || is_valid(&members[i]);
	if (!valid)
		return error_set(err, -EBADMSG, "its vm.json is damaged");
	char schema[16];
	int size = snprintf(schema, sizeof(schema), "%d", VM_SCHEMA);
	if (members[SCHEMA].n != (size_t)size || memcmp(members[SCHEMA].text, schema, members[SCHEMA].n) != 0)
		return error_set(err, -EPROTO, "it was written by another version of husk");
	return 0;
}

static bool has_ended(uint32_t state)
{
	return state == VM_STOPPED || state == VM_ERROR || state == VM_CREATED;
}

static int read_status(struct list *l, const char *id, struct status *status, struct husk_error *err)
{
	char path[VM_ID_SIZE + 16], directory[4096];

	snprintf(path, sizeof(path), "%s/state", id);
	snprintf(directory, sizeof(directory), "%s/vms/%s", l->husk->home, id);
	CLEANUP_FD int fd = openat(l->folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_set(err, -errno, "its state cannot be read: %s", strerror(errno));
	/* What has ended stays so, and there is nothing to ask of its processes. */
	*status = (struct status){0};
	if (state_read(fd, &status->state, NULL) == 0 && has_ended(status->state.state))
		return 0;
	int rc = status_read_open(fd, directory, id, status, err);
	return rc == -EPROTO ? error_set(err, rc, "it was written by another version of husk") : rc;
}

/* ---- the list ---- */

static struct row *add_row(struct list *l, const char *id)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct row *rows = reallocarray(l->rows, room, sizeof(*rows));
		if (!rows)
			return NULL;
		l->rows = rows;
		l->room = room;
	}
	struct row *row = &l->rows[l->n++];
	*row = (struct row){.at = l->out.text.size};
	memcpy(row->id, id, VM_ID_SIZE);
	return row;
}

static void put_members(struct json_out *out, const struct skim members[MEMBERS])
{
	for (size_t i = NAME; i < MEMBERS; i++) {
		if (!members[i].text)
			continue;
		json_out_key(out, members[i].key);
		json_out_raw(out, members[i].text, members[i].n);
	}
}

/** The time for the order: it stands between quotes. */
static void take_created(struct row *row, const struct skim *created)
{
	if (created->text && created->n > 2 && created->n - 2 < sizeof(row->created))
		memcpy(row->created, created->text + 1, created->n - 2);
}

static int add_vm(struct list *l, const char *id)
{
	struct husk_error state_error, record_error;
	struct skim members[MEMBERS];
	struct status status;
	int known = read_status(l, id, &status, &state_error);

	if (known == 0 && !l->all && !status.damaged && !status_runs(status.state.state))
		return 0;
	int rc = skim_record(l, id, members, &record_error);
	if (rc == -ENOENT && known == -ENOENT)
		return 0; /* it was removed while we looked */
	struct row *row = add_row(l, id);
	if (!row)
		return -ENOMEM;
	json_out_text(&l->out, "{\"id\": ");
	json_out_string(&l->out, id);
	if (rc == 0) {
		put_members(&l->out, members);
		take_created(row, &members[CREATED]);
	}
	if (rc < 0 || known < 0)
		put_error(l, rc < 0 ? record_error.message : state_error.message);
	else
		put_state(l, &status);
	json_out_text(&l->out, "}");
	row->n = l->out.text.size - row->at;
	return 0;
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int order = strcmp(y->created, x->created);

	return order ? order : strcmp(x->id, y->id);
}

/** The rows in their order as one array. */
static char *put_together(struct list *l)
{
	struct json_out whole = {0};

	if (l->n)
		qsort(l->rows, l->n, sizeof(*l->rows), compare_rows);
	json_out_text(&whole, "[");
	for (size_t i = 0; i < l->n; i++) {
		json_out_text(&whole, i ? ",\n " : "");
		json_out_raw(&whole, (char *)buffer_bytes(&l->out.text) + l->rows[i].at, l->rows[i].n);
	}
	json_out_raw(&whole, "]", 2);
	if (whole.failed || l->out.failed) {
		buffer_free(&whole.text);
		return NULL;
	}
	return (char *)whole.text.data; /* nothing was consumed, so that is where it begins */
}

static void list_free(struct list **l)
{
	if (!*l)
		return;
	buffer_free(&(*l)->out.text);
	free((*l)->rows);
	free(*l);
}

int list_vms(const struct husk *husk, bool all, char **json, struct husk_error *err)
{
	CLEANUP(list_free)
	struct list *l = malloc(sizeof(*l)); /* not calloc: `record` is large, and only its used part is touched */
	CLEANUP_FREE char *path = path_join(husk->home, "vms");
	CLEANUP_DIR DIR *folder = NULL;
	int rc = 0;

	if (!l || !path)
		return error_set(err, -ENOMEM, "list the VMs: out of memory");
	l->husk = husk;
	l->all = all;
	l->now_ns = clock_realtime_ns();
	l->out = (struct json_out){0};
	l->rows = NULL;
	l->n = l->room = 0;
	folder = opendir(path);
	if (!folder && errno != ENOENT)
		return error_errno(err, "list the VMs of %s", husk->home);
	l->folder = folder ? dirfd(folder) : -1;
	for (struct dirent *entry; rc == 0 && folder && (entry = readdir(folder));)
		if (vm_id_check(entry->d_name))
			rc = add_vm(l, entry->d_name);
	*json = rc == 0 ? put_together(l) : NULL;
	return *json ? 0 : error_set(err, -ENOMEM, "list the VMs: out of memory");
}
