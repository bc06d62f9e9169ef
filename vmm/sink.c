/* SPDX-License-Identifier: Apache-2.0 */
/* sink.c - a guest's console on the caller's descriptors (theory of operation: sink.h) */
#include "vmm/sink.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define SETTLE_READS 1024 /* bounded: a guest that writes on must not keep us */

static size_t room(const struct sink *s)
{
	return s->room - s->held_size;
}

/** The caller takes no more. */
static void lose_out(struct sink *s)
{
	loop_remove(s->loop, &s->out_watch);
	cleanup_fd(&s->out);
	s->out = -1;
	s->held_size = s->held_at = 0;
}

static bool read_once(struct sink *s);

/** Take in what the guest has said by now: true when nothing of it waits, here or on its way. While the buffer was full the
 *  rest of it stayed with the guest, or in the stream. */
static bool settled(struct sink *s)
{
	for (unsigned i = 0; i < SETTLE_READS && read_once(s); i++)
		;
	bool waiting = s->held_size;
	for (unsigned port = 0; s->vconsole && port < VCONSOLE_PORTS; port++)
		waiting |= (s->ports >> port & 1) && vconsole_waiting(s->vconsole, port);
	return !waiting;
}

/** There is room, or nobody to keep it for. */
static void go_on(struct sink *s)
{
	if (s->guest >= 0)
		loop_modify(s->loop, &s->guest_watch, EPOLLIN | (s->typed_at < s->typed_size ? EPOLLOUT : 0));
	for (unsigned port = 0; s->vconsole && port < VCONSOLE_PORTS; port++)
		if (s->ports >> port & 1)
			vconsole_resume(s->vconsole, port);
	if (s->idle && settled(s))
		s->idle(s->data);
}

/** Write what is held; true when all of it is gone. */
static bool flush(struct sink *s)
{
	while (s->held_size && s->out >= 0) {
		ssize_t n = write(s->out, s->held + s->held_at, s->held_size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && !s->lossy)
			return false;
		if (n < 0 && errno == EAGAIN) {
			s->held_size = 0;
		} else if (n <= 0) {
			lose_out(s);
		} else {
			s->held_at += (size_t)n;
			s->held_size -= (size_t)n;
		}
	}
	s->held_at = s->held_size ? s->held_at : 0;
	return true;
}

static void on_out(struct loop_watch *watch, uint32_t events)
{
	struct sink *s = CONTAINER_OF(watch, struct sink, out_watch);

	(void)events;
	if (!flush(s))
		return;
	loop_remove(s->loop, &s->out_watch);
	go_on(s);
}

/** Hold @n bytes, for which there is room, and write what can be written. */
static void hold(struct sink *s, const uint8_t *bytes, size_t n)
{
	if (s->held_at + s->held_size + n > s->room) {
		memmove(s->held, s->held + s->held_at, s->held_size);
		s->held_at = 0;
	}
	uint8_t *copy = s->held + s->held_at + s->held_size;
	memcpy(copy, bytes, n); /* once: they may be the guest's, who changes them */
	if (s->log)
		console_write(s->log, copy, n);
	s->held_size += s->out >= 0 ? n : 0;
}

static void push(struct sink *s)
{
	if (s->out < 0 || s->out_watch.added || flush(s))
		return;
	if (loop_add(s->loop, &s->out_watch, s->out, EPOLLOUT, on_out, NULL) < 0)
		lose_out(s);
}

void sink_early(struct sink *s, const void *bytes, size_t n)
{
	size_t fits = n < room(s) ? n : room(s); /* of what is more than the buffer, a lossy sink does not take that either */

	hold(s, bytes, fits);
	push(s);
	if (s->log && fits < n)
		console_write(s->log, (const uint8_t *)bytes + fits, n - fits);
}

/* ---- what the caller sends ---- */

/** Hand the guest what waits for it; true when all of it is gone. */
static bool feed(struct sink *s)
{
	while (s->typed_at < s->typed_size) {
		const uint8_t *bytes = s->typed + s->typed_at;
		size_t left = s->typed_size - s->typed_at;
		ssize_t n = 0;
		if (s->vconsole)
			n = (ssize_t)vconsole_input(s->vconsole, s->input_port, bytes, left);
		else if (s->guest >= 0)
			n = send(s->guest, bytes, left, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			n = (ssize_t)left; /* a console that is gone hears nothing */
		if (n <= 0)
			return false;
		s->typed_at += (size_t)n;
	}
	return true;
}

static void on_in(struct loop_watch *watch, uint32_t events)
{
	struct sink *s = CONTAINER_OF(watch, struct sink, in_watch);

	(void)events;
	ssize_t n = read(s->in, s->typed, sizeof(s->typed));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* the end: a console has no way to tell its guest */
		loop_remove(s->loop, watch);
		cleanup_fd(&s->in);
		s->in = -1;
		return;
	}
	s->typed_at = 0;
	s->typed_size = (size_t)n;
	if (feed(s))
		return;
	loop_remove(s->loop, watch); /* until the guest has taken that */
	if (s->guest >= 0)
		loop_modify(s->loop, &s->guest_watch, s->guest_watch.events | EPOLLOUT);
}

/** The guest can take input again. */
static void on_wanted(void *data)
{
	struct sink *s = data;

	if (!feed(s) || s->in < 0 || s->in_watch.added)
		return;
	if (loop_add(s->loop, &s->in_watch, s->in, EPOLLIN, on_in, NULL) < 0)
		cleanup_fd(&s->in), s->in = -1;
}

/* ---- the guest's side: a stream ---- */

static void end_guest(struct sink *s)
{
	loop_remove(s->loop, &s->guest_watch);
	cleanup_fd(&s->guest);
	s->guest = -1;
}

/** One read; false when there is nothing, or no room. */
static bool read_once(struct sink *s)
{
	uint8_t bytes[4096];
	size_t want = room(s) < sizeof(bytes) ? room(s) : sizeof(bytes);

	if (s->guest < 0 || !want)
		return false;
	ssize_t n = read(s->guest, bytes, want);
	if (n > 0) {
		hold(s, bytes, (size_t)n);
		push(s);
		return true;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		end_guest(s);
	return false;
}

static void read_guest(struct sink *s)
{
	read_once(s);
	if (s->guest >= 0 && !room(s))
		loop_modify(s->loop, &s->guest_watch, s->guest_watch.events & ~(uint32_t)EPOLLIN);
}

static void on_guest(struct loop_watch *watch, uint32_t events)
{
	struct sink *s = CONTAINER_OF(watch, struct sink, guest_watch);

	if (events & EPOLLOUT) {
		on_wanted(s);
		if (s->typed_at == s->typed_size)
			loop_modify(s->loop, watch, watch->events & ~(uint32_t)EPOLLOUT);
	}
	if (events & ~(uint32_t)EPOLLOUT)
		read_guest(s);
}

int sink_tie_stream(struct sink *s, int fd, struct husk_error *err)
{
	uint8_t *larger = realloc(s->held, SINK_STREAM_ROOM); /* of which only what is used becomes memory */
	if (larger) {
		s->held = larger;
		s->room = SINK_STREAM_ROOM;
	}
	s->guest = fd;
	int rc = fd_set_nonblocking(fd, true);
	return rc < 0 ? error_set(err, rc, "make the guest's console non-blocking")
		      : loop_add(s->loop, &s->guest_watch, fd, EPOLLIN, on_guest, err);
}

/* ---- the guest's side: ports of our own device ---- */

static size_t on_output(void *data, const struct iovec *iov, unsigned n_iov)
{
	struct sink *s = data;
	size_t taken = 0;

	for (unsigned i = 0; i < n_iov && room(s); i++) {
		size_t at = 0, n;
		while (at < iov[i].iov_len && room(s)) {
			n = iov[i].iov_len - at < room(s) ? iov[i].iov_len - at : room(s);
			hold(s, (const uint8_t *)iov[i].iov_base + at, n);
			at += n;
			if (!room(s))
				push(s);
		}
		taken += at;
		if (at < iov[i].iov_len)
			break;
	}
	push(s);
	return taken;
}

static const struct vconsole_end vconsole_end = {.output = on_output, .input_wanted = on_wanted};

int sink_tie_vconsole(
	struct sink *s, struct virtio_console *vconsole, unsigned ports, unsigned input_port, struct husk_error *err)
{
	(void)err;
	s->vconsole = vconsole;
	s->ports = ports;
	s->input_port = input_port;
	for (unsigned port = 0; port < VCONSOLE_PORTS; port++)
		if (ports >> port & 1)
			vconsole_set_end(vconsole, port, &vconsole_end, s);
	return 0;
}

/* ---- the whole ---- */

int sink_open(struct sink *s, struct loop *loop, int out, int in, struct console *log, struct husk_error *err)
{
	*s = (struct sink)SINK_NONE;
	s->loop = loop;
	s->out = out;
	s->in = in;
	s->log = log;
	s->room = SINK_ROOM;
	s->held = malloc(s->room);
	if (!s->held)
		return error_set(err, -ENOMEM, "no memory for the guest's console");
	return in >= 0 ? loop_add(loop, &s->in_watch, in, EPOLLIN, on_in, err) : 0;
}

bool sink_settle(struct sink *s, sink_idle_fn *idle, void *data)
{
	s->idle = NULL;
	if (settled(s))
		return true;
	s->idle = idle;
	s->data = data;
	return false;
}

void sink_close(struct sink *s)
{
	if (!s->loop)
		return;
	for (unsigned port = 0; s->vconsole && port < VCONSOLE_PORTS; port++)
		if (s->ports >> port & 1)
			vconsole_set_end(s->vconsole, port, NULL, NULL);
	end_guest(s);
	lose_out(s);
	loop_remove(s->loop, &s->in_watch);
	cleanup_fd(&s->in);
	free(s->held);
	*s = (struct sink)SINK_NONE;
}
