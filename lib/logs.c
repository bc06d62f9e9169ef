/* SPDX-License-Identifier: Apache-2.0 */
/* logs.c - logs and events in the public API */
#include "engine/logs.h"

#include "base/adopt.h"
#include "engine/events.h"
#include "engine/live.h"

void husk_log_options_init(struct husk_log_options *options)
{
	*options = logs_defaults();
}

int husk_vm_logs(
	struct husk_vm *vm, const struct husk_log_options *given, husk_log_fn *fn, void *data, struct husk_error *err)
{
	struct husk_log_options options = logs_defaults();
	int rc = given ? adopt_struct(&options, sizeof(options), given, "struct husk_log_options", err) : 0;
	return rc < 0 ? rc : logs_read(vm->husk, vm->record.id, &options, fn, data, err);
}

void husk_event_options_init(struct husk_event_options *options)
{
	*options = events_defaults();
}

int husk_events(struct husk *husk, const struct husk_event_options *given, husk_event_fn *fn, void *data,
	struct husk_error *err)
{
	struct husk_event_options options = events_defaults();
	int rc = given ? adopt_struct(&options, sizeof(options), given, "struct husk_event_options", err) : 0;
	return rc < 0 ? rc : events_read(husk, &options, fn, data, err);
}
