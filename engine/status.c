/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - what is true of a VM at this moment (theory of operation: status.h) */
#include "engine/status.h"

#include "base/path.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

bool status_runs(uint32_t state)
{
	return state == VM_STARTING || state == VM_RUNNING || state == VM_PAUSED;
}

/** True while somebody holds the lock of the record in @directory. */
static bool is_held(const char *directory)
{
	CLEANUP_FREE char *path = path_join(directory, "lock");
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/** The supervisor that the record names is gone: what it would have written. */
static void end_state(struct vm_state_record *state)
{
	char boot_id[40];
	host_boot_id(boot_id);
	bool restarted = strncmp(state->boot_id, boot_id, sizeof(boot_id)) != 0;
	state->state = VM_STOPPED;
	state->end = VM_END_SUPERVISOR;
	state->value = 0;
	state->ended_ns = state->changed_ns; /* when it was last heard of */
	snprintf(state->reason, sizeof(state->reason), "%s", restarted ? STATUS_HOST_RESTARTED : "its supervisor died");
}

/** @held: somebody holds the lock of a record that is being made. */
static void judge(struct status *s, bool (*held)(const char *directory), const char *directory)
{
	struct vm_state_record *state = &s->state;
	s->alive = process_alive(&state->supervisor, state->boot_id);
	s->ending = s->alive && !status_runs(state->state);
	if (state->state == VM_CREATING && !s->alive && !held(directory)) {
		s->orphan = true;
		snprintf(state->reason, sizeof(state->reason), "its creation was interrupted");
	}
	if (status_runs(state->state) && !s->alive) {
		s->orphan = true;
		end_state(state);
	}
	if (s->alive)
		return;
	state->supervisor = state->worker = state->machine = (struct process_id){0};
	state->console[0] = 0;
	memset(state->doors, 0, sizeof(state->doors));
}

/** The lock is ours. */
static bool is_not_held(const char *directory)
{
	(void)directory;
	return false;
}

static int read_with(int state_fd, bool (*held)(const char *directory), const char *directory, const char *id,
	struct status *out, struct husk_error *err)
{
	struct husk_error why;
	struct stat st;
	*out = (struct status){.state = {.state = VM_CREATING}};
	int rc = state_read(state_fd, &out->state, &why);
	if (rc == -EPROTO)
		return error_set(err, rc, "VM %s: its state was written by another version of husk", id);
	if (rc < 0 && rc != -EBADMSG)
		return error_set(err, rc, "VM %s: %s", id, why.message);
	if (rc == -EBADMSG && (fstat(state_fd, &st) < 0 || st.st_size > 0)) {
		out->damaged = true;
		out->state.state = VM_ERROR;
		out->state.end = VM_END_FAILED;
		snprintf(out->state.reason, sizeof(out->state.reason), "its state record is damaged");
		return 0;
	}
	judge(out, held, directory);
	return 0;
}

int status_read_open(int state_fd, const char *directory, const char *id, struct status *out, struct husk_error *err)
{
	return read_with(state_fd, is_held, directory, id, out, err);
}

int status_read_locked(const struct vm_record *record, struct status *out, struct husk_error *err)
{
	return read_with(record->state_fd, is_not_held, record->directory, record->id, out, err);
}

int status_read(const struct husk *husk, const char *id, struct status *out, struct husk_error *err)
{
	CLEANUP_FREE char *directory = path_format("%s/vms/%s", husk->home, id);
	CLEANUP_FREE char *path = directory ? path_join(directory, "state") : NULL;
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd < 0)
		return path && errno == ENOENT ? error_set(err, -ENOENT, "there is no VM %s", id)
					       : error_errno(err, "open the state of VM %s", id);
	return status_read_open(fd, directory, id, out, err);
}
