/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_user.c - the transport towards QEMU */
#include "vmm/virtio/vhost_user.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/virtio/vhost_user_protocol.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define MESSAGES_PER_ROUND 32

/** One queue as QEMU describes it, piece by piece; it runs once it has a kick descriptor and is enabled. */
struct ring {
	struct loop_watch kick; /* kick.fd is owned, -1: none */
	int call_fd, err_fd; /* owned, -1: none */
	bool enabled, addressed;
	struct virtqueue_setup setup;
	struct vhost_user *transport;
};

struct vhost_user {
	struct loop *loop;
	const struct memory *memory;
	struct virtio_device *device;
	vhost_user_failed_fn *failed;
	void *data;
	struct loop_watch socket;
	struct loop_watch later; /* an eventfd: work of a later round */
	uint32_t again; /* bit per queue: kick the device */
	bool report_broken;
	uint64_t features, protocol_features;
	uint32_t n_regions;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
	struct ring rings[VIRTIO_QUEUES_MAX];

	/* the message that is being read, and what its handler answers */
	struct vhost_user_message in, reply;
	size_t have;
	int fds[VHOST_USER_REGIONS_MAX];
	size_t n_fds;
	struct husk_error err;
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void wake(int fd)
{
	uint64_t one = 1;
	if (write(fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, so its reader is awake already. Anything else is QEMU's loss. */
	}
}

static void close_message_fds(struct vhost_user *vu)
{
	while (vu->n_fds)
		close(vu->fds[--vu->n_fds]);
}

/* ---- rings ---- */

static void stop_ring(struct vhost_user *vu, unsigned i)
{
	struct virtqueue *queue = &vu->device->queues[i];
	if (queue->ready)
		vu->rings[i].setup.base = virtqueue_stop(queue);
	vu->again &= ~(1u << i);
}

static void drop_kick(struct vhost_user *vu, struct ring *ring)
{
	int fd = ring->kick.fd;
	loop_remove(vu->loop, &ring->kick);
	close_fd(&fd);
	ring->kick.fd = -1;
}

static void schedule(struct vhost_user *vu)
{
	wake(vu->later.fd);
}

static bool any_ready(const struct virtio_device *device)
{
	for (unsigned i = 0; i < device->n_queues; i++)
		if (device->queues[i].ready)
			return true;
	return false;
}

static int start_ring(struct vhost_user *vu, unsigned i)
{
	struct ring *ring = &vu->rings[i];
	struct virtio_device *device = vu->device;
	if (device->queues[i].ready || !ring->enabled || !ring->addressed || ring->kick.fd < 0)
		return 0;
	if (device->broken && !any_ready(device)) { /* its driver begins anew */
		device->broken = NULL;
		if (device->ops->reset)
			device->ops->reset(device);
	}
	device->features = vu->features;
	ring->setup.features = vu->features;
	int rc = virtqueue_start(&device->queues[i], vu->memory, &ring->setup, &vu->err);
	if (rc < 0)
		return error_prefix(&vu->err, "queue %u", i);
	vu->again |= 1u << i; /* buffers may wait already */
	schedule(vu);
	return 0;
}

static void on_kick(struct loop_watch *watch, uint32_t events)
{
	struct ring *ring = CONTAINER_OF(watch, struct ring, kick);
	struct vhost_user *vu = ring->transport;
	unsigned i = (unsigned)(ring - vu->rings);
	uint64_t count;
	ssize_t n = read(watch->fd, &count, sizeof(count));
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) { /* not an eventfd: never look at it again */
		loop_remove(vu->loop, watch);
		return;
	}
	if (virtio_usable(vu->device, i))
		vu->device->ops->kick(vu->device, i);
}

/* ---- what the device asks for ---- */

static void vhost_user_notify(void *transport, unsigned queue)
{
	struct vhost_user *vu = transport;
	if (vu->rings[queue].call_fd >= 0)
		wake(vu->rings[queue].call_fd);
}

static void vhost_user_again(void *transport, unsigned queue)
{
	struct vhost_user *vu = transport;
	vu->again |= 1u << queue;
	schedule(vu);
}

static void vhost_user_needs_reset(void *transport, const char *why)
{
	struct vhost_user *vu = transport;
	for (unsigned i = 0; i < vu->device->n_queues; i++)
		if (vu->rings[i].err_fd >= 0)
			wake(vu->rings[i].err_fd);
	vu->report_broken = true;
	schedule(vu);
}

static const struct virtio_transport_ops transport_ops = {
	.notify = vhost_user_notify,
	.again = vhost_user_again,
	.needs_reset = vhost_user_needs_reset,
};

static void on_later(struct loop_watch *watch, uint32_t events)
{
	struct vhost_user *vu = CONTAINER_OF(watch, struct vhost_user, later);
	uint64_t count;
	if (read(watch->fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: nothing lost, what is to do stands in the flags */
	}
	uint32_t again = vu->again;
	vu->again = 0;
	for (unsigned i = 0; i < vu->device->n_queues; i++)
		if ((again & 1u << i) && virtio_usable(vu->device, i))
			vu->device->ops->kick(vu->device, i);
	if (!vu->report_broken)
		return;
	vu->report_broken = false;
	struct husk_error err;
	error_set(&err, -EBADMSG, "the guest broke a queue of the %s device: %s", vu->device->ops->name,
		vu->device->broken ? vu->device->broken : "unknown");
	vu->failed(vu->data, &err);
}

/* ---- messages: each handler finds a payload of the size its table entry demands ---- */

static int protocol_error(struct vhost_user *vu, const char *what)
{
	return error_set(&vu->err, -EPROTO, "QEMU sent %s (request %" PRIu32 ") to the %s device", what,
		vu->in.header.request, vu->device->ops->name);
}

static uint64_t offered_features(const struct vhost_user *vu)
{
	return VIRTIO_QUEUE_FEATURES | vu->device->ops->features(vu->device) | VHOST_F_LOG_ALL |
	       VHOST_USER_F_PROTOCOL_FEATURES;
}

static uint64_t offered_protocol_features(void)
{
	return VHOST_USER_PROTOCOL_F_MQ | VHOST_USER_PROTOCOL_F_LOG_SHMFD | VHOST_USER_PROTOCOL_F_REPLY_ACK |
	       VHOST_USER_PROTOCOL_F_CONFIG;
}

static void reply_u64(struct vhost_user *vu, uint64_t value)
{
	vu->reply.payload.u64 = value;
	vu->reply.header.size = sizeof(value);
}

static int get_features(struct vhost_user *vu)
{
	reply_u64(vu, offered_features(vu));
	return 0;
}

static int set_features(struct vhost_user *vu)
{
	uint64_t features = vu->in.payload.u64;
	if (features & ~offered_features(vu))
		return protocol_error(vu, "features that were not offered");
	vu->features = features;
	if (features & VHOST_USER_F_PROTOCOL_FEATURES)
		return 0;
	for (unsigned i = 0; i < vu->device->n_queues; i++) { /* then there is no SET_VRING_ENABLE */
		vu->rings[i].enabled = true;
		int rc = start_ring(vu, i);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int get_protocol_features(struct vhost_user *vu)
{
	reply_u64(vu, offered_protocol_features());
	return 0;
}

static int set_protocol_features(struct vhost_user *vu)
{
	if (vu->in.payload.u64 & ~offered_protocol_features())
		return protocol_error(vu, "protocol features that were not offered");
	vu->protocol_features = vu->in.payload.u64;
	return 0;
}

static int set_owner(struct vhost_user *vu)
{
	return 0;
}

static int reset_owner(struct vhost_user *vu)
{
	for (unsigned i = 0; i < vu->device->n_queues; i++)
		stop_ring(vu, i);
	virtio_reset(vu->device);
	return 0;
}

/** Keep the translation; the memory itself is ours, so the descriptors are closed with the message. */
static int set_mem_table(struct vhost_user *vu)
{
	struct vhost_user_memory table;
	memset(&table, 0, sizeof(table));
	memcpy(&table, &vu->in.payload, vu->in.header.size);
	uint64_t end;
	if (vu->in.header.size < 8 || table.n_regions > VHOST_USER_REGIONS_MAX ||
		vu->in.header.size < 8 + table.n_regions * sizeof(struct vhost_user_region))
		return protocol_error(vu, "a memory table of a wrong size");
	if (vu->n_fds != table.n_regions)
		return protocol_error(vu, "a memory table without its descriptors");
	for (uint32_t i = 0; i < table.n_regions; i++) {
		const struct vhost_user_region *r = &table.regions[i];
		if (!r->size || __builtin_add_overflow(r->gpa, r->size, &end) ||
			__builtin_add_overflow(r->user, r->size, &end))
			return protocol_error(vu, "a memory region that wraps");
	}
	memcpy(vu->regions, table.regions, sizeof(vu->regions));
	vu->n_regions = table.n_regions;
	return 0;
}

/** Dirty pages are not logged (RAM stays out of QEMU's stream), but without an answer QEMU would not migrate at all. */
static int set_log_base(struct vhost_user *vu)
{
	reply_u64(vu, 0);
	return 0;
}

static int set_log_fd(struct vhost_user *vu)
{
	return 0;
}

/** The ring that a message names, stopped; NULL after an error. */
static struct ring *stopped_ring(struct vhost_user *vu, uint32_t index)
{
	if (index >= vu->device->n_queues)
		protocol_error(vu, "the number of a queue that does not exist");
	else if (vu->device->queues[index].ready)
		protocol_error(vu, "a change to a queue that runs");
	else
		return &vu->rings[index];
	return NULL;
}

static int set_vring_num(struct vhost_user *vu)
{
	struct ring *ring = stopped_ring(vu, vu->in.payload.state.index);
	if (!ring)
		return vu->err.code;
	if (!vu->in.payload.state.num || vu->in.payload.state.num > VIRTQUEUE_SIZE_MAX)
		return protocol_error(vu, "a queue size out of range");
	ring->setup.size = vu->in.payload.state.num;
	return 0;
}

static int set_vring_base(struct vhost_user *vu)
{
	struct ring *ring = stopped_ring(vu, vu->in.payload.state.index);
	if (!ring)
		return vu->err.code;
	if (vu->in.payload.state.num > UINT16_MAX)
		return protocol_error(vu, "a queue index out of range");
	ring->setup.base = (uint16_t)vu->in.payload.state.num;
	return 0;
}

static bool translate(const struct vhost_user *vu, uint64_t user, uint64_t *gpa)
{
	for (uint32_t i = 0; i < vu->n_regions; i++) {
		const struct vhost_user_region *r = &vu->regions[i];
		if (user >= r->user && user - r->user < r->size) {
			*gpa = r->gpa + (user - r->user);
			return true;
		}
	}
	return false;
}

static int set_vring_addr(struct vhost_user *vu)
{
	struct vhost_user_vring_addr addr = vu->in.payload.addr;
	uint64_t desc, avail, used;
	if (addr.index >= vu->device->n_queues)
		return protocol_error(vu, "the number of a queue that does not exist");
	if (!translate(vu, addr.desc, &desc) || !translate(vu, addr.avail, &avail) || !translate(vu, addr.used, &used))
		return protocol_error(vu, "a queue address outside of its memory table");
	struct ring *ring = &vu->rings[addr.index];
	struct virtqueue_setup *setup = &ring->setup;
	/* On a running queue QEMU repeats the addresses to turn logging on or off. */
	bool same = setup->desc == desc && setup->avail == avail && setup->used == used;
	if (vu->device->queues[addr.index].ready)
		return same ? 0 : protocol_error(vu, "another place for a queue that runs");
	setup->desc = desc;
	setup->avail = avail;
	setup->used = used;
	ring->addressed = true;
	return start_ring(vu, addr.index);
}

static int get_vring_base(struct vhost_user *vu)
{
	struct vhost_user_vring_state state = vu->in.payload.state;
	if (state.index >= vu->device->n_queues)
		return protocol_error(vu, "the number of a queue that does not exist");
	struct ring *ring = &vu->rings[state.index];
	stop_ring(vu, state.index);
	drop_kick(vu, ring);
	close_fd(&ring->call_fd);
	state.num = ring->setup.base;
	vu->reply.payload.state = state;
	vu->reply.header.size = sizeof(state);
	return 0;
}

/** The ring that a KICK, CALL or ERR message is for, and its descriptor (-1: none); NULL after an error. */
static struct ring *ring_with_fd(struct vhost_user *vu, int *fd)
{
	uint64_t value = vu->in.payload.u64;
	bool none = value & VHOST_USER_VRING_NOFD;
	if ((value & ~(uint64_t)(0xff | VHOST_USER_VRING_NOFD)) || (value & 0xff) >= vu->device->n_queues) {
		protocol_error(vu, "the number of a queue that does not exist");
		return NULL;
	}
	if (vu->n_fds != (none ? 0 : 1)) {
		protocol_error(vu, "a wrong number of descriptors");
		return NULL;
	}
	*fd = -1;
	if (!none) {
		int rc = fd_set_nonblocking(vu->fds[0], true);
		if (rc < 0) {
			error_set(&vu->err, rc, "set up a descriptor of QEMU");
			return NULL;
		}
		*fd = vu->fds[--vu->n_fds];
	}
	return &vu->rings[value & 0xff];
}

static int set_vring_kick(struct vhost_user *vu)
{
	CLEANUP_FD int fd = -1;
	struct ring *ring = ring_with_fd(vu, &fd);
	if (!ring)
		return vu->err.code;
	if (fd < 0)
		return protocol_error(vu, "a queue without kicks, to be polled");
	drop_kick(vu, ring);
	int rc = loop_add(vu->loop, &ring->kick, fd, EPOLLIN, on_kick, &vu->err);
	if (rc < 0) {
		ring->kick.fd = -1;
		return rc;
	}
	steal_fd(&fd);
	if (ring->kick.always) /* a regular file, ready in every round: no doorbell */
		return protocol_error(vu, "a doorbell that cannot be waited for");
	return start_ring(vu, (unsigned)(ring - vu->rings));
}

static int set_vring_call(struct vhost_user *vu)
{
	int fd = -1;
	struct ring *ring = ring_with_fd(vu, &fd);
	if (!ring)
		return vu->err.code;
	close_fd(&ring->call_fd);
	ring->call_fd = fd;
	return 0;
}

static int set_vring_err(struct vhost_user *vu)
{
	int fd = -1;
	struct ring *ring = ring_with_fd(vu, &fd);
	if (!ring)
		return vu->err.code;
	close_fd(&ring->err_fd);
	ring->err_fd = fd;
	return 0;
}

static int set_vring_enable(struct vhost_user *vu)
{
	struct vhost_user_vring_state state = vu->in.payload.state;
	if (state.index >= vu->device->n_queues || state.num > 1)
		return protocol_error(vu, "a wrong enabling of a queue");
	vu->rings[state.index].enabled = state.num;
	if (state.num)
		return start_ring(vu, state.index);
	stop_ring(vu, state.index);
	return 0;
}

static int get_queue_num(struct vhost_user *vu)
{
	reply_u64(vu, vu->device->n_queues);
	return 0;
}

/** The config range of a GET or SET, checked; false after an error. */
static bool config_range(struct vhost_user *vu)
{
	const struct vhost_user_config *c = &vu->in.payload.config;
	if (vu->in.header.size >= VHOST_USER_CONFIG_HEADER && c->size <= VHOST_USER_CONFIG_MAX &&
		c->offset <= VHOST_USER_CONFIG_MAX - c->size &&
		vu->in.header.size >= VHOST_USER_CONFIG_HEADER + c->size)
		return true;
	protocol_error(vu, "a configuration range that does not fit");
	return false;
}

static int get_config(struct vhost_user *vu)
{
	if (!config_range(vu))
		return vu->err.code;
	struct vhost_user_config *c = &vu->reply.payload.config;
	c->offset = vu->in.payload.config.offset;
	c->size = vu->in.payload.config.size;
	c->flags = vu->in.payload.config.flags;
	vu->device->ops->config_read(vu->device, c->offset, c->bytes, c->size);
	vu->reply.header.size = VHOST_USER_CONFIG_HEADER + c->size;
	return 0;
}

static int set_config(struct vhost_user *vu)
{
	if (!config_range(vu))
		return vu->err.code;
	const struct vhost_user_config *c = &vu->in.payload.config;
	if (vu->device->ops->config_write)
		vu->device->ops->config_write(vu->device, c->offset, c->bytes, c->size);
	return 0;
}

/** What each request must look like: payload of exactly @size bytes (@variable: at most), at most @fds descriptors. */
static const struct request {
	int (*handle)(struct vhost_user *vu);
	uint16_t size;
	uint8_t fds;
	bool variable, answers;
} requests[VHOST_USER_REQUESTS] = {
	[VHOST_USER_GET_FEATURES] = {get_features, .answers = true},
	[VHOST_USER_SET_FEATURES] = {set_features, sizeof(uint64_t)},
	[VHOST_USER_SET_OWNER] = {set_owner},
	[VHOST_USER_RESET_OWNER] = {reset_owner},
	[VHOST_USER_SET_MEM_TABLE] = {set_mem_table, sizeof(struct vhost_user_memory), VHOST_USER_REGIONS_MAX, true},
	[VHOST_USER_SET_LOG_BASE] = {set_log_base, sizeof(struct vhost_user_log), 1, false, true},
	[VHOST_USER_SET_LOG_FD] = {set_log_fd, sizeof(uint64_t), 1, true},
	[VHOST_USER_SET_VRING_NUM] = {set_vring_num, sizeof(struct vhost_user_vring_state)},
	[VHOST_USER_SET_VRING_ADDR] = {set_vring_addr, sizeof(struct vhost_user_vring_addr)},
	[VHOST_USER_SET_VRING_BASE] = {set_vring_base, sizeof(struct vhost_user_vring_state)},
	[VHOST_USER_GET_VRING_BASE] = {get_vring_base, sizeof(struct vhost_user_vring_state), .answers = true},
	[VHOST_USER_SET_VRING_KICK] = {set_vring_kick, sizeof(uint64_t), 1},
	[VHOST_USER_SET_VRING_CALL] = {set_vring_call, sizeof(uint64_t), 1},
	[VHOST_USER_SET_VRING_ERR] = {set_vring_err, sizeof(uint64_t), 1},
	[VHOST_USER_GET_PROTOCOL_FEATURES] = {get_protocol_features, .answers = true},
	[VHOST_USER_SET_PROTOCOL_FEATURES] = {set_protocol_features, sizeof(uint64_t)},
	[VHOST_USER_GET_QUEUE_NUM] = {get_queue_num, .answers = true},
	[VHOST_USER_SET_VRING_ENABLE] = {set_vring_enable, sizeof(struct vhost_user_vring_state)},
	[VHOST_USER_GET_CONFIG] = {get_config, sizeof(struct vhost_user_config), 0, true, true},
	[VHOST_USER_SET_CONFIG] = {set_config, sizeof(struct vhost_user_config), 0, true},
};

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
	const struct request *r = h->request < VHOST_USER_REQUESTS ? &requests[h->request] : NULL;
	if ((h->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION || (h->flags & VHOST_USER_REPLY))
		return protocol_error(vu, "a message of another version");
	if (!r || !r->handle)
		return protocol_error(vu, "an unknown message");
	if (h->size > r->size || (h->size < r->size && !r->variable))
		return protocol_error(vu, "a message of a wrong size");
	if (vu->n_fds > r->fds)
		return protocol_error(vu, "more descriptors than belong to the message");
	memset(&vu->reply, 0, sizeof(vu->reply));
	int rc = r->handle(vu);
	if (rc < 0)
		return rc;
	if (r->answers)
		return send_reply(vu);
	if (!(h->flags & VHOST_USER_NEED_REPLY) || !(vu->protocol_features & VHOST_USER_PROTOCOL_F_REPLY_ACK))
		return 0;
	reply_u64(vu, 0);
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
				return protocol_error(vu, "a message that is too long");
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
	close_fd(&fd);
	close_fd(&later);
	vu->socket.fd = vu->later.fd = -1;
	close_message_fds(vu);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		drop_kick(vu, &vu->rings[i]);
		close_fd(&vu->rings[i].call_fd);
		close_fd(&vu->rings[i].err_fd);
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
		vu->rings[i] = (struct ring){.kick.fd = -1, .call_fd = -1, .err_fd = -1, .transport = vu};
	rc = loop_add(loop, &vu->later, later, EPOLLIN, on_later, err);
	if (rc < 0)
		return rc;
	rc = loop_add(loop, &vu->socket, socket_fd, EPOLLIN, on_message, err);
	if (rc < 0) {
		loop_remove(loop, &vu->later);
		return rc;
	}
	steal_fd(&later);
	device->transport = &transport_ops;
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
