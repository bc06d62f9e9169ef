/* SPDX-License-Identifier: Apache-2.0 */
/* port_stream.c - a console's port tied to descriptors (theory of operation: port_stream.h) */
#include "vmm/virtio/port_stream.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define FLUSH_MS 2000 /* at the end, for a reader that is slow but there */
#define INPUT_BYTES 4096

/** One of the two descriptors: ours, a copy. */
struct side {
	struct loop_watch watch; /* added while there is something to wait for; fd -1: none */
	bool socket;
	bool restore; /* it was blocking */
};

struct port_stream {
	struct loop *loop;
	struct virtio_console *console;
	unsigned port;
	struct side output, input;
	int error;
	size_t at, n; /* input[at, n) waits for the guest */
	char bytes[INPUT_BYTES];
};

static int side_open(struct side *side, int fd, struct husk_error *err)
{
	struct stat st;
	side->watch.fd = -1;
	if (fd < 0)
		return 0;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return error_errno(err, "copy a console's descriptor");
	side->watch.fd = copy;
	int flags = fcntl(copy, F_GETFL);
	if (fstat(copy, &st) < 0 || flags < 0)
		return error_errno(err, "look at a console's descriptor");
	side->socket = S_ISSOCK(st.st_mode);
	side->restore = !side->socket && !S_ISREG(st.st_mode) && !(flags & O_NONBLOCK);
	if (!side->restore)
		return 0;
	int rc = fd_set_nonblocking(copy, true);
	return rc < 0 ? error_set(err, rc, "make a console's descriptor non-blocking") : 0;
}

static void side_close(struct loop *loop, struct side *side)
{
	int fd = side->watch.fd;
	loop_remove(loop, &side->watch);
	if (fd >= 0 && side->restore)
		fd_set_nonblocking(fd, false);
	side->watch.fd = -1;
	cleanup_fd(&fd);
}

static int side_wait(struct port_stream *s, struct side *side, uint32_t events, loop_fn *fn)
{
	return side->watch.added ? 0 : loop_add(s->loop, &side->watch, side->watch.fd, events, fn, NULL);
}

/* ---- output ---- */

static void on_room(struct loop_watch *watch, uint32_t events)
{
	struct port_stream *s = CONTAINER_OF(watch, struct port_stream, output.watch);
	loop_remove(s->loop, watch);
	vconsole_resume(s->console, s->port);
}

static ssize_t put(const struct side *side, const struct iovec *iov, unsigned n_iov)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov};
	ssize_t n;
	do
		n = side->socket ? sendmsg(side->watch.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL)
				 : writev(side->watch.fd, iov, (int)n_iov);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static size_t on_output(void *data, const struct iovec *iov, unsigned n_iov)
{
	struct port_stream *s = data;
	size_t total = 0;
	for (unsigned i = 0; i < n_iov; i++)
		total += iov[i].iov_len;
	if (s->output.watch.fd < 0 || s->error)
		return total;
	ssize_t n = put(&s->output, iov, n_iov);
	if (n < 0 && n != -EAGAIN)
		s->error = (int)n;
	else if (n < (ssize_t)total)
		s->error = side_wait(s, &s->output, EPOLLOUT, on_room);
	if (s->error)
		return total;
	return n > 0 ? (size_t)n : 0;
}

/* ---- input ---- */

static void on_input(struct loop_watch *watch, uint32_t events);

/** Hand on what waits; when it is gone, wait for more. */
static void feed(struct port_stream *s)
{
	if (s->at < s->n)
		s->at += vconsole_input(s->console, s->port, s->bytes + s->at, s->n - s->at);
	if (s->at < s->n)
		loop_remove(s->loop, &s->input.watch); /* until input_wanted() */
	else if (s->input.watch.fd >= 0)
		side_wait(s, &s->input, EPOLLIN, on_input);
}

static void on_input(struct loop_watch *watch, uint32_t events)
{
	struct port_stream *s = CONTAINER_OF(watch, struct port_stream, input.watch);
	ssize_t n = s->input.socket ? recv(watch->fd, s->bytes, sizeof(s->bytes), MSG_DONTWAIT)
				    : read(watch->fd, s->bytes, sizeof(s->bytes));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* the end: a console has no way to tell its guest */
		side_close(s->loop, &s->input);
		return;
	}
	s->at = 0;
	s->n = (size_t)n;
	feed(s);
}

static void on_input_wanted(void *data)
{
	feed(data);
}

static const struct vconsole_end stream_end = {.output = on_output, .input_wanted = on_input_wanted};

/* ---- the stream ---- */

static void stream_free(struct port_stream **stream)
{
	struct port_stream *s = *stream;
	if (!s)
		return;
	side_close(s->loop, &s->output);
	side_close(s->loop, &s->input);
	free(s);
}

int port_stream_create(struct loop *loop, struct virtio_console *console, unsigned port, int output, int input,
	struct port_stream **out, struct husk_error *err)
{
	CLEANUP(stream_free) struct port_stream *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "no memory for a console's stream");
	s->loop = loop;
	s->console = console;
	s->port = port;
	s->output.watch.fd = s->input.watch.fd = -1;
	int rc = side_open(&s->output, output, err);
	rc = rc < 0 ? rc : side_open(&s->input, input, err);
	if (rc < 0)
		return rc;
	if (s->input.watch.fd >= 0) {
		rc = loop_add(loop, &s->input.watch, s->input.watch.fd, EPOLLIN, on_input, err);
		if (rc < 0)
			return rc;
	}
	vconsole_set_end(console, port, &stream_end, s);
	*out = steal_pointer(&s);
	return 0;
}

int port_stream_error(const struct port_stream *s)
{
	return s->error;
}

int port_stream_flush(struct port_stream *s, unsigned ms)
{
	uint64_t now = clock_monotonic_ns(), deadline = now + ms * 1000000ULL;
	while (!s->error && vconsole_waiting(s->console, s->port)) {
		vconsole_resume(s->console, s->port);
		now = clock_monotonic_ns();
		if (now >= deadline)
			return vconsole_waiting(s->console, s->port) ? -ETIMEDOUT : s->error;
		struct pollfd room = {.fd = s->output.watch.fd, .events = POLLOUT};
		if (s->output.watch.added) /* it did not take all */
			poll(&room, 1, (int)((deadline - now + 999999) / 1000000));
	}
	return s->error;
}

int port_stream_destroy(struct port_stream *s)
{
	if (!s)
		return 0;
	int rc = port_stream_flush(s, FLUSH_MS);
	vconsole_set_end(s->console, s->port, NULL, NULL);
	stream_free(&s);
	return rc;
}
