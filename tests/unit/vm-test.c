/* SPDX-License-Identifier: Apache-2.0 */
/* vm-test.c - records of VMs: names, locks, and what is cleaned up after a crash and what is not */
#include "engine/vm.h"

#include "base/path.h"
#include "engine/cleanup.h"
#include "tests/tap.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct husk_error err;
static char notice[1024];

static void on_notice(void *data, enum husk_notice kind, const char *line)
{
	snprintf(notice, sizeof(notice), "%s", line);
}

static bool exists(const struct vm_record *record, const char *name)
{
	CLEANUP_FREE char *path = path_join(record->directory, name);
	return path && access(path, F_OK) == 0;
}

static json_t *foreground(void)
{
	return json_pack("{s:s, s:s}", "image_id", "sha256:0", "lifetime", "caller");
}

static void test_create(const struct husk *husk)
{
	struct vm_record a = VM_RECORD_INIT, b = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = foreground(), *read = NULL;
	CHECK(vm_record_create(husk, "web", json, &a, &err) == 0, "a record is made");
	CHECK(vm_id_check(a.id), "with an id of 12 hex digits");
	CHECK(vm_record_make_runtime(&a, &err) == 0 && exists(&a, "vm.json") && exists(&a, "state") && exists(&a, "lock") &&
			access(a.runtime, F_OK) == 0,
		"its files and its runtime directory are there");
	CHECK(vm_record_read(&a, &read, &err) == 0, "its configuration can be read");
	CHECK_STRING(json_string_value(json_object_get(read, "name")), "web", "with its name");
	CHECK(vm_record_create(husk, "web", json, &b, &err) == -EEXIST, "a second one of the same name is refused");
	CHECK(strstr(err.message, a.id) != NULL, "and told who has it");
	CHECK(vm_record_open(husk, a.id, &b, &err) == -EBUSY, "its lock is held");
	size_t n = 0;
	CHECK(cleanup_run(husk, &n, &err) == 0 && n == 0 && exists(&a, "vm.json"), "a record whose lock is held stays");
	CHECK(vm_record_remove(husk, &a, &err) == 0 && access(a.runtime, F_OK) < 0, "it is removed");
	CHECK(vm_name_free(husk, "web", &err) == 0, "and its name is free");
	vm_record_close(&a);
	CHECK(vm_record_create(husk, "web", json, &b, &err) == 0, "so that another VM can have it");
	vm_record_remove(husk, &b, NULL);
	vm_record_close(&b);
}

static void write_state(struct vm_record *record, enum vm_state state, const struct process_id *supervisor)
{
	struct vm_state_record s = {.state = state, .supervisor = *supervisor};
	host_boot_id(s.boot_id);
	CHECK(state_write(record->state_fd, &s, &err) == 0, "write a state");
}

static void test_cleanup(const struct husk *husk)
{
	struct vm_record live = VM_RECORD_INIT, dead = VM_RECORD_INIT, kept = VM_RECORD_INIT, again = VM_RECORD_INIT;
	struct vm_state_record state;
	struct process_id us, gone = {.pid = 1, .start_time = 1};
	size_t n = 0;
	CLEANUP_JSON json_t *caller = foreground();
	CLEANUP_JSON json_t *detached = json_pack("{s:s}", "lifetime", "detached");
	CHECK(process_identify(getpid(), &us) == 0, "a supervisor that lives: us");
	CHECK(vm_record_create(husk, NULL, caller, &live, &err) == 0 &&
			vm_record_create(husk, "x", caller, &dead, &err) == 0 &&
			vm_record_create(husk, NULL, detached, &kept, &err) == 0,
		"three records");
	write_state(&live, VM_RUNNING, &us);
	write_state(&dead, VM_RUNNING, &gone);
	write_state(&kept, VM_RUNNING, &gone);
	close(steal_fd(&live.lock_fd));
	close(steal_fd(&dead.lock_fd));
	close(steal_fd(&kept.lock_fd));
	notice[0] = 0;
	CHECK(cleanup_run(husk, &n, &err) == 0 && n == 2, "two VMs without supervisor are cleaned up");
	CHECK(exists(&live, "vm.json"), "the one whose supervisor lives stays");
	CHECK(!exists(&dead, "vm.json") && access(dead.runtime, F_OK) < 0, "the foreground one is gone");
	CHECK(vm_name_free(husk, "x", &err) == 0, "with its name");
	CHECK(exists(&kept, "vm.json"), "the detached one is kept");
	CHECK(vm_record_open(husk, kept.id, &again, &err) == 0 && state_read(again.state_fd, &state, &err) == 0 &&
			state.state == VM_STOPPED && state.end == VM_END_SUPERVISOR,
		"and its state says how it ended");
	CHECK(strstr(notice, "supervisor died") != NULL, "the cause is told");
	vm_record_close(&again);
	n = 0;
	CHECK(cleanup_run(husk, &n, &err) == 0 && n == 0, "told once");
	vm_record_close(&live);
	vm_record_close(&dead);
	vm_record_close(&kept);
}

/** A unix socket at @path; its descriptor. */
static int bind_door(struct vm_door *door, uint32_t id, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st = {0};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0 && stat(path, &st) == 0,
		"a door");
	*door = (struct vm_door){.id = id, .kind = VM_DOOR_UNIX, .device = st.st_dev, .inode = st.st_ino};
	snprintf(door->endpoint, sizeof(door->endpoint), "%s", path);
	return fd;
}

/** The doors of a VM that died: its own paths go, what has taken their place or lives stays. */
static void test_doors(const struct husk *husk)
{
	struct vm_record record = VM_RECORD_INIT;
	struct vm_state_record state = {.state = VM_RUNNING, .supervisor = {.pid = 1, .start_time = 1}};
	CLEANUP_FREE char *ours = path_join(husk->home, "ours");
	CLEANUP_FREE char *theirs = path_join(husk->home, "theirs");
	CLEANUP_FREE char *alive = path_join(husk->home, "alive");
	CLEANUP_JSON json_t *json = foreground();
	CHECK(vm_record_create(husk, NULL, json, &record, &err) == 0, "a record");
	host_boot_id(state.boot_id);
	int first = bind_door(&state.doors[2], 3, ours), second = bind_door(&state.doors[3], 4, theirs);
	int third = bind_door(&state.doors[4], 5, alive);
	unlink(theirs);
	int other = open(theirs, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CHECK(state_write(record.state_fd, &state, &err) == 0, "with three doors");
	close(first);
	close(second);
	vm_record_close(&record);
	CHECK(cleanup_run(husk, NULL, &err) == 0, "its supervisor is dead");
	CHECK(access(ours, F_OK) < 0, "the path of its door is removed");
	CHECK(access(theirs, F_OK) == 0, "a file that has taken a door's place stays");
	CHECK(access(alive, F_OK) == 0, "and so does a socket on which somebody listens");
	close(third);
	close(other);
}

/** A creator that dies between its record and its supervisor. */
static void test_crash(const struct husk *husk)
{
	int status = 1;
	pid_t pid = fork();
	if (pid == 0) {
		struct vm_record record = VM_RECORD_INIT;
		json_t *json = foreground();
		_exit(vm_record_create(husk, "crash", json, &record, NULL) == 0 ? 0 : 1);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "a creator makes a record and dies");
	CHECK(vm_name_free(husk, "crash", &err) == -EEXIST, "its name is taken");
	size_t n = 0;
	CHECK(cleanup_run(husk, &n, &err) == 0 && n == 1, "the next command cleans it up");
	CHECK(strstr(notice, "interrupted") != NULL, "and says so");
	CHECK(vm_name_free(husk, "crash", &err) == 0, "its name is free again");
	CLEANUP_FREE char *staging = path_format("%s/vms.new/0123456789ab", husk->home);
	CHECK(path_make_directories(staging, 0700, &err) == 0 && cleanup_run(husk, NULL, &err) == 0 &&
			access(staging, F_OK) < 0,
		"a half-made record is removed");
}

static void test_names(void)
{
	CHECK(vm_name_check("a.b_c-1", &err) == 0, "a name is taken");
	static const char *const wrong[] = {"", "-a", ".a", "a/b", "a b", "\xc3\xa4"};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		CHECK(vm_name_check(wrong[i], &err) == -EINVAL, "what is no name is refused");
}

int main(void)
{
	char base[] = "/tmp/husk-vm-XXXXXX";
	CHECK(mkdtemp(base) != NULL, "make a home");
	CLEANUP_FREE char *run = path_join(base, "run");
	struct husk husk = {.home = base, .runtime = run, .libexec = base, .notice = on_notice};
	CHECK(mkdir(run, 0700) == 0, "make a runtime directory");
	test_names();
	test_create(&husk);
	test_cleanup(&husk);
	test_doors(&husk);
	test_crash(&husk);
	CHECK(path_remove_tree(base, NULL) == 0, "clean up");
	return tap_done();
}
