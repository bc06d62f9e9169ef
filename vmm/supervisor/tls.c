/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.c - the husk-tls of a TLS door
 *
 * Theory of operation: husk-tls gets the TCP socket, certificate, key and a directory that holds nothing but the door's inner
 * socket, so that the VM's other sockets are out of its reach. It dies with the supervisor. Its own death closes its door and
 * ends nothing else.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static void forget(struct supervised_door *d)
{
	loop_remove(&d->supervisor->loop, &d->tls.watch);
	close(steal_fd(&d->tls.pidfd));
	d->tls.pid = 0;
}

static void on_tls(struct loop_watch *watch, uint32_t events)
{
	struct supervised_door *d = CONTAINER_OF(watch, struct supervised_door, tls.watch);
	char fate[128];

	(void)events;
	if (!child_reap(&d->tls))
		return;
	child_fate(&d->tls, fate, sizeof(fate));
	forget(d);
	if (d->phase == DOOR_OPEN)
		supervisor_log(d->supervisor, "the tls door %s is closed: %s", d->door.endpoint, fate);
	door_shut(d);
	door_settle(d);
}

int tls_start(struct supervised_door *d, struct husk_error *err)
{
	struct supervisor *s = d->supervisor;
	char name[] = "husk-tls", verb[] = "serve";
	char inner[] = VM_DOOR_INNER_SOCKET;
	char *argv[] = {name, verb, inner, d->door.alpn, NULL};
	CLEANUP_FD int directory =
		openat(s->config.runtime_fd, d->door.inner, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const int fds[] = {d->fd[1], d->fd[2], d->fd[3], directory};
	struct spawn how = {
		.path = s->config.tls_path,
		.argv = argv,
		.stdio = {-1, s->config.log_fd, s->config.log_fd},
		.fds = fds,
		.n_fds = ARRAY_SIZE(fds),
		.die_with_parent = true,
	};

	if (!s->config.tls_path)
		return error_set(err, -ENOENT, "husk-tls is not installed");
	if (directory < 0)
		return error_errno(err, "open the directory of its inner socket");
	int rc = spawn(&how, &d->tls.pid, &d->tls.pidfd, err);
	if (rc < 0)
		return rc;
	for (size_t i = 1; i < VMM_DOOR_FDS; i++)
		close(steal_fd(&d->fd[i]));
	rc = loop_add(&s->loop, &d->tls.watch, d->tls.pidfd, EPOLLIN, on_tls, err);
	if (rc < 0) {
		tls_end(d);
		tls_reap(d);
	}
	return rc;
}

void tls_end(struct supervised_door *d)
{
	if (d->tls.pid && !d->tls.dead)
		kill(d->tls.pid, SIGKILL); /* ours and not reaped: the pid cannot be another's */
}

void tls_reap(struct supervised_door *d)
{
	if (!d->tls.pid)
		return;
	while (!d->tls.dead)
		d->tls.dead = waitpid(d->tls.pid, &d->tls.status, 0) == d->tls.pid || errno == ECHILD;
	forget(d);
}
