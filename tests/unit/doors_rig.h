/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors_rig.h - what the tests of the doors stand on: doors, the real muxer, a fake guest, host programs
 *
 * Everything runs on one thread: rig_until() turns the loop until a fact holds. The guest's wait is long (a minute) unless a
 * test asks for a short one, so that nothing ends by the clock that a test did not mean to.
 */
#ifndef TESTS_DOORS_RIG_H
#define TESTS_DOORS_RIG_H

#include "tests/unit/fake_agent.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/descriptors.h"
#include "tests/tap.h"
#include "vmm/doors/doors_internal.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RIG_WAIT_MS 60000

static struct rig {
	struct loop loop;
	struct fake_agent agent;
	struct vm_stats stats;
	struct doors *doors;
	char lines[64][512];
	unsigned n_lines;
	bool quiet; /* lines are not shown */
	unsigned standbys; /* of the next rig_start() */
	struct sockaddr_storage address[VM_DOORS_MAX + 1]; /* of the door with that id */
	socklen_t address_size[VM_DOORS_MAX + 1];
} rig;

static inline void rig_line(void *data, const char *line)
{
	(void)data;
	if (!rig.quiet)
		printf("# log: %s\n", line);
	snprintf(rig.lines[rig.n_lines++ % 64], sizeof(rig.lines[0]), "%s", line);
}

/** The last line has @text in it. */
static inline bool rig_said(const char *text)
{
	return rig.n_lines && strstr(rig.lines[(rig.n_lines - 1) % 64], text);
}

static inline void rig_start(uint64_t listen_wait_ms)
{
	struct husk_error err;
	memset(&rig.stats, 0, sizeof(rig.stats));
	rig.n_lines = 0;
	loop_init(&rig.loop, &err);
	fake_agent_init(&rig.agent, &rig.loop);
	rig.agent.echo = true;
	const struct doors_setup setup = {.loop = &rig.loop,
		.vsock = rig.agent.vsock,
		.stats = &rig.stats,
		.listen_wait_ms = listen_wait_ms,
		.standbys = rig.standbys,
		.log = rig_line};
	if (doors_create(&setup, &rig.doors, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		exit(1);
	}
}

static inline void rig_stop(void)
{
	doors_destroy(rig.doors);
	fake_agent_destroy(&rig.agent);
	loop_destroy(&rig.loop);
}

static inline void rig_turn(unsigned n)
{
	while (n--)
		fake_agent_turn(&rig.agent, 0);
}

/** Turn the loop until @fact holds; ten seconds at the most. */
#define rig_until(fact)                                                                                                \
	({                                                                                                             \
		for (unsigned turns_ = 0; !(fact) && turns_ < 1000; turns_++)                                          \
			fake_agent_turn(&rig.agent, 10);                                                               \
		!!(fact);                                                                                              \
	})

/** A listening socket of @family at an address that the kernel chooses. */
static inline int rig_listen(int family, struct sockaddr_storage *address, socklen_t *size)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (family == AF_UNIX)
		bind(fd, (struct sockaddr *)&un, sizeof(sa_family_t));
	else
		bind(fd, (struct sockaddr *)&in, sizeof(in));
	listen(fd, 4096);
	*size = sizeof(*address);
	getsockname(fd, (struct sockaddr *)address, size);
	return fd;
}

static inline int rig_door(uint32_t id, uint32_t kind, uint32_t guest_port)
{
	struct vm_door door = {.id = id, .kind = kind, .guest_port = guest_port, .endpoint = "here"};
	int family = kind == VM_DOOR_TCP ? AF_INET : AF_UNIX;
	int fd = rig_listen(family, &rig.address[id], &rig.address_size[id]);
	return doors_add(rig.doors, &door, fd, NULL);
}

/** Connect to an address; blocking, with a limit of ten seconds for reads. */
static inline int rig_connect_to(const struct sockaddr_storage *address, socklen_t size)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)address, size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline int rig_connect(uint32_t id)
{
	return rig_connect_to(&rig.address[id], rig.address_size[id]);
}

/** What can be read now: bytes, 0 at the end, -1 nothing yet (or a reset). */
static inline ssize_t rig_peek(int fd)
{
	char bytes[64];
	return recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
}

/** The other end has closed, or reset. */
static inline bool rig_closed(int fd)
{
	ssize_t n = rig_peek(fd);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

/** @text comes back, or in. */
static inline bool rig_reads(int fd, const char *text)
{
	char bytes[256] = "";
	size_t got = 0, want = strlen(text);
	for (unsigned i = 0; got < want && i < 1000; i++) {
		ssize_t n = recv(fd, bytes + got, want - got, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		got += n > 0 ? (size_t)n : 0;
		if (n < 0)
			fake_agent_turn(&rig.agent, 10);
	}
	return got == want && !memcmp(bytes, text, want);
}

/** What is said on @fd comes back from the guest. */
static inline bool rig_echoes(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text) && rig_reads(fd, text);
}

static inline void rig_listening(uint16_t port)
{
	fake_agent_listen(&rig.agent, &port, port ? 1 : 0);
}

/** The agent answers, the workload runs and listens on @port (0: on none). */
static inline void rig_ready(uint16_t port)
{
	rig.agent.ports[0] = port;
	rig.agent.n_ports = port ? 1 : 0;
	doors_agent_ready(rig.doors);
	doors_workload_started(rig.doors);
	rig_until(rig.doors->listeners.state != LISTENERS_UNKNOWN);
}

#endif
