/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tell.c - what the supervisor tells of its VM in the home's file of events
 *
 * Theory of operation: base/event.h appends a line and never fails. What a guest can bring about as often as it likes, an
 * attempt to reach what its policy denies, is told DENIED_MAX times a minute at most; how many more there were is said when
 * the minute is over, or the VM.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/event.h"

#include <stdio.h>

#define DENIED_MAX 16
#define DENIED_MS 60000

static void tell(struct supervisor *s, const char *event, const struct event_field *fields, size_t n_fields)
{
	const struct vmm_config *c = &s->config;

	event_tell(c->events_path, event, c->id, c->name, fields, n_fields);
}

void tell_started(struct supervisor *s)
{
	const struct event_field machine = {
		.key = "machine", .text = s->config.machine == VMM_MACHINE_KVM ? "kvm" : "qemu"};

	tell(s, "started", &machine, 1);
}

void tell_ready(struct supervisor *s, uint64_t boot_ns)
{
	const struct event_field boot = {.key = "boot_ms", .number = (int64_t)(boot_ns / 1000000)};

	tell(s, "ready", &boot, 1);
}

void tell_paused(struct supervisor *s, bool paused)
{
	tell(s, paused ? "paused" : "resumed", NULL, 0);
}

/* ---- what was denied ---- */

static void tell_suppressed(struct supervisor *s)
{
	const struct event_field suppressed = {.key = "suppressed", .number = s->denied.suppressed};

	if (s->denied.suppressed)
		tell(s, "denied", &suppressed, 1);
	s->denied.suppressed = 0;
}

static void on_minute(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, denied.minute);

	(void)events;
	loop_timer_set(watch, 0);
	tell_suppressed(s);
	s->denied.told = 0;
}

void tell_denied(struct supervisor *s, uint32_t port)
{
	char reason[64] = "this VM reaches no port of the host";

	if (s->denied.told == DENIED_MAX) {
		s->denied.suppressed++;
		return;
	}
	if (s->denied.told++ == 0)
		loop_timer_set(&s->denied.minute, DENIED_MS);
	if (s->config.reach == VMM_REACH_ONE)
		snprintf(reason, sizeof(reason), "this VM reaches no port of the host but %u", s->config.reach_port);
	const struct event_field fields[] = {{.key = "port", .number = port}, {.key = "reason", .text = reason}};
	tell(s, "denied", fields, ARRAY_SIZE(fields));
}

/* ---- the end ---- */

void tell_stopped(struct supervisor *s)
{
	const struct vm_state_record *r = &s->record;
	const struct event_field fields[] = {
		{.key = "end", .text = vm_end_name(r->end)},
		{.key = "exit_code", .number = vm_end_exit_code(r->end, r->value)},
		{.key = "reason", .text = r->reason},
		{.key = "duration_ms", .number = (int64_t)(r->duration_ns / 1000000)},
	};

	tell_suppressed(s);
	if (r->flags & VM_STATE_OOM)
		tell(s, "oom", NULL, 0);
	tell(s, "stopped", fields, ARRAY_SIZE(fields));
}

int tell_open(struct supervisor *s, struct husk_error *err)
{
	return loop_timer_open(&s->loop, &s->denied.minute, on_minute, err);
}
