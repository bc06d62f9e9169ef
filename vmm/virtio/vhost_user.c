/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_user.c - the transport towards QEMU: its socket and its life (theory of operation: vhost_user_internal.h) */
#include "vmm/virtio/vhost_user_internal.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define MESSAGES_PER_ROUND 32

static void close_message_fds(struct vhost_user *vu)
{
	while (vu->n_fds)
		close(vu->fds[--vu->n_fds]);
}

static int send_reply(struct vhost_user *vu)
{
	const struct vhost_user_header header = {
		.request = vu->in.header.request,
		.flags = VHOST_USER_VERSION | VHOST_USER_REPLY,
		.size = vu->reply.header.size,
	};
	uint8_t bytes[sizeof(header) + sizeof(vu->reply.payload)];
	size_t size = sizeof(header) + header.size;
	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), &vu->reply.payload, header.size);
	ssize_t n = fd_send(vu->socket.fd, bytes, size, NULL, 0);
	if (n < 0)
		return error_set(&vu->err, (int)n, "answer QEMU on the %s device", vu->device->ops->name);
	return (size_t)n == size ? 0 : error_set(&vu->err, -EPIPE, "answer QEMU: the socket is full");
}

/** A whole message is in vu->in. */
static int dispatch(struct vhost_user *vu)
{
	const struct vhost_user_header *h = &vu->in.header;
	const struct vhost_user_rule *r = vhost_user_rule_find(h->request);
	if ((h->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION || (h->flags & VHOST_USER_REPLY))
		return vhost_user_protocol_error(vu, "a message of another version");
	if (!r)
		return vhost_user_protocol_error(vu, "an unknown message");
	if (h->size > r->size || (h->size < r->size && !r->variable))
		return vhost_user_protocol_error(vu, "a message of a wrong size");
	if (vu->n_fds > r->fds)
		return vhost_user_protocol_error(vu, "more descriptors than belong to the message");
	memset(&vu->reply, 0, sizeof(vu->reply));
	int rc = r->handle(vu);
	if (rc < 0)
		return rc;
	if (r->answers)
		return send_reply(vu);
	if (!(h->flags & VHOST_USER_NEED_REPLY) || !(vu->protocol_features & VHOST_USER_PROTOCOL_F_REPLY_ACK))
		return 0;
	vhost_user_reply_u64(vu, 0);
	return send_reply(vu);
}

/** Read on at the message under way: 1 when it is whole, 0 when there is no more for now, or an error. */
static int receive(struct vhost_user *vu)
{
	const size_t header = sizeof(vu->in.header);
	for (;;) {
		uint8_t *to = (uint8_t *)&vu->in.header + vu->have;
		size_t want = header - vu->have;
		if (vu->have >= header) {
			if (vu->in.header.size > sizeof(vu->in.payload))
				return vhost_user_protocol_error(vu, "a message that is too long");
			to = (uint8_t *)&vu->in.payload + (vu->have - header);
			want = header + vu->in.header.size - vu->have;
			if (!want)
				return 1;
		}
		size_t room = VHOST_USER_REGIONS_MAX - vu->n_fds;
		ssize_t n = fd_receive(vu->socket.fd, to, want, vu->fds + vu->n_fds, &room);
		if (n == -EAGAIN)
			return 0;
		if (n == 0 || n == -ECONNRESET)
			return error_set(
				&vu->err, -EPIPE, "QEMU closed the socket of the %s device", vu->device->ops->name);
		if (n < 0)
			return error_set(
				&vu->err, (int)n, "read from the socket of the %s device", vu->device->ops->name);
		vu->n_fds += room;
		vu->have += (size_t)n;
	}
}

/** Let go of all descriptors and of the device. */
static void shut(struct vhost_user *vu)
{
	if (vu->socket.fd < 0)
		return;
	int fd = vu->socket.fd, later = vu->later.fd;
	loop_remove(vu->loop, &vu->socket);
	loop_remove(vu->loop, &vu->later);
	vhost_user_close(&fd);
	vhost_user_close(&later);
	vu->socket.fd = vu->later.fd = -1;
	close_message_fds(vu);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		vhost_user_ring_drop_kick(vu, &vu->rings[i]);
		vhost_user_close(&vu->rings[i].call_fd);
		vhost_user_close(&vu->rings[i].err_fd);
	}
	vu->device->transport = NULL;
	virtio_reset(vu->device);
}

static void on_message(struct loop_watch *watch, uint32_t events)
{
	struct vhost_user *vu = CONTAINER_OF(watch, struct vhost_user, socket);
	int rc = 0;
	for (unsigned n = 0; n < MESSAGES_PER_ROUND; n++) {
		rc = receive(vu);
		if (rc == 1)
			rc = dispatch(vu);
		else if (rc == 0)
			return;
		if (rc < 0)
			break;
		close_message_fds(vu);
		vu->have = 0;
	}
	if (rc >= 0)
		return;
	struct husk_error err = vu->err;
	shut(vu);
	vu->failed(vu->data, &err); /* may free vu */
}

int vhost_user_create(struct loop *loop, const struct memory *memory, struct virtio_device *device, int socket_fd,
	vhost_user_failed_fn *failed, void *data, struct vhost_user **out, struct husk_error *err)
{
	CLEANUP_FREE struct vhost_user *vu = calloc(1, sizeof(*vu));
	CLEANUP_FD int later = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!vu)
		return error_set(err, -ENOMEM, "no memory for a vhost-user device");
	if (later < 0)
		return error_errno(err, "make an eventfd");
	int rc = fd_set_nonblocking(socket_fd, true);
	if (rc < 0)
		return error_set(err, rc, "make the socket of a vhost-user device non-blocking");
	vu->loop = loop;
	vu->memory = memory;
	vu->device = device;
	vu->failed = failed;
	vu->data = data;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		vu->rings[i] = (struct vhost_user_ring){.kick.fd = -1, .call_fd = -1, .err_fd = -1, .transport = vu};
	rc = loop_add(loop, &vu->later, later, EPOLLIN, vhost_user_on_later, err);
	if (rc < 0)
		return rc;
	rc = loop_add(loop, &vu->socket, socket_fd, EPOLLIN, on_message, err);
	if (rc < 0) {
		loop_remove(loop, &vu->later);
		return rc;
	}
	steal_fd(&later);
	device->transport = &vhost_user_transport_ops;
	device->transport_data = vu;
	*out = steal_pointer(&vu);
	return 0;
}

void vhost_user_destroy(struct vhost_user *transport)
{
	if (!transport)
		return;
	shut(transport);
	free(transport);
}
