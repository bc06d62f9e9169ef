/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - the worker's control socket, and messages on sockets (theory of operation: control.h) */
#include "vmm/control.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/** recvmsg() returned 0 bytes: true when that is the end of the socket, and no packet without bytes. */
static bool at_end(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLRDHUP};
	int queued = 0;

	return poll(&poll_fd, 1, 0) == 1 && ioctl(fd, SIOCINQ, &queued) == 0 && queued == 0;
}

int vm_message_receive_fds(int fd, struct vm_message *message, int *fds, size_t *n_fds)
{
	struct {
		struct vm_message message;
		char beyond; /* a longer packet is cut, and must not look right */
	} got;
	bool wanted = *n_fds;
	memset(&got, 0, sizeof(got)); /* -EPROTO does not say how much of it came */
	ssize_t n = fd_receive_now(fd, &got, sizeof(got), fds, n_fds);

	if (n == (ssize_t)offsetof(__typeof__(got), beyond) && vm_message_check(&got.message)) {
		*message = got.message;
		return 1;
	}
	while (n >= 0 && *n_fds)
		close(fds[--*n_fds]);
	*n_fds = 0;
	/* Its descriptors could not be taken, as when none is left here; who sent it waits for an answer all the same. */
	bool with_fds = got.message.kind == VM_CONTROL_EXPOSE || got.message.kind == VM_CONTROL_ATTACH;
	if (n == -EPROTO && wanted && with_fds && !got.beyond && vm_message_check(&got.message)) {
		*message = got.message;
		return 1;
	}
	if (n == 0)
		return at_end(fd) ? 0 : -EAGAIN;
	return n > 0 || n == -EAGAIN || n == -EPROTO ? -EAGAIN : 0;
}

int vm_message_receive(int fd, struct vm_message *message)
{
	size_t none = 0;

	return vm_message_receive_fds(fd, message, NULL, &none);
}

int vm_message_send(int fd, const struct vm_message *message)
{
	return send(fd, message, sizeof(*message), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void on_control(struct loop_watch *watch, uint32_t events)
{
	struct control *c = CONTAINER_OF(watch, struct control, watch);
	struct vm_message message;

	(void)events;
	int rc = vm_message_receive(c->fd, &message);
	if (rc == 0)
		control_close(c);
	else if (rc > 0)
		c->take(c->data, &message);
}

int control_open(struct control *c, struct loop *loop, int fd,
	void (*take)(void *data, const struct vm_message *message), void *data, struct husk_error *err)
{
	*c = (struct control){.loop = loop, .fd = fd, .take = take, .data = data};
	int rc = loop_add(loop, &c->watch, fd, EPOLLIN, on_control, err);
	if (rc < 0)
		control_close(c);
	return rc;
}

void control_close(struct control *c)
{
	if (c->fd < 0)
		return;
	loop_remove(c->loop, &c->watch);
	cleanup_fd(&c->fd);
	c->fd = -1;
}
