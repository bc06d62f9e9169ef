/* SPDX-License-Identifier: Apache-2.0 */
/* service-test.c - supervisor.sock and the supervisor's doors, with a test in the place of the worker */
#include "tests/unit/service_bench.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/descriptors.h"
#include "tests/tap.h"
#include "vmm/control.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

/** With those of clients that have come or gone taken into account. */
static size_t open_fds(void)
{
	turn();
	return count_descriptors();
}

/** The door of a unix socket @name in our folder. */
static struct vm_message request(const char *name)
{
	struct vm_message m = {.kind = VM_CONTROL_EXPOSE, .door = {.kind = VM_DOOR_UNIX, .guest_port = 80}};
	struct stat st = {0};
	snprintf(m.door.endpoint, sizeof(m.door.endpoint), "%.60s/%.40s", folder, name);
	if (stat(m.door.endpoint, &st) == 0) {
		m.door.device = st.st_dev;
		m.door.inode = st.st_ino;
	}
	return m;
}

/** Ask for a unix door @name over @client. */
static void expose(int client, const char *name)
{
	CLEANUP_FD int fd = listen_at(name, SOCK_STREAM);
	struct vm_message m = request(name);
	CHECK(fd_send(client, &m, sizeof(m), &fd, 1) == sizeof(m), "ask for a door");
	turn();
}

static void unexpose(int client, const char *name)
{
	struct vm_message m = request(name);
	m.kind = VM_CONTROL_UNEXPOSE;
	m.door.kind = 0;
	vm_message_send(client, &m);
	turn();
}

static void answer(uint32_t id, uint32_t value, const char *text)
{
	struct vm_message m = {.kind = VM_MESSAGE_EXPOSED, .value = value, .door = {.id = id}};
	if (text)
		vm_message_text(&m, "%s", text);
	vm_message_send(worker, &m);
	turn();
}

static bool answered(int client, struct vm_message *m)
{
	return vm_message_receive(client, m) == 1 && m->kind == VM_MESSAGE_EXPOSED;
}

static bool there(const char *name)
{
	CLEANUP_FREE char *path = path_join(folder, name);
	return access(path, F_OK) == 0;
}

static bool recorded(uint32_t id, const char *name)
{
	static struct vm_state_record record;
	struct vm_message m = request(name);
	return state_read(s.config.state_fd, &record, NULL) == 0 && record.doors[id - 1].id == id &&
	       strcmp(record.doors[id - 1].endpoint, m.door.endpoint) == 0;
}

static void test_open_and_close(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m;
	bool fd;
	expose(client, "a.sock");
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_EXPOSE && fd && m.door.id == 3 && m.door.guest_port == 80,
		"the worker gets the door with its socket and the lowest free id");
	CHECK(recorded(3, "a.sock"), "it is in the record");
	CHECK(!answered(client, &m), "who asked is not answered yet");
	answer(4, 0, NULL);
	CHECK(!answered(client, &m), "nor by an answer about another door");
	answer(3, 0, NULL);
	CHECK(answered(client, &m) && m.value == 0 && m.door.id == 3, "the worker's answer answers");
	unexpose(client, "a.sock");
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_UNEXPOSE && !fd && m.door.id == 3,
		"the worker is told to close it");
	CHECK(!there("a.sock") && !recorded(3, "a.sock"), "its path and its record are gone at once");
	answer(3, 0, NULL);
	CHECK(answered(client, &m) && m.value == 0, "who asked is answered");
	unexpose(client, "a.sock");
	CHECK(answered(client, &m) && m.value == ENOENT && strstr(m.text, "a.sock"), "once more there is no such door");
	CHECK(!told(&m, &fd), "and the worker is not asked");
	m = (struct vm_message){.kind = VM_CONTROL_UNEXPOSE, .door = {.id = VM_DOOR_EXEC_ID}};
	vm_message_send(client, &m);
	turn();
	CHECK(answered(client, &m) && m.value == EPERM, "exec.sock cannot be closed");
}

static void test_refused(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m;
	bool fd;
	size_t before = open_fds();
	expose(client, "b.sock");
	CHECK(told(&m, &fd) && m.door.id == 3, "the id is free again");
	answer(3, EMFILE, "no room");
	CHECK(answered(client, &m) && m.value == EMFILE, "a refusal is passed on");
	CHECK_STRING(m.text, "no room", "with its reason");
	CHECK(!there("b.sock") && !recorded(3, "b.sock"), "and nothing stays");
	CHECK(open_fds() == before, "nor a descriptor");

	CLEANUP_FD int plain = open("/dev/null", O_RDONLY | O_CLOEXEC);
	m = request("c.sock");
	fd_send(client, &m, sizeof(m), &plain, 1);
	turn();
	CHECK(answered(client, &m) && m.value == ENOTSOCK, "what is no listening socket is refused");
	int pair[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "a pair");
	m = request("c.sock");
	fd_send(client, &m, sizeof(m), pair, 1);
	turn();
	CHECK(answered(client, &m) && m.value == ENOTSOCK, "a connected one, too");
	close(pair[0]);
	close(pair[1]);
	size_t exec_size = s.config.exec_size;
	s.config.exec_size = 0;
	expose(client, "d.sock");
	CHECK(answered(client, &m) && m.value == ENOTSUP, "a VM without agent has no doors");
	s.config.exec_size = exec_size;
	unlinkat(s.config.runtime_fd, "d.sock", 0);
	CHECK(!told(&m, &fd), "the worker heard of none of it");
}

static void test_malformed(void)
{
	struct vm_message expose_one = request("e.sock"), with_id = expose_one, kind = expose_one, tls = expose_one;
	size_t before = open_fds();
	CLEANUP_FD int fd = listen_at("e.sock", SOCK_STREAM);
	with_id.door.id = 5;
	kind.kind = VM_MESSAGE_READY;
	memset(&kind.door, 0, sizeof(kind.door));
	tls.door.kind = VM_DOOR_TLS;
	snprintf(tls.door.inner, sizeof(tls.door.inner), "inner");
	const struct {
		const void *bytes;
		size_t size, n_fds;
		const char *what;
	} wrong[] = {
		{"x", 1, 0, "a short message"},
		{&expose_one, sizeof(expose_one) - 1, 1, "one that lacks a byte"},
		{&expose_one, sizeof(expose_one), 0, "a door without its socket"},
		{&expose_one, sizeof(expose_one), 2, "with two"},
		{&expose_one, sizeof(expose_one), 5, "with five"},
		{&with_id, sizeof(with_id), 1, "with an id of its own choice"},
		{&kind, sizeof(kind), 0, "another message"},
		{&tls, sizeof(tls), 1, "a tls door with one descriptor"},
	};
	const int fds[5] = {fd, fd, fd, fd, fd};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		CLEANUP_FD int client = join();
		fd_send(client, wrong[i].bytes, wrong[i].size, fds, wrong[i].n_fds);
		turn();
		CHECK(closed(client), wrong[i].what);
	}
	struct vm_message m;
	bool with_fd;
	CHECK(!told(&m, &with_fd), "the worker heard of none of them");
	CHECK(open_fds() == before + 1, "and every descriptor was closed");
	unlinkat(s.config.runtime_fd, "e.sock", 0);
}

static void test_gone(void)
{
	struct vm_message m;
	bool fd;
	int client = join();
	expose(client, "f.sock");
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_EXPOSE, "a door is asked for");
	close(client);
	turn();
	CHECK(!there("f.sock") && !recorded(3, "f.sock"), "who asked has gone: so has the door, for everybody else");
	answer(3, 0, NULL);
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_UNEXPOSE && m.door.id == 3, "it is closed as soon as it is open");
	answer(3, 0, NULL);
	CHECK(s.door[2].phase == DOOR_FREE, "and its id is free");
}

static void test_limits(void)
{
	int client[SERVICE_CLIENTS + 1];
	struct vm_message m;
	for (size_t i = 0; i < ARRAY_SIZE(client); i++) {
		client[i] = join();
		turn();
	}
	turn();
	turn();
	unexpose(client[SERVICE_CLIENTS], "none");
	CHECK(!answered(client[SERVICE_CLIENTS], &m), "the 65th client waits");
	close(client[0]);
	turn();
	CHECK(answered(client[SERVICE_CLIENTS], &m) && m.value == ENOENT, "until another one goes");
	for (size_t i = 1; i < ARRAY_SIZE(client); i++)
		close(client[i]);
	turn();
}

/** The worker reads nothing: its channel fills, and nobody waits for it. */
static void test_hung_worker(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m = {.kind = VM_CONTROL_KILL};
	bool fd;
	while (vm_message_send(s.channel, &m) == 0)
		;
	CLEANUP_FD int other = join();
	expose(client, "g.sock");
	unexpose(other, "none");
	CHECK(answered(other, &m) && m.value == ENOENT, "others are served while the worker hangs");
	CHECK(s.door[2].unsent, "what it has not been told waits");
	while (told(&m, &fd) && m.kind == VM_CONTROL_KILL)
		;
	turn();
	CHECK((m.kind == VM_CONTROL_EXPOSE || told(&m, &fd)) && m.kind == VM_CONTROL_EXPOSE && fd,
		"and is told once it reads again");
	answer(3, 0, NULL);
	CHECK(answered(client, &m) && m.value == 0, "so that the door opens after all");
	unexpose(client, "g.sock");
	told(&m, &fd);
	answer(3, 0, NULL);
	CHECK(answered(client, &m) && m.value == 0, "and closes");
}

static void test_full(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m;
	char name[16];
	bool fd;
	unsigned opened = 0;
	for (uint32_t id = 3; id <= VM_DOORS_MAX; id++) {
		CLEANUP_FD int socket_fd = -1;
		snprintf(name, sizeof(name), "n%u", id);
		socket_fd = listen_at(name, SOCK_STREAM);
		m = request(name);
		fd_send(client, &m, sizeof(m), &socket_fd, 1);
		turn();
		if (told(&m, &fd) && m.door.id == id)
			answer(id, 0, NULL);
		opened += answered(client, &m) && m.value == 0;
	}
	CHECK(opened == 62, "a VM has 62 doors beside its own");
	expose(client, "more");
	CHECK(answered(client, &m) && m.value == ENOSPC, "and not one more");
	doors_end(&s);
	CHECK(!there("n3") && !there("n64"), "at the end all paths are removed");
	CHECK(there("more"), "but for what is not a door of this VM");
	memset(s.door, 0, sizeof(s.door));
}

/** A husk-tls that only waits. */
static void make_tls(void)
{
	CLEANUP_FD int fd = openat(s.config.runtime_fd, "husk-tls", O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
	static const char script[] = "#!/bin/sh\nexec sleep 1000\n";
	CHECK(fd_write_all(fd, script, sizeof(script) - 1) == 0, "a husk-tls");
	s.config.tls_path = path_join(folder, "husk-tls");
}

static int open_tls(int client)
{
	mkdirat(s.config.runtime_fd, "tls-1", 0700);
	CLEANUP_FD int inner = listen_at("tls-1/" VM_DOOR_INNER_SOCKET, SOCK_STREAM);
	CLEANUP_FD int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CLEANUP_FD int file = memfd_create("key", MFD_CLOEXEC);
	struct vm_message m = {.kind = VM_CONTROL_EXPOSE,
		.door = {.kind = VM_DOOR_TLS, .endpoint = "127.0.0.1:1", .inner = "tls-1", .alpn = "h2"}};
	const int fds[] = {inner, tcp, file, file};
	bool fd;
	listen(tcp, 1);
	fd_send(client, &m, sizeof(m), fds, ARRAY_SIZE(fds));
	turn();
	CHECK(told(&m, &fd) && m.door.kind == VM_DOOR_TLS && fd, "the worker gets the inner socket of a tls door");
	answer(m.door.id, 0, NULL);
	return answered(client, &m) ? (int)m.value : -1;
}

static void test_tls(void)
{
	CLEANUP_FD int client = join();
	struct vm_message m;
	bool fd;
	size_t before = open_fds();
	make_tls();
	CHECK(open_tls(client) == 0 && s.door[2].tls.pid > 0, "a tls door has a husk-tls");
	if (!s.door[2].tls.pid)
		return;
	kill(s.door[2].tls.pid, SIGKILL);
	while (s.door[2].tls.pid)
		loop_round(&s.loop, 1000, &err);
	CHECK(s.door[2].phase == DOOR_CLOSING && !s.record.doors[2].id && !there("tls-1"),
		"whose death closes it");
	CHECK(told(&m, &fd) && m.kind == VM_CONTROL_UNEXPOSE && !s.outcome.kind, "at the worker, too, and not the VM");
	answer(3, 0, NULL);
	CHECK(s.door[2].phase == DOOR_FREE, "its id is free then");

	CHECK(open_tls(client) == 0, "another one");
	m = (struct vm_message){.kind = VM_CONTROL_UNEXPOSE, .door = {.endpoint = "127.0.0.1:1"}};
	vm_message_send(client, &m);
	turn();
	told(&m, &fd);
	answer(3, 0, NULL);
	while (s.door[2].tls.pid)
		loop_round(&s.loop, 1000, &err);
	CHECK(answered(client, &m) && m.value == 0 && s.door[2].phase == DOOR_FREE, "is closed with its husk-tls");
	CHECK(open_fds() == before, "no descriptor is left of it");

	CHECK(open_tls(client) == 0, "a third one");
	pid_t pid = s.door[2].tls.pid;
	doors_end(&s);
	CHECK(kill(pid, 0) < 0 && errno == ESRCH, "ends with the VM");
	memset(s.door, 0, sizeof(s.door));
	unlinkat(s.config.runtime_fd, "husk-tls", 0);
	free(steal_pointer(&s.config.tls_path));
}

/** Doors of the configuration: the start waits for them, and one that is refused fails it. */
static void test_start(void)
{
	struct vmm_door_entry *given = calloc(2, sizeof(*given));
	struct vm_message m;
	bool fd;
	for (int i = 0; i < 2; i++) {
		char name[] = {'s', (char)('0' + i), 0};
		given[i] = (struct vmm_door_entry){.n_fds = 1, .fd = {listen_at(name, SOCK_STREAM), -1, -1, -1}};
		given[i].door = request(name).door;
	}
	s.config.doors = given;
	s.config.n_doors = 2;
	CHECK(doors_take(&s, &err) == 0 && doors_opening(&s), "doors of the start are being opened");
	channel_flush(&s);
	CHECK(told(&m, &fd) && fd && m.door.id == 3 && told(&m, &fd) && fd && m.door.id == 4, "the worker gets both");
	answer(3, 0, NULL);
	CHECK(doors_opening(&s) && !s.outcome.kind, "one is open, the start waits for the other");
	answer(4, EMFILE, "open the unix door x: no room");
	CHECK(!doors_opening(&s) && s.outcome.end == VM_END_FAILED &&
			strcmp(s.outcome.text, "open the unix door x: no room") == 0,
		"which is refused: the start fails with the worker's words");
	CHECK(there("s0") && !there("s1"), "its path is gone");
	doors_end(&s);
	CHECK(!there("s0"), "and the other's goes with the VM");
	s.config.n_doors = 0;
	s.config.doors = NULL;
	free(given);
}

static void set_up(void)
{
	CHECK(bench_begin(), "a supervisor that serves");
	CHECK_STRING(vm_door_kind_name(s.record.doors[0].kind), "exec", "every VM has an exec door");
	CHECK(s.record.doors[1].id == VM_DOOR_VSOCK_ID &&
			strncmp(s.record.doors[1].endpoint, folder, strlen(folder)) == 0,
		"and a vsock door, at their absolute paths");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	set_up();
	test_open_and_close();
	test_refused();
	test_malformed();
	test_gone();
	test_limits();
	test_hung_worker();
	test_tls();
	doors_take(&s, &err);
	test_full();
	test_start();
	bench_end();
	CHECK(!there(VM_SERVICE_NAME), "its socket goes with it");
	CHECK(path_remove_tree(folder, &err) == 0, "clean up");
	return tap_done();
}
