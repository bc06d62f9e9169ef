/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec_door.c - exec.sock: every connection is one to the agent's port
 *
 * Theory of operation: accept, hand the descriptor to the vsock muxer, forget it. The bytes are the agent protocol's and
 * pass unread; when the guest refuses, the muxer closes the connection.
 */
#include "vmm/doors/door.h"

#include "agent/protocol.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int door_listen(const char *name, int *out, struct husk_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return error_errno(err, "open the door %s", name);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	unlink(name);
	mode_t old = umask(0177);
	int rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
	int bind_errno = errno;
	umask(old);
	errno = bind_errno;
	if (rc < 0 || listen(fd, 128) < 0)
		return error_errno(err, "open the door %s", name);
	*out = steal_fd(&fd);
	return 0;
}

int door_accept(int fd, int *spare)
{
	int got = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (got < 0 && (errno == EMFILE || errno == ENFILE) && *spare >= 0) {
		close(steal_fd(spare));
		got = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (got >= 0)
			close(got);
		got = -1;
	}
	if (*spare < 0)
		*spare = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return got;
}

static void on_accept(struct loop_watch *watch, uint32_t events)
{
	struct exec_door *door = CONTAINER_OF(watch, struct exec_door, watch);
	int fd = door_accept(door->fd, &door->spare);

	(void)events;
	if (fd >= 0)
		(void)vsock_connect(door->vsock, fd, AGENT_PORT, false, NULL, NULL, NULL);
}

int exec_door_open(struct exec_door *door, struct loop *loop, struct vsock *vsock, struct husk_error *err)
{
	*door = (struct exec_door){.loop = loop, .vsock = vsock, .fd = -1, .spare = -1};
	CLEANUP_FD int fd = -1;
	int rc = door_listen("exec.sock", &fd, err);
	if (rc == 0)
		rc = loop_add(loop, &door->watch, fd, EPOLLIN, on_accept, err);
	if (rc < 0)
		return rc;
	door->fd = steal_fd(&fd);
	door->spare = fcntl(door->fd, F_DUPFD_CLOEXEC, 3);
	return 0;
}
