/* SPDX-License-Identifier: Apache-2.0 */
/* listener.c - a listening socket in the event loop (theory of operation: listener.h) */
#include "vmm/doors/listener.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <sys/socket.h>

enum accepted { ACCEPTED, ACCEPT_AGAIN, ACCEPT_DRY, ACCEPT_STUCK };

/** Take a connection with the spare descriptor's number, and close it. */
static enum accepted shed(struct listener *l)
{
	if (l->spare < 0)
		return ACCEPT_STUCK;
	close(steal_fd(&l->spare));
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	bool dry = fd < 0 && errno == EAGAIN; /* EMFILE is said before the backlog is looked at */
	if (fd >= 0)
		close(fd);
	l->spare = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
	return fd >= 0 ? ACCEPTED : dry ? ACCEPT_DRY : ACCEPT_STUCK;
}

/** Accept one connection into *@fd; -1 there with ACCEPTED: it was closed for want of descriptors. */
static enum accepted accept_one(struct listener *l, int *fd)
{
	*fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (*fd >= 0)
		return ACCEPTED;
	switch (errno) {
	case EAGAIN:
		return ACCEPT_DRY;
	case EMFILE:
		return shed(l);
	case EINTR: /* and what Linux tells of the connection alone: accept(2), "Error handling" */
	case ECONNABORTED:
	case EPROTO:
	case ENOPROTOOPT:
	case EPERM:
	case ENETDOWN:
	case ENETUNREACH:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case ENONET:
	case EOPNOTSUPP:
	case ETIMEDOUT:
		return ACCEPT_AGAIN;
	default: /* ENFILE, ENOBUFS, ENOMEM: not ours to cure; others: somebody broke the socket */
		return ACCEPT_STUCK;
	}
}

static void on_wake(struct loop_watch *watch, uint32_t events)
{
	struct listener *l = CONTAINER_OF(watch, struct listener, watch);

	(void)events;
	if (l->spare < 0)
		l->spare = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
	for (unsigned i = 0; i < LISTENER_BUDGET && l->watch.added; i++) {
		uint64_t begun = clock_monotonic_ns();
		int fd;
		enum accepted result = accept_one(l, &fd);
		if (result == ACCEPTED)
			l->take(l->data, fd, begun);
		else if (result == ACCEPT_DRY)
			return;
		else if (result == ACCEPT_STUCK) {
			loop_remove(l->loop, &l->watch);
			loop_timer_set(&l->timer, LISTENER_PAUSE_MS);
		}
	}
}

static void on_timer(struct loop_watch *watch, uint32_t events)
{
	struct listener *l = CONTAINER_OF(watch, struct listener, timer);

	(void)events;
	loop_timer_set(&l->timer, 0);
	if (!l->watch.added && loop_add(l->loop, &l->watch, l->fd, EPOLLIN, on_wake, NULL) < 0)
		loop_timer_set(&l->timer, LISTENER_PAUSE_MS);
}

int listener_open(struct listener *l, struct loop *loop, int fd, void (*take)(void *data, int fd, uint64_t begun_ns),
	void *data, struct husk_error *err)
{
	CLEANUP_FD int owned = fd;
	int listening = 0;
	socklen_t size = sizeof(listening);

	*l = (struct listener){.loop = loop, .fd = -1, .spare = -1, .take = take, .data = data};
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
		return error_errno(err, "open a door on descriptor %d", fd);
	if (!listening)
		return error_set(err, -EINVAL, "open a door on descriptor %d: the socket does not listen", fd);
	if (fd_set_nonblocking(fd, true) < 0 || fd_set_cloexec(fd, true) < 0)
		return error_errno(err, "open a door on descriptor %d", fd);
	int rc = loop_timer_open(loop, &l->timer, on_timer, err);
	if (rc < 0)
		return rc;
	rc = loop_add(loop, &l->watch, fd, EPOLLIN, on_wake, err);
	if (rc < 0) {
		loop_timer_close(loop, &l->timer);
		return rc;
	}
	l->fd = steal_fd(&owned);
	l->spare = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
	return 0;
}

void listener_close(struct listener *l)
{
	if (l->fd < 0)
		return;
	loop_remove(l->loop, &l->watch);
	loop_timer_close(l->loop, &l->timer);
	cleanup_fd(&l->spare);
	cleanup_fd(&l->fd);
	l->fd = l->spare = -1;
}
