/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passage.c - a connection on its way from a door to a program in the guest
 *
 * Theory of operation: see doors_internal.h. Whether a passage may ask now is derived, each time, from the table of
 * listeners; nothing about it is kept. A client that goes away while it waits ends its passage, unless it has sent something
 * before it closed: that still has its way to go (the muxer sees it alike).
 *
 * What the client has said by the time that the agent is asked goes along with the question, up to EARLY_MAX bytes: a guest
 * that has them with the request answers a round trip earlier. They are looked at only, and taken from the client once the
 * agent has said OK; when it says no they are still the client's.
 *
 * The agent's answer is HELLO and OK, or HELLO and ERROR. It is collected until it is whole, in at most ANSWER_MAX bytes.
 * ERROR REFUSED means that the listener has gone since it was told: the passage waits for the next LISTENING, within its
 * time. Every other answer gives it up. An end instead of an answer says little where a standby was used, which may have been
 * dead before: then the agent is asked once more, over a connection of its own.
 */
#include "vmm/doors/doors_internal.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define ANSWER_MAX (3 * AGENT_HEADER_SIZE + 4 + 4 + 1000) /* HELLO; OK, or ERROR with its longest text */
#define WHY_SIZE 160
#define EARLY_MAX 4096

enum passage_state { PASSAGE_WAITING = 1, PASSAGE_QUEUED, PASSAGE_ASKING, PASSAGE_RETURNED };

struct passage {
	struct list list; /* by state: in doors->waiting, door->queued, doors->asking, returned */
	struct door *door;
	struct loop_watch watch; /* while it waits or queues: its client goes away */
	int fd; /* owned; while ASKING the muxer's */
	uint8_t state;
	bool vsock, hybrid; /* to an AF_VSOCK port, without the agent's help */
	bool waited;
	bool standby; /* asked over one: the agent has said HELLO */
	uint32_t port; /* asked for */
	uint32_t early; /* bytes of the client that went along with the question */
	uint64_t begun_ns, queued_ns, asked_ns;
	uint64_t generation; /* of the table that told of the port */
	struct vsock_conn *token; /* while ASKING; at its beginning a standby's */
	struct buffer answer, prefix;
	char *why; /* RETURNED: owned, why it is given up; NULL: it may ask again */
};

static struct doors *doors_of(const struct passage *p)
{
	return p->door->doors;
}

static uint64_t max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/** When its time to wait is over; 0: its clock has not begun. */
static uint64_t deadline(const struct passage *p)
{
	const struct doors *doors = doors_of(p);

	return doors->started_ns ? max(p->begun_ns, doors->started_ns) + doors->wait_ns : 0;
}

/* ---- ends ---- */

/** @n bytes of prefixes wait no longer. */
static void prefix_gone(struct doors *doors, size_t n)
{
	bool was_full = doors->prefix_bytes >= DOORS_PREFIX_MAX;

	doors->prefix_bytes -= n;
	if (was_full && doors->prefix_bytes < DOORS_PREFIX_MAX)
		doors_prefixes_freed(doors);
}

/** Take @p out of the list of its state, into none. */
static void passage_leave(struct passage *p)
{
	struct doors *doors = doors_of(p);

	p->door->n_waiting -= p->state == PASSAGE_WAITING;
	p->door->meter->waiting -= p->state == PASSAGE_WAITING || p->state == PASSAGE_QUEUED;
	p->door->n_queued -= p->state == PASSAGE_QUEUED;
	p->door->n_asking -= p->state == PASSAGE_ASKING;
	if (p->state == PASSAGE_ASKING && p->door->n_queued)
		eventfd_write(doors->again.fd, 1);
	p->state = 0;
	list_remove(&p->list);
	loop_remove(doors->setup.loop, &p->watch);
}

/** Forget @p; its connection is somebody else's, or closed. */
static void passage_free(struct passage *p)
{
	struct doors *doors = doors_of(p);

	passage_leave(p);
	prefix_gone(doors, p->prefix.size);
	buffer_free(&p->prefix);
	buffer_free(&p->answer);
	free(p->why);
	free(p);
}

/** Close a connection that has not reached the guest. */
static void passage_end(struct passage *p)
{
	int fd = p->fd;

	p->door->meter->refused++;
	loop_remove(doors_of(p)->setup.loop, &p->watch);
	if (p->state == PASSAGE_ASKING) {
		if (p->token)
			vsock_cancel(steal_pointer(&p->token));
	} else {
		close(fd);
	}
	passage_free(p);
}

__attribute__((format(printf, 2, 3))) static void give_up(struct passage *p, const char *format, ...)
{
	char why[WHY_SIZE + 64];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	doors_say(doors_of(p), p->door, "a connection was closed: %s", why);
	passage_end(p);
}

static void give_up_waiting(struct passage *p)
{
	const struct doors *doors = doors_of(p);
	char port[32] = "any port";

	if (p->door->is.guest_port)
		snprintf(port, sizeof(port), "port %u", p->door->is.guest_port);
	give_up(p, "the guest did not listen on %s within %.3f s%s", port, (double)doors->wait_ns / 1e9,
		doors->listeners.state == LISTENERS_UNKNOWN ? ", as far as its agent told" : "");
}

/* ---- asking ---- */

static void ask(struct passage *p, uint16_t port, bool standby);

static void on_connected(void *data, int error)
{
	struct passage *p = data;

	if (error == 0 && !p->vsock)
		return; /* the answer says more */
	p->token = NULL;
	if (error == 0) {
		histogram_add(&p->door->meter->stage[DOOR_CONNECT], clock_monotonic_ns() - p->asked_ns);
		passage_free(p);
	} else if (error == -ECONNRESET && p->standby) { /* it is ours again: the standby may have been dead */
		ask(p, (uint16_t)p->port, false);
	} else if (error == -EPIPE || p->vsock) { /* the client went away; or hears from its protocol */
		passage_end(p);
	} else {
		give_up(p, "the guest's agent did not take it: %s", strerror(-error));
	}
}

/** The guest's program has the early bytes: take them from the client. */
static void take_early(struct passage *p)
{
	uint8_t bytes[EARLY_MAX];

	p->door->meter->bytes_in += p->early;
	while (p->early) {
		ssize_t n = recv(p->fd, bytes, p->early, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* it has reset meanwhile, which the muxer will see */
			break;
		p->early -= (uint32_t)n;
	}
}

/** The guest's program has it. */
static enum vsock_verdict passage_open(struct passage *p, struct buffer *first)
{
	take_early(p);
	if (first->size == 0 && p->prefix.size) { /* it may be large: change owners instead of copying */
		struct buffer empty = *first;
		*first = p->prefix;
		p->prefix = empty;
		prefix_gone(doors_of(p), first->size);
	} else if (buffer_append(first, buffer_bytes(&p->prefix), p->prefix.size) < 0) {
		return VSOCK_GIVE_BACK;
	}
	histogram_add(&p->door->meter->stage[DOOR_CONNECT], clock_monotonic_ns() - p->asked_ns);
	standbys_want(doors_of(p));
	passage_free(p);
	return VSOCK_OPEN;
}

/** Judge the answer collected so far; *@size bytes of it are no longer needed. GIVE_BACK may come with @why. */
static enum vsock_verdict judge(struct passage *p, size_t *size, char why[WHY_SIZE])
{
	struct agent_frame frame;
	bool greeted = p->standby;
	uint32_t value;
	long n;

	snprintf(why, WHY_SIZE, "the guest's agent gave a malformed answer");
	for (*size = 0;; *size += (size_t)n) {
		n = agent_frame_decode(buffer_bytes(&p->answer) + *size, p->answer.size - *size, &frame);
		if (n == 0 && p->answer.size < ANSWER_MAX)
			return VSOCK_MORE;
		if (n <= 0)
			return VSOCK_GIVE_BACK;
		if (greeted || frame.type == AGENT_ERROR)
			break;
		if (frame.type != AGENT_HELLO || !agent_u32_get(&frame, &value) || value != AGENT_VERSION)
			return VSOCK_GIVE_BACK;
		greeted = true;
	}
	*size += (size_t)n;
	if (frame.type == AGENT_OK && frame.size == 0)
		return VSOCK_OPEN;
	if (frame.type == AGENT_ERROR && agent_error_get(&frame, &value, why, WHY_SIZE) && value == AGENT_ERROR_REFUSED)
		why[0] = 0;
	return VSOCK_GIVE_BACK;
}

static enum vsock_verdict on_answer(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first)
{
	struct passage *p = data;
	struct doors *doors = doors_of(p);
	size_t had = p->answer.size, size = 0, room = ANSWER_MAX - had;
	char why[WHY_SIZE] = "out of memory";
	enum vsock_verdict verdict = VSOCK_GIVE_BACK;

	*used = n;
	if (buffer_append(&p->answer, bytes, n < room ? n : room) == 0)
		verdict = judge(p, &size, why);
	if (verdict == VSOCK_MORE)
		return verdict;
	if (verdict == VSOCK_OPEN) {
		*used = size - had;
		verdict = passage_open(p, first);
		if (verdict == VSOCK_OPEN)
			return verdict;
		snprintf(why, sizeof(why), "out of memory");
	}
	p->token = NULL;
	p->why = why[0] ? strdup(why) : NULL;
	passage_leave(p);
	p->state = PASSAGE_RETURNED;
	list_append(&doors->returned, &p->list);
	eventfd_write(doors->again.fd, 1);
	return VSOCK_GIVE_BACK;
}

/** Put @p, which is in no list, into doors->asking and on its way, with the standby that is its token or by a dial. */
static void dial(struct passage *p, struct vsock_dial *how)
{
	struct doors *doors = doors_of(p);
	struct husk_error err;

	p->asked_ns = clock_monotonic_ns();
	how->connected = on_connected;
	how->data = p;
	if (!doors->own_stats) { /* our own do not outlive the connection */
		how->meter = p->door->meter;
		how->begun_ns = p->waited ? p->asked_ns : p->begun_ns;
	}
	p->state = PASSAGE_ASKING;
	list_append(&doors->asking, &p->list);
	p->door->n_asking++;
	doors_timer_need(doors, p->asked_ns + doors->answer_ns);
	if ((p->token ? vsock_attach(p->token, p->fd, how, &err)
		      : vsock_dial(doors->setup.vsock, p->fd, how, &p->token, &err)) < 0) {
		p->token = NULL;
		give_up(p, "%s", err.message);
	}
}

static void on_gone(struct loop_watch *watch, uint32_t events)
{
	struct passage *p = CONTAINER_OF(watch, struct passage, watch);
	char byte;

	if (!(events & EPOLLERR) && recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		loop_remove(doors_of(p)->setup.loop, watch); /* it closed behind what it said: that goes its way */
	else
		passage_end(p);
}

/** Notice when the client of @p goes away; false when @p was given up because that cannot be. */
static bool watch_client(struct passage *p)
{
	if (loop_add(doors_of(p)->setup.loop, &p->watch, p->fd, 0, on_gone, NULL) == 0)
		return true;
	give_up(p, "it cannot be watched");
	return false;
}

/** Have @p wait for its turn to ask. */
static void queue(struct passage *p)
{
	struct doors *doors = doors_of(p);

	if (p->door->n_queued >= DOORS_QUEUED_MAX) {
		give_up(p, "%d others queue already", DOORS_QUEUED_MAX);
		return;
	}
	if (!watch_client(p))
		return;
	p->state = PASSAGE_QUEUED;
	p->queued_ns = clock_monotonic_ns();
	list_append(&p->door->queued, &p->list);
	p->door->n_queued++;
	p->door->meter->waiting++;
	doors_timer_need(doors, p->queued_ns + DOORS_QUEUED_MS * 1000000ull);
}

/** Have what the client has said go along; nothing when a prefix goes first. */
static int put_early(struct passage *p, struct buffer *first)
{
	p->early = 0;
	if (p->prefix.size)
		return 0;
	void *to = buffer_reserve(first, EARLY_MAX);
	if (!to)
		return -ENOMEM;
	ssize_t n = recv(p->fd, to, EARLY_MAX, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0) {
		buffer_commit(first, (size_t)n);
		p->early = (uint32_t)n;
	}
	return 0;
}

/** Ask the agent for @port: over a standby where there is one and @standby says so, over a connection of its own otherwise,
 *  or later, when its turn comes. */
static void ask(struct passage *p, uint16_t port, bool standby)
{
	CLEANUP_BUFFER struct buffer first = {0};
	struct vsock_dial how = {.port = AGENT_PORT,
		.close_is_reset = true,
		.hang_up_is_reset = p->door->is.kind == VM_DOOR_TLS, /* husk-tls's inner connection */
		.first = &first,
		.answer = on_answer};

	passage_leave(p);
	if (p->door->n_asking >= DOORS_ASKING_MAX) {
		queue(p);
		return;
	}
	buffer_free(&p->answer);
	p->port = port;
	p->generation = doors_of(p)->listeners.generation;
	p->token = standby ? standby_take(doors_of(p)) : NULL;
	p->standby = p->token != NULL;
	if ((p->standby || agent_hello_put(&first) == 0) && agent_forward_put(&first, port) == 0 &&
		put_early(p, &first) == 0) {
		dial(p, &how);
		return;
	}
	if (p->token)
		vsock_cancel(steal_pointer(&p->token));
	give_up(p, "out of memory");
}

/* ---- waiting ---- */

/** Put @p where its clock has its place: behind all that began before. */
static void insert_by_age(struct list *head, struct passage *p)
{
	struct list *at = head->prev;

	while (at != head && CONTAINER_OF(at, struct passage, list)->begun_ns > p->begun_ns)
		at = at->prev;
	list_append(at->next, &p->list);
}

static void wait_for_port(struct passage *p)
{
	struct doors *doors = doors_of(p);
	uint64_t end = deadline(p);

	if (p->state == PASSAGE_WAITING)
		return;
	passage_leave(p);
	p->waited = true;
	if (p->door->n_waiting >= DOORS_WAITING_MAX) {
		give_up(p, "%d others wait already", DOORS_WAITING_MAX);
		return;
	}
	if (!watch_client(p))
		return;
	insert_by_age(&doors->waiting, p);
	p->state = PASSAGE_WAITING;
	p->door->n_waiting++;
	p->door->meter->waiting++;
	if (end)
		doors_timer_need(doors, end);
}

/** Ask for its port where there is a point in it, otherwise wait. */
static void proceed(struct passage *p)
{
	const struct doors *doors = doors_of(p);
	const struct guest_listeners *l = &doors->listeners;
	uint16_t port = guest_listeners_find(l, p->door->is.guest_port);

	if (l->state == LISTENERS_UNSUPPORTED && doors->started_ns) { /* nobody will tell: the agent has the one word */
		if (p->door->is.guest_port == 0)
			give_up(p, "which port is the guest's first cannot be told; name one");
		else
			ask(p, (uint16_t)p->door->is.guest_port, true);
	} else if (port) {
		ask(p, port, true);
	} else {
		wait_for_port(p);
	}
}

/** The agent said no. */
static void resume(struct passage *p)
{
	const struct doors *doors = doors_of(p);
	uint64_t end = deadline(p);

	if (p->why)
		give_up(p, "%s", p->why);
	else if (doors->listeners.state == LISTENERS_UNSUPPORTED)
		give_up(p, "nobody in the guest listens on port %u", p->port);
	else if (end && end <= clock_monotonic_ns())
		give_up_waiting(p);
	else if (doors->listeners.generation != p->generation)
		proceed(p); /* the table has changed meanwhile */
	else
		wait_for_port(p);
}

void passages_resume(struct doors *doors)
{
	while (!list_empty(&doors->returned))
		resume(CONTAINER_OF(doors->returned.next, struct passage, list));
	for (unsigned i = 0; i < VM_DOORS_MAX; i++) {
		struct door *door = doors->door[i];
		while (door && door->n_queued && door->n_asking < DOORS_ASKING_MAX)
			proceed(CONTAINER_OF(door->queued.next, struct passage, list));
	}
}

void passages_review(struct doors *doors)
{
	struct list todo;

	list_take(&todo, &doors->waiting);
	while (!list_empty(&todo)) {
		struct passage *p = CONTAINER_OF(todo.next, struct passage, list);
		list_remove(&p->list);
		list_append(&doors->waiting, &p->list); /* as old as it was */
		proceed(p);
	}
}

/** Give up those in the door's queue whose time is over. */
static void expire_queue(struct door *door, uint64_t now)
{
	while (!list_empty(&door->queued)) {
		struct passage *p = CONTAINER_OF(door->queued.next, struct passage, list);
		uint64_t end = p->queued_ns + DOORS_QUEUED_MS * 1000000ull;
		if (end > now) {
			doors_timer_need(door->doors, end);
			return;
		}
		give_up(p, "the guest was asked for too many others for %u s", DOORS_QUEUED_MS / 1000);
	}
}

void passages_expire(struct doors *doors)
{
	uint64_t now = clock_monotonic_ns();

	while (!list_empty(&doors->waiting)) {
		struct passage *p = CONTAINER_OF(doors->waiting.next, struct passage, list);
		uint64_t end = deadline(p);
		if (!end || end > now) {
			if (end)
				doors_timer_need(doors, end);
			break;
		}
		give_up_waiting(p);
	}
	for (unsigned i = 0; i < VM_DOORS_MAX; i++)
		if (doors->door[i])
			expire_queue(doors->door[i], now);
	while (!list_empty(&doors->asking)) {
		struct passage *p = CONTAINER_OF(doors->asking.next, struct passage, list);
		if (p->asked_ns + doors->answer_ns > now) {
			doors_timer_need(doors, p->asked_ns + doors->answer_ns);
			break;
		}
		give_up(p, "the guest's agent did not answer within %.3f s", (double)doors->answer_ns / 1e9);
	}
}

static void end_in_list(struct list *head, const struct door *door)
{
	struct list *next;

	for (struct list *at = head->next; at != head; at = next) {
		next = at->next;
		struct passage *p = CONTAINER_OF(at, struct passage, list);
		if (p->door == door)
			passage_end(p);
	}
}

void passages_end(struct doors *doors, const struct door *door)
{
	while (door->n_queued)
		passage_end(CONTAINER_OF(door->queued.next, struct passage, list));
	end_in_list(&doors->waiting, door);
	end_in_list(&doors->asking, door);
	end_in_list(&doors->returned, door);
}

/* ---- beginnings ---- */

/** A new one over @fd (taken), in no list; NULL without memory, and the connection is closed. */
static struct passage *passage_new(struct door *door, int fd, uint64_t begun_ns)
{
	struct passage *p = calloc(1, sizeof(*p));

	if (!p) {
		close(fd);
		door->meter->refused++;
		return NULL;
	}
	list_init(&p->list);
	p->door = door;
	p->fd = fd;
	p->begun_ns = begun_ns;
	return p;
}

void passage_begin(struct door *door, int fd, struct buffer *prefix, uint64_t begun_ns)
{
	struct passage *p = passage_new(door, fd, begun_ns);

	if (!p) {
		if (prefix)
			buffer_free(prefix);
		return;
	}
	if (prefix) {
		p->prefix = *prefix;
		*prefix = (struct buffer){0};
		door->doors->prefix_bytes += p->prefix.size;
	}
	door_tune(fd);
	proceed(p);
	histogram_add(&door->meter->stage[DOOR_ACCEPT], clock_monotonic_ns() - begun_ns);
}

void passage_begin_vsock(struct door *door, int fd, uint32_t port, bool hybrid, uint64_t begun_ns)
{
	struct passage *p = passage_new(door, fd, begun_ns);
	struct vsock_dial how = {.port = port, .hybrid = hybrid};

	if (!p)
		return;
	p->vsock = true;
	p->port = port;
	dial(p, &how);
	histogram_add(&door->meter->stage[DOOR_ACCEPT], clock_monotonic_ns() - begun_ns);
}
