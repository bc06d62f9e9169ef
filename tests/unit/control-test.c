/* SPDX-License-Identifier: Apache-2.0 */
/* control-test.c - messages on sockets: whole ones, malformed ones, with descriptors, and the end */
#include "vmm/control.h"

#include "base/fd.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int taken;
static uint32_t last;

static void take(void *data, const struct vm_message *message)
{
	taken++;
	last = message->value;
}

/** True when nothing is open at @fd. */
static bool closed(int fd)
{
	return fcntl(fd, F_GETFD) < 0;
}

static void test_receive(int a, int b)
{
	struct vm_message out = {.kind = VM_CONTROL_SIGNAL, .value = 15}, in;
	char beyond[sizeof(out) + 1] = "";
	int fds[2] = {-1, -1}, null[2] = {open("/dev/null", O_RDONLY), open("/dev/null", O_RDONLY)};
	size_t n = 1;
	int lowest = dup(0);
	close(lowest);
	CHECK(vm_message_receive(b, &in) == -EAGAIN, "an empty socket has nothing");
	vm_message_send(a, &out);
	CHECK(vm_message_receive(b, &in) == 1 && in.value == 15, "a message comes whole");
	memcpy(beyond, &out, sizeof(out));
	fd_send(a, beyond, sizeof(beyond), NULL, 0);
	CHECK(vm_message_receive(b, &in) == -EAGAIN, "one that is too long is malformed");
	fd_send(a, &out, sizeof(out) - 1, null, 1);
	CHECK(vm_message_receive_fds(b, &in, fds, &n) == -EAGAIN && n == 0, "so is one that is too short");
	CHECK(closed(lowest), "and its descriptor is closed");
	fd_send(a, &out, sizeof(out), null, 1);
	CHECK(vm_message_receive(b, &in) == -EAGAIN && closed(lowest), "a descriptor that nobody asked for is closed");
	n = 1;
	fd_send(a, &out, sizeof(out), null, 2);
	CHECK(vm_message_receive_fds(b, &in, fds, &n) == -EAGAIN && n == 0 && closed(lowest),
		"so are two where one was asked for");
	n = 1;
	fd_send(a, &out, sizeof(out), null, 1);
	CHECK(vm_message_receive_fds(b, &in, fds, &n) == 1 && n == 1 && fcntl(fds[0], F_GETFD) == FD_CLOEXEC,
		"one descriptor comes with its message, close-on-exec");
	close(fds[0]);
	struct vm_message door = {.kind = VM_CONTROL_EXPOSE, .door = {.id = 3, .kind = VM_DOOR_UNIX, .endpoint = "/x"}};
	struct rlimit files, none;
	getrlimit(RLIMIT_NOFILE, &files);
	none = files;
	none.rlim_cur = (rlim_t)lowest; /* no descriptor is left */
	fd_send(a, &door, sizeof(door), null, 1);
	setrlimit(RLIMIT_NOFILE, &none);
	n = 1;
	int rc = vm_message_receive_fds(b, &in, fds, &n);
	setrlimit(RLIMIT_NOFILE, &files);
	CHECK(rc == 1 && n == 0 && in.door.id == 3,
		"a door whose descriptor cannot be taken comes without it, to be answered");
	fd_send(a, &door, offsetof(struct vm_message, door), null, 2);
	n = 1;
	CHECK(vm_message_receive_fds(b, &in, fds, &n) == -EAGAIN, "unless it is malformed as well");
	close(null[0]);
	close(null[1]);
}

static void test_end(int a, int b)
{
	struct vm_message out = {.kind = VM_CONTROL_SIGNAL, .value = 9}, in;
	send(a, "", 0, 0);
	CHECK(vm_message_receive(b, &in) == -EAGAIN, "a packet without a byte is no end");
	send(a, "", 0, 0);
	vm_message_send(a, &out);
	close(a);
	CHECK(vm_message_receive(b, &in) == -EAGAIN, "nor is it one while a message stands behind it");
	CHECK(vm_message_receive(b, &in) == 1 && in.value == 9, "which comes after the sender has gone");
	CHECK(vm_message_receive(b, &in) == 0, "and then is the end");
	close(b);
}

static void test_control(void)
{
	struct control control;
	struct loop loop;
	int pair[2];
	struct vm_message out = {.kind = VM_CONTROL_SIGNAL, .value = 2};
	loop_init(&loop, NULL);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	CHECK(control_open(&control, &loop, pair[1], take, NULL, NULL) == 0, "a control socket is watched");
	send(pair[0], "", 0, 0);
	vm_message_send(pair[0], &out);
	loop_round(&loop, 1000, NULL);
	loop_round(&loop, 1000, NULL);
	CHECK(taken == 1 && last == 2, "what is said on it is taken, also behind an empty packet");
	close(pair[0]);
	loop_round(&loop, 1000, NULL);
	CHECK(control.fd < 0 && closed(pair[1]), "at its end it is closed");
	control_close(&control);
	loop_destroy(&loop);
}

int main(void)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return 1;
	test_receive(pair[0], pair[1]);
	test_end(pair[0], pair[1]);
	test_control();
	return tap_done();
}
