/* SPDX-License-Identifier: Apache-2.0 */
/* state-test.c - the state record survives damage to one slot, and a process is not mistaken for a later one */
#include "base/state.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <sys/wait.h>
#include <unistd.h>

#include <sys/mman.h>

static struct vm_state_record sample(void)
{
	struct vm_state_record r = {
		.state = VM_RUNNING,
		.supervisor = {100, 1},
		.worker = {101, 2},
		.machine = {102, 1ull << 40},
		.duration_ns = 5,
		.peak_rss = 6,
		.reason = "why",
	};
	host_boot_id(r.boot_id);
	return r;
}

static void test_round_trip(void)
{
	CLEANUP_FD int fd = memfd_create("state", MFD_CLOEXEC);
	struct vm_state_record r = sample(), got;
	struct husk_error err;

	CHECK(state_read(fd, &got, &err) == -EBADMSG, "an empty file holds no record");
	CHECK(state_write(fd, &r, &err) == 0 && r.generation == 1, "the first generation is 1");
	CHECK(state_read(fd, &got, &err) == 0 && got.state == VM_RUNNING && got.machine.start_time == 1ull << 40 &&
			got.changed_ns == r.changed_ns && got.duration_ns == 5 && got.peak_rss == 6 &&
			got.worker.pid == 101,
		"a record reads back");
	CHECK_STRING(got.reason, "why", "and so does its reason");
	CHECK_STRING(got.boot_id, r.boot_id, "and the boot id");
	r.state = VM_STOPPED;
	r.end = 3;
	CHECK(state_write(fd, &r, &err) == 0 && state_read(fd, &got, &err) == 0 && got.state == VM_STOPPED &&
			got.generation == 2,
		"the newer generation wins");
	CHECK(pwrite(fd, "x", 1, 40) == 1 && state_read(fd, &got, &err) == 0 && got.state == VM_RUNNING,
		"with the newer slot damaged the older one is read");
	CHECK(pwrite(fd, "x", 1, STATE_SLOT + 40) == 1 && state_read(fd, &got, &err) == -EBADMSG,
		"with both damaged there is none");
	CHECK(state_write(fd, &r, &err) == 0 && pwrite(fd, "\x07", 1, STATE_SLOT + 4) == 1 &&
			state_read(fd, &got, &err) == -EPROTO,
		"another version is told from damage");
}

static void test_doors(void)
{
	CLEANUP_FD int fd = memfd_create("state", MFD_CLOEXEC);
	static struct vm_state_record r, got;
	struct husk_error err;

	r = sample();
	r.doors[2] = (struct vm_door){.id = 3,
		.kind = VM_DOOR_TLS,
		.guest_port = 443,
		.endpoint = "[::1]:8443",
		.inner = "tls-0.sock",
		.alpn = "h2,http/1.1"};
	r.doors[VM_DOORS_MAX - 1] = (struct vm_door){
		.id = VM_DOORS_MAX, .kind = VM_DOOR_UNIX, .device = UINT64_MAX, .inode = UINT64_MAX - 1};
	memset(r.doors[VM_DOORS_MAX - 1].endpoint, 'x', VM_ENDPOINT_MAX - 1);
	CHECK(state_write(fd, &r, &err) == 0 && state_read(fd, &got, &err) == 0 &&
			memcmp(r.doors, got.doors, sizeof(r.doors)) == 0,
		"doors read back, from the first to the last");
	CHECK(vm_door_check(&r.doors[2]) && vm_door_check(&r.doors[VM_DOORS_MAX - 1]), "and are in range");
	memset(r.doors, 0, sizeof(r.doors));
	r.doors[20] = (struct vm_door){.kind = VM_DOOR_UNIX, .inode = 7, .endpoint = "/y"};
	CHECK(state_write(fd, &r, &err) == 0 && state_read(fd, &got, &err) == 0 &&
			memcmp(r.doors, got.doors, sizeof(r.doors)) == 0,
		"one that is about to open, which has no id yet, is read back, too");
	const struct vm_door wrong[] = {
		{.kind = 0, .endpoint = "/x"},
		{.kind = 7, .endpoint = "/x"},
		{.kind = VM_DOOR_UNIX},
		{.kind = VM_DOOR_UNIX, .endpoint = "/x", .guest_port = 65536},
		{.kind = VM_DOOR_UNIX, .endpoint = "/x", .reserved = 1},
		{.kind = VM_DOOR_UNIX, .endpoint = "/x\n"},
		{.kind = VM_DOOR_TLS, .endpoint = "127.0.0.1:1"},
		{.kind = VM_DOOR_TLS, .endpoint = "127.0.0.1:1", .inner = "../x"},
		{.kind = VM_DOOR_UNIX, .endpoint = "/x", .inner = "../x"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		CHECK(!vm_door_check(&wrong[i]), "a door out of range is told");
	struct vm_door endless = {.kind = VM_DOOR_UNIX};
	memset(endless.endpoint, 'x', sizeof(endless.endpoint));
	CHECK(!vm_door_check(&endless), "one whose endpoint does not end, too");
}

/** A slot that was longer, or is cut, or says of itself what cannot be. */
static void test_lengths(void)
{
	CLEANUP_FD int fd = memfd_create("state", MFD_CLOEXEC);
	static struct vm_state_record r, got;
	struct husk_error err;

	r = sample();
	for (uint32_t i = 0; i < 20; i++)
		r.doors[i] = (struct vm_door){.id = i + 1, .kind = VM_DOOR_UNIX, .endpoint = "/x"};
	state_write(fd, &r, &err);
	state_write(fd, &r, &err);
	CHECK(state_read(fd, &got, &err) == 0 && memcmp(r.doors, got.doors, sizeof(r.doors)) == 0, "twenty doors");
	memset(r.doors + 1, 0, sizeof(r.doors) - sizeof(r.doors[0]));
	state_write(fd, &r, &err);
	memset(&got, 0xff, sizeof(got));
	CHECK(state_read(fd, &got, &err) == 0 && got.generation == 3 &&
			memcmp(r.doors, got.doors, sizeof(r.doors)) == 0,
		"of which one is left are one, whatever was there before");
	for (uint32_t i = 0; i < 20; i++)
		r.doors[i] = (struct vm_door){.id = i + 1, .kind = VM_DOOR_UNIX, .endpoint = "/x"};
	CHECK(state_write(fd, &r, &err) == 0 && state_write(fd, &r, &err) == 0 &&
			ftruncate(fd, STATE_SLOT + 3000) == 0 && state_read(fd, &got, &err) == 0 && got.generation == 4,
		"a slot that ends too early is no record");
	const uint8_t lengths[][4] = {{0}, {1}, {0xff, 0xff, 0xff, 0xff}, {0, 0x40}};
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		CHECK(pwrite(fd, lengths[i], 4, 8) == 4 && state_read(fd, &got, &err) == -EBADMSG,
			"nor is one of a length that cannot be");
	}
}

static void test_process(void)
{
	struct process_id id;
	char boot[40];

	host_boot_id(boot);
	CHECK(process_identify(getpid(), &id) == 0 && id.start_time > 0, "this process has an identity");
	CHECK(process_alive(&id, boot), "it is alive");
	CHECK(!process_alive(&id, "another boot"), "not in another boot");
	id.start_time--;
	CHECK(!process_alive(&id, boot), "a process with its pid that began at another time is another");
	CHECK(process_identify(0x7fffffff, &id) == -ESRCH, "a process that is not there has none");
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	siginfo_t info;
	waitid(P_PID, child, &info, WEXITED | WNOWAIT);
	CHECK(process_identify(child, &id) == -ESRCH, "a zombie has ended");
	waitpid(child, NULL, 0);
	CHECK_STRING(vm_state_name(VM_STOPPED), "stopped", "states have names");
	CHECK_STRING(vm_state_name(99), "unknown", "other numbers do not");
}

int main(void)
{
	test_round_trip();
	test_doors();
	test_lengths();
	test_process();
	return tap_done();
}
