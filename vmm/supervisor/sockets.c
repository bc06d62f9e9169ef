/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sockets.c - what the worker needs in the VM's runtime directory and may not touch itself
 *
 * Theory of operation: the runtime directory becomes our working directory, so that its sockets are named without a path, which
 * could be longer than a socket's address takes. exec.sock and vsock.sock are bound here, as the user who runs the VM, and
 * go to the worker as listening sockets; vsock.sock_PORT, which a guest program wants to be connected to, is connected to
 * here (vmm/dial.h).
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/dial.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 4096 /* the kernel's somaxconn has the last word */

/** A non-blocking listening unix socket at the relative @name, mode 0600; an old one is replaced. */
static int bind_socket(const char *name, int *out, struct husk_error *err)
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
	if (rc < 0 || listen(fd, BACKLOG) < 0)
		return error_errno(err, "open the door %s", name);
	*out = steal_fd(&fd);
	return 0;
}

static void on_denied(void *data, uint32_t port)
{
	tell_denied(data, port);
}

static void on_dial(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, dial_watch);

	(void)events;
	if (dial_answer(watch->fd, s->config.reach, s->config.reach_port, on_denied, s) < 0)
		loop_remove(&s->loop, watch); /* its pidfd tells the rest */
}

int sockets_open(struct supervisor *s, struct husk_error *err)
{
	struct vmm_config *c = &s->config;
	int pair[2];

	if (fchdir(c->runtime_fd) < 0)
		return error_errno(err, "enter the VM's runtime directory");
	int rc = bind_socket("exec.sock", &c->exec_socket_fd, err);
	rc = rc < 0 ? rc : bind_socket("vsock.sock", &c->vsock_socket_fd, err);
	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, "connect to the worker");
	c->dial_fd = pair[1];
	rc = fd_set_nonblocking(pair[0], true);
	if (rc == 0)
		rc = loop_add(&s->loop, &s->dial_watch, pair[0], EPOLLIN, on_dial, err);
	if (rc < 0)
		close(pair[0]);
	return rc;
}
