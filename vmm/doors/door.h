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

#include "base/loop.h"
#include "vmm/virtio/vsock.h"

#define DOOR_GREETING_MAX 64 /* connections that have not said where to yet */

/** A listening socket whose connections go to @port of the guest. */
struct exec_door {
	struct loop *loop;
	struct loop_watch watch;
	struct vsock *vsock;
	int fd; /* owned; -1: closed */
	int spare; /* owned: door_accept() */
};

/** exec.sock: straight to the agent. */
int exec_door_open(struct exec_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err);

struct hybrid_greeting;

/** vsock.sock, and outwards vsock.sock_PORT. */
struct hybrid_door {
	struct loop *loop;
	struct loop_watch watch;
	struct vsock *vsock;
	int fd; /* owned; -1: closed */
	int spare; /* owned: door_accept() */
	unsigned n_greeting;
	struct hybrid_greeting *greeting;
};

int hybrid_door_open(struct hybrid_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err);

/** A guest program connects to host @port: a descriptor connected to vsock.sock_PORT, or a negative errno. */
int hybrid_connect_out(uint32_t port);

/** A non-blocking listening unix socket at the relative @name, mode 0600; an old one is replaced. */
int door_listen(const char *name, int *out, struct husk_error *err);

/** Accept a connection of the listening @fd, non-blocking; -1 when there is none. When descriptors have run out, *@spare, a
 *  duplicate of @fd (-1: none at the moment), is given up so that the connection can be taken and closed: one that stayed
 *  in the backlog would wake the loop in every round. */
int door_accept(int fd, int *spare);

#endif
