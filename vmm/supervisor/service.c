/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service.c - supervisor.sock: who may ask for something, and how it is answered
 *
 * Theory of operation: a SOCK_SEQPACKET connection carries one struct vm_message per request (requests.c), with its
 * descriptors, and one EXPOSED or ANSWER per answer; a client is not read while it waits for one. Only our own user and root
 * are served. Whatever is not exactly a request closes the connection and all descriptors that came with it. At most
 * SERVICE_CLIENTS are served at a time; more wait in the backlog, which their own time limit bounds. Nobody here waits for the
 * worker.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "vmm/control.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REST_MS 200 /* until we accept again after a shortage of descriptors, whose end nobody announces */

static void close_client(struct service_client *client)
{
	struct supervisor *s = client->supervisor;

	loop_remove(&s->loop, &client->watch);
	close(client->watch.fd);
	client->supervisor = NULL;
	doors_forget(s, client);
	requests_forget(s, client);
	if (s->service.watch.added)
		loop_modify(&s->loop, &s->service.watch, EPOLLIN);
}

void service_answer(struct service_client *client, int code, const struct vm_door *door, const char *text)
{
	struct vm_message m = {.kind = door ? VM_MESSAGE_EXPOSED : VM_MESSAGE_ANSWER, .value = (uint32_t)-code};

	if (door)
		m.door = *door;
	if (text)
		vm_message_text(&m, "%s", text);
	client->waiting = false;
	/* A client that does not read its answers is noticed here: its next request finds no room for one. */
	if (vm_message_send(client->watch.fd, &m) < 0)
		shutdown(client->watch.fd, SHUT_RDWR);
	loop_modify(&client->supervisor->loop, &client->watch, EPOLLIN);
}

void service_wait(struct service_client *client)
{
	client->waiting = true;
	loop_modify(&client->supervisor->loop, &client->watch, 0);
}

static void on_client(struct loop_watch *watch, uint32_t events)
{
	struct service_client *client = CONTAINER_OF(watch, struct service_client, watch);
	struct vm_message message;
	int fds[VMM_DOOR_FDS] = {-1, -1, -1, -1};
	size_t n_fds = ARRAY_SIZE(fds);

	if (client->waiting) {
		if (events & (EPOLLHUP | EPOLLERR))
			close_client(client);
		return;
	}
	/* A packet was there, so whatever could not be received was malformed, or the end. */
	if (vm_message_receive_fds(watch->fd, &message, fds, &n_fds) != 1 ||
		!request_take(client, &message, fds, n_fds))
		close_client(client);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		cleanup_fd(&fds[i]);
}

static struct service_client *free_client(struct service *service)
{
	for (size_t i = 0; i < SERVICE_CLIENTS; i++)
		if (!service->client[i].supervisor)
			return &service->client[i];
	return NULL;
}

static bool trusted(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

static void on_service(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, service.watch);
	struct service_client *client = free_client(&s->service);

	(void)events;
	if (!client) {
		loop_modify(&s->loop, watch, 0); /* until one goes */
		return;
	}
	CLEANUP_FD int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
		loop_modify(&s->loop, watch, 0);
		loop_timer_set(&s->service.rest, REST_MS);
	}
	if (fd < 0 || !trusted(fd))
		return;
	*client = (struct service_client){.supervisor = s, .fd = -1};
	if (loop_add(&s->loop, &client->watch, fd, EPOLLIN, on_client, NULL) == 0)
		steal_fd(&fd);
	else
		client->supervisor = NULL;
}

static void on_rest(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, service.rest);

	(void)events;
	loop_timer_set(watch, 0);
	if (s->service.watch.added)
		loop_modify(&s->loop, &s->service.watch, EPOLLIN);
}

int service_open(struct supervisor *s, struct husk_error *err)
{
	if (s->config.service_fd < 0)
		return 0;
	int rc = loop_timer_open(&s->loop, &s->service.rest, on_rest, err);
	return rc < 0 ? rc : loop_add(&s->loop, &s->service.watch, s->config.service_fd, EPOLLIN, on_service, err);
}

void service_close(struct supervisor *s)
{
	if (s->config.service_fd < 0)
		return;
	loop_remove(&s->loop, &s->service.watch);
	for (size_t i = 0; i < SERVICE_CLIENTS; i++)
		if (s->service.client[i].supervisor)
			close_client(&s->service.client[i]);
	(void)unlinkat(s->config.runtime_fd, VM_SERVICE_NAME, 0);
	close(steal_fd(&s->config.service_fd));
}
