/* SPDX-License-Identifier: Apache-2.0 */
/* server.c - all clients of one TLS door; the theory is in server.h */
#include "tls/server.h"

#include "base/fd.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define MS 1000000ull /* nanoseconds */
#define ACCEPTS_PER_TURN 16
#define DESCRIPTORS_KEPT 16 /* for everything but sessions, which have two each */
#define LOG_LINES_PER_SECOND 5

/* ---- lists ---- */

static void list_remove(struct session_list *list, struct session *s)
{
	*(s->previous ? &s->previous->next : &list->first) = s->next;
	*(s->next ? &s->next->previous : &list->last) = s->previous;
	s->next = s->previous = NULL;
	list->n--;
}

static void list_append(struct session_list *list, struct session *s)
{
	s->previous = list->last;
	*(list->last ? &list->last->next : &list->first) = s;
	list->last = s;
	list->n++;
}

static bool listed(const struct server *server, const struct session *s)
{
	return s->previous || server->sessions[s->phase].first == s;
}

/** True while there is no room for one more client. */
static bool full(const struct server *server)
{
	size_t n = 0;

	for (enum phase phase = 0; phase < PHASES; phase++)
		n += server->sessions[phase].n;
	return n >= server->sessions_max || server->sessions[PHASE_HANDSHAKE].n >= server->handshakes_max;
}

/** Listen while there is room for one more. */
static void attend(struct server *server)
{
	loop_modify(&server->loop, &server->listener, full(server) || server->rests_until_ns ? 0 : EPOLLIN);
}

/* ---- time ---- */

/** How long a session may stay in @phase; 0: for ever. */
static uint64_t limit_ns(const struct server *server, enum phase phase)
{
	switch (phase) {
	case PHASE_HANDSHAKE:
		return (full(server) ? PRESSED_MS : HANDSHAKE_MS) * MS;
	case PHASE_DIAL:
		return DIAL_MS * MS;
	case PHASE_LINGER:
		return (full(server) ? PRESSED_MS : LINGER_MS) * MS;
	default:
		return 0;
	}
}

/** Set the timer for the nearest deadline. A timer that fires too early does no harm and is not set again. */
static void arm(struct server *server)
{
	uint64_t now = clock_monotonic_ns(), due = server->sessions[PHASE_DIAL].n ? now + DIAL_RETRY_MS * MS : 0;

	for (enum phase phase = 0; phase < PHASES; phase++) {
		const struct session *oldest = server->sessions[phase].first;
		uint64_t limit = limit_ns(server, phase);
		if (oldest && limit && (!due || oldest->since_ns + limit < due))
			due = oldest->since_ns + limit;
	}
	if (server->rests_until_ns && (!due || server->rests_until_ns < due))
		due = server->rests_until_ns;
	if (!due || (server->due_ns && server->due_ns <= due))
		return;
	server->due_ns = due;
	loop_timer_set(&server->timer, due > now ? (due - now) / MS + 1 : 1);
}

/** The oldest session of @phase when its time is over, else NULL. */
static struct session *overdue(struct server *server, enum phase phase, uint64_t now)
{
	struct session *oldest = server->sessions[phase].first;

	return oldest && now >= oldest->since_ns + limit_ns(server, phase) ? oldest : NULL;
}

static void on_timer(struct loop_watch *watch, uint32_t events)
{
	struct server *server = CONTAINER_OF(watch, struct server, timer);
	uint64_t now = clock_monotonic_ns(), ticks;

	if (read(watch->fd, &ticks, sizeof(ticks)) < 0)
		return;
	server->due_ns = 0;
	for (struct session *s; (s = server->sessions[PHASE_DIAL].first) && session_dial(s);)
		;
	for (struct session *s; (s = overdue(server, PHASE_DIAL, now));) {
		server_log(server, &s->address, "the VM's door has been full for %d s", DIAL_MS / 1000);
		session_reset(s);
	}
	for (struct session *s; (s = overdue(server, PHASE_HANDSHAKE, now));) {
		server_log(server, &s->address, "no handshake in time");
		session_free(s);
	}
	for (struct session *s; (s = overdue(server, PHASE_LINGER, now));)
		session_free(s);
	if (now >= server->rests_until_ns)
		server->rests_until_ns = 0;
	attend(server);
	arm(server);
}

/* ---- who comes and goes ---- */

/** Neither descriptors nor memory for a client: it stays in the kernel's queue, and nothing tells when there is some again. */
static void server_rest(struct server *server, const char *why)
{
	union client_address nobody = {0};

	server_log(server, &nobody, "cannot accept: %s", why);
	server->rests_until_ns = clock_monotonic_ns() + REST_MS * MS;
	attend(server);
	arm(server);
}

void server_enter(struct server *server, struct session *s, enum phase phase)
{
	if (listed(server, s))
		list_remove(&server->sessions[s->phase], s);
	s->phase = phase;
	s->since_ns = clock_monotonic_ns();
	list_append(&server->sessions[phase], s);
	arm(server);
	attend(server);
}

void server_leave(struct server *server, struct session *s)
{
	list_remove(&server->sessions[s->phase], s);
	attend(server);
}

static void on_accept(struct loop_watch *watch, uint32_t events)
{
	struct server *server = CONTAINER_OF(watch, struct server, listener);

	for (int i = 0; i < ACCEPTS_PER_TURN && watch->events; i++) {
		union client_address address = {0};
		socklen_t size = sizeof(address);
		struct husk_error err;
		int fd = accept4(watch->fd, &address.any, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0 && session_create(server, fd, &address, &err) < 0)
			server_log(server, &address, "turned away: %s", err.message);
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0 && errno != EINTR && errno != ECONNABORTED) {
			server_rest(server, strerror(errno));
			return;
		}
	}
}

/* ---- the log ---- */

static void address_text(const union client_address *a, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";
	bool six = a->any.sa_family == AF_INET6;

	if (a->any.sa_family == AF_UNSPEC) {
		snprintf(text, size, "all clients");
		return;
	}
	inet_ntop(a->any.sa_family, six ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr, host,
		sizeof(host));
	snprintf(text, size, six ? "[%s]:%u" : "%s:%u", host, ntohs(six ? a->in6.sin6_port : a->in.sin_port));
}

void server_log(struct server *server, const union client_address *client, const char *format, ...)
{
	uint64_t second = clock_monotonic_ns() / 1000000000;
	char from[INET6_ADDRSTRLEN + 16], what[400], line[512], dropped[48] = "";
	va_list args;

	if (second != server->log_second) {
		server->log_second = second;
		server->log_left = LOG_LINES_PER_SECOND;
	}
	if (!server->log_left) {
		server->log_dropped++;
		return;
	}
	server->log_left--;
	if (server->log_dropped)
		snprintf(dropped, sizeof(dropped), " (%u lines left out before)", server->log_dropped);
	server->log_dropped = 0;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	address_text(client, from, sizeof(from));
	int n = snprintf(line, sizeof(line), "husk-tls: %s: %s%s\n", from, what, dropped);
	(void)fd_write_all(STDERR_FILENO, line, (size_t)n);
}

/* ---- set-up ---- */

/** As many sessions as there may be descriptors, so that none is accepted that could not be served. */
static void set_limits(struct server *server)
{
	struct rlimit files;
	size_t room = SESSIONS_MAX;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
		if (files.rlim_max < 2 * SESSIONS_MAX + DESCRIPTORS_KEPT)
			room = files.rlim_max > DESCRIPTORS_KEPT + 2 ? (files.rlim_max - DESCRIPTORS_KEPT) / 2 : 1;
	}
	server->sessions_max = room;
	server->handshakes_max = room / 2 > HANDSHAKES_MAX ? HANDSHAKES_MAX : (room + 1) / 2;
}

/** What accepted sockets inherit: no delay for small writes, and an end for peers that vanished. */
static int set_socket(int fd, struct husk_error *err)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 120}, /* seconds */
		{IPPROTO_TCP, TCP_KEEPINTVL, 30},
		{IPPROTO_TCP, TCP_KEEPCNT, 4},
	};
	int listening = 0;
	socklen_t size = sizeof(listening);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
		return error_errno(err, "serve descriptor %d", fd);
	if (!listening)
		return error_set(err, -EINVAL, "serve descriptor %d: it is not a listening socket", fd);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)) < 0)
			return error_errno(err, "serve descriptor %d: it is not a TCP socket", fd);
	int rc = fd_set_nonblocking(fd, true);
	return rc < 0 ? error_set(err, rc, "serve descriptor %d: %s", fd, strerror(-rc)) : 0;
}

int server_open(struct server *server, int listener, SSL_CTX *context, const char *inner, struct husk_error *err)
{
	*server = (struct server){.context = context, .inner = inner};
	set_limits(server);
	int rc = set_socket(listener, err);
	if (rc == 0)
		rc = loop_init(&server->loop, err);
	if (rc == 0)
		rc = loop_timer_open(&server->loop, &server->timer, on_timer, err);
	if (rc == 0)
		rc = loop_add(&server->loop, &server->listener, listener, EPOLLIN, on_accept, err);
	return rc;
}

int server_run(struct server *server, struct husk_error *err)
{
	return loop_run(&server->loop, err);
}
