/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vconsole.h - virtio-console (virtio 1.2 §5.3), two ports: hvc0 for the workload's bytes, hvc1 for the kernel's and init's
 *
 * Theory of operation: each port has a host end, two callbacks. What the guest writes is offered to the end's output() where
 * it lies in guest memory; what the end does not take stays in the guest's queue and is offered again after vconsole_resume(),
 * so nothing is buffered here, nothing is lost, and an end that sleeps holds up its own port only. Towards the guest
 * vconsole_input() fills the buffers that the guest has offered and says how many bytes went in; input_wanted() tells when
 * more may. A port without an end is a /dev/null.
 *
 * A chain that was taken in part is given back to the queue, with the number of bytes that are done: it is read again when
 * there is room. A guest that changes it meanwhile changes its own output.
 *
 * The control queues carry the handshake (§5.3.6.2): DEVICE_READY is answered by a PORT_ADD for each port, PORT_READY by
 * CONSOLE_PORT, PORT_OPEN and the size. What is to be said is a set of bits per port, so a guest that offers no buffers costs
 * nothing. A driver that did not negotiate MULTIPORT has port 0 alone.
 */
#ifndef VMM_VIRTIO_VCONSOLE_H
#define VMM_VIRTIO_VCONSOLE_H

#include "vmm/virtio/device.h"

#define VCONSOLE_PORTS 2
#define VCONSOLE_WORKLOAD 0 /* hvc0 */
#define VCONSOLE_LOG 1 /* hvc1, and the emergency write register */

struct virtio_console;

/** The host's end of a port. Called in the loop's thread, with the loop's lock held where there is one. */
struct vconsole_end {
	/** The guest wrote @iov, at least one byte. Take as many from its front as there is room for, at once, and return how
	 *  many. Fewer than all: nothing more comes until vconsole_resume(). The bytes may change while they are read. It may
	 *  call vconsole_input(), not vconsole_resume(). */
	size_t (*output)(void *data, const struct iovec *iov, unsigned n_iov);
	/** The guest can take input again, after a vconsole_input() that was short. May be NULL. */
	void (*input_wanted)(void *data);
};

int vconsole_create(struct virtio_console **out, struct husk_error *err);
void vconsole_destroy(struct virtio_console *console);
/** The device's face to a transport. */
struct virtio_device *vconsole_device(struct virtio_console *console);

/** Tie port @port to @end, which must outlive it (NULL: what the guest writes is dropped). What waits is offered at once. */
void vconsole_set_end(struct virtio_console *console, unsigned port, const struct vconsole_end *end, void *data);
/** The end of @port has room again. Offers a bounded amount, the rest in later rounds. */
void vconsole_resume(struct virtio_console *console, unsigned port);
/** True while the guest has written something to @port that its end has not taken: vconsole_resume() has work to do. For the
 *  time when the guest is gone and its last words are not. */
bool vconsole_waiting(struct virtio_console *console, unsigned port);
/** Give the guest @n bytes on @port; returns how many it took, 0 while its port is not open. */
size_t vconsole_input(struct virtio_console *console, unsigned port, const void *bytes, size_t n);
/** The size of the workload's terminal: told now and whenever a driver comes up. */
void vconsole_resize(struct virtio_console *console, uint16_t columns, uint16_t rows);

#endif
