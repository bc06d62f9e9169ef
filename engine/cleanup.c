/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.c - set right what a crash left behind
 *
 * Theory of operation: two kinds of leftovers. A directory in vms.new is a record that was being made or removed: making
 * and publishing happen under the home's lock, so whatever lies there while we hold that lock, and whose own lock is free,
 * is nobody's. A record in vms is nobody's when its lock is free and the supervisor that its state names does not live
 * (pid, start time and boot id all have to match). Then the cause is written into the state, the user is told, and the
 * record of a foreground VM is removed. Whatever cannot be read is left alone.
 */
#include "engine/cleanup.h"

#include "base/door.h"
#include "base/path.h"
#include "engine/door.h"
#include "engine/vm.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
		if (path && (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0))
			path_remove_tree(path, NULL);
	}
}

static const char *cause_of(const struct vm_state_record *state, bool known, char *room, size_t size)
{
	char boot_id[40];
	host_boot_id(boot_id);
	if (!known || (state->state == VM_CREATING && !state->supervisor.pid))
		return "its start was interrupted";
	if (strncmp(state->boot_id, boot_id, sizeof(boot_id)) != 0)
		return "the host was restarted";
	if (state->state == VM_STOPPED || state->state == VM_ERROR) {
		snprintf(room, size, "the program that had started it went away%s%.200s", state->reason[0] ? "; " : "",
			state->reason);
		return room;
	}
	return "its supervisor died";
}

/** The worker holds the doors' sockets and dies with its supervisor: give it the moment that this takes. */
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
	bool waited = false;
	for (size_t i = 0; i < VM_DOORS_MAX; i++) {
		const struct vm_door *door = &state->doors[i];
		if (door->endpoint[0] != '/')
			continue;
		door_clear_nest(door->endpoint, id);
		if (!door->inode)
			continue;
		if (!waited)
			await_death(&state->worker, state->boot_id);
		waited = true;
		if (door_path_probe(door->endpoint) == -ECONNREFUSED)
			door_path_remove(door);
	}
}

void cleanup_doors(const struct vm_record *record)
{
	struct vm_state_record state;
	if (state_read(record->state_fd, &state, NULL) == 0 && !process_alive(&state.supervisor, state.boot_id))
		remove_doors(record->id, &state);
}

/** The record @id has no living supervisor and we hold its lock: set it right. */
static int clean_record(const struct husk *husk, struct vm_record *record, struct vm_state_record *state, bool known)
{
	char room[320];
	const char *cause = cause_of(state, known, room, sizeof(room));
	CLEANUP_JSON json_t *configuration = NULL;
	/* A record of another schema is another husk's to judge. */
	if (vm_record_read(record, &configuration, NULL) == -EPROTO)
		return 0;
	const char *lifetime = json_string_value(json_object_get(configuration, "lifetime"));
	bool foreground = !configuration || !lifetime || strcmp(lifetime, "caller") == 0;
	bool ended = known && (state->state == VM_STOPPED || state->state == VM_ERROR);
	if (ended && !foreground)
		return 0;
	remove_doors(record->id, state);
	if (!ended) {
		state->state = VM_STOPPED;
		state->end = VM_END_SUPERVISOR;
		snprintf(state->reason, sizeof(state->reason), "%s", cause);
		if (state_write(record->state_fd, state, NULL) < 0)
			return 0;
	}
	if (foreground && vm_record_remove(husk, record, NULL) < 0)
		return 0;
	engine_notice(husk, HUSK_NOTICE_CLEANUP, "VM %s%s%s%s is gone: %s%s", record->id, record->name ? " (" : "",
		record->name ? record->name : "", record->name ? ")" : "", cause,
		foreground ? "; its record was removed" : "");
	return 1;
}

/** True when the state at @fd names a supervisor that lives. *@known: the state could be read. */
static bool supervised(int fd, struct vm_state_record *state, bool *known)
{
	*state = (struct vm_state_record){0};
	*known = state_read(fd, state, NULL) == 0;
	return *known && process_alive(&state->supervisor, state->boot_id);
}

static int clean_one(const struct husk *husk, const char *id)
{
	struct vm_state_record state;
	bool known;
	/* Without the lock first: nothing of a live VM is touched, not even its lock. */
	CLEANUP_FREE char *path = path_format("%s/vms/%s/state", husk->home, id);
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd < 0 || supervised(fd, &state, &known))
		return 0;
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	if (vm_record_open(husk, id, &record, NULL) < 0 || supervised(record.state_fd, &state, &known))
		return 0;
	return clean_record(husk, &record, &state, known);
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
