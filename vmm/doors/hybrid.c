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
 * The other direction is vmm/dial.h: a guest program that connects to host port N gets to vsock.sock_N.
 */
#include "base/cleanup.h"
#include "base/parse.h"
#include "vmm/doors/doors_internal.h"

#include <string.h>
#include <sys/socket.h>

#define LINE_MAX_SIZE 19 /* "CONNECT 4294967295\n" */
#define GREETINGS_MAX 64 /* connections that have not said where to yet */

/** A connection whose line has not come yet. */
struct greeting {
	struct list list; /* in door->visitors, the oldest first */
	struct door *door;
	struct loop_watch watch;
	int fd; /* owned; -1: it is on its way */
	uint64_t begun_ns;
	char line[LINE_MAX_SIZE + 1];
	size_t size;
};

static void greeting_free(struct greeting *g)
{
	loop_remove(g->door->doors->setup.loop, &g->watch);
	list_remove(&g->list);
	g->door->n_visitors--;
	free(g);
}

/** Close a connection that did not say where to. */
static void greeting_end(struct greeting *g)
{
	int fd = g->fd;

	g->door->meter->refused++;
	greeting_free(g);
	close(fd);
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
static void greeting_connect(struct greeting *g)
{
	struct door *door = g->door;
	int64_t port = line_port(g->line);
	uint64_t begun_ns = g->begun_ns;
	int fd = g->fd;

	if (port < 0) {
		greeting_end(g);
		return;
	}
	greeting_free(g);
	passage_begin_vsock(door, fd, (uint32_t)port, true, begun_ns);
}

static void on_greeting(struct loop_watch *watch, uint32_t events)
{
	struct greeting *g = CONTAINER_OF(watch, struct greeting, watch);

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

static void take(struct door *door, int fd, uint64_t begun_ns)
{
	struct greeting *g = calloc(1, sizeof(*g));

	door->meter->connections++;
	if (!g || loop_add(door->doors->setup.loop, &g->watch, fd, EPOLLIN, on_greeting, NULL) < 0) {
		door->meter->refused++;
		free(g);
		close(fd);
		return;
	}
	g->door = door;
	g->fd = fd;
	g->begun_ns = begun_ns;
	list_append(&door->visitors, &g->list);
	if (++door->n_visitors > GREETINGS_MAX)
		greeting_end(CONTAINER_OF(door->visitors.next, struct greeting, list));
}

static void dismiss(struct door *door, struct list *visitor)
{
	(void)door;
	greeting_end(CONTAINER_OF(visitor, struct greeting, list));
}

const struct door_ops hybrid_ops = {.take = take, .dismiss = dismiss};
