/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_user_requests.c - what QEMU may ask for: a rule and a handler per message */
#include "vmm/virtio/vhost_user_internal.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

int vhost_user_protocol_error(struct vhost_user *vu, const char *what)
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

void vhost_user_reply_u64(struct vhost_user *vu, uint64_t value)
{
	vu->reply.payload.u64 = value;
	vu->reply.header.size = sizeof(value);
}

static int get_features(struct vhost_user *vu)
{
	vhost_user_reply_u64(vu, offered_features(vu));
	return 0;
}

static int set_features(struct vhost_user *vu)
{
	uint64_t features = vu->in.payload.u64;
	if (features & ~offered_features(vu))
		return vhost_user_protocol_error(vu, "features that were not offered");
	vu->features = features;
	if (features & VHOST_USER_F_PROTOCOL_FEATURES)
		return 0;
	for (unsigned i = 0; i < vu->device->n_queues; i++) { /* then there is no SET_VRING_ENABLE */
		vu->rings[i].enabled = true;
		int rc = vhost_user_ring_start(vu, i);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int get_protocol_features(struct vhost_user *vu)
{
	vhost_user_reply_u64(vu, offered_protocol_features());
	return 0;
}

static int set_protocol_features(struct vhost_user *vu)
{
	if (vu->in.payload.u64 & ~offered_protocol_features())
		return vhost_user_protocol_error(vu, "protocol features that were not offered");
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
		vhost_user_ring_stop(vu, i);
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
		return vhost_user_protocol_error(vu, "a memory table of a wrong size");
	if (vu->n_fds != table.n_regions)
		return vhost_user_protocol_error(vu, "a memory table without its descriptors");
	for (uint32_t i = 0; i < table.n_regions; i++) {
		const struct vhost_user_region *r = &table.regions[i];
		if (!r->size || __builtin_add_overflow(r->gpa, r->size, &end) ||
			__builtin_add_overflow(r->user, r->size, &end))
			return vhost_user_protocol_error(vu, "a memory region that wraps");
	}
	memcpy(vu->regions, table.regions, sizeof(vu->regions));
	vu->n_regions = table.n_regions;
	return 0;
}

/** Dirty pages are not logged (RAM stays out of QEMU's stream), but without an answer QEMU would not migrate at all. */
static int set_log_base(struct vhost_user *vu)
{
	vhost_user_reply_u64(vu, 0);
	return 0;
}

static int set_log_fd(struct vhost_user *vu)
{
	return 0;
}

/** The ring that a message names, stopped; NULL after an error. */
static struct vhost_user_ring *stopped_ring(struct vhost_user *vu, uint32_t index)
{
	if (index >= vu->device->n_queues)
		vhost_user_protocol_error(vu, "the number of a queue that does not exist");
	else if (vu->device->queues[index].ready)
		vhost_user_protocol_error(vu, "a change to a queue that runs");
	else
		return &vu->rings[index];
	return NULL;
}

static int set_vring_num(struct vhost_user *vu)
{
	struct vhost_user_ring *ring = stopped_ring(vu, vu->in.payload.state.index);
	if (!ring)
		return vu->err.code;
	if (!vu->in.payload.state.num || vu->in.payload.state.num > VIRTQUEUE_SIZE_MAX)
		return vhost_user_protocol_error(vu, "a queue size out of range");
	ring->setup.size = vu->in.payload.state.num;
	return 0;
}

static int set_vring_base(struct vhost_user *vu)
{
	struct vhost_user_ring *ring = stopped_ring(vu, vu->in.payload.state.index);
	if (!ring)
		return vu->err.code;
	if (vu->in.payload.state.num > UINT16_MAX)
		return vhost_user_protocol_error(vu, "a queue index out of range");
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
		return vhost_user_protocol_error(vu, "the number of a queue that does not exist");
	if (!translate(vu, addr.desc, &desc) || !translate(vu, addr.avail, &avail) || !translate(vu, addr.used, &used))
		return vhost_user_protocol_error(vu, "a queue address outside of its memory table");
	struct vhost_user_ring *ring = &vu->rings[addr.index];
	struct virtqueue_setup *setup = &ring->setup;
	/* On a running queue QEMU repeats the addresses to turn logging on or off. */
	bool same = setup->desc == desc && setup->avail == avail && setup->used == used;
	if (vu->device->queues[addr.index].ready)
		return same ? 0 : vhost_user_protocol_error(vu, "another place for a queue that runs");
	setup->desc = desc;
	setup->avail = avail;
	setup->used = used;
	ring->addressed = true;
	return vhost_user_ring_start(vu, addr.index);
}

static int get_vring_base(struct vhost_user *vu)
{
	struct vhost_user_vring_state state = vu->in.payload.state;
	if (state.index >= vu->device->n_queues)
		return vhost_user_protocol_error(vu, "the number of a queue that does not exist");
	struct vhost_user_ring *ring = &vu->rings[state.index];
	vhost_user_ring_stop(vu, state.index);
	vhost_user_ring_drop_kick(vu, ring);
	vhost_user_close(&ring->call_fd);
	state.num = ring->setup.base;
	vu->reply.payload.state = state;
	vu->reply.header.size = sizeof(state);
	return 0;
}

/** The ring that a KICK, CALL or ERR message is for, and its descriptor (-1: none); NULL after an error. */
static struct vhost_user_ring *ring_with_fd(struct vhost_user *vu, int *fd)
{
	uint64_t value = vu->in.payload.u64;
	bool none = value & VHOST_USER_VRING_NOFD;
	if ((value & ~(uint64_t)(0xff | VHOST_USER_VRING_NOFD)) || (value & 0xff) >= vu->device->n_queues) {
		vhost_user_protocol_error(vu, "the number of a queue that does not exist");
		return NULL;
	}
	if (vu->n_fds != (none ? 0 : 1)) {
		vhost_user_protocol_error(vu, "a wrong number of descriptors");
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
	struct vhost_user_ring *ring = ring_with_fd(vu, &fd);
	if (!ring)
		return vu->err.code;
	if (fd < 0)
		return vhost_user_protocol_error(vu, "a queue without kicks, to be polled");
	int rc = vhost_user_ring_set_kick(vu, ring, fd);
	if (rc < 0)
		return rc;
	steal_fd(&fd);
	if (ring->kick.always) /* a regular file, ready in every round: no doorbell */
		return vhost_user_protocol_error(vu, "a doorbell that cannot be waited for");
	return vhost_user_ring_start(vu, (unsigned)(ring - vu->rings));
}

static int set_vring_call(struct vhost_user *vu)
{
	int fd = -1;
	struct vhost_user_ring *ring = ring_with_fd(vu, &fd);
	if (!ring)
		return vu->err.code;
	vhost_user_close(&ring->call_fd);
	ring->call_fd = fd;
	return 0;
}

static int set_vring_err(struct vhost_user *vu)
{
	int fd = -1;
	struct vhost_user_ring *ring = ring_with_fd(vu, &fd);
	if (!ring)
		return vu->err.code;
	vhost_user_close(&ring->err_fd);
	ring->err_fd = fd;
	return 0;
}

static int set_vring_enable(struct vhost_user *vu)
{
	struct vhost_user_vring_state state = vu->in.payload.state;
	if (state.index >= vu->device->n_queues || state.num > 1)
		return vhost_user_protocol_error(vu, "a wrong enabling of a queue");
	vu->rings[state.index].enabled = state.num;
	if (state.num)
		return vhost_user_ring_start(vu, state.index);
	vhost_user_ring_stop(vu, state.index);
	return 0;
}

static int get_queue_num(struct vhost_user *vu)
{
	vhost_user_reply_u64(vu, vu->device->n_queues);
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
	vhost_user_protocol_error(vu, "a configuration range that does not fit");
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

static const struct vhost_user_rule requests[VHOST_USER_REQUESTS] = {
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

const struct vhost_user_rule *vhost_user_rule_find(uint32_t request)
{
	const struct vhost_user_rule *r = request < VHOST_USER_REQUESTS ? &requests[request] : NULL;
	return r && r->handle ? r : NULL;
}
