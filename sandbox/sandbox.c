/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox.c - a sandbox from its making to its end: configuration, states, who is in (theory of operation: sandbox.h) */
#include "sandbox/sandbox.h"

#include "base/adopt.h"
#include "base/cleanup.h"
#include "sandbox/snapshot.h"

#include <stdarg.h>
#include <string.h>

#define KICK_OFFSET 8 /* from SIGRTMIN: the first ones are popular */

/* ---- who is in, and in what state ---- */

enum husk_sandbox_state husk_sandbox_state(const struct husk_sandbox *sandbox)
{
	return __atomic_load_n(&sandbox->state, __ATOMIC_ACQUIRE);
}

void sandbox_set_state(struct husk_sandbox *sandbox, enum husk_sandbox_state state)
{
	__atomic_store_n(&sandbox->state, state, __ATOMIC_RELEASE);
}

static int refuse(enum husk_sandbox_state state, const char *what, struct husk_error *err)
{
	switch (state) {
	case HUSK_SANDBOX_DEAD:
		return error_set(err, -ESHUTDOWN, "%s: the sandbox is dead", what);
	case HUSK_SANDBOX_POISONED:
		return error_set(err, -ENOTRECOVERABLE,
			"%s: the sandbox is poisoned by an earlier call; restore a snapshot", what);
	case HUSK_SANDBOX_CONFIGURED:
		return error_set(err, -EINVAL, "%s: the sandbox has not been started", what);
	default:
		return error_set(err, -EINVAL, "%s: the sandbox has been started already", what);
	}
}

int sandbox_enter(struct husk_sandbox *sandbox, unsigned allowed, const char *what, struct husk_error *err)
{
	if (__atomic_exchange_n(&sandbox->owned, true, __ATOMIC_ACQUIRE))
		return error_set(
			err, -EBUSY, "%s: the sandbox is in use, by another thread or by the call that led here", what);
	enum husk_sandbox_state state = husk_sandbox_state(sandbox);
	if (allowed & IN_STATE(state))
		return 0;
	sandbox_leave(sandbox);
	return refuse(state, what, err);
}

void sandbox_leave(struct husk_sandbox *sandbox)
{
	__atomic_store_n(&sandbox->owned, false, __ATOMIC_RELEASE);
}

int sandbox_blame(struct husk_sandbox *sandbox, enum husk_sandbox_reason reason, int code, struct husk_error *err,
	const char *format, ...)
{
	va_list args;

	sandbox->report.reason = reason;
	va_start(args, format);
	vsnprintf(sandbox->report.message, sizeof(sandbox->report.message), format, args);
	va_end(args);
	return error_set(err, code, "%s", sandbox->report.message);
}

/* ---- configuration ---- */

void husk_sandbox_config_init(struct husk_sandbox_config *config)
{
	*config = (struct husk_sandbox_config){
		.size = sizeof(*config),
		.stack = 64 << 10,
		.heap = 1 << 20,
		.input = 1 << 20,
		.output = 1 << 20,
		.start_timeout_ns = 10000000000,
	};
}

/** A caller's configuration as one of ours, every value checked. @sizes (may be NULL): has the sizes, whatever @from says. */
static int read_config(struct husk_sandbox_config *to, const struct husk_sandbox_config *from,
	const struct husk_sandbox_config *sizes, struct husk_error *err)
{
	husk_sandbox_config_init(to);
	int rc = from ? adopt_struct(to, sizeof(*to), from, "struct husk_sandbox_config", err) : 0;
	if (sizes) {
		to->stack = sizes->stack;
		to->heap = sizes->heap;
		to->input = sizes->input;
		to->output = sizes->output;
	}
	rc = rc < 0 ? rc : places_round(to, err);
	if (rc < 0)
		return rc;
	if (!to->kick_signal)
		to->kick_signal = SIGRTMIN + KICK_OFFSET;
	if (to->kick_signal < SIGRTMIN || to->kick_signal > SIGRTMAX)
		return error_set(err, -EINVAL, "kick_signal: %d is no real-time signal; %d to %d are", to->kick_signal,
			SIGRTMIN, SIGRTMAX);
	return 0;
}

/* ---- the host's functions ---- */

static int print(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	const struct husk_sandbox *sandbox = data;

	if (sandbox->config.print)
		sandbox->config.print(sandbox->config.print_data, args[0].bytes.data, args[0].bytes.size);
	return 0;
}

static int add_function(struct husk_sandbox *sandbox, const struct husk_sandbox_signature *given,
	husk_sandbox_function *function, void *data, struct husk_error *err)
{
	struct host_function add = {.function = function, .data = data};
	int rc = signature_copy(&add.signature, given, err);

	if (rc < 0)
		return rc;
	if (!function)
		return error_set(err, -EINVAL, "function '%s' has no code", given->name);
	for (unsigned i = 0; i < sandbox->n_functions; i++)
		if (strcmp(sandbox->functions[i].signature.name, given->name) == 0)
			return error_set(err, -EEXIST, "there is a function '%s' already", given->name);
	if (sandbox->n_functions == SANDBOX_FUNCTIONS_MAX)
		return error_set(err, -ENOSPC, "more than %d functions", SANDBOX_FUNCTIONS_MAX);
	struct host_function *more =
		reallocarray(sandbox->functions, sandbox->n_functions + 1, sizeof(*sandbox->functions));
	if (!more)
		return error_set(err, -ENOMEM, "add function '%s': out of memory", given->name);
	sandbox->functions = more;
	sandbox->functions[sandbox->n_functions++] = add;
	return 0;
}

int husk_sandbox_add_function(struct husk_sandbox *sandbox, const struct husk_sandbox_signature *given,
	husk_sandbox_function *function, void *data, struct husk_error *err)
{
	struct husk_sandbox_signature signature = {0};
	int rc = adopt_struct(&signature, sizeof(signature), given, "struct husk_sandbox_signature", err);

	rc = rc < 0 ? rc : sandbox_enter(sandbox, IN_STATE(HUSK_SANDBOX_CONFIGURED), "add a function", err);
	if (rc < 0)
		return rc;
	rc = add_function(sandbox, &signature, function, data, err);
	sandbox_leave(sandbox);
	return rc;
}

/* ---- beginning and end ---- */

static int make(struct husk_sandbox_image *image, const struct husk_sandbox_config *config, struct husk_sandbox **out,
	struct husk_error *err)
{
	static const enum husk_sandbox_type text[] = {HUSK_SANDBOX_STRING};
	const struct husk_sandbox_signature signature = {.name = "print", .args = text, .n_args = 1};
	struct husk_sandbox *sandbox = calloc(1, sizeof(*sandbox));

	if (!sandbox)
		return error_set(err, -ENOMEM, "make a sandbox: out of memory");
	sandbox->config = *config;
	sandbox->state = HUSK_SANDBOX_CONFIGURED;
	sandbox->image = image_ref(image);
	sandbox->vm.fd = sandbox->vcpu.fd = -1;
	pthread_mutex_init(&sandbox->memory_lock, NULL);
	kick_init(&sandbox->kick, config->kick_signal);
	places_make(&sandbox->places, image, config);
	int rc = add_function(sandbox, &signature, print, sandbox, err);
	if (rc == 0)
		rc = areas_add_borrowed(&sandbox->areas, AREA_PROGRAM, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_GUEST_R,
			SANDBOX_SUPPORT, image->ro_size, image->ro, err);
	if (rc < 0)
		husk_sandbox_free(sandbox);
	else
		*out = sandbox;
	return rc;
}

/** The areas that every sandbox has besides its program; the program's data lie at the start of the core. */
static int add_own_areas(struct husk_sandbox *sandbox, struct husk_error *err)
{
	const struct sandbox_places *places = &sandbox->places;
	const struct husk_sandbox_image *image = sandbox->image;
	unsigned guest = HUSK_SANDBOX_GUEST_R,
		 all = HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W | guest | HUSK_SANDBOX_GUEST_W;
	unsigned core;
	int rc = areas_add(&sandbox->areas, AREA_CORE, all, places->core.at, places->core.size, -1, 0, &core, err);

	if (rc == 0 && image->data_size)
		rc = area_map_over(&sandbox->areas.list[core], image->data_size, image->fd, image->ro_size, err);
	if (rc == 0)
		rc = areas_add(&sandbox->areas, AREA_INFO, HUSK_SANDBOX_HOST_R | guest, places->info.at,
			places->info.size, -1, 0, NULL, err);
	if (rc == 0)
		rc = areas_add(&sandbox->areas, AREA_TABLES, HUSK_SANDBOX_HOST_R | guest | HUSK_SANDBOX_GUEST_W,
			places->tables.at, places->tables.size, -1, 0, NULL, err);
	return rc;
}

int husk_sandbox_create(struct husk_sandbox_image *image, const struct husk_sandbox_config *given,
	struct husk_sandbox **out, struct husk_error *err)
{
	struct husk_sandbox_config config;
	struct husk_sandbox *sandbox;
	int rc = read_config(&config, given, NULL, err);

	rc = rc < 0 ? rc : make(image, &config, &sandbox, err);
	if (rc < 0)
		return rc;
	rc = add_own_areas(sandbox, err);
	if (rc < 0)
		husk_sandbox_free(sandbox);
	else
		*out = sandbox;
	return rc;
}

int husk_sandbox_create_from(struct husk_sandbox_snapshot *snapshot, const struct husk_sandbox_config *given,
	struct husk_sandbox **out, struct husk_error *err)
{
	struct husk_sandbox_config config;
	struct husk_sandbox *sandbox;
	int rc = read_config(&config, given, &snapshot->config, err);

	rc = rc < 0 ? rc : make(snapshot->image, &config, &sandbox, err);
	if (rc < 0)
		return rc;
	sandbox->born_of = snapshot_ref(snapshot);
	rc = snapshot_map(snapshot, sandbox, err);
	if (rc < 0)
		husk_sandbox_free(sandbox);
	else
		*out = sandbox;
	return rc;
}

/** Give back everything but the struct. */
static void release(struct husk_sandbox *sandbox)
{
	sandbox_set_state(sandbox, HUSK_SANDBOX_DEAD);
	pthread_mutex_lock(&sandbox->memory_lock);
	sandbox->released = true;
	kvm_vcpu_close(&sandbox->vcpu);
	kvm_vm_close(&sandbox->vm);
	cells_destroy(&sandbox->cells);
	areas_destroy(&sandbox->areas);
	pthread_mutex_unlock(&sandbox->memory_lock);
	free(steal_pointer(&sandbox->functions));
	free(steal_pointer(&sandbox->imports));
	sandbox->n_functions = 0;
	snapshot_unref(steal_pointer(&sandbox->born_of));
	snapshot_unref(steal_pointer(&sandbox->synced));
	image_unref(steal_pointer(&sandbox->image));
}

int husk_sandbox_destroy(struct husk_sandbox *sandbox, struct husk_error *err)
{
	int rc = sandbox_enter(sandbox, IN_ANY_STATE, "destroy", err);

	if (rc < 0)
		return rc;
	if (sandbox->released)
		rc = refuse(HUSK_SANDBOX_DEAD, "destroy", err);
	else
		release(sandbox);
	sandbox_leave(sandbox);
	return rc;
}

void husk_sandbox_free(struct husk_sandbox *sandbox)
{
	if (!sandbox)
		return;
	if (!sandbox->released)
		release(sandbox);
	kick_destroy(&sandbox->kick);
	pthread_mutex_destroy(&sandbox->memory_lock);
	free(sandbox);
}

/* ---- what it tells of itself ---- */

/**
 * Copy @ours, a struct husk_sandbox_@name of @size bytes, to @out, which may be shorter (a caller that
 * knows an older one) or longer (it ends in zeroes then). Both begin with their size, a size_t.
 */
static int tell(struct husk_sandbox *sandbox, const char *name, const void *ours, size_t size, void *out,
	struct husk_error *err)
{
	size_t known;

	memcpy(&known, out, sizeof(known));
	int rc = known < sizeof(known) ? error_set(err, -EINVAL, "struct husk_sandbox_%s has no size", name)
				       : sandbox_enter(sandbox, IN_ANY_STATE, name, err);
	if (rc < 0)
		return rc;
	memset(out, 0, known);
	memcpy(out, ours, known < size ? known : size);
	memcpy(out, &known, sizeof(known));
	sandbox_leave(sandbox);
	return 0;
}

int husk_sandbox_report(struct husk_sandbox *sandbox, struct husk_sandbox_report *report, struct husk_error *err)
{
	return tell(sandbox, "report", &sandbox->report, sizeof(sandbox->report), report, err);
}

int husk_sandbox_stats(struct husk_sandbox *sandbox, struct husk_sandbox_stats *stats, struct husk_error *err)
{
	return tell(sandbox, "stats", &sandbox->stats, sizeof(sandbox->stats), stats, err);
}

int husk_sandbox_cancel(struct husk_sandbox *sandbox, struct husk_error *err)
{
	int rc = kick_cancel(&sandbox->kick);

	if (rc == -ESRCH)
		return error_set(err, rc, "cancel: no call is under way");
	return rc < 0 ? error_set(err, rc, "cancel: no signal can be queued: %s", strerror(-rc)) : 0;
}
