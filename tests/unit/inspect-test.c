/* SPDX-License-Identifier: Apache-2.0 */
/* inspect-test.c - VMs are found by id, name and prefix; what is told of them is what record and counters say */
#include "engine/inspect.h"
#include "engine/usage.h"

#include "base/path.h"
#include "base/stats.h"
#include "engine/expose.h"
#include "engine/find.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct husk_error err;

static json_t *foreground(void)
{
	return json_pack("{s:s, s:s}", "image", "debian:12", "lifetime", "caller");
}

static void test_find(const struct husk *husk, const char *id, const char *other)
{
	char got[VM_ID_SIZE], text[VM_ID_SIZE];
	size_t common = 0;
	while (id[common] == other[common])
		common++;
	CHECK(find_vm(husk, id, got, &err) == 0 && strcmp(got, id) == 0, "a VM is found by its id");
	CHECK(find_vm(husk, "web", got, &err) == 0 && strcmp(got, id) == 0, "by its name");
	snprintf(text, sizeof(text), "%.*s", (int)(common + 1 > 3 ? common + 1 : 3), id);
	CHECK(find_vm(husk, text, got, &err) == 0 && strcmp(got, id) == 0, "by a unique prefix");
	snprintf(text, sizeof(text), "%.2s", id);
	CHECK(find_vm(husk, text, got, &err) == -ENOENT, "not by two digits");
	CHECK(find_vm(husk, "nothing", got, &err) == -ENOENT && strstr(err.message, "nothing"),
		"an unknown one is named");
	CHECK(find_vm(husk, "../vms", got, &err) == -ENOENT && find_vm(husk, "", got, &err) == -ENOENT,
		"what is no name");

	/* Two records whose ids begin alike, made by hand. */
	for (int i = 0; i < 2; i++) {
		CLEANUP_FREE char *path = path_format("%s/vms/fedcba98765%d", husk->home, i);
		CHECK(path_make_directories(path, 0700, &err) == 0, "an id");
	}
	CHECK(find_vm(husk, "fedcba", got, &err) == -ENOTUNIQ && strstr(err.message, "2 VMs"), "a prefix of two ids");
	for (int i = 0; i < 2; i++) {
		CLEANUP_FREE char *path = path_format("%s/vms/fedcba98765%d", husk->home, i);
		path_remove_tree(path, NULL);
	}
}

static void test_inspect(const struct husk *husk, const struct vm_record *record)
{
	struct vm_state_record state = {.state = VM_RUNNING, .worker = {.pid = 77}};
	json_t *json = NULL;
	CHECK(inspect_vm(husk, record->id, &json, &err) == 0, "a VM that has no state yet");
	CHECK_STRING(json_string_value(json_object_get(json, "state")), "creating", "is being created");
	json_decref(json);
	host_boot_id(state.boot_id);
	process_identify(getpid(), &state.supervisor);
	state.doors[2] = (struct vm_door){.id = 3, .kind = VM_DOOR_TCP, .guest_port = 80, .endpoint = "127.0.0.1:8080"};
	state.doors[3] = (struct vm_door){.id = 4, .kind = VM_DOOR_EXEC, .endpoint = "/x.sock"};
	CHECK(state_write(record->state_fd, &state, &err) == 0 && inspect_vm(husk, record->id, &json, &err) == 0,
		"one that runs");
	json_t *doors = json_object_get(json, "doors"), *first = json_array_get(doors, 0);
	CHECK_STRING(json_string_value(json_object_get(json, "id")), record->id, "its id");
	CHECK_STRING(json_string_value(json_object_get(json, "name")), "web", "its name");
	CHECK_STRING(json_string_value(json_object_get(json, "image")), "debian:12", "what was asked for");
	CHECK_STRING(json_string_value(json_object_get(json, "state")), "running", "its state");
	CHECK(json_integer_value(json_object_get(json_object_get(json, "pids"), "worker")) == 77 &&
			json_is_null(json_object_get(json_object_get(json, "pids"), "machine")),
		"its processes");
	CHECK(json_array_size(doors) == 2 && json_integer_value(json_object_get(first, "guest_port")) == 80 &&
			!json_object_get(json_array_get(doors, 1), "guest_port"),
		"its doors, with a port where they lead to one");
	CHECK_STRING(json_string_value(json_object_get(first, "endpoint")), "127.0.0.1:8080", "and their endpoints");
	CHECK(!json_object_get(json, "schema"), "nothing of how the record is kept");
	json_decref(json);
	state.supervisor.start_time++;
	CHECK(state_write(record->state_fd, &state, &err) == 0 && inspect_vm(husk, record->id, &json, &err) == 0 &&
			json_array_size(json_object_get(json, "doors")) == 0,
		"one whose supervisor is dead has no doors");
	CHECK_STRING(json_string_value(json_object_get(json, "state")), "stopped", "and is stopped");
	json_decref(json);
	state.supervisor.start_time--;
	state_write(record->state_fd, &state, &err);
	CHECK(inspect_vm(husk, "0123456789ab", &json, &err) == -ENOENT, "one that is not there");
}

static void test_stats(const struct husk *husk, const struct vm_record *record)
{
	static struct vm_stats stats = {.magic = STATS_MAGIC, .size = sizeof(stats)};
	json_t *json = NULL;
	CHECK(usage_vm(husk, record->id, &json, &err) == -ESRCH, "a VM without counters has ended");
	CLEANUP_FD int fd = openat(record->runtime_fd, STATS_NAME, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	stats.door[2].connections = 5;
	stats.door[2].bytes_in = UINT64_MAX;
	stats.door[3].connections = 2;
	histogram_add(&stats.door[2].stage[DOOR_CONNECT], 1000000);
	CHECK(pwrite(fd, &stats, sizeof(stats), 0) == sizeof(stats) &&
			usage_vm(husk, record->id, &json, &err) == 0,
		"counters");
	json_t *first = json_array_get(json_object_get(json, "doors"), 0);
	json_t *connect = json_object_get(json_object_get(first, "stages"), "connect");
	CHECK(json_integer_value(json_object_get(first, "connections")) == 5 &&
			json_integer_value(json_object_get(json_object_get(json, "total"), "connections")) == 7,
		"of each door and of all");
	CHECK(json_integer_value(json_object_get(first, "bytes_in")) == INT64_MAX,
		"numbers that are too large are cut");
	CHECK(json_integer_value(json_object_get(connect, "count")) == 1 &&
			json_real_value(json_object_get(connect, "mean_us")) == 1000 &&
			json_real_value(json_object_get(connect, "p99_us")) >= 1000,
		"times in microseconds");
	json_decref(json);
	CHECK(ftruncate(fd, sizeof(stats) - 1) == 0 && usage_vm(husk, record->id, &json, &err) == -EPROTO,
		"a file that was cut short is told");
}

static void test_expose(const struct husk *husk, const struct vm_record *record)
{
	const struct husk_door door = {.size = sizeof(door), .kind = HUSK_DOOR_TCP, .guest_port = 80};
	const struct husk_door wrong = {.size = sizeof(door), .kind = HUSK_DOOR_TCP, .path = "/x"};
	char *endpoint = NULL;
	CHECK(expose_open(husk, record->id, &door, &endpoint, &err) == -ESRCH && !endpoint &&
			strstr(err.message, "does not run"),
		"a door of a VM that nobody supervises");
	CHECK(expose_open(husk, record->id, &wrong, &endpoint, &err) == -EINVAL, "one that cannot be");
	CHECK(expose_close(husk, record->id, "127.0.0.1:80", &err) == -ESRCH, "nor is one closed");
}

int main(void)
{
	char base[] = "/tmp/husk-inspect-XXXXXX";
	struct vm_record record = VM_RECORD_INIT, other = VM_RECORD_INIT;
	CLEANUP_JSON json_t *first = foreground(), *second = foreground();
	CHECK(mkdtemp(base) != NULL, "make a home");
	CLEANUP_FREE char *run = path_join(base, "run");
	struct husk husk = {.home = base, .runtime = run, .libexec = base};
	CHECK(mkdir(run, 0700) == 0 && vm_record_create(&husk, "web", first, &record, &err) == 0 &&
			vm_record_create(&husk, NULL, second, &other, &err) == 0 &&
			vm_record_make_runtime(&record, &err) == 0,
		"two VMs");
	test_find(&husk, record.id, other.id);
	test_inspect(&husk, &record);
	test_stats(&husk, &record);
	test_expose(&husk, &record);
	vm_record_close(&record);
	vm_record_close(&other);
	CHECK(path_remove_tree(base, &err) == 0, "clean up");
	return tap_done();
}
