/* SPDX-License-Identifier: Apache-2.0 */
/* doors-test.c - connections through the doors: at once, after waiting, in vain; what guests and clients do wrong */
#include "tests/unit/doors_rig.h"

#include <sys/time.h>

#define DOOR 3u
#define METER rig.stats.door[DOOR - 1]

static void test_kinds(void)
{
	static const struct {
		uint32_t kind;
		const char *what;
	} kinds[] = {{VM_DOOR_UNIX, "a unix door leads to the port"}, {VM_DOOR_TCP, "a TCP door does"}};
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		rig_start(RIG_WAIT_MS);
		rig_door(DOOR, kinds[i].kind, 80);
		rig_ready(80);
		int fd = rig_connect(DOOR);
		CHECK(rig_echoes(fd, "ping"), kinds[i].what);
		CHECK(rig.agent.last && rig.agent.last->forwarded == 80, "and to no other");
		CHECK(METER.connections == 1 && METER.active == 1 && METER.waiting == 0 && METER.refused == 0 &&
				METER.bytes_in == 4 && METER.bytes_out == 4,
			"its counters tell so");
		CHECK(METER.stage[DOOR_ACCEPT].count == 1 && METER.stage[DOOR_CONNECT].count == 1 &&
				METER.stage[DOOR_FIRST_BYTE].count == 1,
			"and each stage was timed once");
		shutdown(fd, SHUT_WR);
		CHECK(rig_until(rig_closed(fd)) && rig_peek(fd) == 0, "a half-close comes back as an end");
		CHECK(rig_until(METER.active == 0 && rig.agent.n_conns == 1), "and then nothing is left");
		close(fd);
		rig_stop();
	}
}

static void test_exec_and_vsock(void)
{
	rig_start(RIG_WAIT_MS);
	rig_door(VM_DOOR_EXEC_ID, VM_DOOR_EXEC, 0);
	rig_door(VM_DOOR_VSOCK_ID, VM_DOOR_VSOCK, 0);
	int fd = rig_connect(VM_DOOR_EXEC_ID);
	CHECK(rig_until(rig_peek(fd) == 12 || rig.agent.n_conns == 1),
		"an exec door leads to the agent, before all else");
	close(fd);
	rig_until(rig.agent.n_conns == 0);
	rig.agent.answer = FAKE_NEVER; /* says HELLO at once */
	fd = rig_connect(VM_DOOR_VSOCK_ID);
	send(fd, "CONNECT 1028\nx", 14, 0);
	CHECK(rig_reads(fd, "OK 10"), "vsock.sock takes a line and greets");
	close(fd);
	fd = rig_connect(VM_DOOR_VSOCK_ID);
	send(fd, "CONNECT 1028 \n", 14, 0);
	CHECK(rig_until(rig_closed(fd)), "a wrong line is a close");
	close(fd);
	fd = rig_connect(VM_DOOR_VSOCK_ID);
	send(fd, "CONNECT 5000\n", 13, 0);
	CHECK(rig_until(rig_closed(fd)), "so is a port that nobody has");
	close(fd);
	int many[70];
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = rig_connect(VM_DOOR_VSOCK_ID);
	CHECK(rig_until(rig.stats.door[1].refused == 2 + 70 - 64) && rig_closed(many[0]) && !rig_closed(many[69]),
		"of those that say nothing the oldest give way");
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		close(many[i]);
	rig_until(rig.agent.n_conns == 0);
	CHECK(rig.stats.door[0].connections == 1 && rig.stats.door[0].refused == 0 &&
			rig.stats.door[1].connections == 73 && rig.stats.door[1].stage[DOOR_CONNECT].count == 1,
		"their counters");
	rig_stop();
}

static void test_waiting(void)
{
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_door(DOOR + 1, VM_DOOR_UNIX, 0);
	int fd = rig_connect(DOOR), any = rig_connect(DOOR + 1);
	send(fd, "early", 5, 0);
	CHECK(rig_until(METER.waiting == 1) && rig.agent.n_conns == 0, "before the agent answers a connection waits");
	rig_ready(81);
	CHECK(METER.waiting == 1 && rig.agent.n_forwards == 1, "and while another port is listened on");
	CHECK(rig_echoes(any, "first") && rig.agent.last->forwarded == 81, "a door without port leads there");
	rig_listening(80);
	CHECK(rig_reads(fd, "early") && METER.waiting == 0, "when its port is, it passes, with what it said before");
	CHECK(rig.n_lines == 0, "nothing of this is worth a line");
	uint16_t two[] = {90, 80};
	fake_agent_listen(&rig.agent, two, 2);
	rig_turn(2);
	close(any);
	any = rig_connect(DOOR + 1);
	CHECK(rig_echoes(any, "oldest") && rig.agent.last->forwarded == 90, "the first listener is the oldest");
	close(fd);
	close(any);
	rig_stop();
}

static void test_flapping(void)
{
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_ready(80);
	rig.agent.answer = FAKE_REFUSE;
	int fd = rig_connect(DOOR);
	CHECK(rig_until(METER.waiting == 1) && rig.agent.n_forwards == 1, "refused although listed, it waits");
	rig_turn(5);
	CHECK(rig.agent.n_forwards == 1, "and does not ask again by itself");
	for (unsigned i = 0; i < 20; i++) {
		rig_listening(0);
		rig_turn(2);
		rig_listening(80);
		rig_until(METER.waiting == 1 && rig.agent.n_forwards == i + 2);
	}
	CHECK(rig.agent.n_forwards == 21 && METER.waiting == 1, "each LISTENING with its port makes it ask once");
	rig.agent.answer = FAKE_OK;
	rig_listening(80);
	CHECK(rig_echoes(fd, "at last"), "until it is taken");
	rig.agent.answer = FAKE_NEVER;
	int slow = rig_connect(DOOR);
	rig_until(rig.agent.n_forwards == 23);
	rig_listening(80); /* while the agent thinks about it */
	rig_turn(2);
	rig.agent.answer = FAKE_OK;
	fake_agent_refuse(&rig.agent, rig.agent.last);
	CHECK(rig_echoes(slow, "newer"), "refused by an older table than is known by now, it asks again at once");
	rig_listening(0);
	rig_turn(2);
	int none = rig_connect(DOOR);
	CHECK(rig_until(METER.waiting == 1) && rig.agent.n_forwards == 24, "a port that has gone is not asked for");
	close(none);
	close(slow);
	close(fd);
	rig_stop();
}

static void test_deadline(void)
{
	rig_start(30);
	rig_door(DOOR, VM_DOOR_TCP, 80);
	int early = rig_connect(DOOR);
	rig_until(METER.waiting == 1);
	uint64_t begun = clock_monotonic_ns();
	while (clock_monotonic_ns() - begun < 60000000)
		fake_agent_turn(&rig.agent, 10);
	CHECK(METER.waiting == 1, "before the workload's exec waiting has no end");
	begun = clock_monotonic_ns();
	rig_ready(0);
	CHECK(rig_until(METER.waiting == 0), "after it, it has");
	CHECK(clock_monotonic_ns() - begun >= 30000000, "after the whole time");
	CHECK(rig_closed(early) && METER.refused == 1 && rig.n_lines == 1 &&
			rig_said("tcp door here: a connection was closed: the guest did not listen on port 80 within "
				 "0.030 s"),
		"the client is closed and a line tells why");
	int late = rig_connect(DOOR);
	rig_until(METER.waiting == 1);
	CHECK(rig_until(METER.waiting == 0) && rig_closed(late), "one that comes later has its own clock");
	close(early);
	close(late);

	rig.agent.answer = FAKE_NEVER;
	rig_listening(80);
	rig_until(rig.doors->listeners.n_ports == 1);
	int asking = rig_connect(DOOR);
	rig_until(rig.agent.n_forwards == 1);
	begun = clock_monotonic_ns();
	while (clock_monotonic_ns() - begun < 60000000)
		fake_agent_turn(&rig.agent, 10);
	CHECK(!rig_closed(asking), "while the agent is asked that clock does not count");
	fake_agent_release(&rig.agent);
	CHECK(rig_echoes(asking, "slow"), "which may be slow");
	close(asking);
	rig_stop();
}

static void test_client_gone(void)
{
	struct linger reset = {.l_onoff = 1};
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_door(DOOR + 1, VM_DOOR_TCP, 80);
	int fd = rig_connect(DOOR), tcp = rig_connect(DOOR + 1), half = rig_connect(DOOR), left = rig_connect(DOOR);
	rig_until(METER.waiting == 3 && rig.stats.door[DOOR].waiting == 1);
	close(fd);
	CHECK(rig_until(METER.waiting == 2) && METER.refused == 1, "a client that goes away waits no longer");
	setsockopt(tcp, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(tcp);
	CHECK(rig_until(rig.stats.door[DOOR].refused == 1), "nor does one that resets");
	send(half, "request", 7, 0);
	shutdown(half, SHUT_WR);
	send(left, "note", 4, 0);
	close(left);
	rig_turn(5);
	uint64_t begun = clock_monotonic_ns();
	fake_agent_turn(&rig.agent, 20);
	CHECK(METER.waiting == 2 && clock_monotonic_ns() - begun > 15000000,
		"those that said something before wait on, and do not make the loop spin");
	rig_ready(80);
	CHECK(rig_reads(half, "request") && METER.bytes_in == 11, "and what they said arrives");
	CHECK(rig_until(rig_closed(half)), "with its end");
	close(half);
	rig_stop();
}

static void test_answers(void)
{
	static const struct {
		enum fake_answer answer;
		const char *line, *what;
	} bad[] = {
		{FAKE_GARBAGE, "malformed answer", "garbage"},
		{FAKE_ENDLESS, "malformed answer", "a frame without end"},
		{FAKE_WRONG, "malformed answer", "a frame that is out of place"},
		{FAKE_ERROR, "out of luck", "an error of the guest's"},
		{FAKE_RESET, "did not take it", "a reset"},
	};
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_TCP, 80);
	rig_ready(80);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		rig.agent.answer = bad[i].answer;
		int fd = rig_connect(DOOR);
		CHECK(rig_until(rig_closed(fd)), bad[i].what);
		CHECK(rig_said(bad[i].line) && METER.refused == i + 1, "closes the client, with a line");
		close(fd);
	}
	rig.agent.answer = FAKE_OK_BYTEWISE;
	int fd = rig_connect(DOOR);
	CHECK(rig_echoes(fd, "slowly"), "an answer may come byte by byte");
	close(fd);
	rig.agent.answer = FAKE_OK_AND_BYTES;
	fd = rig_connect(DOOR);
	CHECK(rig_reads(fd, "hello"), "and bytes right behind it");
	close(fd);
	rig.agent.deaf = true;
	fd = rig_connect(DOOR);
	CHECK(rig_until(rig_closed(fd)) && rig_said("did not take it"), "an agent that refuses the connection");
	close(fd);
	CHECK(rig_until(rig.agent.n_conns == 1) && METER.active == 0, "nothing is left of them");
	rig_stop();
}

static void test_no_answer(void)
{
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_TCP, 80);
	rig_ready(80);
	rig.doors->answer_ns = 20000000;
	rig.agent.answer = FAKE_NEVER;
	int fd = rig_connect(DOOR), behind = rig_connect(DOOR);
	uint64_t begun = clock_monotonic_ns();
	CHECK(rig_until(rig_closed(fd) && rig_closed(behind)) && clock_monotonic_ns() - begun >= 15000000,
		"an agent that never answers has its time");
	CHECK(rig_said("did not answer within 0.020 s") && METER.refused == 2 && rig_until(rig.agent.n_conns == 1),
		"then the client is closed, the guest told, and a line says so");
	close(fd);
	close(behind);
	rig_stop();
}

static void test_device_reset(void)
{
	rig_start(100);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_ready(80);
	int open = rig_connect(DOOR);
	rig_echoes(open, "x");
	rig.agent.answer = FAKE_NEVER;
	int asking = rig_connect(DOOR);
	rig_until(rig.agent.n_forwards == 2);
	virtio_reset(vsock_device(rig.agent.vsock));
	loop_round(&rig.loop, 1000, NULL);
	CHECK(rig_closed(open) && rig_closed(asking) && METER.active == 0 && METER.refused == 1,
		"a guest that resets its device loses all connections");
	for (unsigned i = 0; i < 10 && rig.doors->listeners.fd >= 0; i++)
		loop_round(&rig.loop, 10, NULL);
	CHECK(rig.doors->listeners.state == LISTENERS_UNKNOWN && rig_said("tells no listeners any more"),
		"and what it listens on is not known any more");
	int late = rig_connect(DOOR);
	for (unsigned i = 0; i < 100 && !rig_closed(late); i++)
		loop_round(&rig.loop, 10, NULL);
	CHECK(rig_closed(late), "who comes then waits its time");
	close(open);
	close(asking);
	close(late);
	rig_stop();
}

/** Without a file for them. */
static void test_own_counters(void)
{
	rig_start(RIG_WAIT_MS);
	doors_destroy(rig.doors);
	const struct doors_setup setup = {.loop = &rig.loop, .vsock = rig.agent.vsock, .listen_wait_ms = 1000};
	doors_create(&setup, &rig.doors, NULL);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_ready(80);
	int fd = rig_connect(DOOR);
	CHECK(rig_echoes(fd, "x") && doors_meter(rig.doors, DOOR)->connections == 1,
		"doors may keep their own counters");
	doors_destroy(rig.doors);
	rig.doors = NULL;
	CHECK(rig_echoes(fd, "y"), "and connections outlive the doors");
	close(fd);
	rig_until(rig.agent.n_conns == 0);
	rig_stop();
}

static void test_no_listeners(void)
{
	rig_start(RIG_WAIT_MS);
	rig.agent.no_listeners = true;
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_door(DOOR + 1, VM_DOOR_UNIX, 0);
	int fd = rig_connect(DOOR), any = rig_connect(DOOR + 1);
	rig_until(METER.waiting == 1);
	doors_agent_ready(rig.doors);
	CHECK(rig_until(rig.doors->listeners.state == LISTENERS_UNSUPPORTED) && METER.waiting == 1,
		"an agent that cannot tell listeners: until the exec all wait");
	doors_workload_started(rig.doors);
	CHECK(rig_echoes(fd, "hi"), "then it is asked for the port");
	CHECK(rig_until(rig_closed(any)) && rig_said("name one"), "without a port there is none to ask for");
	close(fd);
	close(any);
	rig.agent.answer = FAKE_REFUSE;
	fd = rig_connect(DOOR);
	CHECK(rig_until(rig_closed(fd)) && rig.agent.n_forwards == 2 &&
			rig_said("nobody in the guest listens on port 80"),
		"it is asked once and not again");
	close(fd);
	rig_stop();
}

static void test_bad_listeners(void)
{
	static const uint8_t too_long[AGENT_HEADER_SIZE] = {0, 0, 1, 0, AGENT_LISTENING};
	static const uint8_t no_port[AGENT_HEADER_SIZE + 20] = {20, 0, 0, 0, AGENT_LISTENING, 0, 0, 0, 0, 0, 4};
	static const uint8_t odd[AGENT_HEADER_SIZE + 3] = {3, 0, 0, 0, AGENT_LISTENING};
	static const uint8_t wrong[AGENT_HEADER_SIZE] = {0, 0, 0, 0, AGENT_OK};
	static uint8_t flood[AGENT_HEADER_SIZE + 60000];
	static const struct {
		const void *bytes;
		size_t n;
		const char *what;
	} bad[] = {
		{no_port, sizeof(no_port), "a listener on port 0"},
		{odd, sizeof(odd), "a list of an odd length"},
		{wrong, sizeof(wrong), "a frame that is out of place"},
		{flood, sizeof(flood), "a list that is too long"},
	};
	memcpy(flood, too_long, sizeof(too_long));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		rig_start(100);
		rig_door(DOOR, VM_DOOR_UNIX, 80);
		rig_ready(80);
		fake_agent_say(&rig.agent, bad[i].bytes, bad[i].n);
		CHECK(rig_until(rig.n_lines == 1) && rig_said("tells no listeners any more"), bad[i].what);
		int fd = rig_connect(DOOR);
		rig_until(METER.waiting == 1);
		CHECK(rig_until(rig_closed(fd)) && rig_said("as far as its agent told"),
			"who comes then waits in vain");
		close(fd);
		rig_until(rig.agent.n_conns == 0);
		rig_stop();
	}
	static uint16_t ports[AGENT_LISTENERS_MAX];
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 1024);
	for (unsigned i = 0; i < AGENT_LISTENERS_MAX; i++)
		ports[i] = (uint16_t)(i + 1);
	rig_ready(0);
	fake_agent_listen(&rig.agent, ports, AGENT_LISTENERS_MAX);
	int fd = rig_connect(DOOR);
	CHECK(rig_echoes(fd, "last"), "a table of the greatest size is taken");
	close(fd);
	rig_stop();
}

static void test_many(void)
{
	static int fds[1000];
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	for (unsigned i = 0; i < 500; i++)
		fds[i] = rig_connect(DOOR);
	CHECK(rig_until(METER.waiting == 500), "500 connections wait");
	rig_ready(80);
	for (unsigned i = 500; i < 1000; i++)
		fds[i] = rig_connect(DOOR);
	CHECK(rig_until(METER.active == 1000), "with 500 more all 1,000 reach the guest");
	unsigned echoed = 0;
	for (unsigned i = 0; i < 1000; i++)
		send(fds[i], "x", 1, 0);
	for (unsigned i = 0; i < 1000; i++)
		echoed += rig_reads(fds[i], "x");
	CHECK(echoed == 1000, "and hear their own echo");
	for (unsigned i = 0; i < 1000; i++)
		close(fds[i]);
	CHECK(rig_until(METER.active == 0 && rig.agent.n_conns == 1), "and end");
	CHECK(METER.connections == 1000 && METER.refused == 0 && METER.waiting == 0, "none was refused");
	rig_stop();
}

/** A guest that is slow to connect: not all ask at once, and who has to wait for his turn gets it. */
static void test_turns(void)
{
	static int fds[600];
	unsigned echoed = 0;

	printf("# turns to ask\n");
	rig_start(RIG_WAIT_MS);
	rig.agent.answer = FAKE_NEVER;
	rig_door(3, VM_DOOR_UNIX, 80);
	rig_ready(80);
	for (unsigned i = 0; i < 600; i++)
		fds[i] = rig_connect(3);
	CHECK(rig_until(METER.connections == 600 && rig.agent.n_forwards == DOORS_ASKING_MAX),
		"of 600 clients some are let ask");
	rig_turn(20);
	CHECK(rig.agent.n_forwards == DOORS_ASKING_MAX && METER.waiting == 600 - DOORS_ASKING_MAX,
		"and no more of them before one is answered");
	close(fds[599]);
	CHECK(rig_until(METER.waiting == 599 - DOORS_ASKING_MAX) && METER.refused == 1,
		"one that goes away leaves the queue");
	rig_door(4, VM_DOOR_UNIX, 80);
	int other = rig_connect(4);
	CHECK(rig_until(rig.agent.n_forwards == DOORS_ASKING_MAX + 1) && rig.stats.door[3].waiting == 0,
		"they hold up no client of another door");
	close(other);
	CHECK(rig_until(rig.stats.door[3].refused == 1), "which goes away");
	rig.agent.n_forwards = DOORS_ASKING_MAX;
	fake_agent_release(&rig.agent);
	CHECK(rig_until(rig.agent.n_forwards == 2 * DOORS_ASKING_MAX), "answers let as many others ask");
	rig.agent.answer = FAKE_OK;
	fake_agent_release(&rig.agent);
	CHECK(rig_until(METER.active == 599) && METER.waiting == 0 && rig.doors->door[2]->n_asking == 0,
		"in the end all have asked");
	for (unsigned i = 0; i < 599; i++)
		echoed += rig_echoes(fds[i], "x");
	CHECK(echoed == 599, "and hear their echo");
	for (unsigned i = 0; i < 599; i++)
		close(fds[i]);
	rig_stop();
}

static void test_too_many(void)
{
	static int fds[DOORS_WAITING_MAX + 3];
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < 2 * DOORS_WAITING_MAX + 210) {
		CHECK(true, "more than may wait # SKIP few descriptors");
		return;
	}
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = rig_connect(DOOR);
		if (i % 64 == 0)
			rig_turn(2);
	}
	CHECK(rig_until(METER.refused == 3) && METER.waiting == DOORS_WAITING_MAX && rig_said("wait already"),
		"more than may wait are refused");
	rig_door(DOOR + 1, VM_DOOR_UNIX, 81);
	int other = rig_connect(DOOR + 1);
	CHECK(rig_until(rig.stats.door[DOOR].waiting == 1), "at another door there is room");
	close(other);
	doors_stop(rig.doors);
	CHECK(METER.waiting == 0 && rig_closed(fds[0]), "the end of the VM closes those that wait");
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	rig_stop();
}

static void test_remove(void)
{
	struct husk_error err;
	struct vm_door door = {.id = DOOR, .kind = VM_DOOR_UNIX, .endpoint = "here"};
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_door(DOOR + 1, VM_DOOR_UNIX, 80);
	CHECK(doors_add(rig.doors, &door, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &err) == -EEXIST,
		"an id is given once");
	door.id = 65;
	CHECK(doors_add(rig.doors, &door, -1, &err) == -EINVAL, "and in range");
	door.id = 9;
	CHECK(doors_add(rig.doors, &door, open("/dev/null", O_RDONLY | O_CLOEXEC), &err) == -ENOTSOCK,
		"a door needs a socket");
	CHECK(doors_add(rig.doors, &door, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &err) == -EINVAL,
		"that listens");
	int other = rig_connect(DOOR + 1), waits = rig_connect(DOOR);
	rig_until(METER.waiting == 1 && rig.stats.door[DOOR].waiting == 1);
	CHECK(doors_remove(rig.doors, DOOR, &err) == 0 && rig_closed(waits), "a closed door closes what waits in it");
	CHECK(doors_remove(rig.doors, DOOR, &err) == -ENOENT, "it is closed once");
	CHECK(rig_connect(DOOR) < 0, "nobody enters any more");
	close(waits);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	CHECK(METER.refused == 0 && METER.connections == 0, "a new door of that id counts from zero");
	rig_ready(80);
	CHECK(rig_echoes(other, "still"), "the others are not concerned");
	int lives = rig_connect(DOOR);
	rig_echoes(lives, "here");
	rig.agent.answer = FAKE_NEVER;
	int asks = rig_connect(DOOR);
	rig_until(rig.agent.n_forwards == 3);
	doors_remove(rig.doors, DOOR, &err);
	CHECK(rig_until(rig_closed(asks)), "one that still asks is closed");
	CHECK(rig_echoes(lives, "on"), "one that has reached the guest lives on");
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	CHECK(METER.active == 1, "and is counted");
	close(asks);
	close(lives);
	CHECK(rig_until(METER.active == 0), "until its end");
	close(other);
	rig_stop();
}

static void test_log_limit(void)
{
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_ready(80);
	rig.agent.answer = FAKE_GARBAGE;
	for (unsigned i = 0; i < 60; i++) {
		int fd = rig_connect(DOOR);
		rig_until(METER.refused == i + 1);
		close(fd);
	}
	CHECK(rig.n_lines >= 20 && rig.n_lines < 40, "sixty failures at once are not sixty lines");
	rig.doors->log_ns -= 2000000000;
	int fd = rig_connect(DOOR);
	rig_until(METER.refused == 61);
	CHECK(rig_said("lines before this one were left out"), "and a later one says so");
	close(fd);
	rig_stop();
}

static void test_no_descriptors(void)
{
	struct rlimit limit, low;
	rig_start(RIG_WAIT_MS);
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_ready(80);
	int good = rig_connect(DOOR), fd = rig_connect(DOOR);
	rig_echoes(good, "a");
	rig_echoes(fd, "b");
	close(fd);
	rig_until(METER.active == 1);
	fd = rig_connect(DOOR);
	int next = dup(0);
	close(next);
	getrlimit(RLIMIT_NOFILE, &limit);
	low = limit;
	low.rlim_cur = (rlim_t)next;
	setrlimit(RLIMIT_NOFILE, &low);
	CHECK(rig_until(rig_closed(fd)) && rig_said("no descriptors are left") && METER.refused == 1,
		"without descriptors a connection is closed and counted");
	CHECK(rig_echoes(good, "c"), "those that are there go on");
	setrlimit(RLIMIT_NOFILE, &limit);
	close(fd);
	fd = rig_connect(DOOR);
	CHECK(rig_echoes(fd, "d"), "and with descriptors new ones come");
	close(fd);
	close(good);
	rig_stop();
}

/** How many standbys are ready. */
static unsigned n_ready(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < DOORS_STANDBYS_MAX; i++)
		n += rig.doors->standby[i].ready;
	return n;
}

static void start_standbys(void)
{
	rig.standbys = 2;
	rig_start(RIG_WAIT_MS);
	rig.standbys = 0;
	rig_door(DOOR, VM_DOOR_UNIX, 80);
	rig_ready(80);
	rig_until(n_ready() == 2);
}

static void test_standbys(void)
{
	unsigned fds = count_descriptors();
	start_standbys();
	CHECK(n_ready() == 2 && rig.agent.n_conns == 3, "what the agent says of a listener has standbys made");
	rig_turn(3);
	unsigned before = count_descriptors();
	CHECK(rig.agent.n_forwards == 0 && before == count_descriptors(), "which ask for nothing");
	int fd = rig_connect(DOOR);
	rig_turn(1);
	CHECK(n_ready() == 1 && rig.agent.n_conns == 3, "who comes takes one");
	CHECK(rig_echoes(fd, "ping") && rig.agent.last->forwarded == 80 && METER.active == 1, "and is at the port");
	CHECK(METER.bytes_in == 4 && METER.bytes_out == 4 && METER.stage[DOOR_CONNECT].count == 1 &&
			METER.stage[DOOR_FIRST_BYTE].count == 1,
		"counted as ever");
	CHECK(rig_until(n_ready() == 2) && rig.agent.n_conns == 4, "another one takes its place");
	int many[5];
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = rig_connect(DOOR);
		send(many[i], "early", 5, 0);
	}
	bool all = true;
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		all = rig_reads(many[i], "early") && all;
	CHECK(all && METER.refused == 0 && METER.bytes_in == 29, "more than there are standbys for: the others dial");
	CHECK(rig_until(n_ready() == 2), "and again");
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		close(many[i]);
	close(fd);
	CHECK(rig_until(rig.agent.n_conns == 3 && METER.active == 0), "when they have gone the standbys are left");
	CHECK(doors_remove(rig.doors, DOOR, NULL) == 0 && rig_until(rig.agent.n_conns == 1),
		"until the door is removed");
	rig_door(VM_DOOR_EXEC_ID, VM_DOOR_EXEC, 0);
	rig_listening(81);
	uint64_t begun = clock_monotonic_ns();
	while (clock_monotonic_ns() - begun < 20000000)
		fake_agent_turn(&rig.agent, 5);
	CHECK(rig.agent.n_conns == 1, "an exec door needs none");
	rig_stop();
	CHECK(count_descriptors() == fds, "no descriptor is left");
}

/** Every standby that the agent holds is reset. */
static void reset_standbys(void)
{
	for (unsigned i = 0; i < FAKE_AGENT_SLOTS; i++)
		for (struct fake_conn *c = rig.agent.slots[i], *next; c; c = next) {
			next = c->next;
			if (c->state == FAKE_FRAMES)
				fake_agent_reset(&rig.agent, c);
		}
}

static void test_standbys_lost(void)
{
	unsigned fds = count_descriptors();
	start_standbys();
	reset_standbys();
	CHECK(n_ready() == 0 && rig.agent.n_conns == 1 && rig.n_lines == 0, "standbys that the agent resets are gone");
	uint64_t begun = clock_monotonic_ns();
	while (clock_monotonic_ns() - begun < 20000000)
		fake_agent_turn(&rig.agent, 5);
	CHECK(rig.agent.n_conns == 1, "and not made again for nobody");
	int fd = rig_connect(DOOR);
	CHECK(rig_echoes(fd, "x") && rig_until(n_ready() == 2), "who comes dials, and has them made");
	rig.agent.answer = FAKE_RESET_ONCE;
	int second = rig_connect(DOOR);
	CHECK(rig_echoes(second, "again") && METER.refused == 0 && rig.agent.n_forwards == 3 && rig.n_lines == 0,
		"one that dies when it is asked costs a second question");
	rig_until(n_ready() == 2);
	rig.agent.answer = FAKE_RESET;
	int third = rig_connect(DOOR);
	CHECK(rig_until(rig_closed(third)) && rig.agent.n_forwards == 5 && METER.refused == 1 &&
			rig_said("did not take it"),
		"and no third one");
	rig_turn(2);
	rig.agent.answer = FAKE_REFUSE;
	rig.agent.n_forwards = 0;
	int refused = rig_connect(DOOR);
	CHECK(rig_until(METER.waiting == 1) && rig.agent.n_forwards == 1, "a refusal is an answer");
	rig.agent.answer = FAKE_OK;
	rig_listening(80);
	CHECK(rig_echoes(refused, "later") && rig_until(n_ready() == 2), "after which it waits as ever");
	rig.agent.answer = FAKE_NEVER;
	int gone = rig_connect(DOOR), stays = rig_connect(DOOR);
	rig_turn(3);
	close(gone);
	CHECK(rig_until(METER.refused == 2) && n_ready() == 0, "a client that goes takes its standby along");
	virtio_reset(vsock_device(rig.agent.vsock));
	CHECK(METER.refused == 2 && METER.active == 0, "a guest that resets its device: who asked asks again");
	doors_stop(rig.doors);
	CHECK(rig_closed(stays) && METER.refused == 3, "and is closed with the doors");
	close(fd);
	close(second);
	close(third);
	close(refused);
	close(stays);
	rig_stop();
	CHECK(count_descriptors() == fds, "no descriptor is left of all this");
}

/** An agent that says anything but HELLO on a standby. */
static void test_standbys_lied_to(void)
{
	static const uint8_t lies[][13] = {{4, 0, 0, 0, AGENT_HELLO, 0, 0, 0, AGENT_VERSION + 1}, {4, 0, 0, 0, AGENT_OK, 0, 0, 0, AGENT_VERSION},
		{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, {4, 0, 0, 0, AGENT_HELLO, 0, 0, 0, AGENT_VERSION, 0, 0, 0, 7}};
	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		rig.standbys = 2;
		rig_start(RIG_WAIT_MS);
		rig.standbys = 0;
		rig_door(DOOR, VM_DOOR_UNIX, 80);
		rig_ready(0);
		rig.agent.hello = lies[i];
		rig.agent.hello_size = i == 3 ? 13 : 12;
		rig_listening(80);
		rig_until(rig.doors->refill_ns);
		rig_until(!rig.doors->refill_ns);
		CHECK(rig_until(rig.agent.n_conns == 1) && n_ready() == 0, "a standby that is told no HELLO is ended");
		rig.agent.hello = NULL;
		int fd = rig_connect(DOOR);
		CHECK(rig_echoes(fd, "x"), "and who comes dials");
		close(fd);
		rig_stop();
	}
}

int main(void)
{
	unsigned before = count_descriptors();
	test_kinds();
	test_exec_and_vsock();
	test_waiting();
	test_flapping();
	test_deadline();
	test_client_gone();
	test_answers();
	test_no_answer();
	test_device_reset();
	test_own_counters();
	test_no_listeners();
	test_bad_listeners();
	test_many();
	test_turns();
	test_too_many();
	test_remove();
	test_log_limit();
	test_no_descriptors();
	CHECK(count_descriptors() == before, "no descriptor is left");
	test_standbys();
	test_standbys_lost();
	test_standbys_lied_to();
	return tap_done();
}
