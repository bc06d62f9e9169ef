/* SPDX-License-Identifier: Apache-2.0 */
/* outcome.c - how a VM ended, in words */
#include "engine/outcome.h"

#include "base/cleanup.h"

#include <stdio.h>

void outcome_describe(const struct vm_message *outcome, char *text, size_t room)
{
	static const char *const ends[] = {
		[VM_END_EXITED] = "the workload exited",
		[VM_END_SIGNALED] = "the workload was ended by a signal",
		[VM_END_TIMEOUT] = "the workload's time was over",
		[VM_END_NOT_STARTED] = "the command could not be started",
		[VM_END_START_TIMEOUT] = "the guest was not ready in time",
		[VM_END_GUEST] = "the guest's kernel panicked, powered off or reset",
		[VM_END_MACHINE] = "the machine (QEMU) died",
		[VM_END_WORKER] = "the VM's worker process died",
		[VM_END_SUPERVISOR] = "the VM's supervisor process died",
		[VM_END_CALLER] = "the caller went away",
		[VM_END_KILLED] = "the VM was killed",
		[VM_END_FAILED] = "husk failed",
	};
	uint32_t how = outcome->end;
	const char *told = outcome->text;
	const char *standard = how < ARRAY_SIZE(ends) && ends[how] ? ends[how] : "the VM ended";
	snprintf(text, room, "%s", *told ? told : standard);
}

void outcome_of_state(const struct vm_state_record *state, struct vm_message *out)
{
	*out = (struct vm_message){
		.kind = VM_MESSAGE_OUTCOME,
		.end = state->end ? state->end : VM_END_FAILED,
		.value = state->value,
		.duration_ns = state->duration_ns,
		.peak_rss = state->peak_rss,
		.number = state->flags,
	};
	vm_message_text(out, "%s", state->reason);
}
