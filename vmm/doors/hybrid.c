/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hybrid.c - vsock.sock: the guest's vsock ports for host programs, in the form that other VMMs use
 *
 * Theory of operation: a host program connects to vsock.sock, says "CONNECT <port>\n" and reads "OK <n>\n" once the guest
 * has accepted; from then on the connection is the guest's. It may send its own first bytes right behind the line, so the
 * line is read byte by byte and no further than its newline. A line that is malformed or longer than a port can
 * be closes the connection, as does a refusal of the guest. Programs that connect and say nothing are limited in number;
 * the oldest gives way.
 *
 * A guest program that connects to host port N is connected to vsock.sock_N where someone listens.
 */
#include "vmm/doors/door.h"

#include "base/cleanup.h"
#include "base/parse.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LINE_MAX_SIZE 19 /* "CONNECT 4294967295\n" */

/** A connection whose line has not come yet. The newest is first in the list. */
struct hybrid_greeting {
	struct hybrid_door *door;
	struct loop_watch watch;
	int fd; /* owned */
	char line[LINE_MAX_SIZE + 1];
	size_t size;
	struct hybrid_greeting *next;
};

static void greeting_end(struct hybrid_greeting *g)
{
	struct hybrid_door *door = g->door;
	struct hybrid_greeting **at = &door->greeting;

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	door->n_greeting--;
	loop_remove(door->loop, &g->watch);
	cleanup_fd(&g->fd);
	free(g);
}

/** The port that a line without its newline asks for, or -1. */
static int64_t line_port(const char *line)
{
	uint64_t port;

	if (strncmp(line, "CONNECT ", 8) != 0 || parse_number(line + 8, "port", 0, UINT32_MAX, &port, NULL) < 0)
		return -1;
	return (int64_t)port;
}

/** The line is whole: on to the guest. */
static void greeting_connect(struct hybrid_greeting *g)
{
	struct hybrid_door *door = g->door;
	int64_t port = line_port(g->line);

	loop_remove(door->loop, &g->watch);
	int fd = port < 0 ? -1 : steal_fd(&g->fd);
	greeting_end(g);
	if (fd >= 0)
		(void)vsock_connect(door->vsock, fd, (uint32_t)port, true, NULL, NULL, NULL);
}

static void on_greeting(struct loop_watch *watch, uint32_t events)
{
	struct hybrid_greeting *g = CONTAINER_OF(watch, struct hybrid_greeting, watch);

	(void)events;
	for (;;) {
		char c;
		ssize_t n = recv(g->fd, &c, 1, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n == 1 && c == '\n') {
			g->line[g->size] = 0;
			greeting_connect(g);
			return;
		}
		if (n <= 0 || c == 0 || g->size == LINE_MAX_SIZE) {
			greeting_end(g);
			return;
		}
		g->line[g->size++] = c;
	}
}

static void take(void *data, int accepted, uint64_t begun_ns)
{
	struct hybrid_door *door = data;
	CLEANUP_FD int fd = accepted;
	struct hybrid_greeting *g, *oldest;

	(void)begun_ns;
	if (fd < 0 || !(g = calloc(1, sizeof(*g))))
		return;
	if (loop_add(door->loop, &g->watch, fd, EPOLLIN | EPOLLRDHUP, on_greeting, NULL) < 0) {
		free(g);
		return;
	}
	g->door = door;
	g->fd = steal_fd(&fd);
	g->next = door->greeting;
	door->greeting = g;
	if (++door->n_greeting <= DOOR_GREETING_MAX)
		return;
	for (oldest = g; oldest->next; oldest = oldest->next)
		;
	greeting_end(oldest);
}

int hybrid_door_open(struct hybrid_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err)
{
	int fd;

	*door = (struct hybrid_door){.loop = loop, .vsock = vsock};
	int rc = listener_bind("vsock.sock", &fd, err);
	return rc < 0 ? rc : listener_open(&door->listener, loop, fd, take, door, err);
}

int hybrid_connect_out(uint32_t port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "vsock.sock_%u", port);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -ECONNREFUSED;
	return steal_fd(&fd);
}
