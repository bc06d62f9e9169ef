/* SPDX-License-Identifier: Apache-2.0 */
/* door.c - doors, records and counters in the public API: a handle or a reference in, the engine's work on the id behind it */
#include "base/cleanup.h"
#include "engine/expose.h"
#include "engine/find.h"
#include "engine/inspect.h"
#include "engine/live.h"
#include "engine/usage.h"
#include "base/adopt.h"

#include <string.h>

_Static_assert((int)HUSK_DOOR_UNIX == VM_DOOR_UNIX && (int)HUSK_DOOR_TCP == VM_DOOR_TCP &&
		       (int)HUSK_DOOR_EXEC == VM_DOOR_EXEC && (int)HUSK_DOOR_HANDOFF == VM_DOOR_HANDOFF &&
		       (int)HUSK_DOOR_TLS == VM_DOOR_TLS,
	"the public names of doors are those of base/state.h");

void husk_door_init(struct husk_door *door)
{
	*door = (struct husk_door){.size = sizeof(*door)};
}

/** @json (decref'ed) as text. */
static int dump(json_t *json, char **out, struct husk_error *err)
{
	*out = json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(json);
	return *out ? 0 : error_set(err, -ENOMEM, "write JSON: out of memory");
}

static int expose(
	const struct husk *husk, const char *id, const struct husk_door *given, char **endpoint, struct husk_error *err)
{
	struct husk_door door = {0};
	int rc = adopt_struct(&door, sizeof(door), given, "struct husk_door", err);
	return rc < 0 ? rc : expose_open(husk, id, &door, endpoint, err);
}

static int inspect(const struct husk *husk, const char *id, char **out, struct husk_error *err)
{
	json_t *json;
	int rc = inspect_vm(husk, id, &json, err);
	return rc < 0 ? rc : dump(json, out, err);
}

static int stats(const struct husk *husk, const char *id, char **out, struct husk_error *err)
{
	json_t *json;
	int rc = usage_vm(husk, id, &json, err);
	return rc < 0 ? rc : dump(json, out, err);
}

/** -ESRCH once the VM has ended. */
static int check_alive(struct husk_vm *vm, struct husk_error *err)
{
	if (vm->known)
		return 0; /* the request finds out */
	live_take(vm);
	return vm->ended ? error_set(err, -ESRCH, "VM %s has ended", vm->record.id) : 0;
}

int husk_vm_expose(struct husk_vm *vm, const struct husk_door *door, char **endpoint, struct husk_error *err)
{
	int rc = check_alive(vm, err);
	return rc < 0 ? rc : expose(vm->husk, vm->record.id, door, endpoint, err);
}

int husk_vm_unexpose(struct husk_vm *vm, const char *endpoint, struct husk_error *err)
{
	int rc = check_alive(vm, err);
	return rc < 0 ? rc : expose_close(vm->husk, vm->record.id, endpoint, err);
}

int husk_vm_inspect(struct husk_vm *vm, char **json, struct husk_error *err)
{
	return inspect(vm->husk, vm->record.id, json, err);
}

int husk_vm_stats(struct husk_vm *vm, char **json, struct husk_error *err)
{
	return stats(vm->husk, vm->record.id, json, err);
}

int husk_expose(
	struct husk *husk, const char *vm, const struct husk_door *door, char **endpoint, struct husk_error *err)
{
	char id[VM_ID_SIZE];
	int rc = find_vm(husk, vm, id, err);
	return rc < 0 ? rc : expose(husk, id, door, endpoint, err);
}

int husk_unexpose(struct husk *husk, const char *vm, const char *endpoint, struct husk_error *err)
{
	char id[VM_ID_SIZE];
	int rc = find_vm(husk, vm, id, err);
	return rc < 0 ? rc : expose_close(husk, id, endpoint, err);
}

int husk_inspect(struct husk *husk, const char *vm, char **json, struct husk_error *err)
{
	char id[VM_ID_SIZE];
	int rc = find_vm(husk, vm, id, err);
	return rc < 0 ? rc : inspect(husk, id, json, err);
}

int husk_stats(struct husk *husk, const char *vm, char **json, struct husk_error *err)
{
	char id[VM_ID_SIZE];
	int rc = find_vm(husk, vm, id, err);
	return rc < 0 ? rc : stats(husk, id, json, err);
}
