/* SPDX-License-Identifier: Apache-2.0 */
/* session.c - one client of husk-tls; the theory is in session.h */
#include "tls/session.h"

#include "base/cleanup.h"
#include "tls/context.h"
#include "tls/server.h"

#include <openssl/err.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define TURN 4 /* records each way before the others get theirs */

/** Who is at fault when bytes cannot be passed on. */
enum fault { FAULT_NONE, FAULT_CLIENT, FAULT_INNER };

static void on_client(struct loop_watch *watch, uint32_t events);
static void on_inner(struct loop_watch *watch, uint32_t events);

int session_create(struct server *server, int fd, const union client_address *address, struct husk_error *err)
{
	struct session *s = calloc(1, sizeof(*s));
	SSL *ssl = s ? SSL_new(server->context) : NULL;

	if (!ssl || SSL_set_fd(ssl, fd) != 1 || loop_add(&server->loop, &s->client, fd, EPOLLIN, on_client, err) < 0) {
		ERR_clear_error();
		SSL_free(ssl);
		free(s);
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	SSL_set_accept_state(ssl);
	s->server = server;
	s->address = *address;
	s->ssl = ssl;
	s->inner.fd = -1;
	s->read_waits = EPOLLIN;
	s->write_waits = EPOLLOUT;
	server_enter(server, s, PHASE_HANDSHAKE);
	return 0;
}

static void close_inner(struct session *s)
{
	if (s->inner.fd < 0)
		return;
	loop_remove(&s->server->loop, &s->inner);
	close(s->inner.fd);
	s->inner.fd = -1;
}

void session_free(struct session *s)
{
	int fd = s->client.fd;

	close_inner(s);
	loop_remove(&s->server->loop, &s->client);
	SSL_free(s->ssl);
	close(fd);
	buffer_free(&s->to_inner);
	buffer_free(&s->to_client);
	server_leave(s->server, s);
	free(s);
}

void session_reset(struct session *s)
{
	struct linger reset = {.l_onoff = 1};

	setsockopt(s->client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	session_free(s);
}

/** One that was left alone (on_hang_up) is looked at again once what it sent before has gone inside. */
static bool watch_client(struct session *s, uint32_t events)
{
	struct loop *loop = &s->server->loop;

	if (s->client.added)
		loop_modify(loop, &s->client, events);
	else if (events || !s->to_inner.size)
		return loop_add(loop, &s->client, s->client.fd, events, on_client, NULL) == 0;
	return true;
}

/** Nothing more is said to the client; it may still take what was. */
static void linger(struct session *s)
{
	close_inner(s);
	buffer_free(&s->to_inner);
	buffer_free(&s->to_client);
	shutdown(s->client.fd, SHUT_WR);
	server_enter(s->server, s, PHASE_LINGER);
	if (!watch_client(s, EPOLLIN))
		session_free(s);
}

/** Drop what a client sends that has been told everything. */
static void run_linger(struct session *s)
{
	ssize_t n = 1;

	for (int i = 0; i < TURN && n > 0; i++)
		n = read(s->client.fd, s->server->record, RECORD_MAX);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		session_free(s);
}

/* ---- bytes both ways ---- */

/** SSL_read, SSL_write or SSL_shutdown returned @rc <= 0: note in @waits what it waits for. False: it waits for nothing. */
static bool waits_for(struct session *s, int rc, uint32_t *waits)
{
	int why = SSL_get_error(s->ssl, rc);

	if (why == SSL_ERROR_WANT_READ)
		*waits = EPOLLIN;
	else if (why == SSL_ERROR_WANT_WRITE)
		*waits = EPOLLOUT;
	else
		return false;
	return true;
}

/** Write @n bytes inside; returns how many went, or were dropped because nobody takes them there. */
static size_t write_inner(struct session *s, const void *bytes, size_t n)
{
	ssize_t done = s->inner_deaf ? (ssize_t)n : write(s->inner.fd, bytes, n);

	if (done >= 0)
		return (size_t)done;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	/* Whether this is an end or a reset, reading tells. */
	s->inner_deaf = true;
	return n;
}

/** Write what was kept; true when nothing is left. */
static bool flush_inner(struct session *s)
{
	if (!s->to_inner.size)
		return true;
	buffer_consume(&s->to_inner, write_inner(s, buffer_bytes(&s->to_inner), s->to_inner.size));
	if (s->to_inner.size)
		return false;
	buffer_free(&s->to_inner);
	return true;
}

/** Client to VM: one turn. */
static enum fault pump_in(struct session *s)
{
	for (int i = 0; i < TURN; i++) {
		if (!flush_inner(s))
			return FAULT_NONE;
		if (s->client_ended)
			break;
		ERR_clear_error();
		errno = 0;
		int n = SSL_read(s->ssl, s->server->record, RECORD_MAX);
		if (n > 0) {
			s->read_waits = EPOLLIN;
			size_t done = write_inner(s, s->server->record, (size_t)n);
			if (buffer_append(&s->to_inner, s->server->record + done, (size_t)n - done) < 0)
				return FAULT_CLIENT;
		} else if (SSL_get_error(s->ssl, n) == SSL_ERROR_ZERO_RETURN) {
			s->client_ended = true;
		} else {
			return waits_for(s, n, &s->read_waits) ? FAULT_NONE : FAULT_CLIENT;
		}
	}
	if (s->client_ended && !s->to_inner.size && !s->inner_shut) {
		shutdown(s->inner.fd, SHUT_WR);
		s->inner_shut = true;
	}
	return FAULT_NONE;
}

/** Encrypt and send @n bytes; what the client does not take yet is kept. */
static enum fault write_client(struct session *s, const uint8_t *bytes, size_t n)
{
	while (n) {
		ERR_clear_error();
		errno = 0;
		int done = SSL_write(s->ssl, bytes, (int)n);
		if (done <= 0) {
			bool kept = waits_for(s, done, &s->write_waits) && buffer_append(&s->to_client, bytes, n) == 0;
			return kept ? FAULT_NONE : FAULT_CLIENT;
		}
		bytes += done;
		n -= (size_t)done;
	}
	return FAULT_NONE;
}

/** Send what was kept. OpenSSL wants the very bytes again that it could not send, which they are. */
static enum fault flush_client(struct session *s)
{
	struct buffer kept = s->to_client;

	s->to_client = (struct buffer){0};
	enum fault fault = write_client(s, buffer_bytes(&kept), kept.size);
	buffer_free(&kept);
	return fault;
}

/** The inner side has said all; say so to the client. */
static enum fault notify(struct session *s)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_shutdown(s->ssl);
	if (rc >= 0)
		s->notified = true;
	else if (!waits_for(s, rc, &s->write_waits))
		return FAULT_CLIENT;
	return FAULT_NONE;
}

/** True when the inner side has closed both ways, which an orderly one does only after we have shut ours. */
static bool inner_hung_up(const struct session *s)
{
	struct pollfd p = {.fd = s->inner.fd};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

/** VM to client: one turn. */
static enum fault pump_out(struct session *s)
{
	enum fault fault = s->to_client.size ? flush_client(s) : FAULT_NONE;

	for (int i = 0; i < TURN && !fault && !s->to_client.size && !s->inner_ended; i++) {
		ssize_t n = read(s->inner.fd, s->server->record, RECORD_MAX);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return FAULT_NONE;
		if (n < 0 || (n == 0 && !s->inner_shut && inner_hung_up(s)))
			return FAULT_INNER;
		if (n == 0)
			s->inner_ended = true;
		else
			fault = write_client(s, s->server->record, (size_t)n);
	}
	if (!fault && s->inner_ended && !s->to_client.size && !s->notified)
		fault = notify(s);
	return fault;
}

static bool watch_inner(struct session *s, bool wanted, uint32_t events)
{
	struct loop *loop = &s->server->loop;

	if (!wanted)
		loop_remove(loop, &s->inner);
	else if (s->inner.added)
		loop_modify(loop, &s->inner, events);
	else
		return loop_add(loop, &s->inner, s->inner.fd, events, on_inner, NULL) == 0;
	return true;
}

/** Ask for the events that can carry the session on. A hang-up is reported whether asked for or not, so a side is left
 *  alone while there is nothing to do about its: the inner one here, the client in on_hang_up(). */
static void await(struct session *s)
{
	bool speaks = s->to_client.size || (s->inner_ended && !s->notified);
	bool hears = !s->client_ended && !s->to_inner.size;
	uint32_t client = (speaks ? s->write_waits : 0) | (hears ? s->read_waits : 0);
	uint32_t inner = (s->inner_ended || s->to_client.size ? 0 : EPOLLIN) | (s->to_inner.size ? EPOLLOUT : 0);
	bool until_gone = s->notified && !s->inner_shut;

	if (!watch_inner(s, inner || until_gone, inner) || !watch_client(s, client))
		session_reset(s);
}

/** A turn is over: end, or wait for what comes. */
static void settle(struct session *s, enum fault fault)
{
	if (fault == FAULT_INNER)
		session_reset(s);
	else if (fault == FAULT_CLIENT || (s->notified && s->client_ended && s->inner_shut))
		session_free(s);
	else if (s->notified && s->inner_deaf)
		linger(s);
	else
		await(s);
}

/* ---- the beginning ---- */

bool session_dial(struct session *s)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", s->server->inner);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (fd >= 0 && errno == EAGAIN)
			return false; /* its queue is full, and nothing tells when it no longer is */
		server_log(s->server, &s->address, "cannot enter the VM by %s: %s", s->server->inner, strerror(errno));
		session_reset(s);
		return true;
	}
	s->inner.fd = steal_fd(&fd);
	server_enter(s->server, s, PHASE_RELAY);
	await(s);
	return true;
}

static void run_handshake(struct session *s)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_accept(s->ssl);
	if (rc == 1) {
		s->read_waits = EPOLLIN;
		loop_modify(&s->server->loop, &s->client, 0);
		/* Who finds others waiting waits behind them. */
		if (s->server->sessions[PHASE_DIAL].n || !session_dial(s))
			server_enter(s->server, s, PHASE_DIAL);
	} else if (waits_for(s, rc, &s->read_waits)) {
		loop_modify(&s->server->loop, &s->client, s->read_waits);
	} else if (ERR_peek_error() && ERR_GET_REASON(ERR_peek_error()) != SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		server_log(s->server, &s->address, "handshake failed: %s", openssl_reason());
		linger(s); /* an alert is on its way */
	} else {
		session_free(s);
	}
}

/** The client's connection is gone while nothing of it is awaited. What it sent before may still lie in its socket, behind
 *  what the VM has yet to take: a client that closes without having read our session tickets looks like this. */
static void on_hang_up(struct session *s)
{
	if (s->phase == PHASE_RELAY && !s->to_inner.size)
		session_free(s);
	else
		loop_remove(&s->server->loop, &s->client);
}

static void on_client(struct loop_watch *watch, uint32_t events)
{
	struct session *s = CONTAINER_OF(watch, struct session, client);

	if (!watch->events) {
		on_hang_up(s);
	} else if (s->phase == PHASE_HANDSHAKE) {
		run_handshake(s);
	} else if (s->phase == PHASE_LINGER) {
		run_linger(s);
	} else {
		enum fault fault = pump_in(s);
		if (!fault && (s->to_client.size || s->inner_ended))
			fault = pump_out(s);
		settle(s, fault);
	}
}

static void on_inner(struct loop_watch *watch, uint32_t events)
{
	struct session *s = CONTAINER_OF(watch, struct session, inner);
	enum fault fault = FAULT_NONE;

	if (s->inner_ended && (events & (EPOLLHUP | EPOLLERR)))
		s->inner_deaf = true;
	if (s->to_inner.size)
		fault = pump_in(s);
	if (!fault)
		fault = pump_out(s);
	settle(s, fault);
}
