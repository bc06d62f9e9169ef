/* SPDX-License-Identifier: Apache-2.0 */
/* doors.c - the set of doors of one VM, its clock and its log (theory of operation: doors.h, doors_internal.h) */
#include "vmm/doors/doors_internal.h"

#include "agent/protocol.h"
#include "base/cleanup.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define WAIT_MAX_MS 1000000000000ull /* three decades: what is longer would overflow in nanoseconds */

/* A client that vanished without a word is found after KEEPALIVE_IDLE + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL seconds. */
#define KEEPALIVE_IDLE 60
#define KEEPALIVE_INTERVAL 15
#define KEEPALIVE_COUNT 4

/* ---- log and clock ---- */

/** A line may be written now: DOORS_LOG_BURST of them at once, one more per DOORS_LOG_MS. */
static bool log_allows(struct doors *doors)
{
	uint64_t now = clock_monotonic_ns(), fresh = (now - doors->log_ns) / (DOORS_LOG_MS * 1000000ull);

	if (fresh) {
		doors->log_ns = now;
		doors->log_tokens = fresh + doors->log_tokens < DOORS_LOG_BURST ? doors->log_tokens + (unsigned)fresh
										: DOORS_LOG_BURST;
	}
	if (doors->log_tokens == 0) {
		doors->log_dropped++;
		return false;
	}
	doors->log_tokens--;
	return true;
}

void doors_say(struct doors *doors, const struct door *door, const char *format, ...)
{
	char line[512], more[64] = "";
	va_list args;
	int n = 0;

	if (!doors->setup.log || !log_allows(doors))
		return;
	if (doors->log_dropped)
		snprintf(more, sizeof(more), " (%u lines before this one were left out)", doors->log_dropped);
	doors->log_dropped = 0;
	if (door)
		n = snprintf(line, sizeof(line), "%s door %s: ", vm_door_kind_name(door->is.kind), door->is.endpoint);
	va_start(args, format);
	vsnprintf(line + n, sizeof(line) - sizeof(more) - (size_t)n, format, args);
	va_end(args);
	strcat(line, more);
	doors->setup.log(doors->setup.data, line);
}

void doors_timer_need(struct doors *doors, uint64_t ns)
{
	uint64_t now;

	if (doors->timer_ns && doors->timer_ns <= ns)
		return;
	doors->timer_ns = ns;
	now = clock_monotonic_ns();
	loop_timer_set(&doors->timer, ns > now ? (ns - now) / 1000000 + 1 : 1);
}

static void on_timer(struct loop_watch *watch, uint32_t events)
{
	struct doors *doors = CONTAINER_OF(watch, struct doors, timer);

	(void)events;
	loop_timer_set(watch, 0);
	doors->timer_ns = 0;
	passages_expire(doors);
	standbys_refill(doors);
}

static void on_again(struct loop_watch *watch, uint32_t events)
{
	struct doors *doors = CONTAINER_OF(watch, struct doors, again);
	eventfd_t count;

	(void)events;
	eventfd_read(watch->fd, &count);
	passages_resume(doors);
}

/* ---- what is accepted ---- */

void door_tune(int fd)
{
	int one = 1, idle = KEEPALIVE_IDLE, interval = KEEPALIVE_INTERVAL, count = KEEPALIVE_COUNT;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
		return; /* not TCP */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void take_client(struct door *door, int fd, uint64_t begun_ns)
{
	door->meter->connections++;
	passage_begin(door, fd, NULL, begun_ns);
}

/** Say why nobody will answer. A fresh socket takes as much at once. It stays open while a few others come: a client that
 *  speaks first would meet a broken pipe before it reads. */
static void refuse_exec(struct door *door, int fd)
{
	CLEANUP_BUFFER struct buffer b = {0};

	door->meter->refused++;
	if (agent_hello_put(&b) == 0 &&
		agent_error_put(&b, AGENT_ERROR_UNSUPPORTED,
			"this VM runs a foreign initramfs, without husk's agent: exec and cp need it") == 0)
		(void)send(fd, buffer_bytes(&b), b.size, MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	int *place = &door->doors->refused[door->doors->next_refused++ % DOORS_REFUSED];
	cleanup_fd(place);
	*place = fd;
}

static void take_exec(struct door *door, int fd, uint64_t begun_ns)
{
	door->meter->connections++;
	if (door->doors->setup.no_agent) {
		refuse_exec(door, fd);
		return;
	}
	passage_begin_vsock(door, fd, AGENT_PORT, false, begun_ns);
}

static const struct door_ops client_ops = {.take = take_client}, exec_ops = {.take = take_exec};

static const struct door_ops *const ops_of_kind[] = {
	[VM_DOOR_UNIX] = &client_ops,
	[VM_DOOR_TCP] = &client_ops,
	[VM_DOOR_TLS] = &client_ops,
	[VM_DOOR_EXEC] = &exec_ops,
	[VM_DOOR_VSOCK] = &hybrid_ops,
	[VM_DOOR_HANDOFF] = &handoff_ops,
};

static void on_accepted(void *data, int fd, uint64_t begun_ns)
{
	struct door *door = data;

	if (fd >= 0) {
		door->ops->take(door, fd, begun_ns);
		return;
	}
	door->meter->connections++;
	door->meter->refused++;
	doors_say(door->doors, door, "a connection was closed: no descriptors are left");
}

/* ---- the set ---- */

int doors_add(struct doors *doors, const struct vm_door *is, int fd, struct husk_error *err)
{
	CLEANUP_FD int owned = fd;

	if (doors->stopped)
		return error_set(err, -ESHUTDOWN, "open a door: the VM ends");
	if (!vm_door_check(is) || is->id < 1 || is->id > VM_DOORS_MAX)
		return error_set(err, -EINVAL, "open a door: its description is malformed");
	struct door **at = &doors->door[is->id - 1];
	if (*at)
		return error_set(err, -EEXIST, "open the %s door %s: its id %u is in use", vm_door_kind_name(is->kind),
			is->endpoint, is->id);
	CLEANUP_FREE struct door *door = calloc(1, sizeof(*door));
	if (!door)
		return error_set(
			err, -ENOMEM, "open the %s door %s: out of memory", vm_door_kind_name(is->kind), is->endpoint);
	*door = (struct door){
		.doors = doors, .is = *is, .ops = ops_of_kind[is->kind], .meter = &doors->stats->door[is->id - 1]};
	list_init(&door->visitors);
	list_init(&door->queued);
	int rc = listener_open(&door->listener, doors->setup.loop, steal_fd(&owned), on_accepted, door, err);
	if (rc < 0)
		return error_prefix(err, rc, "open the %s door %s", vm_door_kind_name(is->kind), is->endpoint);
	/* Connections of an earlier door of this id may live on, and count themselves out. */
	*door->meter = (struct door_meter){.active = door->meter->active};
	*at = steal_pointer(&door);
	return 0;
}

static void close_door(struct doors *doors, unsigned i)
{
	struct door *door = steal_pointer(&doors->door[i]);

	listener_close(&door->listener);
	while (!list_empty(&door->visitors))
		door->ops->dismiss(door, door->visitors.next);
	passages_end(doors, door);
	free(door);
}

int doors_remove(struct doors *doors, uint32_t id, struct husk_error *err)
{
	if (id < 1 || id > VM_DOORS_MAX || !doors->door[id - 1])
		return error_set(err, -ENOENT, "close a door: there is none with id %u", id);
	close_door(doors, id - 1);
	if (!standbys_needed(doors))
		standbys_end(doors);
	return 0;
}

void doors_prefixes_freed(struct doors *doors)
{
	for (unsigned i = 0; i < VM_DOORS_MAX; i++)
		if (doors->door[i] && doors->door[i]->ops == &handoff_ops)
			handoff_resume(doors->door[i]);
}

void doors_agent_ready(struct doors *doors)
{
	if (!doors->stopped)
		guest_listeners_ask(doors);
}

void doors_workload_started(struct doors *doors)
{
	if (doors->stopped || doors->started_ns)
		return;
	doors->started_ns = clock_monotonic_ns();
	passages_review(doors);
	passages_expire(doors);
}

void doors_stop(struct doors *doors)
{
	doors->stopped = true;
	guest_listeners_end(doors);
	standbys_end(doors);
	for (unsigned i = 0; i < VM_DOORS_MAX; i++)
		if (doors->door[i])
			close_door(doors, i);
}

struct door_meter *doors_meter(struct doors *doors, uint32_t id)
{
	return id >= 1 && id <= VM_DOORS_MAX ? &doors->stats->door[id - 1] : NULL;
}

static int open_again(struct doors *doors, struct husk_error *err)
{
	CLEANUP_FD int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return error_errno(err, "make an eventfd");
	int rc = loop_add(doors->setup.loop, &doors->again, fd, EPOLLIN, on_again, err);
	if (rc == 0)
		steal_fd(&fd);
	return rc;
}

int doors_create(const struct doors_setup *setup, struct doors **out, struct husk_error *err)
{
	struct doors *doors = calloc(1, sizeof(*doors));
	uint64_t wait_ms = setup->listen_wait_ms < WAIT_MAX_MS ? setup->listen_wait_ms : WAIT_MAX_MS;

	if (doors && !setup->stats)
		doors->own_stats = calloc(1, sizeof(*doors->own_stats));
	if (!doors || (!setup->stats && !doors->own_stats)) {
		free(doors);
		return error_set(err, -ENOMEM, "make the doors: out of memory");
	}
	for (size_t i = 0; i < DOORS_REFUSED; i++)
		doors->refused[i] = -1;
	doors->setup = *setup;
	if (doors->setup.standbys > DOORS_STANDBYS_MAX)
		doors->setup.standbys = DOORS_STANDBYS_MAX;
	doors->stats = setup->stats ? setup->stats : doors->own_stats;
	doors->wait_ns = wait_ms * 1000000;
	doors->answer_ns = DOORS_ANSWER_MS * 1000000ull;
	doors->log_tokens = DOORS_LOG_BURST;
	doors->log_ns = clock_monotonic_ns();
	list_init(&doors->waiting);
	list_init(&doors->asking);
	list_init(&doors->returned);
	guest_listeners_init(&doors->listeners);
	int rc = loop_timer_open(setup->loop, &doors->timer, on_timer, err);
	if (rc == 0)
		rc = open_again(doors, err);
	if (rc < 0) {
		doors_destroy(doors);
		return error_prefix(err, rc, "make the doors");
	}
	*out = doors;
	return 0;
}

void doors_destroy(struct doors *doors)
{
	if (!doors)
		return;
	doors_stop(doors);
	loop_timer_close(doors->setup.loop, &doors->timer);
	loop_timer_close(doors->setup.loop, &doors->again);
	for (size_t i = 0; i < DOORS_REFUSED; i++)
		cleanup_fd(&doors->refused[i]);
	free(doors->own_stats);
	free(doors);
}
