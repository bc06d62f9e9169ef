/* SPDX-License-Identifier: Apache-2.0 */
/* phrase.c - the state of a VM in a few words, as `ps` shows it */
#include "engine/phrase.h"

#include "base/age.h"
#include "vmm/config.h"

#include <string.h>

#define REASON_MAX 60

/** Where a UTF-8 text is cut so that at most @max bytes are left. */
static size_t cut(const char *text, size_t max)
{
	size_t n = strnlen(text, max + 1);

	if (n <= max)
		return n;
	for (n = max; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
		;
	return n;
}

void phrase_error(const char *reason, char out[PHRASE_SIZE])
{
	size_t n = cut(reason, REASON_MAX);

	snprintf(out, PHRASE_SIZE, "error: %.*s%s", (int)n, reason, reason[n] ? "…" : "");
}

/** How it ended, where that is no exit status. */
static const char *loss(const struct vm_state_record *state)
{
	static const char *const losses[] = {
		[VM_END_START_TIMEOUT] = "not ready in time",
		[VM_END_GUEST] = "guest ended",
		[VM_END_MACHINE] = "machine lost",
		[VM_END_WORKER] = "worker lost",
		[VM_END_SUPERVISOR] = "supervisor lost",
		[VM_END_CALLER] = "caller gone",
		[VM_END_FAILED] = "husk failed",
	};

	if (state->end == VM_END_SUPERVISOR && strcmp(state->reason, STATUS_HOST_RESTARTED) == 0)
		return STATUS_HOST_RESTARTED;
	return state->end < ARRAY_SIZE(losses) ? losses[state->end] : NULL;
}

static void phrase_stopped(const struct vm_state_record *state, uint64_t now_ns, char out[PHRASE_SIZE])
{
	const char *lost = loss(state);
	char age[AGE_SIZE], code[24];

	snprintf(code, sizeof(code), "%d", vm_end_exit_code(state->end, state->value));
	age_since(state->ended_ns, now_ns, age);
	snprintf(out, PHRASE_SIZE, "stopped (%s)%s%s%s", lost ? lost : code, state->ended_ns ? " " : "",
		state->ended_ns ? age : "", state->ended_ns ? " ago" : "");
}

void phrase_status(const struct status *status, uint64_t now_ns, char out[PHRASE_SIZE])
{
	const struct vm_state_record *state = &status->state;
	char age[AGE_SIZE];

	switch (state->state) {
	case VM_RUNNING:
	case VM_PAUSED:
		age_since(state->started_ns ? state->started_ns : state->changed_ns, now_ns, age);
		snprintf(out, PHRASE_SIZE, "up %s%s", age, state->state == VM_PAUSED ? " (paused)" : "");
		break;
	case VM_STOPPED:
		phrase_stopped(state, now_ns, out);
		break;
	case VM_ERROR:
		phrase_error(state->reason, out);
		break;
	default:
		snprintf(out, PHRASE_SIZE, "%s",
			state->state == VM_CREATING && status->orphan ? "creation interrupted"
								      : vm_state_name(state->state));
	}
}
