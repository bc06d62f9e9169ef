/* SPDX-License-Identifier: Apache-2.0 */
/* end.c - end a VM that any process has started, and remove it (theory of operation: end.h) */
#include "engine/end.h"

#include "base/loop.h"
#include "engine/cleanup.h"
#include "engine/control.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#define ASK_MS 5000 /* for an answer of the supervisor */
#define GONE_MS 10000 /* for its end, once it knows of it */

int end_watch(const struct vm_state_record *state)
{
	CLEANUP_FD int fd = state->supervisor.pid > 0 ? (int)syscall(SYS_pidfd_open, state->supervisor.pid, 0) : -1;
	if (fd < 0)
		return -ESRCH;
	/* Compared when the pidfd is open: it is that very process's then, or of one that is not meant. */
	return process_alive(&state->supervisor, state->boot_id) ? steal_fd(&fd) : -ESRCH;
}

/** True when the process of @pidfd has ended by @deadline. */
static bool is_gone(int pidfd, uint64_t deadline)
{
	struct pollfd dead = {.fd = pidfd, .events = POLLIN};
	for (;;) {
		uint64_t now = clock_monotonic_ms(), left = now < deadline ? deadline - now : 0;
		if (poll(&dead, 1, left > 1000000 ? 1000000 : (int)left) > 0)
			return true;
		if (!left)
			return false;
	}
}

int end_settle(const struct husk *husk, const char *id, unsigned timeout_ms, struct husk_error *err)
{
	uint64_t deadline = clock_monotonic_ms() + timeout_ms;
	struct status now;
	for (;;) {
		int rc = status_read(husk, id, &now, err);
		if (rc < 0 || !now.ending)
			return rc;
		CLEANUP_FD int pidfd = end_watch(&now.state);
		if (pidfd >= 0 && !is_gone(pidfd, deadline))
			return error_set(err, -EBUSY, "VM %s is ending; its supervisor does not come to its end", id);
	}
}

/** Kill the process of @pidfd, and wait for its end. */
static int force(const char *id, int pidfd, struct husk_error *err)
{
	(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	return is_gone(pidfd, clock_monotonic_ms() + GONE_MS)
		       ? 0
		       : error_set(err, -EBUSY, "the supervisor of VM %s cannot be killed", id);
}

/** Send the supervisor @message and wait until it has ended, for at most @patience_ms from its answer on; then by force. */
static int end_with(const struct husk *husk, const char *id, const struct vm_message *message, uint64_t patience_ms,
	struct husk_error *err)
{
	struct husk_error why;
	struct status now;
	int rc = status_read(husk, id, &now, err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int pidfd = now.alive ? end_watch(&now.state) : -1;
	if (pidfd < 0 && !now.damaged)
		return 0;
	if (!now.ending)
		rc = control_request(husk, id, message, -1, ASK_MS, &why);
	if (pidfd < 0 && rc == 0)
		return error_set(err, -EBUSY, "VM %s was told to end; who its supervisor is cannot be read, so look again", id);
	if (pidfd < 0)
		return rc == -ESRCH ? 0 : error_set(err, rc, "%s", why.message);
	if (rc < 0 && rc != -ETIMEDOUT && rc != -ESRCH)
		return error_set(err, rc, "%s", why.message);
	return rc != -ETIMEDOUT && is_gone(pidfd, clock_monotonic_ms() + patience_ms) ? 0 : force(id, pidfd, err);
}

int end_kill(const struct husk *husk, const char *id, struct husk_error *err)
{
	return end_with(husk, id, &(struct vm_message){.kind = VM_CONTROL_KILL}, GONE_MS, err);
}

int end_stop(const struct husk *husk, const char *id, uint64_t grace_ms, struct husk_error *err)
{
	struct vm_message message = {
		.kind = VM_CONTROL_STOP, .value = grace_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)grace_ms};
	return end_with(husk, id, &message, message.value + (uint64_t)GONE_MS, err);
}

/* ---- removal ---- */

/** The record of a VM that does not run, locked. *@again: it has come to life meanwhile. */
static int lock_dead(const struct husk *husk, const char *id, struct vm_record *record, struct vm_state_record *before,
	bool *again, struct husk_error *err)
{
	struct status now;
	int rc = vm_record_open_within(husk, id, VM_LOCK_MS, record, err);
	rc = rc < 0 ? rc : status_read_locked(record, &now, err);
	*again = rc == 0 && now.alive;
	if (rc == 0 && state_read(record->state_fd, before, NULL) < 0)
		*before = now.state;
	return rc;
}

/** End a VM that is to be removed. *@ended: it was alive. */
static int end_first(const struct husk *husk, const char *id, bool by_force, bool *ended, struct husk_error *err)
{
	struct status now;
	int rc = status_read(husk, id, &now, err);
	if (rc < 0 || (!now.alive && !now.damaged))
		return rc;
	if (now.damaged && !by_force)
		return error_set(err, -EBUSY, "VM %s: %s, and it may run: remove it by force", id, now.state.reason);
	if (now.alive && !now.ending && !by_force)
		return error_set(err, -EBUSY, "VM %s is %s: stop it first, or remove it by force", id,
			vm_state_name(now.state.state));
	*ended = true;
	if (now.ending || !by_force)
		return end_settle(husk, id, GONE_MS, err);
	return end_kill(husk, id, err);
}

int end_remove(const struct husk *husk, const char *id, bool by_force, struct husk_error *err)
{
	bool ended = false, again = true;
	int rc = 0;
	while (again) {
		CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
		struct vm_state_record before;
		rc = end_first(husk, id, by_force, &ended, err);
		rc = rc < 0 ? rc : lock_dead(husk, id, &record, &before, &again, err);
		if (rc < 0)
			break;
		if (again)
			continue;
		cleanup_after(&record, &before);
		rc = vm_record_remove(husk, &record, err);
	}
	/* What ended by our doing and took its record along is removed. */
	return rc == -ENOENT && ended && by_force ? 0 : rc;
}
