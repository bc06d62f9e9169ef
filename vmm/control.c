/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - the worker's control socket, and messages on sockets (theory of operation: control.h) */
#include "vmm/control.h"

#include <sys/socket.h>

int vm_message_receive(int fd, struct vm_message *message)
{
	ssize_t n = recv(fd, message, sizeof(*message), MSG_DONTWAIT | MSG_TRUNC);
	if (n == 0)
		return 0;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
	return n == sizeof(*message) && vm_message_check(message) ? 1 : -EAGAIN;
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
	return loop_add(loop, &c->watch, fd, EPOLLIN, on_control, err);
}

void control_close(struct control *c)
{
	if (c->fd < 0)
		return;
	loop_remove(c->loop, &c->watch);
	c->fd = -1;
}
