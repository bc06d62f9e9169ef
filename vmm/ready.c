/* SPDX-License-Identifier: Apache-2.0 */
/* ready.c - the agent's announcement that the guest is ready (theory of operation: ready.h) */
#include "vmm/ready.h"

#include "agent/protocol.h"
#include "base/cleanup.h"

#include <sys/socket.h>

static void end(struct ready *r)
{
	loop_remove(r->loop, &r->watch);
	cleanup_fd(&r->fd);
	r->fd = -1;
	buffer_free(&r->in);
}

/** Take HELLO and READY from the front: 1 when both came, 0 when more bytes are needed, -EPROTO. */
static int take(const struct buffer *in)
{
	struct agent_frame frame;
	uint32_t version;

	if (in->size == 0)
		return 0;
	long n = agent_frame_decode(buffer_bytes(in), in->size, &frame);
	if (n <= 0)
		return n < 0 ? -EPROTO : 0;
	if (frame.type != AGENT_HELLO || !agent_u32_get(&frame, &version) || version != AGENT_VERSION)
		return -EPROTO;
	if (in->size == (size_t)n)
		return 0;
	long m = agent_frame_decode(buffer_bytes(in) + n, in->size - (size_t)n, &frame);
	if (m <= 0)
		return m < 0 ? -EPROTO : 0;
	return frame.type == AGENT_READY ? 1 : -EPROTO;
}

static void on_ready(struct loop_watch *watch, uint32_t events)
{
	struct ready *r = CONTAINER_OF(watch, struct ready, watch);
	ssize_t n = buffer_read(&r->in, r->fd, READY_MAX - r->in.size);

	(void)events;
	if (n == -EAGAIN || n == -EINTR)
		return;
	int rc = n > 0 ? take(&r->in) : -EPROTO;
	if (rc == 0 && r->in.size < READY_MAX)
		return;
	end(r);
	if (rc != 1)
		return;
	r->done = true;
	r->ready(r->data);
}

void ready_init(struct ready *r, struct loop *loop, void (*fn)(void *data), void *data)
{
	*r = (struct ready){.loop = loop, .fd = -1, .ready = fn, .data = data};
}

int ready_accept(struct ready *r)
{
	int pair[2];

	if (r->done || r->fd >= 0)
		return -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	if (loop_add(r->loop, &r->watch, pair[0], EPOLLIN, on_ready, NULL) < 0) {
		close(pair[0]);
		close(pair[1]);
		return -ENOMEM;
	}
	r->fd = pair[0];
	return pair[1];
}
