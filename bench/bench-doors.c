/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-doors.c - from a connection to its first byte, through the doors, without a guest
 *
 * One thread is the worker and the guest: doors, muxer and the fake agent of the tests, which echoes. The other is client and
 * router. Three ways, in turn for each sample: a unix door and a TCP door (the clock starts when connect() has returned, then
 * one byte is sent), and a hand-off of a TCP connection with one byte as its prefix (the clock starts before the sendmsg that
 * carries it, in one piece). It stops when the echo of that byte has been read. A new connection each time.
 *
 * Prints a table in microseconds; with --raw one line per way with all samples.
 */
#include "tests/unit/fake_agent.h"

#include "base/fd.h"
#include "vmm/doors/doors.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SAMPLES 3000
#define WARM_UP 200
#define GUEST_PORT 80

enum way { WAY_UNIX, WAY_TCP, WAY_HANDOFF, WAYS };
static const char *const names[WAYS] = {"unix door", "TCP door", "handoff"};

struct address {
	struct sockaddr_storage at;
	socklen_t size;
};

static struct loop loop;
static struct fake_agent agent;
static struct vm_stats stats;
static struct loop_watch done_watch;
static volatile bool done;
static struct address door_address[WAYS], router_address;
static double samples[WAYS][SAMPLES];

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

/* ---- the worker and its guest ---- */

static void on_done(struct loop_watch *watch, uint32_t events)
{
	done = true;
}

static void *worker(void *arg)
{
	while (!done)
		fake_agent_turn(&agent, -1);
	return NULL;
}

/* ---- the host ---- */

static int listen_at(int family, struct address *address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0, "socket");
	if (family == AF_UNIX)
		must(bind(fd, (struct sockaddr *)&un, sizeof(sa_family_t)) == 0, "bind");
	else
		must(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0, "bind");
	must(listen(fd, 128) == 0, "listen");
	address->size = sizeof(address->at);
	getsockname(fd, (struct sockaddr *)&address->at, &address->size);
	return fd;
}

static int connect_to(const struct address *address)
{
	int fd = socket(address->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && connect(fd, (const struct sockaddr *)&address->at, address->size) == 0, "connect");
	return fd;
}

static uint64_t through_door(enum way way)
{
	char byte = 'x';
	int fd = connect_to(&door_address[way]);
	uint64_t begun = clock_monotonic_ns();
	must(send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd, &byte, 1, 0) == 1, "echo");
	uint64_t ns = clock_monotonic_ns() - begun;
	close(fd);
	return ns;
}

static uint64_t handed_over(int router, int listener)
{
	static const uint8_t message[5] = {0, 0, 0, 1, 'x'};
	char byte;
	int client = connect_to(&router_address), server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	must(server >= 0, "accept");
	uint64_t begun = clock_monotonic_ns();
	must(fd_send(router, message, sizeof(message), &server, 1) == sizeof(message), "hand over");
	close(server);
	must(recv(client, &byte, 1, 0) == 1, "echo");
	uint64_t ns = clock_monotonic_ns() - begun;
	close(client);
	return ns;
}

/* ---- the figures ---- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double quantile(enum way way, double q)
{
	return samples[way][(size_t)(q * (SAMPLES - 1))];
}

static void print_table(void)
{
	printf("%-12s %9s %9s %6s %16s\n", "way", "p50 us", "p99 us", "n", "over TCP, p50 us");
	for (enum way way = 0; way < WAYS; way++)
		qsort(samples[way], SAMPLES, sizeof(samples[way][0]), compare);
	for (enum way way = 0; way < WAYS; way++)
		printf("%-12s %9.1f %9.1f %6d %16.1f\n", names[way], quantile(way, .5), quantile(way, .99), SAMPLES,
			quantile(way, .5) - quantile(WAY_TCP, .5));
}

static void print_raw(void)
{
	for (enum way way = 0; way < WAYS; way++) {
		printf("%s:", names[way]);
		for (size_t i = 0; i < SAMPLES; i++)
			printf(" %.2f", samples[way][i]);
		printf("\n");
	}
}

static void measure(void)
{
	int listener = listen_at(AF_INET, &router_address), router = connect_to(&door_address[WAY_HANDOFF]);
	for (int i = -WARM_UP; i < SAMPLES; i++)
		for (enum way way = 0; way < WAYS; way++) {
			uint64_t ns = way == WAY_HANDOFF ? handed_over(router, listener) : through_door(way);
			if (i >= 0)
				samples[way][i] = (double)ns / 1e3;
		}
	close(router);
	close(listener);
}

static void print_line(void *data, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
	static const uint32_t kinds[WAYS] = {VM_DOOR_UNIX, VM_DOOR_TCP, VM_DOOR_HANDOFF};
	static const uint16_t ports[] = {GUEST_PORT};
	struct doors *doors;
	pthread_t thread;
	int stop = eventfd(0, EFD_CLOEXEC);
	must(loop_init(&loop, NULL) == 0, "loop");
	fake_agent_init(&agent, &loop);
	agent.echo = true;
	const struct doors_setup setup = {
		.loop = &loop, .vsock = agent.vsock, .stats = &stats, .listen_wait_ms = 10000, .log = print_line};
	must(doors_create(&setup, &doors, NULL) == 0, "doors");
	for (enum way way = 0; way < WAYS; way++) {
		struct vm_door door = {
			.id = way + 1, .kind = kinds[way], .guest_port = GUEST_PORT, .endpoint = "bench"};
		int fd = listen_at(way == WAY_TCP ? AF_INET : AF_UNIX, &door_address[way]);
		must(doors_add(doors, &door, fd, NULL) == 0, "door");
	}
	fake_agent_listen(&agent, ports, 1);
	doors_agent_ready(doors);
	doors_workload_started(doors);
	must(loop_add(&loop, &done_watch, stop, EPOLLIN, on_done, NULL) == 0, "watch");
	must(pthread_create(&thread, NULL, worker, NULL) == 0, "thread");
	measure();
	eventfd_write(stop, 1);
	pthread_join(thread, NULL);
	doors_destroy(doors);
	fake_agent_destroy(&agent);
	if (argc > 1 && strcmp(argv[1], "--raw") == 0)
		print_raw();
	else
		print_table();
	return 0;
}
