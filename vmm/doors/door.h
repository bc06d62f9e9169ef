/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.h - the host-side sockets that lead into one VM over its vsock device
 *
 * Both lie in the VM's runtime directory, which is the worker's working directory, and are bound and connected by relative
 * names: whoever may enter that directory (0700) may enter the VM. They are open as long as the worker lives; their names
 * are removed by the supervisor.
 */
#ifndef VMM_DOORS_DOOR_H
#define VMM_DOORS_DOOR_H

#include "vmm/doors/listener.h"
#include "vmm/virtio/vsock.h"

#define DOOR_GREETING_MAX 64 /* connections that have not said where to yet */

/** A listening socket whose connections go to @port of the guest. */
struct exec_door {
	struct listener listener;
	struct vsock *vsock;
};

/** exec.sock: straight to the agent. */
int exec_door_open(struct exec_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err);

struct hybrid_greeting;

/** vsock.sock, and outwards vsock.sock_PORT. */
struct hybrid_door {
	struct loop *loop;
	struct listener listener;
	struct vsock *vsock;
	unsigned n_greeting;
	struct hybrid_greeting *greeting;
};

int hybrid_door_open(struct hybrid_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err);

/** A guest program connects to host @port: a descriptor connected to vsock.sock_PORT, or a negative errno. */
int hybrid_connect_out(uint32_t port);

#endif
