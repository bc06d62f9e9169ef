/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec_door.c - exec.sock: every connection is one to the agent's port
 *
 * Theory of operation: accept, hand the descriptor to the vsock muxer, forget it. The bytes are the agent protocol's and
 * pass unread; when the guest refuses, the muxer closes the connection.
 */
#include "vmm/doors/door.h"

#include "agent/protocol.h"

static void take(void *data, int fd, uint64_t begun_ns)
{
	struct exec_door *door = data;

	(void)begun_ns;
	if (fd >= 0)
		(void)vsock_connect(door->vsock, fd, AGENT_PORT, false, NULL, NULL, NULL);
}

int exec_door_open(struct exec_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err)
{
	int fd;

	*door = (struct exec_door){.vsock = vsock};
	int rc = listener_bind("exec.sock", &fd, err);
	return rc < 0 ? rc : listener_open(&door->listener, loop, fd, take, door, err);
}
