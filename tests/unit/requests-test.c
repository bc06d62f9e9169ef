/* SPDX-License-Identifier: Apache-2.0 */
/* requests-test.c - what can be asked of a supervisor, with a test in the place of the worker, also of one that hangs */
#include "tests/unit/service_bench.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/descriptors.h"
#include "tests/tap.h"
#include "vmm/control.h"
#include "vmm/dial.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

static void ask_with(int client, uint32_t kind, uint32_t value, int fd)
{
	struct vm_message m = {.kind = kind, .value = value};

	CHECK(fd_send(client, &m, sizeof(m), &fd, fd >= 0 ? 1 : 0) == sizeof(m), "ask");
	turn();
}

static void ask(int client, uint32_t kind, uint32_t value)
{
	ask_with(client, kind, value, -1);
}

/** The answer that has come: its value, or -1 when there is none. */
static int answer(int client)
{
	struct vm_message m;

	return vm_message_receive(client, &m) == 1 && m.kind == VM_MESSAGE_ANSWER ? (int)m.value : -1;
}

/** The kind of what the worker was told next, 0 when there is nothing. */
static uint32_t next_told(void)
{
	struct vm_message m;
	bool fd;

	return told(&m, &fd) ? m.kind : 0;
}

static void done(uint32_t kind, uint32_t value)
{
	struct vm_message m = {.kind = VM_MESSAGE_DONE, .value = value, .number = kind};

	vm_message_send(worker, &m);
	turn();
}

static enum vm_state recorded(uint64_t *generation)
{
	static struct vm_state_record record;

	*generation = 0;
	if (state_read(s.config.state_fd, &record, NULL) < 0)
		return 0;
	*generation = record.generation;
	return (enum vm_state)record.state;
}

/** All who wait have waited long enough. */
static void let_time_pass(void)
{
	for (size_t i = 0; i < SERVICE_CLIENTS; i++)
		if (s.service.client[i].until_ns)
			s.service.client[i].until_ns = 1;
	loop_timer_set(&s.ask_timer, 1);
	turn_in(1000);
}

/** As if nothing had ended the VM. */
static void go_on(void)
{
	s.outcome = (struct vm_message){0};
	s.loop.stopped = false;
	loop_timer_set(&s.stopping.timer, 0);
	s.stopping.asked = s.stopping.pressed = s.stopping.killed = false;
	s.record.state = VM_RUNNING;
}

static void test_notes(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m;
	bool fd;

	ask(client, VM_CONTROL_SIGNAL, SIGHUP);
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_SIGNAL && m.value == SIGHUP, "the worker gets a signal");
	CHECK(answer(client) == 0, "and who sent it is answered at once");
	ask(client, VM_CONTROL_RESIZE, 24 << 16 | 80);
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_RESIZE && m.value == (24 << 16 | 80) && answer(client) == 0,
		"so it is with a window's size");
	ask(client, VM_CONTROL_POWER_BUTTON, 0);
	CHECK(next_told() == VM_CONTROL_POWER_BUTTON && answer(client) == 0, "and with the power button");
	s.record.state = VM_STARTING;
	ask(client, VM_CONTROL_SIGNAL, SIGHUP);
	CHECK(answer(client) == EAGAIN, "a VM that starts has no workload to signal yet");
	ask(client, VM_CONTROL_PAUSE, 0);
	CHECK(answer(client) == EAGAIN, "nor can it be paused");
	s.record.state = VM_RUNNING;
	s.config.exec_size = 0;
	ask(client, VM_CONTROL_SIGNAL, SIGHUP);
	CHECK(answer(client) == ENOTSUP && next_told() == 0, "and one without an agent never has one");
	s.config.exec_size = 1;
}

static void test_pause(void)
{
	CLEANUP_FD int client = join();
	uint64_t before, after;

	recorded(&before);
	ask(client, VM_CONTROL_PAUSE, 0);
	CHECK(next_told() == VM_CONTROL_PAUSE && answer(client) == -1 && s.record.state == VM_RUNNING,
		"PAUSE waits for the worker");
	done(VM_CONTROL_PAUSE, 0);
	CHECK(answer(client) == 0 && recorded(&after) == VM_PAUSED && after == before + 1,
		"its answer answers, and the record's next generation is paused");
	ask(client, VM_CONTROL_PAUSE, 0);
	CHECK(next_told() == VM_CONTROL_PAUSE, "once more");
	done(VM_CONTROL_PAUSE, EALREADY);
	CHECK(answer(client) == EALREADY && recorded(&before) == VM_PAUSED && before == after,
		"is refused by the worker and changes nothing");
	ask(client, VM_CONTROL_RESUME, 0);
	CHECK(next_told() == VM_CONTROL_RESUME, "RESUME goes there, too");
	done(VM_CONTROL_RESUME, EIO);
	CHECK(answer(client) == EIO && recorded(&after) == VM_PAUSED, "one that fails leaves it paused");
	ask(client, VM_CONTROL_RESUME, 0);
	next_told();
	done(VM_CONTROL_RESUME, 0);
	CHECK(answer(client) == 0 && recorded(&after) == VM_RUNNING && after == before + 1,
		"one that does not makes it run");
	done(VM_CONTROL_PAUSE, 0);
	CHECK(recorded(&after) == VM_RUNNING && after == before + 1, "an answer to nothing is dropped");
}

static void test_order(void)
{
	int client[3] = {join(), join(), join()};
	CLEANUP_FD int other = join();

	turn();
	for (int i = 0; i < 3; i++)
		ask(client[i], VM_CONTROL_STATS, 0);
	ask(other, VM_CONTROL_BALLOON, 0);
	CHECK(next_told() == VM_CONTROL_STATS && next_told() == VM_CONTROL_BALLOON && next_told() == 0,
		"one of each kind is at the worker");
	done(VM_CONTROL_BALLOON, 0);
	CHECK(answer(other) == 0 && answer(client[0]) == -1, "an answer is for its kind");
	close(client[1]);
	turn();
	done(VM_CONTROL_STATS, 0);
	CHECK(answer(client[0]) == 0 && answer(client[2]) == -1, "and for who asked first");
	CHECK(next_told() == VM_CONTROL_STATS, "then the next is sent");
	done(VM_CONTROL_STATS, EIO);
	CHECK(answer(client[2]) == EIO && next_told() == 0, "which is not that of a client who has gone");
	ask(client[0], VM_CONTROL_STATS, 0);
	close(client[0]);
	turn();
	ask(client[2], VM_CONTROL_STATS, 0);
	CHECK(next_told() == VM_CONTROL_STATS && next_told() == 0, "one whose client has gone is still at the worker");
	done(VM_CONTROL_STATS, EIO);
	CHECK(answer(client[2]) == -1 && next_told() == VM_CONTROL_STATS, "and its answer is nobody else's");
	done(VM_CONTROL_STATS, 0);
	CHECK(answer(client[2]) == 0, "who has an own one");
	client[0] = join();
	client[1] = join();
	turn();
	ask(other, VM_CONTROL_STATS, 0);
	for (int i = 2; i >= 0; i--)
		ask(client[i], VM_CONTROL_STATS, 0);
	next_told();
	done(VM_CONTROL_STATS, 0);
	CHECK(answer(other) == 0, "four have asked");
	for (int i = 2; i >= 0; i--) {
		CHECK(next_told() == VM_CONTROL_STATS && next_told() == 0, "the next one");
		done(VM_CONTROL_STATS, 0);
		CHECK(answer(client[i]) == 0, "is answered in the order of asking");
	}
	for (int i = 0; i < 3; i++)
		close(client[i]);
	turn();
}

static void test_attach(void)
{
	CLEANUP_FD int client = join();
	CLEANUP_FD int other = join();
	int pair[2];
	struct vm_message m;
	bool fd;

	turn();
	size_t before = count_descriptors();
	CHECK(pipe2(pair, O_CLOEXEC) == 0, "a pipe");
	ask_with(client, VM_CONTROL_ATTACH, 1, pair[0]);
	ask_with(other, VM_CONTROL_ATTACH, 0, pair[0]);
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_ATTACH && m.value == 1 && fd,
		"the worker gets ATTACH with its pipe");
	done(VM_CONTROL_ATTACH, 0);
	CHECK(answer(client) == 0 && told(&m, &fd) && m.value == 0 && fd, "then the second one with its own");
	done(VM_CONTROL_ATTACH, EBUSY);
	CHECK(answer(other) == EBUSY, "which it refuses");
	ask_with(other, VM_CONTROL_ATTACH, 0, pair[0]);
	ask_with(client, VM_CONTROL_ATTACH, 0, pair[0]);
	next_told();
	let_time_pass();
	CHECK(answer(client) == ETIMEDOUT && answer(other) == ETIMEDOUT, "neither may take long");
	done(VM_CONTROL_ATTACH, 0);
	CHECK(next_told() == 0, "what timed out in line is never sent");
	close(pair[0]);
	close(pair[1]);
	CHECK(count_descriptors() == before, "no descriptor is left");
	ask(other, VM_CONTROL_ATTACH, 0);
	CHECK(closed(other), "ATTACH without a pipe is no request");
}

static void test_late(void)
{
	CLEANUP_FD int first = join();
	CLEANUP_FD int second = join();
	uint64_t generation;

	turn();
	ask(first, VM_CONTROL_PAUSE, 0);
	CHECK(next_told() == VM_CONTROL_PAUSE, "the worker is asked, and does not answer");
	let_time_pass();
	CHECK(answer(first) == ETIMEDOUT, "its client is told so");
	ask(second, VM_CONTROL_PAUSE, 0);
	CHECK(next_told() == 0, "the next one of that kind is not sent before it has");
	done(VM_CONTROL_PAUSE, 0);
	CHECK(answer(second) == -1 && answer(first) == -1, "the late answer is nobody's");
	CHECK(recorded(&generation) == VM_PAUSED, "but the record's");
	CHECK(next_told() == VM_CONTROL_PAUSE, "now the next one is sent");
	done(VM_CONTROL_PAUSE, EALREADY);
	CHECK(answer(second) == EALREADY, "and answered");
	ask(second, VM_CONTROL_RESUME, 0);
	next_told();
	done(VM_CONTROL_RESUME, 0);
	CHECK(answer(second) == 0, "and so is what comes then");
}

static void test_kill(void)
{
	CLEANUP_FD int client = join();

	ask(client, VM_CONTROL_KILL, 0);
	CHECK(answer(client) == 0 && s.outcome.end == VM_END_KILLED && next_told() == 0,
		"KILL is the supervisor's own");
	go_on();
	ask(client, VM_CONTROL_STOP, 0);
	CHECK(answer(client) == 0 && s.outcome.end == VM_END_KILLED && next_told() == 0, "so is STOP without time");
	go_on();
}

/** Be at that time of a STOP. */
static void let_stop_pass(uint64_t *at_ns)
{
	*at_ns = 1;
	loop_timer_set(&s.stopping.timer, 1);
	turn_in(1000);
}

/** A VM whose scratch disk is kept has a moment between its workload's end and its own. */
static void test_stop_kept(int client)
{
	struct vm_message m;
	bool fd;

	s.config.detached = s.started = true;
	for (int answers = 1; answers >= 0; answers--) {
		ask(client, VM_CONTROL_STOP, 60000);
		answer(client);
		let_stop_pass(&s.stopping.press_ns);
		while (next_told())
			;
		let_stop_pass(&s.stopping.end_ns);
		CHECK(told(&m, &fd) && m.kind == VM_CONTROL_SIGNAL && m.value == SIGKILL && !s.outcome.kind,
			"where the scratch disk is kept the workload is killed first");
		m = (struct vm_message){.kind = VM_MESSAGE_OUTCOME, .end = VM_END_SIGNALED, .value = SIGKILL};
		if (answers)
			vm_message_send(worker, &m);
		else
			s.stopping.end_ns = 1, loop_timer_set(&s.stopping.timer, 1);
		for (int i = 0; i < 100 && !s.outcome.kind; i++)
			turn_in(1000);
		CHECK(s.outcome.end == VM_END_KILLED && strstr(s.outcome.text, "did not stop within 60 s"),
			answers ? "and the VM ends with it, for that reason" : "and the VM without it, when it does not end");
		go_on();
	}
	s.config.detached = s.started = false;
}

static void test_stop(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m;
	bool fd;

	s.config.stop_signal = SIGQUIT;
	ask(client, VM_CONTROL_STOP, 60120);
	CHECK(answer(client) == 0, "STOP is answered at once");
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_SIGNAL && m.value == SIGQUIT && next_told() == 0,
		"the workload gets its stop signal");
	CHECK(s.stopping.end_ns - s.stopping.press_ns == 30060000000ull, "half the time is half the time");
	let_stop_pass(&s.stopping.press_ns);
	CHECK(next_told() == VM_CONTROL_POWER_BUTTON && !s.outcome.kind, "after it the power button is pressed");
	ask(client, VM_CONTROL_PAUSE, 0);
	CHECK(answer(client) == EBUSY && next_told() == 0, "what is being stopped cannot be paused");
	let_stop_pass(&s.stopping.end_ns);
	CHECK(s.outcome.end == VM_END_KILLED && next_told() == 0, "at its end it is killed");
	CHECK_STRING(s.outcome.text, "killed: it did not stop within 60.12 s", "and it is said why");
	s.config.stop_signal = 0;
	go_on();
	test_stop_kept(client);

	ask(client, VM_CONTROL_STOP, 60000);
	answer(client);
	CHECK(told(&m, &fd) && m.value == SIGTERM, "without a stop signal it is SIGTERM");
	ask(client, VM_CONTROL_STOP, 120000);
	CHECK(answer(client) == 0 && s.stopping.given_ms == 60000 && next_told() == 0,
		"a later STOP that gives more time changes nothing");
	uint64_t begun = clock_monotonic_ns();
	ask(client, VM_CONTROL_STOP, 10);
	CHECK(answer(client) == 0, "one that gives less");
	while (!s.outcome.kind && clock_monotonic_ns() - begun < 10000000000ull)
		turn_in(1000);
	CHECK(s.outcome.end == VM_END_KILLED && clock_monotonic_ns() - begun >= 10000000, "counts");
	while (next_told())
		;
	go_on();

	s.config.exec_size = 0;
	ask(client, VM_CONTROL_STOP, 60000);
	CHECK(answer(client) == 0 && next_told() == VM_CONTROL_POWER_BUTTON && next_told() == 0,
		"without a workload the button is pressed at once");
	s.config.exec_size = 1;
	go_on();

	s.record.state = VM_STARTING;
	s.answered = false;
	ask(client, VM_CONTROL_STOP, 60000);
	CHECK(answer(client) == 0 && next_told() == 0, "a VM that starts is not signaled");
	m = (struct vm_message){.kind = VM_MESSAGE_READY};
	vm_message_send(worker, &m);
	turn();
	CHECK(s.record.state == VM_RUNNING && next_told() == VM_CONTROL_SIGNAL, "until its agent has answered");
	go_on();
}

static void test_stop_paused(void)
{
	CLEANUP_FD int client = join();
	CLEANUP_FD int other = join();

	turn();
	ask(client, VM_CONTROL_PAUSE, 0);
	next_told();
	done(VM_CONTROL_PAUSE, 0);
	CHECK(answer(client) == 0, "a VM is paused");
	ask(client, VM_CONTROL_STOP, 60000);
	CHECK(next_told() == VM_CONTROL_RESUME && next_told() == VM_CONTROL_SIGNAL && answer(client) == 0,
		"STOP lets it go on before it signals");
	done(VM_CONTROL_RESUME, 0);
	CHECK(s.record.state == VM_RUNNING, "the record says so");
	go_on();

	ask(client, VM_CONTROL_PAUSE, 0);
	ask(other, VM_CONTROL_PAUSE, 0);
	CLEANUP_FD int third = join();
	ask(third, VM_CONTROL_STOP, 60000);
	CHECK(next_told() == VM_CONTROL_PAUSE && next_told() == VM_CONTROL_SIGNAL && next_told() == 0,
		"STOP while the worker pauses it");
	CHECK(answer(other) == EBUSY && answer(client) == -1 && answer(third) == 0, "who waits in line is refused");
	done(VM_CONTROL_PAUSE, 0);
	CHECK(answer(client) == 0 && next_told() == VM_CONTROL_RESUME,
		"who came first has had it, and the guest goes on");
	done(VM_CONTROL_RESUME, 0);
	CHECK(s.record.state == VM_RUNNING && next_told() == 0, "to its end");
	go_on();
}

/** The worker reads nothing: its channel fills. */
static void test_hung_worker(void)
{
	CLEANUP_FD int client = join();
	CLEANUP_FD int other = join();
	struct vm_message m = {.kind = VM_CONTROL_RESIZE};

	turn();
	while (vm_message_send(s.channel, &m) == 0)
		;
	ask(client, VM_CONTROL_SIGNAL, SIGHUP);
	CHECK(answer(client) == EAGAIN, "a signal that the worker does not take is not said to be sent");
	ask(client, VM_CONTROL_PAUSE, 0);
	let_time_pass();
	CHECK(answer(client) == ETIMEDOUT, "PAUSE times out");
	ask(client, VM_CONTROL_STATS, 0);
	ask(other, VM_CONTROL_STOP, 20);
	CHECK(answer(other) == 0, "STOP is taken");
	turn_in(1000);
	turn_in(1000);
	CHECK(s.outcome.end == VM_END_KILLED, "and ends the VM");
	go_on();
	ask(other, VM_CONTROL_KILL, 0);
	CHECK(answer(other) == 0 && s.outcome.end == VM_END_KILLED, "as does KILL");
	go_on();
	uint32_t kind;
	while ((kind = next_told()) == VM_CONTROL_RESIZE)
		;
	turn();
	CHECK((kind ? kind : next_told()) == VM_CONTROL_STATS && next_told() == 0,
		"what still waits is sent when it reads again");
	done(VM_CONTROL_STATS, 0);
	CHECK(answer(client) == 0, "and answered");
}

static void test_deadline(void)
{
	s.record.state = VM_RUNNING;
	life_set_deadline(&s, 40);
	life_paused(&s);
	turn_in(60);
	CHECK(!s.outcome.kind && s.record.state == VM_PAUSED, "time in which a VM is paused is not its own");
	life_set_deadline(&s, 30);
	turn_in(50);
	CHECK(!s.outcome.kind, "a deadline that is set meanwhile does not pass either");
	uint64_t resumed_ns = clock_monotonic_ns();
	life_resumed(&s);
	turn_in(1000);
	CHECK(s.outcome.end == VM_END_START_TIMEOUT && clock_monotonic_ns() - resumed_ns >= 30000000,
		"when it goes on it has what was left");
	go_on();
	life_set_deadline(&s, 0);
	life_paused(&s);
	life_resumed(&s);
	turn_in(30);
	CHECK(!s.outcome.kind, "where there was none a pause makes none");
	go_on();
}

/** What a captured worker could say, in any order, while clients ask. */
static void test_hostile_worker(void)
{
	static const uint32_t kinds[] = {VM_MESSAGE_READY, VM_MESSAGE_STARTED, VM_MESSAGE_DRAINING, VM_MESSAGE_EXPOSED,
		VM_MESSAGE_ANSWER, VM_MESSAGE_DONE, VM_MESSAGE_DONE, VM_MESSAGE_DONE, VM_MESSAGE_BEGUN, VM_CONTROL_KILL,
		VM_CONTROL_STOP, VM_CONTROL_PAUSE, 0, UINT32_MAX};
	int client[8];
	unsigned odd = 0, seed = 1, asked = 0;

	for (size_t i = 0; i < ARRAY_SIZE(client); i++) {
		client[i] = join();
		turn();
	}
	size_t before = count_descriptors();
	for (int i = 0; i < 20000; i++) {
		struct vm_message m = {.kind = kinds[(unsigned)rand_r(&seed) % ARRAY_SIZE(kinds)],
			.value = (uint32_t)rand_r(&seed) % 3};
		m.number = m.kind == VM_MESSAGE_DONE ? 20 + (uint64_t)rand_r(&seed) % 10 : 0;
		m.door.id = m.kind == VM_MESSAGE_EXPOSED ? (uint32_t)rand_r(&seed) % (VM_DOORS_MAX + 2) : 0;
		fd_send(worker, &m, sizeof(m) - (rand_r(&seed) % 16 == 0), &client[0], rand_r(&seed) % 16 == 0);
		struct vm_message question = {.kind = VM_CONTROL_PAUSE + (uint32_t)rand_r(&seed) % 4};
		asked += vm_message_send(client[(unsigned)rand_r(&seed) % ARRAY_SIZE(client)], &question) == 0;
		loop_round(&s.loop, 0, &err);
		while (next_told())
			;
		for (size_t k = 0; k < ARRAY_SIZE(client); k++)
			while (answer(client[k]) >= 0)
				;
		odd += s.record.state != VM_RUNNING && s.record.state != VM_PAUSED;
	}
	CHECK(odd == 0 && !s.outcome.kind && asked > 0, "nothing that a worker says but an outcome ends a VM");
	CHECK(count_descriptors() == before, "nor is a descriptor kept that it sends");
	for (size_t i = 0; i < ARRAY_SIZE(client); i++)
		close(client[i]);
	turn();
	s.draining = s.started = false;
	memset(s.asking, 0, sizeof(s.asking));
	go_on();
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static void test_events(void)
{
	CLEANUP_FREE char *path = path_join(folder, "events");
	CLEANUP_BUFFER struct buffer b = {0};
	char id[] = "0123456789ab", name[] = "web";

	s.config.id = id;
	s.config.name = name;
	s.config.events_path = path;
	s.config.reach = VMM_REACH_ONE;
	s.config.reach_port = 99;
	CHECK(sockets_open(&s, &err) == 0, "the guest may dial");
	for (uint32_t i = 0; i < 20; i++) {
		struct dial question = {.number = i, .port = 1000 + i};
		CHECK(send(s.config.dial_fd, &question, sizeof(question), 0) == sizeof(question), "it does");
		turn();
		CHECK(recv(s.config.dial_fd, &question, sizeof(question), MSG_DONTWAIT) == sizeof(question) &&
				question.code == -ECONNREFUSED,
			"and is refused");
	}
	loop_timer_set(&s.denied.minute, 1);
	turn_in(1000);
	tell_denied(&s, 2000);
	life_paused(&s);
	life_resumed(&s);
	s.record.end = VM_END_SIGNALED;
	s.record.value = 9;
	s.record.flags = VM_STATE_OOM;
	s.record.duration_ns = 1234567890;
	snprintf(s.record.reason, sizeof(s.record.reason), "why");
	tell_stopped(&s);
	s.config.events_path = NULL;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && fd_read_to_end(fd, &b, 1 << 20) == 0 && buffer_append(&b, "", 1) == 0, "events are told");
	const char *text = (const char *)buffer_bytes(&b);
	CHECK(count(text, "\"denied\",\"id\":\"0123456789ab\",\"name\":\"web\",\"port\":1") == 16 &&
			strstr(text, "\"port\":1015,\"reason\":\"this VM reaches no port of the host but 99\"}\n"),
		"sixteen of what was denied in a minute");
	CHECK(count(text, "\"suppressed\"") == 1 && strstr(text, "\"suppressed\":4}\n") &&
			strstr(text, "\"port\":2000"),
		"then how many more there were, and again one by one");
	CHECK(count(text, "\"paused\"") == 1 && count(text, "\"resumed\"") == 1 && count(text, "\"oom\"") == 1,
		"a pause, its end, and a lack of memory");
	CHECK(strstr(text, "\"event\":\"stopped\",\"id\":\"0123456789ab\",\"name\":\"web\",\"end\":\"signaled\","
			   "\"exit_code\":137,\"reason\":\"why\",\"duration_ms\":1234}\n"),
		"and how it ended");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	CHECK(bench_begin(), "a supervisor that serves");
	test_notes();
	test_pause();
	test_order();
	test_attach();
	test_late();
	test_kill();
	test_stop();
	test_stop_paused();
	test_hung_worker();
	test_deadline();
	test_hostile_worker();
	test_events();
	bench_end();
	CHECK(path_remove_tree(folder, &err) == 0, "clean up");
	return tap_done();
}
