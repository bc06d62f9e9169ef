/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_user_protocol.h - messages of vhost-user as QEMU 7.2 speaks it (docs/interop/vhost-user.rst), host byte order */
#ifndef VMM_VIRTIO_VHOST_USER_PROTOCOL_H
#define VMM_VIRTIO_VHOST_USER_PROTOCOL_H

#include <stdint.h>

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_LOG_BASE = 6,
	VHOST_USER_SET_LOG_FD = 7,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_REQUESTS = 26,
};

/* feature bits (beside virtio's own) and protocol feature bits */
#define VHOST_F_LOG_ALL (1ULL << 26)
#define VHOST_USER_F_PROTOCOL_FEATURES (1ULL << 30)
#define VHOST_USER_PROTOCOL_F_MQ (1ULL << 0)
#define VHOST_USER_PROTOCOL_F_LOG_SHMFD (1ULL << 1)
#define VHOST_USER_PROTOCOL_F_REPLY_ACK (1ULL << 3)
#define VHOST_USER_PROTOCOL_F_CONFIG (1ULL << 9)

/* flags of the header */
#define VHOST_USER_VERSION_MASK 3u
#define VHOST_USER_VERSION 1u
#define VHOST_USER_REPLY 4u
#define VHOST_USER_NEED_REPLY 8u

#define VHOST_USER_REGIONS_MAX 8
#define VHOST_USER_CONFIG_MAX 256
#define VHOST_USER_VRING_NOFD 0x100u

struct vhost_user_header {
	uint32_t request, flags, size;
};

struct vhost_user_region {
	uint64_t gpa, size, user, mmap_offset;
};

struct vhost_user_memory {
	uint32_t n_regions, padding;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
};

struct vhost_user_vring_state {
	uint32_t index, num;
};

struct vhost_user_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct vhost_user_log {
	uint64_t size, offset;
};

struct vhost_user_config {
	uint32_t offset, size, flags;
	uint8_t bytes[VHOST_USER_CONFIG_MAX];
};
#define VHOST_USER_CONFIG_HEADER 12

/** On the socket the payload follows the 12 bytes of the header without a gap. */
struct vhost_user_message {
	struct vhost_user_header header;
	union vhost_user_payload {
		uint64_t u64;
		struct vhost_user_memory memory;
		struct vhost_user_vring_state state;
		struct vhost_user_vring_addr addr;
		struct vhost_user_log log;
		struct vhost_user_config config;
	} payload;
};

#endif
