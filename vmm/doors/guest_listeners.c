/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_listeners.c - what the workload listens on, as its agent tells
 *
 * Theory of operation: one connection to the agent, LISTENERS, over a socketpair of which the muxer has the other end. Each
 * LISTENING replaces the table; of several that came at once only the last counts. Of a listener its port is kept, and
 * which is the oldest: the address is the agent's business. Everything that is malformed, too long or out of place ends the
 * connection, empties the table and is said in the log; it is not asked again, since a guest that lies once has no better
 * truth.
 */
#include "vmm/doors/doors_internal.h"

#include "base/cleanup.h"

#include <string.h>
#include <sys/socket.h>

#define FRAME_MAX (AGENT_HEADER_SIZE + AGENT_LISTENERS_MAX * AGENT_LISTENER_SIZE)
#define READ_MAX (2 * FRAME_MAX) /* per wake-up */
#define WHY_SIZE 160

void guest_listeners_init(struct guest_listeners *l)
{
	l->state = LISTENERS_UNKNOWN;
	l->fd = -1;
}

static void forget(struct guest_listeners *l)
{
	for (size_t i = 0; i < l->n_ports; i++)
		l->listed[l->ports[i] / 64] = 0;
	l->n_ports = 0;
}

static void disconnect(struct doors *doors)
{
	struct guest_listeners *l = &doors->listeners;

	if (l->token)
		vsock_cancel(steal_pointer(&l->token));
	loop_remove(doors->setup.loop, &l->watch);
	cleanup_fd(&l->fd);
	l->fd = -1;
	buffer_free(&l->in);
}

void guest_listeners_end(struct doors *doors)
{
	disconnect(doors);
	forget(&doors->listeners);
	doors->listeners.state = LISTENERS_UNKNOWN;
}

/** Nothing more is to be heard of the agent: what waits goes on waiting until its time is over. */
static void lose(struct doors *doors, const char *why)
{
	guest_listeners_end(doors);
	doors_say(doors, NULL,
		"the guest's agent tells no listeners any more: %s; connections at the doors now wait in vain", why);
}

uint16_t guest_listeners_find(const struct guest_listeners *l, uint32_t port)
{
	if (port == 0)
		return l->n_ports ? l->ports[0] : 0;
	return port <= UINT16_MAX && l->listed[port / 64] >> port % 64 & 1 ? (uint16_t)port : 0;
}

/** Take a table; false when it is malformed. */
static bool take_table(struct guest_listeners *l, const struct agent_frame *frame)
{
	struct agent_listener listeners[AGENT_LISTENERS_MAX];
	size_t n = AGENT_LISTENERS_MAX;

	if (!agent_listening_get(frame, listeners, &n))
		return false;
	forget(l);
	l->state = LISTENERS_KNOWN;
	l->generation++;
	for (size_t i = 0; i < n; i++) {
		uint16_t port = listeners[i].port;
		l->ports[l->n_ports++] = port;
		l->listed[port / 64] |= 1ull << port % 64;
	}
	return true;
}

/** Take one frame: 0, or -EPROTO with @why; -ENOTSUP when the agent cannot tell. */
static int take_frame(struct guest_listeners *l, const struct agent_frame *frame, char why[WHY_SIZE])
{
	uint32_t value;

	snprintf(why, WHY_SIZE, "it answered with a frame that is malformed or out of place");
	if (!l->greeted) {
		l->greeted = frame->type == AGENT_HELLO && agent_u32_get(frame, &value) && value == AGENT_VERSION;
		return l->greeted ? 0 : -EPROTO;
	}
	if (frame->type == AGENT_LISTENING)
		return take_table(l, frame) ? 0 : -EPROTO;
	if (frame->type == AGENT_ERROR && agent_error_get(frame, &value, why, WHY_SIZE))
		return value == AGENT_ERROR_UNSUPPORTED && l->state == LISTENERS_UNKNOWN ? -ENOTSUP : -EPROTO;
	return -EPROTO;
}

/** Take all whole frames that have come: how many tables, or as take_frame(). */
static int take_frames(struct guest_listeners *l, char why[WHY_SIZE])
{
	uint64_t before = l->generation;
	struct agent_frame frame;
	long n;

	while ((n = l->in.size ? agent_frame_decode(buffer_bytes(&l->in), l->in.size, &frame) : 0) > 0) {
		int rc = take_frame(l, &frame, why);
		if (rc < 0)
			return rc;
		buffer_consume(&l->in, (size_t)n);
	}
	snprintf(why, WHY_SIZE, "it answered with a malformed frame");
	if (n < 0 || l->in.size >= FRAME_MAX)
		return -EPROTO;
	if (l->in.size == 0)
		buffer_free(&l->in);
	return (int)(l->generation - before);
}

static void on_agent(struct loop_watch *watch, uint32_t events)
{
	struct doors *doors = CONTAINER_OF(watch, struct doors, listeners.watch);
	struct guest_listeners *l = &doors->listeners;
	char why[WHY_SIZE];

	(void)events;
	ssize_t n = buffer_read(&l->in, l->fd, READ_MAX - l->in.size);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		lose(doors, "it closed the connection");
		return;
	}
	int rc = take_frames(l, why);
	if (rc == -ENOTSUP) {
		disconnect(doors);
		l->state = LISTENERS_UNSUPPORTED;
		doors_say(doors, NULL, "the guest's agent cannot tell what listens (%s): nobody waits for a port", why);
	} else if (rc < 0) {
		lose(doors, why);
	}
	if (rc > 0 || rc == -ENOTSUP)
		passages_review(doors);
	if (rc > 0 && l->n_ports)
		standbys_want(doors);
}

static void on_connected(void *data, int error)
{
	struct doors *doors = data;

	doors->listeners.token = NULL;
	if (error < 0)
		lose(doors, strerror(-error));
}

static int ask(struct doors *doors, struct husk_error *err)
{
	struct guest_listeners *l = &doors->listeners;
	CLEANUP_BUFFER struct buffer first = {0};
	struct vsock_dial dial = {.port = AGENT_PORT, .first = &first, .connected = on_connected, .data = doors};
	int pair[2];

	if (agent_hello_put(&first) < 0 || agent_frame_put(&first, AGENT_LISTENERS, 0, NULL, 0) < 0)
		return error_set(err, -ENOMEM, "no memory");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return error_errno(err, "make a socket");
	CLEANUP_FD int ours = pair[0], theirs = pair[1];
	int rc = loop_add(doors->setup.loop, &l->watch, ours, EPOLLIN, on_agent, err);
	if (rc < 0)
		return rc;
	l->fd = steal_fd(&ours);
	l->greeted = false;
	return vsock_dial(doors->setup.vsock, steal_fd(&theirs), &dial, &l->token, err);
}

void guest_listeners_ask(struct doors *doors)
{
	struct husk_error err;

	if (doors->listeners.fd < 0 && ask(doors, &err) < 0)
		lose(doors, err.message);
}
