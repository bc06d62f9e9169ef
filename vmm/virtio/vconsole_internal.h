/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vconsole_internal.h - between vconsole.c (bytes) and vconsole_control.c (the handshake)
 */
#ifndef VMM_VIRTIO_VCONSOLE_INTERNAL_H
#define VMM_VIRTIO_VCONSOLE_INTERNAL_H

#include "vmm/virtio/vconsole.h"

#include <linux/virtio_console.h>

/* virtio 1.2 §5.3.2; with one port only the first two */
#define VCONSOLE_QUEUES 6
#define VCONSOLE_CONTROL_RX 2
#define VCONSOLE_CONTROL_TX 3
#define VCONSOLE_CHAINS 64 /* per kick; then the other devices get their turn */
#define VCONSOLE_EARLY 256 /* bytes of the emergency register that its end has not taken */

/* what is to be said of a port, in this order */
enum vconsole_pending {
	VCONSOLE_SAY_ADD = 1,
	VCONSOLE_SAY_CONSOLE = 2,
	VCONSOLE_SAY_OPEN = 4,
	VCONSOLE_SAY_RESIZE = 8,
	VCONSOLE_SAY_ALL = 15,
};

struct vconsole_port {
	const struct vconsole_end *end; /* NULL: output is dropped */
	void *data;
	uint8_t pending; /* enum vconsole_pending */
	bool ready; /* the driver has set it up */
	bool open; /* a program or the kernel's console has it open */
	bool held; /* the end has no room */
	bool starved; /* an input was short */
	uint64_t taken; /* bytes of the next chain to transmit that the end has */
};

struct virtio_console {
	struct virtio_device device;
	struct virtio_console_config config;
	bool sized; /* config has a size */
	struct vconsole_port ports[VCONSOLE_PORTS];
	unsigned n_early;
	char early[VCONSOLE_EARLY];
	struct virtqueue_chain chain;
	struct iovec data[VIRTQUEUE_SIZE_MAX];
};

/** The next chain of @queue in console->chain: true, or false when there is none, or the device is broken. */
bool vconsole_next(struct virtio_console *console, unsigned queue);
/** True when the driver knows more than port 0. */
static inline bool vconsole_multiport(const struct virtio_console *console)
{
	return console->device.features & 1ULL << VIRTIO_CONSOLE_F_MULTIPORT;
}

/* ---- vconsole_control.c ---- */

/** Take the driver's control messages. */
void vconsole_control_receive(struct virtio_console *console);
/** Say what is pending, as far as there are buffers. */
void vconsole_control_send(struct virtio_console *console);

#endif
