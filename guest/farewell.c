/* SPDX-License-Identifier: Apache-2.0 */
/*
 * farewell.c - sockets whose forward was reset by the host
 *
 * Theory of operation: closing a TCP socket with a reset throws away what it has not sent yet. A service that reads slowly
 * would so miss bytes that the host sent before its reset, while an orderly close would hide the reset. So the socket alone
 * outlives its forward, until it has nothing unsent: TCP_NOTSENT_LOWAT makes that what EPOLLOUT means. What has been sent but
 * not acknowledged is in the service's queue, since both are on this machine. The time limit is one for all, so that the list
 * is in the order of the deadlines.
 */
#include "guest/farewell.h"

#include "base/cleanup.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define FAREWELLS_MAX 256
#define FAREWELL_MS 5000

struct leaving {
	struct farewells *all;
	struct loop_watch socket;
	struct leaving *prev, *next;
	uint64_t deadline_ns;
};

struct farewells {
	struct loop *loop;
	struct loop_watch timer;
	struct leaving *first, *last;
	size_t n;
};

void close_with_reset(int fd)
{
	const struct linger at_once = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void leaving_end(struct leaving *l)
{
	struct farewells *all = l->all;

	*(l->prev ? &l->prev->next : &all->first) = l->next;
	*(l->next ? &l->next->prev : &all->last) = l->prev;
	all->n--;
	loop_remove(all->loop, &l->socket);
	close_with_reset(l->socket.fd);
	free(l);
}

/** All has been sent, or the service has gone. */
static void socket_ready(struct loop_watch *watch, uint32_t events)
{
	leaving_end(CONTAINER_OF(watch, struct leaving, socket));
}

static void deadline_passed(struct loop_watch *watch, uint32_t events)
{
	struct farewells *all = CONTAINER_OF(watch, struct farewells, timer);
	uint64_t expirations, now = clock_monotonic_ns();

	if (read(watch->fd, &expirations, sizeof(expirations)) < 0)
		return;
	while (all->first && all->first->deadline_ns <= now)
		leaving_end(all->first);
	if (all->first)
		loop_timer_set(&all->timer, (all->first->deadline_ns - now) / 1000000 + 1);
}

void farewell(struct farewells *all, int fd)
{
	const int below_one = 1; /* bytes unsent */
	int unsent;

	if (ioctl(fd, SIOCOUTQNSD, &unsent) == 0 && !unsent)
		return close_with_reset(fd);
	struct leaving *l = all->n < FAREWELLS_MAX ? calloc(1, sizeof(*l)) : NULL;

	if (!l || setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &below_one, sizeof(below_one)) < 0 ||
		loop_add(all->loop, &l->socket, fd, EPOLLOUT, socket_ready, NULL) < 0) {
		free(l);
		return close_with_reset(fd);
	}
	l->all = all;
	l->deadline_ns = clock_monotonic_ns() + FAREWELL_MS * 1000000ull;
	l->prev = all->last;
	if (!all->first)
		loop_timer_set(&all->timer, FAREWELL_MS);
	*(all->last ? &all->last->next : &all->first) = l;
	all->last = l;
	all->n++;
}

int farewells_open(struct loop *loop, struct farewells **out, struct husk_error *err)
{
	CLEANUP_FREE struct farewells *all = calloc(1, sizeof(*all));
	if (!all)
		return error_set(err, -ENOMEM, "prepare forwards: out of memory");
	all->loop = loop;
	int rc = loop_timer_open(loop, &all->timer, deadline_passed, err);
	if (rc == 0)
		*out = steal_pointer(&all);
	return rc;
}
