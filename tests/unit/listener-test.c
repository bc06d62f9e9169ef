/* SPDX-License-Identifier: Apache-2.0 */
/* listener-test.c - acceptors when all goes well, when descriptors run out, when the socket breaks */
#include "vmm/doors/listener.h"

#include "base/cleanup.h"
#include "tests/descriptors.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MANY 256

static struct loop loop;
static struct listener listener;
static struct sockaddr_storage address;
static socklen_t address_size;
static int taken[MANY], n_taken, n_shed;

static void take(void *data, int fd, uint64_t begun_ns)
{
	if (fd < 0)
		n_shed++;
	else if (n_taken < MANY)
		taken[n_taken++] = fd;
}

static void forget_taken(void)
{
	while (n_taken)
		close(taken[--n_taken]);
	n_shed = 0;
}

/** Listen on an address that the kernel chooses. */
static bool open_listener(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr *any = family == AF_UNIX ? (struct sockaddr *)&un : (struct sockaddr *)&in;
	bind(fd, any, family == AF_UNIX ? sizeof(sa_family_t) : sizeof(in));
	listen(fd, MANY);
	address_size = sizeof(address);
	getsockname(fd, (struct sockaddr *)&address, &address_size);
	return listener_open(&listener, &loop, fd, take, NULL, NULL) == 0;
}

static int client(void)
{
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, address_size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/** No descriptor can be made any more; returns the limit to restore. */
static rlim_t exhaust(void)
{
	struct rlimit limit;
	int next = dup(0);
	close(next);
	getrlimit(RLIMIT_NOFILE, &limit);
	rlim_t old = limit.rlim_cur;
	limit.rlim_cur = (rlim_t)next;
	setrlimit(RLIMIT_NOFILE, &limit);
	return old;
}

static void restore(rlim_t old)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = old;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void test_accept(int family)
{
	int clients[LISTENER_BUDGET + 8];
	CHECK(open_listener(family), "a listening socket is taken");
	for (unsigned i = 0; i < ARRAY_SIZE(clients); i++)
		clients[i] = client();
	loop_round(&loop, 1000, NULL);
	CHECK(n_taken == LISTENER_BUDGET, "a wake-up takes as many connections as its budget");
	loop_round(&loop, 1000, NULL);
	CHECK(n_taken == LISTENER_BUDGET + 8, "the next one those that are left");
	CHECK((fcntl(taken[0], F_GETFL) & O_NONBLOCK) && fcntl(taken[0], F_GETFD) == FD_CLOEXEC,
		"they are non-blocking and close-on-exec");
	for (unsigned i = 0; i < ARRAY_SIZE(clients); i++)
		close(clients[i]);
	forget_taken();
	listener_close(&listener);
}

static void test_no_descriptors(void)
{
	char byte;
	open_listener(AF_UNIX);
	int a = client(), b = client();
	rlim_t old = exhaust();
	loop_round(&loop, 1000, NULL);
	CHECK(n_taken == 0 && n_shed == 2 && listener.spare >= 0 && listener.watch.added,
		"without descriptors connections are closed");
	CHECK(read(a, &byte, 1) == 0 && read(b, &byte, 1) == 0, "and their clients hear of it");
	restore(old);
	close(a);
	close(b);

	n_shed = 0;
	a = client();
	close(listener.spare);
	listener.spare = dup(0);
	old = exhaust();
	close(listener.spare);
	listener.spare = -1;
	int thief = dup(0); /* what the spare held is somebody else's now */
	CHECK(dup(0) < 0 && errno == EMFILE, "all descriptors are in use");
	loop_round(&loop, 1000, NULL);
	CHECK(!listener.watch.added && n_shed == 0, "without a spare one the acceptor pauses");
	uint64_t begun = clock_monotonic_ns();
	loop_round(&loop, 10, NULL);
	CHECK(clock_monotonic_ns() - begun >= 9000000, "and does not spin");
	close(thief);
	restore(old);
	loop_round(&loop, -1, NULL);
	CHECK(listener.watch.added, "its timer brings it back");
	loop_round(&loop, -1, NULL);
	CHECK(n_taken == 1 && listener.spare >= 0, "and the client that waited is served");
	close(a);
	forget_taken();
	listener_close(&listener);
}

static void test_broken(void)
{
	struct husk_error err = {0};
	open_listener(AF_INET);
	shutdown(listener.fd, SHUT_RD); /* by somebody who has the socket, too */
	loop_round(&loop, 1000, NULL);
	uint64_t begun = clock_monotonic_ns();
	loop_round(&loop, 10, NULL);
	CHECK(clock_monotonic_ns() - begun >= 9000000, "a socket that was shut down does not make the loop spin");
	listener_close(&listener);
	listener_close(&listener);
	CHECK(listener_open(&listener, &loop, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), take, NULL, &err) ==
			-EINVAL,
		"a socket that does not listen is refused");
	CHECK(listener_open(&listener, &loop, open("/dev/null", O_RDONLY | O_CLOEXEC), take, NULL, &err) == -ENOTSOCK,
		"so is what is no socket");
}

int main(void)
{
	loop_init(&loop, NULL);
	unsigned before = count_descriptors();
	test_accept(AF_UNIX);
	test_accept(AF_INET);
	test_no_descriptors();
	test_broken();
	CHECK(count_descriptors() == before, "no descriptor is left");
	loop_destroy(&loop);
	return tap_done();
}
