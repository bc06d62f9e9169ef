/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.c - set right what a crash left behind
 *
 * Theory of operation: two kinds of leftovers. A directory in vms.new is a record that was being made or removed: making
 * and publishing happen under the home's lock, so whatever lies there while we hold that lock, and whose own lock is free,
 * is nobody's. A record in vms is nobody's when its lock is free and the supervisor that its state names does not live
 * (pid, start time and boot id all have to match: status.h). Then the paths of its doors and its runtime directory are removed;
 * a record that was still being made, a foreground VM's, and one that was to go with its VM's end, are removed, and others get
 * the truth written into their state. The user is told. Whatever cannot be read is left alone, and so is a VM that lives.
 */
#include "engine/cleanup.h"

#include "base/door.h"
#include "base/path.h"
#include "engine/door.h"
#include "engine/status.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#define DEATH_MS 2000

/** Remove what lies in vms.new and nobody holds. */
static void clean_staging(const struct husk *husk)
{
	CLEANUP_FREE char *staging = path_join(husk->home, "vms.new");
	CLEANUP_DIR DIR *dir = staging ? opendir(staging) : NULL;
	if (!dir)
		return;
	CLEANUP_FD int home_lock = -1;
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (!vm_id_check(entry->d_name))
			continue;
		if (home_lock < 0 && (home_lock = vm_home_lock(husk, NULL)) < 0)
			return;
		CLEANUP_FREE char *path = path_join(staging, entry->d_name);
		CLEANUP_FREE char *lock = path ? path_join(path, "lock") : NULL;
		CLEANUP_FD int fd = lock ? open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
		CLEANUP_FREE char *runtime = path_join(husk->runtime, entry->d_name);
		if (!path || !runtime || (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0))
			continue;
		/* What was here when we looked may have been published before we had the lock: then it is somebody's. */
		if (fd < 0 && access(path, F_OK) < 0)
			continue;
		/* Of a record that was being made there is none yet, of one that was being removed it is all that else is left. */
		if (path_remove_tree(runtime, NULL) == 0)
			path_remove_tree(path, NULL);
	}
}

/** What a supervisor has started holds the doors' sockets and the disks, and dies with it: give it the moment that this takes. */
static void await_death(const struct process_id *id, const char *boot_id)
{
	CLEANUP_FD int fd = id->pid > 0 ? (int)syscall(SYS_pidfd_open, id->pid, 0) : -1;
	struct pollfd dead = {.fd = fd, .events = POLLIN};
	if (fd >= 0 && process_alive(id, boot_id))
		poll(&dead, 1, DEATH_MS);
}

/** The paths of the unix doors of VM @id: those that are still the very sockets and on which nobody listens. */
static void remove_doors(const char *id, const struct vm_state_record *state)
{
	for (size_t i = 0; i < VM_DOORS_MAX; i++) {
		const struct vm_door *door = &state->doors[i];
		if (door->endpoint[0] != '/')
			continue;
		door_clear_nest(door->endpoint, id);
		if (!door->inode)
			continue;
		if (door_path_probe(door->endpoint) == -ECONNREFUSED)
			door_path_remove(door);
	}
}

static void end_doors(const char *id, const struct vm_state_record *state)
{
	await_death(&state->worker, state->boot_id);
	await_death(&state->machine, state->boot_id);
	remove_doors(id, state);
}

void cleanup_doors(const struct vm_record *record)
{
	struct vm_state_record state;
	if (state_read(record->state_fd, &state, NULL) == 0 && !process_alive(&state.supervisor, state.boot_id))
		end_doors(record->id, &state);
}

void cleanup_after(const struct vm_record *record, const struct vm_state_record *state)
{
	end_doors(record->id, state);
	path_remove_tree(record->runtime, NULL);
}

/** Why nothing of this record is to be kept, as the beginning of a sentence; NULL: it is kept. *@foreign: it is another husk's to
 *  judge. */
static const char *why_transient(const struct vm_record *record, const struct status *now, bool *foreign)
{
	CLEANUP_JSON json_t *json = NULL;
	*foreign = vm_record_read(record, &json, NULL) == -EPROTO;
	const char *lifetime = json_string_value(json_object_get(json, "lifetime"));
	if (now->orphan && now->state.state == VM_CREATING)
		return "";
	if (!lifetime)
		return NULL; /* damaged: whose it is nobody can say, so it stays for its user to look at */
	if (strcmp(lifetime, "caller") == 0)
		return now->orphan ? "" : "the program that had started it went away; ";
	if (json_is_true(json_object_get(json_object_get(json, "config"), "remove")))
		return now->orphan ? "" : "its removal was interrupted; ";
	return NULL;
}

static void tell(const struct husk *husk, const struct vm_record *record, const char *why, const char *reason, bool removed)
{
	engine_notice(husk, HUSK_NOTICE_CLEANUP, "VM %s%s%s%s is gone: %s%s%s", record->id, record->name ? " (" : "",
		record->name ? record->name : "", record->name ? ")" : "", why, reason,
		removed ? "; its record was removed" : "");
}

/** True when somebody takes requests there, whatever the state says. */
static bool is_served(const struct vm_record *record)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/" VM_SERVICE_NAME, record->runtime);
	return fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN);
}

/** The record has no living supervisor and we hold its lock: set it right. 1 when something was to be told. */
static int clean_record(const struct husk *husk, struct vm_record *record, struct status *now)
{
	struct vm_state_record before = now->state;
	bool foreign, over = now->state.state == VM_STOPPED || now->state.state == VM_ERROR || now->orphan;
	const char *why = why_transient(record, now, &foreign);
	bool removed = why && over; /* what has never run is kept */
	if (foreign || (now->damaged && is_served(record)))
		return 0;
	if (!removed && !now->orphan && access(record->runtime, F_OK) < 0)
		return 0;
	if (!now->damaged)
		(void)state_read(record->state_fd, &before, NULL);
	cleanup_after(record, &before);
	if (removed && vm_record_remove(husk, record, NULL) < 0)
		return 0;
	if (!removed && (now->orphan || now->damaged) && state_write(record->state_fd, &now->state, NULL) < 0)
		return 0;
	if (removed || now->orphan)
		tell(husk, record, removed ? why : "", now->state.reason, removed);
	return removed || now->orphan;
}

/** True when there is nothing to be done: somebody lives who answers for the record, it cannot be read, or it is at rest. A VM
 *  that has run is at rest when its runtime directory is gone. */
static bool is_kept(const struct husk *husk, int fd, const char *directory, const char *id, struct status *now)
{
	if (status_read_open(fd, directory, id, now, NULL) < 0 || now->alive)
		return true;
	if (now->state.state == VM_CREATING || now->orphan || now->damaged)
		return !now->orphan && !now->damaged;
	CLEANUP_FREE char *runtime = path_join(husk->runtime, id);
	return !runtime || access(runtime, F_OK) < 0;
}

static int clean_one(const struct husk *husk, const char *id)
{
	struct status now;
	/* Without the lock first: nothing of a live VM is touched, not even its lock. */
	CLEANUP_FREE char *directory = path_format("%s/vms/%s", husk->home, id);
	CLEANUP_FREE char *path = directory ? path_join(directory, "state") : NULL;
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd < 0 || is_kept(husk, fd, directory, id, &now))
		return 0;
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	if (vm_record_open(husk, id, &record, NULL) < 0)
		return 0;
	/* With the lock, whatever is being made is not made by anybody. */
	if (status_read_locked(&record, &now, NULL) < 0 || now.alive)
		return 0;
	return clean_record(husk, &record, &now);
}

int cleanup_run(const struct husk *husk, size_t *n, struct husk_error *err)
{
	CLEANUP_FREE char *vms = path_join(husk->home, "vms");
	if (!vms)
		return error_set(err, -ENOMEM, "clean up: out of memory");
	clean_staging(husk);
	CLEANUP_DIR DIR *dir = opendir(vms);
	if (!dir)
		return errno == ENOENT ? 0 : error_errno(err, "open %s", vms);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (vm_id_check(entry->d_name) && clean_one(husk, entry->d_name) > 0 && n)
			++*n;
	return 0;
}
