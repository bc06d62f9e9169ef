/* SPDX-License-Identifier: Apache-2.0 */
/* vm.c - VMs in the public API: arguments in, outcomes out; the work is the engine's */
#include "base/cleanup.h"
#include "engine/config_fields.h"
#include "engine/config_json.h"
#include "engine/control.h"
#include "engine/known.h"
#include "engine/outcome.h"
#include "engine/start.h"
#include "base/adopt.h"

#include <string.h>

_Static_assert((int)HUSK_END_EXITED == VM_END_EXITED && (int)HUSK_END_FAILED == VM_END_FAILED &&
		       (int)HUSK_END_GUEST == VM_END_GUEST && (int)HUSK_END_KILLED == VM_END_KILLED,
	"the public names of ends are those of vmm/config.h");

void husk_vm_config_init_sized(struct husk_vm_config *config, size_t size)
{
	memset(config, 0, size);
	memcpy(config, &config_defaults, size < sizeof(config_defaults) ? size : sizeof(config_defaults));
	config->size = size;
}

/** What programs call that were built before the struct had a size to say: it ended before `disks` then. */
void(husk_vm_config_init)(struct husk_vm_config *config)
{
	husk_vm_config_init_sized(config, offsetof(struct husk_vm_config, disks));
}

void husk_disk_init(struct husk_disk *disk)
{
	*disk = (struct husk_disk){.size = sizeof(*disk)};
}

void husk_share_init(struct husk_share *share)
{
	*share = (struct husk_share){.size = sizeof(*share)};
}

/** A caller's configuration as one of ours. */
static int adopt(struct husk_vm_config *to, const struct husk_vm_config *from, struct husk_error *err)
{
	*to = config_defaults;
	return adopt_struct(to, sizeof(*to), from, "struct husk_vm_config", err);
}

int husk_vm_config_read(
	struct husk_vm_config *config, const char *text, size_t n, struct husk_vm_json **out, struct husk_error *err)
{
	struct husk_vm_config full;
	size_t size = config->size;
	int rc = adopt(&full, config, err);
	rc = rc < 0 ? rc : config_json_read(&full, text, n, out, err);
	if (rc < 0)
		return rc;
	if (size < sizeof(full) && memcmp((char *)&full + size, (const char *)&config_defaults + size, sizeof(full) - size)) {
		config_json_free(steal_pointer(out));
		return error_set(err, -E2BIG, "the configuration has a field that this program does not know");
	}
	memcpy(config, &full, size < sizeof(full) ? size : sizeof(full));
	config->size = size;
	return 0;
}

void husk_vm_json_free(struct husk_vm_json *json)
{
	config_json_free(json);
}

int husk_vm_config_write(const struct husk_vm_config *config, char **text, struct husk_error *err)
{
	struct husk_vm_config full;
	int rc = adopt(&full, config, err);
	if (rc < 0)
		return rc;
	json_t *json = config_json_write(&full);
	*text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	return *text ? 0 : error_set(err, -ENOMEM, "write the configuration: out of memory");
}

/** A caller's configuration, adopted with its lists, which are freed with this. */
struct adopted {
	struct husk_vm_config config;
	void *doors, *disks, *shares;
};

static void adopted_free(struct adopted *a)
{
	free(a->doors);
	free(a->disks);
	free(a->shares);
}

static int adopt_all(struct adopted *a, const struct husk_vm_config *given, struct husk_error *err)
{
	struct husk_vm_config *config = &a->config;
	int rc = adopt(config, given, err);
	rc = rc < 0 ? rc : ADOPT_LIST(config->doors, config->n_doors, "struct husk_door", &a->doors, err);
	rc = rc < 0 ? rc : ADOPT_LIST(config->disks, config->n_disks, "struct husk_disk", &a->disks, err);
	rc = rc < 0 ? rc : ADOPT_LIST(config->shares, config->n_shares, "struct husk_share", &a->shares, err);
	config->doors = a->doors;
	config->disks = a->disks;
	config->shares = a->shares;
	return rc;
}

int husk_vm_start(struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err)
{
	CLEANUP(adopted_free) struct adopted a = {0};
	int rc = adopt_all(&a, config, err);
	return rc < 0 ? rc : start_vm(husk, &a.config, out, err);
}

int husk_vm_create(struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err)
{
	CLEANUP(adopted_free) struct adopted a = {0};
	int rc = adopt_all(&a, config, err);
	return rc < 0 ? rc : create_vm(husk, &a.config, out, err);
}

const char *husk_vm_id(const struct husk_vm *vm)
{
	return vm->record.id;
}

const char *husk_vm_wall(const struct husk_vm *vm)
{
	return vm->hardware ? "hardware" : "software";
}

uint64_t husk_vm_boot_ns(const struct husk_vm *vm)
{
	return vm->boot_ns;
}

int husk_vm_stop_signal(const struct husk_vm *vm)
{
	return vm->stop_signal;
}

int husk_vm_fd(const struct husk_vm *vm)
{
	return vm->epoll;
}

int husk_vm_wait(struct husk_vm *vm, int64_t timeout_ms, struct husk_outcome *outcome, struct husk_error *err)
{
	int rc = vm->known ? known_wait(vm, timeout_ms, err) : live_wait(vm, timeout_ms, err);
	if (rc < 0 || !outcome)
		return rc;
	size_t size = outcome->size;
	if (size < sizeof(size_t))
		return error_set(err, -EINVAL, "struct husk_outcome has no size");
	const struct vm_message *message = &vm->outcome;
	struct husk_outcome full = {
		.size = size,
		.end = (enum husk_end)message->end,
		.value = message->value,
		.exit_code = vm_end_exit_code(message->end, message->value),
		.duration_ns = message->duration_ns,
		.peak_rss = message->peak_rss,
	};
	if (message->end != VM_END_EXITED && message->end != VM_END_SIGNALED)
		outcome_describe(message, full.reason, sizeof(full.reason));
	memset(outcome, 0, size);
	memcpy(outcome, &full, size < sizeof(full) ? size : sizeof(full));
	return 0;
}

/** Over the control socket of a VM that is ours, else over supervisor.sock. */
static int send_control(struct husk_vm *vm, enum vm_message_kind kind, uint32_t value, struct husk_error *err)
{
	const struct vm_message message = {.kind = kind, .value = value};
	if (vm->known)
		return control_request(vm->husk, vm->record.id, &message, -1, CONTROL_ANSWER_MS, err);
	return live_send(vm, vm->control_fd, kind, value, err);
}

int husk_vm_signal(struct husk_vm *vm, int signal_number, struct husk_error *err)
{
	if (signal_number < 1 || signal_number > 64)
		return error_set(err, -EINVAL, "%d is not a signal (1 to 64)", signal_number);
	if (vm->agentless)
		return error_set(err, -ENOTSUP, "VM %s has no agent that could pass a signal on", vm->record.id);
	return send_control(vm, VM_CONTROL_SIGNAL, (uint32_t)signal_number, err);
}

int husk_vm_resize(struct husk_vm *vm, uint16_t rows, uint16_t columns, struct husk_error *err)
{
	return send_control(vm, VM_CONTROL_RESIZE, (uint32_t)rows << 16 | columns, err);
}

int husk_vm_power_button(struct husk_vm *vm, struct husk_error *err)
{
	return send_control(vm, VM_CONTROL_POWER_BUTTON, 0, err);
}

void husk_vm_close(struct husk_vm *vm)
{
	live_close(vm);
}
