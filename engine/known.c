/* SPDX-License-Identifier: Apache-2.0 */
/*
 * known.c - a VM that is known by its record
 *
 * Theory of operation: the handle keeps the state file open, so that what it says can be read also when the record has been
 * removed meanwhile, as that of a VM with `remove` is. While the VM has a supervisor its pidfd tells the end; before it has
 * ever run, inotify on the state file tells of every change, its removal among them. Either hangs in the epoll descriptor that
 * husk_vm_fd() gives, and so does an event that stays once there is nothing more to wait for. Whoever waits looks at the
 * state, chooses what is to be watched, and sleeps without the lock.
 */
#include "engine/known.h"

#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "engine/end.h"
#include "engine/outcome.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

/** Watch @fd (owned from now on) and nothing else. */
static int watch(struct husk_vm *vm, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	if (vm->watch_fd >= 0) {
		/* Closing would do, were there no forked process that still has it: epoll(7). */
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->watch_fd, NULL);
		close(steal_fd(&vm->watch_fd));
	}
	vm->watch_fd = fd;
	return fd < 0 || epoll_ctl(vm->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static bool is_removed(const struct husk_vm *vm)
{
	return access(vm->record.directory, F_OK) < 0;
}

/** The state, as it is in the file that we have open. */
static int look(struct husk_vm *vm, struct status *now, struct husk_error *err)
{
	return status_read_open(vm->record.state_fd, vm->record.directory, vm->record.id, now, err);
}

static int watch_state(struct husk_vm *vm)
{
	CLEANUP_FREE char *path = path_join(vm->record.directory, "state");
	CLEANUP_FD int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (!path || fd < 0)
		return -1;
	/* A removal renames the directory first, and unlinks the file, which we keep open, then: IN_ATTRIB. inotify(7) */
	if (inotify_add_watch(fd, path, IN_MODIFY | IN_ATTRIB) < 0 ||
		inotify_add_watch(fd, vm->record.directory, IN_MOVE_SELF | IN_DELETE_SELF) < 0)
		return -1;
	return steal_fd(&fd);
}

/** Choose what tells of the next change. With the lock held. 1: it has ended, and the outcome is there; 0: not yet. */
static int arm(struct husk_vm *vm, struct husk_error *err)
{
	struct status now;
	for (;;) {
		if (vm->told)
			return 1;
		int rc = look(vm, &now, err);
		if (rc < 0)
			return rc;
		if (now.alive) {
			int pidfd = end_watch(&now.state);
			if (pidfd < 0)
				continue; /* it has ended between the two */
			rc = watch(vm, pidfd);
			return rc < 0 ? error_set(err, rc, "watch VM %s: %s", vm->record.id, strerror(-rc)) : 0;
		}
		if (now.state.state == VM_STOPPED || now.state.state == VM_ERROR) {
			outcome_of_state(&now.state, &vm->outcome);
			rc = watch(vm, eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
			return rc < 0 ? error_set(err, rc, "watch VM %s: %s", vm->record.id, strerror(-rc)) : 1;
		}
		int state = watch_state(vm);
		if (is_removed(vm)) {
			cleanup_fd(&state);
			return error_set(err, -ENOENT, "VM %s was removed, and has never run", vm->record.id);
		}
		rc = watch(vm, state);
		if (rc < 0)
			return error_set(err, rc, "watch the state of VM %s: %s", vm->record.id, strerror(-rc));
		/* What came between the look and the watch would not be told. */
		uint64_t seen = now.state.generation;
		rc = look(vm, &now, err);
		if (rc < 0 || now.state.generation == seen)
			return rc;
	}
}

int known_wait(struct husk_vm *vm, int64_t timeout_ms, struct husk_error *err)
{
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : clock_monotonic_ms() + (uint64_t)timeout_ms;
	for (;;) {
		pthread_mutex_lock(&vm->lock);
		int rc = arm(vm, err);
		vm->told = rc > 0;
		pthread_mutex_unlock(&vm->lock);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		uint64_t now = clock_monotonic_ms();
		if (now >= deadline)
			return error_set(err, -ETIMEDOUT, "VM %s has not ended yet", vm->record.id);
		struct pollfd change = {.fd = vm->epoll, .events = POLLIN};
		uint64_t left = deadline - now;
		poll(&change, 1, deadline == UINT64_MAX ? -1 : left > 1000000 ? 1000000 : (int)left);
	}
}

void known_again(struct husk_vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->told = false;
	(void)arm(vm, NULL);
	pthread_mutex_unlock(&vm->lock);
}

/** What vm.json says of it. */
static int read_record(struct husk_vm *vm, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = NULL;
	int rc = vm_record_read(&vm->record, &json, err);
	vm->detached = rc == -EBADMSG || rc == -ENOENT; /* damaged: it can be looked at, and removed */
	if (rc < 0)
		return vm->detached ? 0 : rc;
	const char *lifetime = json_string_value(json_object_get(json, "lifetime"));
	const char *wall = json_string_value(json_object_get(json, "wall"));
	vm->detached = lifetime && strcmp(lifetime, "detached") == 0;
	vm->hardware = wall && strcmp(wall, "hardware") == 0;
	vm->stop_signal = (int)json_integer_value(json_object_get(json, "stop_signal"));
	vm->agentless = json_is_string(json_object_get(json_object_get(json, "config"), "initramfs"));
	return 0;
}

static int open_handle(struct husk_vm *vm, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(vm->record.directory, "state");
	vm->record.state_fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (vm->record.state_fd < 0)
		return path && errno == ENOENT ? error_set(err, -ENOENT, "there is no VM %s", vm->record.id)
					       : error_errno(err, "open the state of VM %s", vm->record.id);
	int rc = read_record(vm, err);
	if (rc < 0)
		return rc;
	vm->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (vm->epoll < 0)
		return error_errno(err, "watch VM %s", vm->record.id);
	rc = arm(vm, err);
	return rc < 0 ? rc : 0;
}

int known_open(const struct husk *husk, const char *id, struct husk_vm **out, struct husk_error *err)
{
	struct husk_vm *vm = live_new(husk, err);
	if (!vm)
		return -ENOMEM;
	vm->known = true;
	snprintf(vm->record.id, sizeof(vm->record.id), "%s", id);
	vm->record.directory = path_format("%s/vms/%s", husk->home, id);
	vm->record.runtime = path_join(husk->runtime, id);
	int rc = vm->record.directory && vm->record.runtime ? open_handle(vm, err)
							    : error_set(err, -ENOMEM, "open VM %s: out of memory", id);
	if (rc < 0) {
		live_close(vm);
		return rc;
	}
	*out = vm;
	return 0;
}
