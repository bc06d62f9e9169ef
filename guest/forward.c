/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.c - the FORWARD operation: bytes between the host and a TCP port in the guest
 *
 * Theory of operation: a forward begins as a connection of the agent's with an attempt, which goes through the addresses
 * where the port may be listened on. Once one has answered, the agent's connection is given up: the forward takes its
 * descriptor and buffers and is from then on two flows between two sockets, 200 bytes while it is idle.
 *
 * What the service sends goes through a pipe with splice(2), which saves one of two copies: measured, a third of the CPU
 * time. What the host sends goes through a buffer: splice(2) out of vsock copies as well, page by page, and was slower.
 * Pipes come from a pool and go back when they are empty, the buffer is one for all. Only a flow whose sink takes no more
 * keeps a pipe, or a copy of the rest, and does not read its source until that is gone. A turn moves at most QUANTUM bytes,
 * so that forwards share the agent, and that is also what a flow can keep. Level-triggered epoll: a socket is watched for IN
 * while its flow holds nothing, for OUT while the other one does, and not at all when neither is so and it has hung up.
 *
 * Ends: each flow passes the end of its source on by shutting its sink's sending down; when both have, all is closed. A
 * service's reset closes the vsock socket without that shutdown, which the host passes on as a reset. What the service had
 * sent before its reset is delivered first. A reset of the host looks like the end of its stream, but that sending fails
 * too, which it does not after an orderly half-close; the service's socket is then reset, once it has sent all bytes
 * (farewell.h). Where sending has been shut down before the two cannot be told apart, and the end is an orderly one. When
 * bytes are lost in between, for want of memory, both ends are reset.
 */
#include "guest/forward.h"

#include "base/cleanup.h"
#include "guest/farewell.h"
#include "guest/listeners.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define QUANTUM (128u << 10) /* bytes of one flow per turn */
#define SPARE_PIPES 16
#define CONNECT_TIMEOUT_MS 5000

/** An empty one is in the pool, another one is a flow's. */
struct pipe {
	int out, in; /* to read from and to write to */
	size_t held;
	struct pipe *next; /* in the pool */
};

/** A connect(2) under way, in the order of their deadlines. */
struct attempt {
	struct forward *forward;
	struct attempt *prev, *next;
	bool waits; /* it is in the list */
	uint64_t deadline_ns;
	size_t n, at;
	union forward_target targets[FORWARD_TARGETS_MAX];
};

struct forwards {
	struct loop *loop;
	struct farewells *farewells;
	struct loop_watch timer;
	struct attempt *first, *last;
	size_t n;
	struct pipe *pool;
	size_t n_spare;
	char buffer[QUANTUM]; /* of one turn */
};

enum way { TO_SERVICE, TO_HOST };

struct flow {
	struct buffer rest; /* what the sink has not taken yet: frames and what came behind them, copied bytes */
	struct pipe *pipe; /* the same, bytes of the service; NULL: none */
	bool ended; /* the source has no more */
	bool told; /* and the sink knows */
};

struct forward {
	struct forwards *all;
	struct connection *connection; /* while connecting */
	struct attempt *attempt;
	struct loop_watch watch[2]; /* of each flow's source, which is the other one's sink: vsock, TCP */
	struct flow flow[2]; /* by enum way */
	bool host_gone, service_gone; /* the end was a reset, or it takes no more */
	bool host_refuses; /* it takes no more */
	bool cut; /* bytes are lost: no end of it may look orderly */
};

static void connecting_ready(struct loop_watch *watch, uint32_t events);
static void host_ready(struct loop_watch *watch, uint32_t events);
static void service_ready(struct loop_watch *watch, uint32_t events);

/* ---- pipes ---- */

static void pipe_close(struct pipe *p)
{
	if (!p)
		return;
	close(p->out);
	close(p->in);
	free(p);
}

static struct pipe *pipe_take(struct forwards *all)
{
	struct pipe *p = all->pool;
	int fds[2];

	if (p) {
		all->pool = p->next;
		all->n_spare--;
		return p;
	}
	p = malloc(sizeof(*p));
	if (!p || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		free(p);
		return NULL;
	}
	*p = (struct pipe){.out = fds[0], .in = fds[1]};
	return p;
}

static void pipe_give_back(struct forwards *all, struct pipe *p)
{
	if (all->n_spare == SPARE_PIPES) {
		pipe_close(p);
		return;
	}
	p->next = all->pool;
	all->pool = p;
	all->n_spare++;
}

/* ---- flows ---- */

static bool flow_holds(const struct flow *flow)
{
	return flow->rest.size || flow->pipe;
}

/** Nothing of it will be delivered any more. */
static void flow_drop(struct flow *flow)
{
	buffer_free(&flow->rest);
	pipe_close(steal_pointer(&flow->pipe));
	flow->ended = flow->told = true;
}

/** Hand on what is held: 1 when that was all, 0 when the sink takes no more now, -errno when it never will. */
static int flow_flush(struct forward *f, enum way way)
{
	struct flow *flow = &f->flow[way];
	int sink = f->watch[!way].fd;

	while (flow->rest.size) {
		ssize_t n = send(sink, buffer_bytes(&flow->rest), flow->rest.size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? 0 : -errno;
		if (n > 0)
			buffer_consume(&flow->rest, (size_t)n);
	}
	buffer_free(&flow->rest);
	while (flow->pipe) {
		ssize_t n = splice(flow->pipe->out, NULL, sink, NULL, flow->pipe->held, SPLICE_F_NONBLOCK);
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? 0 : -errno;
		if (n > 0)
			flow->pipe->held -= (size_t)n;
		if (!flow->pipe->held)
			pipe_give_back(f->all, steal_pointer(&flow->pipe));
	}
	return 1;
}

/** Take bytes from the source, and hand on what the sink takes at once: how many, 0 at the source's end, -errno. */
static ssize_t take_copy(struct forward *f, enum way way)
{
	char *buffer = f->all->buffer;
	ssize_t n = recv(f->watch[way].fd, buffer, QUANTUM, MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	/* The host may wait for room before it reads what the service still said. */
	if (way == TO_SERVICE && f->service_gone)
		return n;
	ssize_t sent = send(f->watch[!way].fd, buffer, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	size_t done = sent > 0 ? (size_t)sent : 0; /* an error shows again when the rest is sent */
	f->cut = buffer_append(&f->flow[way].rest, buffer + done, (size_t)n - done) < 0;
	return n;
}

/** The same from the service, through a pipe where there is one to be had. */
static ssize_t take_from_service(struct forward *f)
{
	struct pipe *p = pipe_take(f->all);
	if (!p)
		return take_copy(f, TO_HOST);
	ssize_t n = splice(f->watch[TO_HOST].fd, NULL, p->in, NULL, QUANTUM, SPLICE_F_NONBLOCK);
	int error = errno;
	if (n <= 0) {
		pipe_give_back(f->all, p);
		return n < 0 ? -error : 0;
	}
	p->held = (size_t)n;
	f->flow[TO_HOST].pipe = p;
	return n;
}

/** The source is at its end; the host's may be a reset. */
static void source_ended(struct forward *f, enum way way)
{
	f->flow[way].ended = true;
	if (way == TO_SERVICE && !f->flow[TO_HOST].told &&
		send(f->watch[TO_SERVICE].fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
		f->host_gone = true;
}

/** Move up to QUANTUM bytes; false when the sink is gone. */
static bool flow_turn(struct forward *f, enum way way)
{
	struct flow *flow = &f->flow[way];
	int rc = flow_flush(f, way);

	if (rc <= 0 || flow->ended)
		return rc >= 0;
	ssize_t n = way == TO_HOST ? take_from_service(f) : take_copy(f, TO_SERVICE);
	if (n == -EAGAIN || n == -EINTR)
		return true;
	if (n < 0)
		*(way == TO_HOST ? &f->service_gone : &f->host_gone) = true;
	if (n <= 0)
		source_ended(f, way);
	return !flow_holds(flow) || flow_flush(f, way) >= 0;
}

/* ---- a bridge's life ---- */

/** Close the service's socket. When the host has gone, with a reset: at once where bytes are left over, which would be
 *  missing before an orderly end, otherwise once all have been sent. */
static void close_service(struct forward *f)
{
	int fd = f->watch[TO_HOST].fd;

	if (fd < 0)
		return;
	loop_remove(f->all->loop, &f->watch[TO_HOST]);
	f->watch[TO_HOST].fd = -1;
	if (f->cut || (f->host_gone && flow_holds(&f->flow[TO_SERVICE])))
		close_with_reset(fd);
	else if (f->host_gone)
		farewell(f->all->farewells, fd);
	else
		close(fd);
}

static void forward_free(struct forward *f)
{
	struct forwards *all = f->all;

	close_service(f);
	loop_remove(all->loop, &f->watch[TO_SERVICE]);
	cleanup_fd(&f->watch[TO_SERVICE].fd);
	flow_drop(&f->flow[TO_SERVICE]);
	flow_drop(&f->flow[TO_HOST]);
	all->n--;
	free(f);
}

/** Pass the ends of flows on; true when that was the end of the whole. */
static bool forward_tell(struct forward *f)
{
	if (f->service_gone && f->flow[TO_HOST].told)
		return true;
	/* A service that nobody hears and that does not read either would stay for ever. */
	if (f->host_refuses && flow_holds(&f->flow[TO_SERVICE]))
		return true;
	for (enum way way = TO_SERVICE; way <= TO_HOST; way++) {
		struct flow *flow = &f->flow[way];
		if (!flow->ended || flow->told || flow_holds(flow))
			continue;
		if (way == TO_HOST ? f->service_gone : f->host_gone)
			return true;
		shutdown(f->watch[!way].fd, SHUT_WR);
		flow->told = true;
	}
	return f->flow[TO_SERVICE].told && f->flow[TO_HOST].told;
}

/** Watch a socket for what can be worked on; false without memory. */
static bool forward_watch(struct forward *f, enum way way, bool hung_up)
{
	struct loop_watch *watch = &f->watch[way];
	const struct flow *flow = &f->flow[way];
	uint32_t wanted = 0;

	if (!flow->ended && !flow_holds(flow))
		wanted |= EPOLLIN;
	if (flow_holds(&f->flow[!way]))
		wanted |= EPOLLOUT;
	if (!wanted && hung_up) /* epoll would report that in every round */
		loop_remove(f->all->loop, watch);
	else if (watch->added)
		loop_modify(f->all->loop, watch, wanted);
	else if (wanted)
		return loop_add(f->all->loop, watch, watch->fd, wanted, way == TO_SERVICE ? host_ready : service_ready,
			       NULL) == 0;
	return true;
}

/** Draw the conclusions after work on a socket: @hung_up tells of that of flow @way. A sink was found gone where @to_service
 *  or @to_host is false. The forward may be gone afterwards. */
static void forward_settle(struct forward *f, enum way way, bool hung_up, bool to_service, bool to_host)
{
	if (!to_service) { /* it may have said something before it went */
		buffer_free(&f->flow[TO_SERVICE].rest);
		f->service_gone = true;
	}
	if (!to_host) { /* what it sent before is still the service's */
		flow_drop(&f->flow[TO_HOST]);
		f->host_gone = f->host_refuses = true;
	}
	if (!f->cut && forward_tell(f))
		return forward_free(f);
	f->cut = f->cut || !forward_watch(f, way, hung_up) || !forward_watch(f, !way, false);
	if (f->cut)
		forward_free(f);
}

/** Something happened at the source of flow @way, which is the sink of the other one. */
static void forward_work(struct forward *f, enum way way, uint32_t events)
{
	bool taken = true, given = true, hung_up = events & (EPOLLHUP | EPOLLERR);

	if (hung_up || (events & EPOLLOUT))
		taken = flow_turn(f, !way);
	if (hung_up || (events & EPOLLIN))
		given = flow_turn(f, way);
	forward_settle(f, way, hung_up, way == TO_SERVICE ? given : taken, way == TO_SERVICE ? taken : given);
}

static void host_ready(struct loop_watch *watch, uint32_t events)
{
	forward_work(CONTAINER_OF(watch, struct forward, watch[TO_SERVICE]), TO_SERVICE, events);
}

static void service_ready(struct loop_watch *watch, uint32_t events)
{
	forward_work(CONTAINER_OF(watch, struct forward, watch[TO_HOST]), TO_HOST, events);
}

/* ---- connecting ---- */

size_t forward_targets(
	const struct agent_listener *listeners, size_t n, uint16_t port, union forward_target to[FORWARD_TARGETS_MAX])
{
	static const uint8_t any[16];
	const union forward_target loopbacks[2] = {
		{.v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}},
		{.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT}},
	};
	size_t found = 0;

	for (size_t i = 0; i < n + 2; i++) {
		const struct agent_listener *l = &listeners[i];
		bool own = i < n && memcmp(l->address, any, sizeof(any)) != 0;
		union forward_target *target = &to[found];
		if (i < n && (l->port != port || found == FORWARD_TARGETS_MAX - 2))
			continue;
		*target = loopbacks[i < n ? l->family == 6 : i - n];
		if (own && l->family == 4)
			memcpy(&target->v4.sin_addr, l->address, sizeof(target->v4.sin_addr));
		else if (own)
			memcpy(&target->v6.sin6_addr, l->address, sizeof(target->v6.sin6_addr));
		size_t same = 0;
		while (same < found && memcmp(&to[same], target, sizeof(*target)) != 0)
			same++;
		found += same == found;
	}
	return found;
}

static void attempt_unlist(struct attempt *a)
{
	struct forwards *all = a->forward->all;
	if (!a->waits)
		return;
	*(a->prev ? &a->prev->next : &all->first) = a->next;
	*(a->next ? &a->next->prev : &all->last) = a->prev;
	a->waits = false;
}

/** Wait for the answer to a connect, until the attempt's deadline, which was set now. */
static void attempt_list(struct attempt *a)
{
	struct forwards *all = a->forward->all;
	if (a->waits)
		return;
	if (!all->first)
		loop_timer_set(&all->timer, CONNECT_TIMEOUT_MS);
	a->prev = all->last;
	a->next = NULL;
	*(all->last ? &all->last->next : &all->first) = a;
	all->last = a;
	a->waits = true;
}

static void attempt_end(struct forward *f)
{
	attempt_unlist(f->attempt);
	free(steal_pointer(&f->attempt));
	f->connection->forward = NULL;
	f->connection = NULL;
}

static void forward_refuse(struct forward *f, const char *why)
{
	struct connection *c = f->connection;
	unsigned port = ntohs(f->attempt->targets[0].v4.sin_port);

	attempt_end(f);
	forward_free(f);
	connection_error(c, AGENT_ERROR_REFUSED, "connect to port %u: %s", port, why);
}

/** The service has answered: the connection becomes a bridge. It may be gone afterwards. */
static void forward_begin(struct forward *f)
{
	struct connection *c = f->connection;
	const int one = 1;

	attempt_end(f);
	agent_frame_put(&c->out, AGENT_OK, 0, NULL, 0);
	f->flow[TO_SERVICE].rest = c->in;
	f->flow[TO_HOST].rest = c->out;
	c->in = c->out = (struct buffer){0};
	c->state = CONNECTION_HANDED_OVER;
	f->watch[TO_SERVICE].fd = c->watch.fd;
	/* The service's work begins first, then the host's; what is left to do is nobody's to wait for. */
	bool to_service = flow_flush(f, TO_SERVICE) >= 0, to_host = flow_flush(f, TO_HOST) >= 0;
	setsockopt(f->watch[TO_HOST].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	loop_remove(&c->agent->loop, &c->watch);
	c->watch.fd = -1;
	forward_settle(f, TO_SERVICE, false, to_service, to_host);
}

/** Was the very port that it goes to chosen for the socket's own end? Where nobody listens it then connects to itself. */
static bool meets_itself(int fd)
{
	union forward_target own = {0}, peer = {0};
	socklen_t own_size = sizeof(own), peer_size = sizeof(peer);

	return getsockname(fd, &own.any, &own_size) == 0 && getpeername(fd, &peer.any, &peer_size) == 0 &&
	       own_size == peer_size && memcmp(&own, &peer, own_size) == 0;
}

/** Ask whether the connect under way has succeeded: 0, -EALREADY, or why not. */
static int connect_again(struct forward *f)
{
	const struct attempt *a = f->attempt;
	const union forward_target *target = &a->targets[a->at];
	socklen_t size = target->any.sa_family == AF_INET ? sizeof(target->v4) : sizeof(target->v6);

	if (connect(f->watch[TO_HOST].fd, &target->any, size) < 0 && errno != EISCONN)
		return -errno;
	f->cut = meets_itself(f->watch[TO_HOST].fd);
	return f->cut ? -ECONNREFUSED : 0;
}

/** A new socket for the attempt's present target: 0, -EALREADY when it has to be waited for, or why not. */
static int connect_first(struct forward *f)
{
	int fd = socket(
		f->attempt->targets[f->attempt->at].any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	f->watch[TO_HOST].fd = fd;
	/* On loopback the other end has answered by the time that connect(2) returns, but only a second call says so. */
	int rc = connect_again(f);
	return rc == -EINPROGRESS ? connect_again(f) : rc;
}

/** Go on with the result @rc of the present target. The forward may be gone afterwards. */
static void forward_connect(struct forward *f, int rc)
{
	struct attempt *a = f->attempt;

	while (rc < 0 && rc != -EALREADY) {
		close_service(f);
		if (++a->at == a->n)
			return forward_refuse(f, strerror(-rc));
		rc = connect_first(f);
	}
	if (rc == 0)
		return forward_begin(f);
	struct loop_watch *watch = &f->watch[TO_HOST];
	if (!watch->added && loop_add(f->all->loop, watch, watch->fd, EPOLLOUT, connecting_ready, NULL) < 0)
		return forward_refuse(f, "out of memory");
	attempt_list(a);
}

static void connecting_ready(struct loop_watch *watch, uint32_t events)
{
	struct forward *f = CONTAINER_OF(watch, struct forward, watch[TO_HOST]);
	struct connection *c = f->connection;
	int rc = connect_again(f);

	if (rc == 0)
		loop_remove(f->all->loop, watch);
	forward_connect(f, rc);
	connection_settle(c);
}

static void deadline_passed(struct loop_watch *watch, uint32_t events)
{
	struct forwards *all = CONTAINER_OF(watch, struct forwards, timer);
	uint64_t expirations, now = clock_monotonic_ns();

	if (read(watch->fd, &expirations, sizeof(expirations)) < 0)
		return;
	while (all->first && all->first->deadline_ns <= now) {
		struct forward *f = all->first->forward;
		struct connection *c = f->connection;
		forward_refuse(f, strerror(ETIMEDOUT));
		connection_settle(c);
	}
	if (all->first)
		loop_timer_set(&all->timer, (all->first->deadline_ns - now) / 1000000 + 1);
}

/* ---- the agent's side ---- */

int forwards_open(struct loop *loop, struct forwards **out, struct husk_error *err)
{
	CLEANUP_FREE struct forwards *all = calloc(1, sizeof(*all));
	if (!all)
		return error_set(err, -ENOMEM, "prepare forwards: out of memory");
	all->loop = loop;
	int rc = farewells_open(loop, &all->farewells, err);
	if (rc == 0)
		rc = loop_timer_open(loop, &all->timer, deadline_passed, err);
	if (rc == 0)
		*out = steal_pointer(&all);
	return rc;
}

size_t forwards_count(const struct forwards *forwards)
{
	return forwards->n;
}

void forward_open(struct connection *c, const struct agent_frame *frame)
{
	struct forwards *all = c->agent->forwards;
	uint16_t port;
	size_t n;

	if (!agent_forward_get(frame, &port))
		return connection_error(c, AGENT_ERROR_PROTOCOL, "FORWARD without a port");
	if (all->n >= FORWARDS_MAX)
		return connection_error(c, AGENT_ERROR_SYSTEM, "%d forwards are open already", FORWARDS_MAX);
	struct forward *f = calloc(1, sizeof(*f));
	struct attempt *a = malloc(sizeof(*a));
	if (!f || !a) {
		free(f);
		free(a);
		return connection_error(c, AGENT_ERROR_SYSTEM, "out of memory");
	}
	*a = (struct attempt){.forward = f, .deadline_ns = clock_monotonic_ns() + CONNECT_TIMEOUT_MS * 1000000ull};
	const struct agent_listener *listeners = listeners_get(c->agent->listeners, &n);
	a->n = forward_targets(listeners, n, port, a->targets);
	f->all = all;
	f->connection = c;
	f->attempt = a;
	f->watch[TO_SERVICE].fd = f->watch[TO_HOST].fd = -1;
	all->n++;
	c->state = CONNECTION_FORWARD;
	c->forward = f;
	forward_connect(f, connect_first(f));
}

void forward_abandon(struct forward *f)
{
	attempt_end(f);
	forward_free(f);
}
