/* SPDX-License-Identifier: Apache-2.0 */
/* life-test.c - what is true of a VM, whoever died; locks, names and removals that race; supervisors that hang */
#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "engine/change.h"
#include "engine/cleanup.h"
#include "engine/end.h"
#include "engine/find.h"
#include "engine/known.h"
#include "tests/tap.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct husk_error err;

static json_t *detached(bool removes)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:i, s:{s:b}}", "image_id", "sha256:0", "lifetime", "detached", "wall",
		"software", "memory", (json_int_t)512 << 20, "stop_signal", 15, "config", "remove", removes);
}

/** A record, whose lock is let go, in @state. */
static void make(const struct husk *husk, const char *name, bool removes, enum vm_state state, char id[VM_ID_SIZE])
{
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = detached(removes);
	struct vm_state_record s = {.state = state};
	host_boot_id(s.boot_id);
	CHECK(vm_record_create(husk, name, json, &record, &err) == 0 && state_write(record.state_fd, &s, &err) == 0, "a record");
	memcpy(id, record.id, VM_ID_SIZE);
}

static int open_state(const struct husk *husk, const char *id)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s/state", husk->home, id);
	return open(path, O_RDWR | O_CLOEXEC);
}

static bool is_recorded(const struct husk *husk, const char *id)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s", husk->home, id);
	return access(path, F_OK) == 0;
}

/** A child that holds an end of a pipe and waits for the end of the other, *@hold. */
static pid_t idle(int *hold)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		char byte;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[1]);
		_exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(ends[0]);
	*hold = ends[1];
	return pid;
}

static void set_state(const struct husk *husk, const char *id, enum vm_state state, pid_t supervisor)
{
	struct vm_state_record s = {.state = state};
	CLEANUP_FD int fd = open_state(husk, id);
	(void)state_read(fd, &s, NULL);
	s.state = state;
	host_boot_id(s.boot_id);
	if (supervisor)
		process_identify(supervisor, &s.supervisor);
	CHECK(state_write(fd, &s, &err) == 0, vm_state_name(state));
}

/* ---- status ---- */

static void test_status(const struct husk *husk)
{
	struct status now;
	struct vm_state_record s;
	char id[VM_ID_SIZE];
	int hold = -1;
	make(husk, NULL, false, VM_CREATED, id);
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_CREATED && !now.alive && !now.orphan,
		"one that has never run");
	pid_t pid = idle(&hold);
	set_state(husk, id, VM_RUNNING, pid);
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_RUNNING && now.alive && !now.ending,
		"one whose supervisor lives runs");
	set_state(husk, id, VM_STOPPED, pid);
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_STOPPED && now.alive && now.ending,
		"one whose supervisor still lives is ending");
	set_state(husk, id, VM_PAUSED, pid);
	close(hold);
	waitpid(pid, NULL, 0);
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_STOPPED && now.orphan &&
			now.state.end == VM_END_SUPERVISOR && now.state.supervisor.pid == 0,
		"one whose supervisor died is stopped");
	CHECK_STRING(now.state.reason, "its supervisor died", "for that reason");
	CLEANUP_FD int fd = open_state(husk, id);
	state_read(fd, &s, NULL);
	memcpy(s.boot_id, "0", 2);
	state_write(fd, &s, NULL);
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_STOPPED, "one of an earlier boot of the host");
	CHECK_STRING(now.state.reason, "host restarted", "is stopped, and why");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && state_read(fd, &s, &err) == 0 && s.state == VM_STOPPED &&
			strcmp(s.reason, "host restarted") == 0,
		"the cleanup writes that down");
	CHECK(status_read(husk, "0123456789ab", &now, &err) == -ENOENT, "one that is not there");
	CHECK(end_remove(husk, id, false, &err) == 0, "removed");
}

static void test_damage(const struct husk *husk)
{
	struct status now;
	struct husk_vm *vm = NULL;
	char id[VM_ID_SIZE], junk[2 * STATE_SLOT];
	make(husk, NULL, false, VM_CREATED, id);
	CLEANUP_FD int fd = open_state(husk, id);
	memset(junk, 'x', sizeof(junk));
	CHECK(pwrite(fd, junk, sizeof(junk), 0) == sizeof(junk), "a torn state");
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_ERROR && now.damaged && now.state.reason[0],
		"is an error with a reason");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && is_recorded(husk, id), "the cleanup keeps it");
	set_state(husk, id, VM_CREATED, 0);
	CHECK(pwrite(fd, "\x63\0", 2, STATE_SLOT + 4) == 2 && pwrite(fd, "\x63\0", 2, 4) == 2, "a state of another version");
	int rc = status_read(husk, id, &now, &err);
	CHECK((rc == -EPROTO && strstr(err.message, "another version")), "is said to be that");
	CHECK(known_open(husk, id, &vm, &err) == -EPROTO && !vm, "and not opened");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && is_recorded(husk, id), "nor cleaned up");
	CHECK(ftruncate(fd, 0) == 0, "put right");
	set_state(husk, id, VM_CREATED, 0);
	CLEANUP_FREE char *json = path_format("%s/vms/%s/vm.json", husk->home, id);
	CLEANUP_FD int torn = open(json, O_WRONLY | O_TRUNC | O_CLOEXEC);
	CHECK(write(torn, "{\"schema\": 1, ", 14) == 14, "a torn vm.json");
	CHECK(known_open(husk, id, &vm, &err) == 0, "can be opened");
	live_close(vm);
	CHECK(end_remove(husk, id, false, &err) == 0 && !is_recorded(husk, id), "and removed");
}

/** A record that is being made belongs to who holds its lock. */
static void test_creating(const struct husk *husk)
{
	struct status now;
	struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = detached(false);
	CHECK(vm_record_create(husk, "made", json, &record, &err) == 0, "a record under way");
	CHECK(status_read(husk, record.id, &now, &err) == 0 && now.state.state == VM_CREATING && !now.orphan, "is creating");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && is_recorded(husk, record.id), "and left alone");
	vm_record_unlock(&record);
	CHECK(status_read(husk, record.id, &now, &err) == 0 && now.state.state == VM_CREATING && now.orphan &&
			strstr(now.state.reason, "interrupted"),
		"until nobody makes it any more");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && !is_recorded(husk, record.id), "then it goes, detached or not");
	vm_record_close(&record);
}

/* ---- locks ---- */

static void test_lock(const struct husk *husk)
{
	char id[VM_ID_SIZE];
	make(husk, NULL, false, VM_CREATED, id);
	CLEANUP_FREE char *path = path_format("%s/vms/%s/lock", husk->home, id);
	pid_t pid = fork();
	int ready[2];
	if (pipe2(ready, O_CLOEXEC) < 0)
		return;
	if (pid == 0) {
		int fd = open(path, O_RDWR);
		flock(fd, LOCK_EX);
		usleep(300000);
		_exit(0);
	}
	struct vm_record record = VM_RECORD_INIT;
	while (vm_record_open(husk, id, &record, NULL) == 0) /* until it has it */
		vm_record_close(&record);
	uint64_t begun = clock_monotonic_ns();
	CHECK(vm_record_open_within(husk, id, 50, &record, &err) == -EBUSY, "a lock that is held is waited for, for a while");
	CHECK(clock_monotonic_ns() - begun < 2000000000, "and not longer");
	CHECK(vm_record_open_within(husk, id, 5000, &record, &err) == 0, "one that is let go is had");
	close(ready[0]);
	close(ready[1]);
	waitpid(pid, NULL, 0);
	CHECK(vm_record_remove(husk, &record, &err) == 0, "removed");
	vm_record_close(&record);
	CHECK(vm_record_open_within(husk, id, 5000, &record, &err) == -ENOENT, "a record that was removed is not waited for");
}

#define REMOVERS 8

/** Of many who remove a VM at once exactly one does it. */
static void test_race(const struct husk *husk)
{
	bool right = true;
	for (int round = 0; round < 20 && right; round++) {
		char id[VM_ID_SIZE];
		int go[2], done = 0, missed = 0;
		pid_t pids[REMOVERS];
		make(husk, "raced", false, VM_CREATED, id);
		if (pipe2(go, O_CLOEXEC) < 0)
			return;
		for (int i = 0; i < REMOVERS; i++)
			if ((pids[i] = fork()) == 0) {
				char byte;
				close(go[1]);
				(void)!read(go[0], &byte, 1);
				int rc = end_remove(husk, id, i % 2, NULL);
				_exit(rc == 0 ? 0 : rc == -ENOENT ? 1 : 2);
			}
		close(go[0]);
		close(go[1]);
		for (int i = 0; i < REMOVERS; i++) {
			int status = 0;
			waitpid(pids[i], &status, 0);
			done += WIFEXITED(status) && WEXITSTATUS(status) == 0;
			missed += WIFEXITED(status) && WEXITSTATUS(status) == 1;
		}
		right = done == 1 && missed == REMOVERS - 1 && !is_recorded(husk, id) && vm_name_free(husk, "raced", NULL) == 0;
		if (!right)
			printf("# %d removed it, %d found it gone\n", done, missed);
	}
	CHECK(right, "of eight who remove a VM at once one does, and the others are told that it is gone");
}

/* ---- names and memory ---- */

static void test_names(const struct husk *husk)
{
	char a[VM_ID_SIZE], b[VM_ID_SIZE], found[VM_ID_SIZE];
	make(husk, "one", false, VM_CREATED, a);
	make(husk, NULL, false, VM_CREATED, b);
	CHECK(change_name(husk, b, "one", &err) == -EEXIST, "a name that is taken");
	CHECK(change_name(husk, b, "-x", &err) == -EINVAL, "what is no name");
	CHECK(change_name(husk, a, "two", &err) == 0 && find_vm(husk, "two", found, &err) == 0 && strcmp(found, a) == 0,
		"another name");
	CHECK(find_vm(husk, "one", found, &err) == -ENOENT, "the old one is nobody's");
	CHECK(change_name(husk, b, "one", &err) == 0, "and can be had");
	CHECK(change_name(husk, a, "two", &err) == 0, "its own name again");
	/* Interrupted between the name's file and vm.json: what counts is vm.json. */
	CLEANUP_FREE char *path = path_format("%s/vm-names/three", husk->home);
	CHECK(path_write_atomically(path, a, VM_ID_SIZE - 1, 0600, &err) == 0 && vm_name_free(husk, "three", &err) == 0,
		"a name that its VM does not call itself by is free");
	CHECK(change_name(husk, b, "three", &err) == 0 && find_vm(husk, "three", found, &err) == 0 && strcmp(found, b) == 0,
		"and can be had, too");
	CHECK(change_name(husk, a, NULL, &err) == 0 && vm_name_free(husk, "two", &err) == 0, "no name at all");
	CHECK(change_memory(husk, a, 16 << 20, true, &err) == -ERANGE, "too little memory");
	CHECK(change_memory(husk, a, 513 << 20, true, &err) == -ERANGE, "more than it was made with");
	CHECK(change_memory(husk, a, 100 << 20, true, &err) == 0, "memory for the next start");
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = NULL;
	CHECK(vm_record_open(husk, a, &record, &err) == 0 && vm_record_read(&record, &json, &err) == 0 &&
			json_integer_value(json_object_get(json, "memory_allowed")) == 100 << 20,
		"is written down");
	vm_record_unlock(&record);
	CHECK(end_remove(husk, a, false, &err) == 0 && end_remove(husk, b, false, &err) == 0, "removed");
}

/* ---- waiting ---- */

static void test_wait(const struct husk *husk)
{
	char id[VM_ID_SIZE];
	struct husk_vm *vm = NULL;
	make(husk, NULL, false, VM_CREATED, id);
	CHECK(known_open(husk, id, &vm, &err) == 0 && vm->detached && !vm->hardware, "a VM of the home");
	CHECK(known_wait(vm, 20, &err) == -ETIMEDOUT, "one that has never run has not ended");
	int hold = -1;
	pid_t pid = idle(&hold);
	struct pollfd change = {.fd = vm->epoll, .events = POLLIN};
	CHECK(poll(&change, 1, 0) == 0, "nothing happens");
	set_state(husk, id, VM_RUNNING, pid);
	CHECK(poll(&change, 1, 5000) == 1, "its start is noticed");
	CHECK(known_wait(vm, 20, &err) == -ETIMEDOUT && poll(&change, 1, 0) == 0, "it runs");
	set_state(husk, id, VM_STOPPED, pid);
	CHECK(known_wait(vm, 20, &err) == -ETIMEDOUT, "it has ended when its supervisor has");
	close(hold);
	CHECK(known_wait(vm, 5000, &err) == 0 && vm->outcome.kind == VM_MESSAGE_OUTCOME, "which is noticed");
	waitpid(pid, NULL, 0);
	CHECK(poll(&change, 1, 0) == 1 && known_wait(vm, 0, &err) == 0, "and stays so");
	live_close(vm);
	set_state(husk, id, VM_CREATED, 0);
	CHECK(known_open(husk, id, &vm, &err) == 0, "again");
	pid = fork();
	if (pid == 0)
		_exit(-end_remove(husk, id, false, NULL));
	CHECK(known_wait(vm, 10000, &err) == -ENOENT, "a VM that is removed without having run is gone");
	waitpid(pid, NULL, 0);
	live_close(vm);
}

/* ---- supervisors ---- */

enum conduct { ANSWERS, HANGS, IGNORES };

/** A supervisor of VM @id, as far as others see it: listens on supervisor.sock, and at KILL writes its last state and ends; or takes
 *  no request; or answers and goes on. */
static pid_t supervise(const struct husk *husk, const char *id, enum conduct conduct)
{
	CLEANUP_FREE char *directory = path_join(husk->runtime, id);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/" VM_SERVICE_NAME, directory);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	mkdir(directory, 0700);
	CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0, "a supervisor");
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			struct vm_message m, answer = {.kind = VM_MESSAGE_ANSWER};
			int client = conduct == HANGS ? -1 : accept(fd, NULL, NULL);
			if (client < 0)
				pause();
			if (recv(client, &m, sizeof(m), 0) != sizeof(m) || send(client, &answer, sizeof(answer), 0) < 0)
				_exit(3);
			if (conduct == ANSWERS) {
				struct vm_state_record s;
				int state = open_state(husk, id);
				state_read(state, &s, NULL);
				s.state = VM_STOPPED;
				s.end = VM_END_KILLED;
				state_write(state, &s, NULL);
				_exit(0);
			}
			close(client);
		}
	}
	close(fd);
	set_state(husk, id, VM_RUNNING, pid);
	return pid;
}

static void test_remove(const struct husk *husk)
{
	char id[VM_ID_SIZE];
	make(husk, NULL, false, VM_CREATED, id);
	pid_t pid = supervise(husk, id, ANSWERS);
	CHECK(end_remove(husk, id, false, &err) == -EBUSY && strstr(err.message, "is running"), "a VM that runs is not removed");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && is_recorded(husk, id), "nor cleaned up");
	CHECK(end_remove(husk, id, true, &err) == 0 && !is_recorded(husk, id), "but by force");
	CHECK(waitpid(pid, NULL, WNOHANG) == pid, "its supervisor has ended");
	CHECK(end_remove(husk, id, true, &err) == -ENOENT, "it is gone");
}

static void test_hung(const struct husk *husk)
{
	char id[VM_ID_SIZE];
	int status = 0;
	struct status now;
	make(husk, NULL, false, VM_CREATED, id);
	pid_t pid = supervise(husk, id, HANGS);
	kill(pid, SIGSTOP);
	uint64_t begun = clock_monotonic_ns();
	CHECK(end_stop(husk, id, 1000, &err) == 0, "a VM whose supervisor hangs is stopped");
	CHECK(clock_monotonic_ns() - begun < 9000000000, "in time");
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "by force");
	CHECK(status_read(husk, id, &now, &err) == 0 && now.state.state == VM_STOPPED && now.orphan, "and is known to be");
	CHECK(end_stop(husk, id, 1000, &err) == 0, "stopping it again is fine");
	CHECK(end_remove(husk, id, false, &err) == 0, "removed");
}

/** The record of a VM with `remove` whose supervisor died. */
static void test_removed(const struct husk *husk)
{
	char id[VM_ID_SIZE], other[VM_ID_SIZE];
	int hold = -1;
	make(husk, NULL, true, VM_CREATED, id);
	make(husk, NULL, true, VM_CREATED, other);
	CHECK(cleanup_run(husk, NULL, &err) == 0 && is_recorded(husk, id), "one that is to go with its end, and has not run, is kept");
	pid_t pid = idle(&hold);
	set_state(husk, id, VM_RUNNING, pid);
	CHECK(cleanup_run(husk, NULL, &err) == 0 && is_recorded(husk, id), "one that runs, too");
	close(hold);
	waitpid(pid, NULL, 0);
	CHECK(cleanup_run(husk, NULL, &err) == 0 && !is_recorded(husk, id), "one whose supervisor died is removed");
	CHECK(end_remove(husk, other, false, &err) == 0, "removed");
}

/** A removal that was interrupted. */
static void test_interrupted(const struct husk *husk)
{
	char id[VM_ID_SIZE];
	make(husk, "half", false, VM_STOPPED, id);
	CLEANUP_FREE char *vms = path_format("%s/vms/%s", husk->home, id);
	CLEANUP_FREE char *staging = path_format("%s/vms.new/%s", husk->home, id);
	CLEANUP_FREE char *runtime = path_join(husk->runtime, id);
	CHECK(mkdir(runtime, 0700) == 0 && rename(vms, staging) == 0, "a removal that came half its way");
	CHECK(vm_name_free(husk, "half", &err) == 0, "its name is free");
	CHECK(cleanup_run(husk, NULL, &err) == 0 && access(staging, F_OK) < 0 && access(runtime, F_OK) < 0,
		"the next command finishes it, its runtime directory as well");
}

int main(void)
{
	char base[] = "/tmp/husk-life-XXXXXX";
	CHECK(mkdtemp(base) != NULL, "make a home");
	CLEANUP_FREE char *run = path_join(base, "run");
	struct husk husk = {.home = base, .runtime = run, .libexec = base};
	CHECK(mkdir(run, 0700) == 0, "make a runtime directory");
	test_status(&husk);
	test_damage(&husk);
	test_creating(&husk);
	test_lock(&husk);
	test_race(&husk);
	test_names(&husk);
	test_wait(&husk);
	test_remove(&husk);
	test_hung(&husk);
	test_removed(&husk);
	test_interrupted(&husk);
	CHECK(path_remove_tree(base, NULL) == 0, "clean up");
	return tap_done();
}
