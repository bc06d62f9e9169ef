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
	test_process();
	return tap_done();
}
