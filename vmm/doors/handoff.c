/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handoff.c - the door on which a router hands TCP connections over
 *
 * Theory of operation: a router connects once and sends messages: u32 BE length, so many bytes (1 to 1 MiB) that the guest
 * gets first, and with them, as SCM_RIGHTS on any of their bytes, exactly one TCP connection. Never more is read than the
 * message under way still lacks, always with recvmsg: the kernel gives descriptors out with the first byte of what they were
 * sent with, so none comes early, and none is lost. A whole message makes a passage; from then on the router has no part in
 * it.
 *
 * What breaks these rules closes the router's connection and the descriptor that came, and is logged; the connections that
 * were handed over before live on. A client that has gone by the time its connection is looked at breaks no rule.
 *
 * While the prefixes that wait for the guest reach DOORS_PREFIX_MAX bytes, routers are read only to the end of the message
 * under way.
 */
#include "vmm/doors/doors_internal.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#define ROUTERS_MAX 64 /* connections per door */
#define PREFIX_MAX (1u << 20)
#define READ_MAX (64u << 10) /* bytes per call: memory grows as they come, not as they are promised */
#define TURNS 64 /* calls per wake-up */
#define STATE_CLOSE                                                                                                    \
	7 /* TCP_CLOSE of the kernel's net/tcp_states.h; netinet/tcp.h has it, and an older struct tcp_info */

struct router {
	struct list list; /* in door->visitors */
	struct door *door;
	struct loop_watch watch; /* not added: DOORS_PREFIX_MAX is reached */
	int fd; /* owned */
	int client; /* owned: the connection that came with the message under way; -1: none yet */
	uint8_t length[4];
	size_t n_length; /* bytes of it that have come */
	struct buffer prefix;
};

static void router_end(struct router *r)
{
	loop_remove(r->door->doors->setup.loop, &r->watch);
	list_remove(&r->list);
	r->door->n_visitors--;
	cleanup_fd(&r->client);
	cleanup_fd(&r->fd);
	buffer_free(&r->prefix);
	free(r);
}

/** The router broke the rules. */
__attribute__((format(printf, 2, 3))) static int broken(struct router *r, const char *format, ...)
{
	char why[200];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	doors_say(r->door->doors, r->door, "a router's connection was closed: %s", why);
	router_end(r);
	return -EPROTO;
}

/** True when @fd, which has no peer, had one once. */
static bool was_connected(int fd)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
	       size >= offsetof(struct tcp_info, tcpi_segs_in) + sizeof(info.tcpi_segs_in) &&
	       info.tcpi_state == STATE_CLOSE && info.tcpi_segs_in;
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

/** 1: a TCP connection, 0: one whose client has gone meanwhile, -EPROTO: something else. */
static int check_client(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);
	int domain = option(fd, SO_DOMAIN);

	if ((domain != AF_INET && domain != AF_INET6) || option(fd, SO_TYPE) != SOCK_STREAM ||
		option(fd, SO_PROTOCOL) != IPPROTO_TCP)
		return -EPROTO;
	if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0)
		return 1;
	return was_connected(fd) ? 0 : -EPROTO;
}

/** The router's settings of it that would be ours to suffer: a close that waits, or that drops what was sent. */
static int take_over(int fd)
{
	struct linger linger = {0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	return fd_set_nonblocking(fd, true);
}

/** The message is whole. */
static int hand_over(struct router *r, uint64_t begun_ns)
{
	struct door *door = r->door;

	if (r->client < 0)
		return broken(r, "a message came without a descriptor");
	int rc = check_client(r->client);
	if (rc < 0)
		return broken(r, "it handed over something that is no TCP connection");
	door->meter->connections++;
	if (rc == 0 || take_over(r->client) < 0) {
		door->meter->refused++;
		close(steal_fd(&r->client));
		buffer_free(&r->prefix);
	} else {
		passage_begin(door, steal_fd(&r->client), &r->prefix, begun_ns);
	}
	r->n_length = 0;
	return 0;
}

/** What the message under way still lacks, as far as one call reads it; *@to: where that goes. 0 without memory. */
static size_t wanted(struct router *r, uint32_t length, void **to)
{
	if (r->n_length < sizeof(r->length)) {
		*to = r->length + r->n_length;
		return sizeof(r->length) - r->n_length;
	}
	size_t left = length - r->prefix.size, n = left < READ_MAX ? left : READ_MAX;
	*to = buffer_reserve(&r->prefix, n);
	return *to ? n : 0;
}

static uint32_t length_of(const struct router *r)
{
	uint32_t length;

	memcpy(&length, r->length, sizeof(length));
	return be32toh(length);
}

/** @n bytes have come, perhaps with a descriptor: 1 to go on, 0 at the end of a message, -EPROTO when @r is gone. */
static int took(struct router *r, size_t n, int fd, uint64_t begun_ns)
{
	if (fd >= 0 && r->client >= 0) {
		close(fd);
		return broken(r, "a message came with two descriptors");
	}
	if (fd >= 0)
		r->client = fd;
	if (r->n_length == sizeof(r->length))
		buffer_commit(&r->prefix, n);
	else
		r->n_length += n;
	if (r->n_length < sizeof(r->length))
		return 1;
	uint32_t length = length_of(r);
	if (length == 0 || length > PREFIX_MAX)
		return broken(r, "a prefix of %u bytes, not 1 to %u", length, PREFIX_MAX);
	return r->prefix.size < length ? 1 : hand_over(r, begun_ns);
}

/** One call's worth: 1 when there may be more, 0 when not, or @r is gone. */
static int read_once(struct router *r, uint64_t begun_ns)
{
	uint32_t length = r->n_length == sizeof(r->length) ? length_of(r) : 0;
	size_t n_fds = 1;
	int fd = -1;
	void *to;

	size_t want = wanted(r, length, &to);
	if (!want) {
		broken(r, "out of memory");
		return 0;
	}
	ssize_t n = fd_receive_now(r->fd, to, want, &fd, &n_fds);
	if (n == -EAGAIN)
		return 0;
	if (n == -EPROTO) {
		broken(r, "a message came with two descriptors, or with one that there was no room for");
		return 0;
	}
	if (n <= 0) {
		if (r->n_length || r->client >= 0)
			broken(r, "it ended within a message");
		else
			router_end(r);
		return 0;
	}
	return took(r, (size_t)n, n_fds ? fd : -1, begun_ns) >= 0;
}

static void on_router(struct loop_watch *watch, uint32_t events)
{
	struct router *r = CONTAINER_OF(watch, struct router, watch);
	struct doors *doors = r->door->doors;
	uint64_t begun = clock_monotonic_ns();

	(void)events;
	for (unsigned i = 0; i < TURNS; i++) {
		if (r->n_length == 0 && doors->prefix_bytes >= DOORS_PREFIX_MAX) {
			loop_remove(doors->setup.loop, watch); /* its hang-up would be told in every round */
			return;
		}
		if (!read_once(r, begun))
			return;
		if (r->n_length == 0)
			begun = clock_monotonic_ns();
	}
}

void handoff_resume(struct door *door)
{
	struct list *next;

	for (struct list *at = door->visitors.next; at != &door->visitors; at = next) {
		next = at->next;
		struct router *r = CONTAINER_OF(at, struct router, list);
		if (!r->watch.added &&
			loop_add(door->doors->setup.loop, &r->watch, r->fd, EPOLLIN, on_router, NULL) < 0)
			broken(r, "it cannot be watched");
	}
}

static void take(struct door *door, int fd, uint64_t begun_ns)
{
	struct router *r = door->n_visitors < ROUTERS_MAX ? calloc(1, sizeof(*r)) : NULL;

	(void)begun_ns;
	if (!r) {
		close(fd);
		doors_say(door->doors, door, "a router was refused: there are %u", door->n_visitors);
		return;
	}
	r->door = door;
	r->fd = fd;
	r->client = -1;
	list_append(&door->visitors, &r->list);
	door->n_visitors++;
	if (loop_add(door->doors->setup.loop, &r->watch, fd, EPOLLIN, on_router, NULL) < 0)
		broken(r, "it cannot be watched");
}

static void dismiss(struct door *door, struct list *visitor)
{
	(void)door;
	router_end(CONTAINER_OF(visitor, struct router, list));
}

const struct door_ops handoff_ops = {.take = take, .dismiss = dismiss};
