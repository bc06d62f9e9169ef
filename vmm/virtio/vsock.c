/* SPDX-License-Identifier: Apache-2.0 */
/* vsock.c - virtio-vsock: the device, connects of the host and their timeout */
#include "vmm/virtio/vsock.h"

#include "base/cleanup.h"
#include "vmm/virtio/vsock_internal.h"

#include <endian.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>

#define QUEUES 3 /* rx, tx, event; QEMU keeps the event queue of a vhost-user device to itself */
#define SAVED_VERSION 1
#define F_STREAM (1ULL << 0) /* virtio 1.2 §5.10.3 */

static uint64_t vsock_features(const struct virtio_device *device)
{
	return F_STREAM;
}

static void vsock_config_read(const struct virtio_device *device, uint32_t offset, void *bytes, uint32_t n)
{
	const struct vsock *vsock = (const struct vsock *)device;
	struct virtio_vsock_config config = {.guest_cid = htole64(vsock->guest_cid)};
	virtio_config_copy(&config, sizeof(config), offset, bytes, n);
}

/** The event that tells the driver that its connections are gone (§5.10.6.7), once there is a buffer for it. */
static void send_event(struct vsock *vsock)
{
	const struct virtio_vsock_event event = {.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};
	struct virtio_device *device = &vsock->device;
	struct virtqueue *q = &device->queues[VSOCK_EVENT];
	struct virtqueue_chain *chain = &vsock->chain;
	int rc = 0;
	while (vsock->reset_event && (rc = virtqueue_pop(q, chain)) == 0)
		if (!virtqueue_enable_kicks(q))
			return;
	if (!vsock->reset_event)
		return;
	if (rc < 0 || chain->write_bytes < sizeof(event)) {
		virtio_broken(device, rc < 0 ? q->broken : "a buffer too small for an event");
		return;
	}
	iov_scatter(&chain->iov[chain->n_read], chain->n_write, &event, sizeof(event));
	virtqueue_push(q, chain->head, sizeof(event));
	vsock->reset_event = false;
	virtio_notify(device, VSOCK_EVENT);
}

static void vsock_kick(struct virtio_device *device, unsigned queue)
{
	struct vsock *vsock = (struct vsock *)device;
	if (queue == VSOCK_EVENT) {
		send_event(vsock);
		return;
	}
	if (queue == VSOCK_TX)
		vsock_receive(vsock);
	vsock_pump(vsock);
}

/** The guest knows none of its connections any more. */
static void vsock_reset(struct virtio_device *device)
{
	struct vsock *vsock = (struct vsock *)device;
	struct list gone;
	vsock->n_resets = vsock->first_reset = 0;
	vsock->tx_paused = vsock->reset_event = false;
	list_init(&gone);
	while (!list_empty(&vsock->all)) { /* first, so that a connect from a callback is not among them */
		struct list *l = vsock->all.next;
		list_remove(l);
		list_append(&gone, l);
	}
	while (!list_empty(&gone)) {
		struct vsock_conn *conn = CONTAINER_OF(gone.next, struct vsock_conn, all);
		list_remove(&conn->all);
		list_append(&vsock->all, &conn->all);
		if (conn->state < VSOCK_ESTABLISHED) {
			vsock_conn_abort(conn, false, -ECONNRESET);
		} else { /* what the guest has sent still reaches the host; where more is owed, that is no orderly end */
			conn->guest_no_send |= !conn->undrained;
			conn->guest_no_receive = true;
			vsock_conn_forget(conn);
		}
	}
}

/** Connections do not survive: nothing but the version is kept, and the driver hears of it after a load. */
static int vsock_save(const struct virtio_device *device, struct buffer *out)
{
	const uint8_t version = SAVED_VERSION;
	return buffer_append(out, &version, sizeof(version));
}

static int vsock_load(struct virtio_device *device, const void *bytes, size_t n, struct husk_error *err)
{
	struct vsock *vsock = (struct vsock *)device;
	if (n != 1 || *(const uint8_t *)bytes != SAVED_VERSION)
		return error_set(err, -EINVAL, "the state of a vsock is not version %d", SAVED_VERSION);
	vsock->reset_event = true;
	return 0;
}

static const struct virtio_ops vsock_ops = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.features = vsock_features,
	.config_read = vsock_config_read,
	.kick = vsock_kick,
	.reset = vsock_reset,
	.save = vsock_save,
	.load = vsock_load,
};

/** Set the timer to the oldest connect. */
static void arm_timer(struct vsock *vsock)
{
	uint64_t ms = 0;
	if (!list_empty(&vsock->connecting)) {
		struct vsock_conn *first = CONTAINER_OF(vsock->connecting.next, struct vsock_conn, connecting);
		uint64_t now = clock_monotonic_ns();
		ms = first->deadline_ns > now ? (first->deadline_ns - now) / 1000000 + 1 : 1;
	}
	loop_timer_set(&vsock->timer, ms);
}

static void on_timer(struct loop_watch *watch, uint32_t events)
{
	struct vsock *vsock = CONTAINER_OF(watch, struct vsock, timer);
	uint64_t count, now = clock_monotonic_ns();
	if (read(watch->fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: disarmed meanwhile */
	}
	while (!list_empty(&vsock->connecting)) {
		struct vsock_conn *conn = CONTAINER_OF(vsock->connecting.next, struct vsock_conn, connecting);
		if (conn->deadline_ns > now)
			break;
		bool asked = !(conn->pending & VSOCK_SEND_REQUEST);
		vsock_conn_abort(conn, asked, -ETIMEDOUT);
	}
	arm_timer(vsock);
	vsock_pump(vsock);
}

/** Half of what there can be. */
static unsigned choose_by_guest_max(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur > VSOCK_CONNECTIONS_MAX)
		return VSOCK_CONNECTIONS_MAX / 2;
	return (unsigned)files.rlim_cur / 2;
}

int vsock_create(struct loop *loop, uint64_t guest_cid, vsock_accept_fn *accept, void *data, struct vsock **out,
	struct husk_error *err)
{
	CLEANUP_FREE struct vsock *vsock = calloc(1, sizeof(*vsock));
	if (!vsock)
		return error_set(err, -ENOMEM, "no memory for a vsock device");
	vsock->device.ops = &vsock_ops;
	vsock->device.n_queues = QUEUES;
	vsock->loop = loop;
	vsock->guest_cid = guest_cid;
	vsock->accept = accept;
	vsock->data = data;
	vsock->next_port = VSOCK_FIRST_PORT;
	vsock->by_guest_max = choose_by_guest_max();
	if (getrandom(&vsock->hash_seed, sizeof(vsock->hash_seed), GRND_NONBLOCK) < 0)
		vsock->hash_seed = (uint32_t)clock_monotonic_ns();
	list_init(&vsock->all);
	list_init(&vsock->ready);
	list_init(&vsock->connecting);
	int rc = loop_timer_open(loop, &vsock->timer, on_timer, err);
	if (rc < 0)
		return rc;
	*out = steal_pointer(&vsock);
	return 0;
}

void vsock_count(struct vsock *vsock, struct net_meter *meter)
{
	vsock->meter = meter;
}

void vsock_destroy(struct vsock *vsock)
{
	if (!vsock)
		return;
	while (!list_empty(&vsock->all))
		vsock_conn_free(CONTAINER_OF(vsock->all.next, struct vsock_conn, all));
	loop_timer_close(vsock->loop, &vsock->timer);
	free(vsock);
}

struct virtio_device *vsock_device(struct vsock *vsock)
{
	return &vsock->device;
}

unsigned vsock_undrained(const struct vsock *vsock, uint64_t *progress)
{
	if (progress)
		*progress = vsock->progress;
	return vsock->n_undrained;
}

void vsock_on_drained(struct vsock *vsock, void (*drained)(void *data), void *data)
{
	vsock->drained = drained;
	vsock->drained_data = data;
}

static uint32_t choose_port(struct vsock *vsock, uint32_t peer_port)
{
	for (;;) { /* there are more ports than connections may be */
		uint32_t port = vsock->next_port++;
		if (vsock->next_port == UINT32_MAX) /* VMADDR_PORT_ANY */
			vsock->next_port = VSOCK_FIRST_PORT;
		if (!vsock_conn_find(vsock, port, peer_port))
			return port;
	}
}

static struct buffer take_buffer(struct buffer *b)
{
	struct buffer taken = {0};
	if (b) {
		taken = *b;
		*b = (struct buffer){0};
	}
	return taken;
}

/** @conn is what @dial says, but for its first bytes. */
static void take_dial(struct vsock_conn *conn, const struct vsock_dial *dial)
{
	conn->hybrid = dial->hybrid;
	conn->close_is_reset = dial->close_is_reset;
	conn->hang_up_is_reset = dial->hang_up_is_reset;
	conn->connected = dial->connected;
	conn->answer = dial->answer;
	conn->data = dial->data;
	conn->meter = dial->meter;
	conn->begun_ns = dial->meter ? dial->begun_ns : 0;
}

/** May more first bytes be kept? */
static int check_first(const struct vsock *vsock, uint32_t port, struct husk_error *err)
{
	if (vsock->first_bytes < VSOCK_FIRST_MAX)
		return 0;
	return error_set(err, -ENOBUFS,
		"connect to guest port %u: the guest does not take what others have sent it, %u MiB by now", port,
		VSOCK_FIRST_MAX >> 20);
}

static int no_memory(uint32_t port, struct husk_error *err)
{
	return error_set(err, -ENOMEM, "connect to guest port %u: no memory, or too much is watched already", port);
}

int vsock_dial(
	struct vsock *vsock, int fd, const struct vsock_dial *dial, struct vsock_conn **token, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer first = take_buffer(dial->first);
	CLEANUP_FD int owned = fd;
	if (fd < 0 && !dial->answer)
		return error_set(err, -EINVAL, "connect to guest port %u: nothing to connect it with", dial->port);
	if (vsock->n_conns >= VSOCK_CONNECTIONS_MAX)
		return error_set(err, -ENOSPC, "connect to guest port %u: %d connections are the most there may be",
			dial->port, VSOCK_CONNECTIONS_MAX);
	int rc = check_first(vsock, dial->port, err);
	if (rc < 0)
		return rc;
	struct vsock_conn *conn = vsock_conn_new(vsock, steal_fd(&owned), choose_port(vsock, dial->port), dial->port);
	if (!conn)
		return no_memory(dial->port, err);
	conn->state = VSOCK_REQUESTED;
	take_dial(conn, dial);
	conn->first = take_buffer(&first);
	vsock->first_bytes += conn->first.size;
	conn->deadline_ns = clock_monotonic_ns() + VSOCK_CONNECT_TIMEOUT_MS * 1000000ULL;
	if (token)
		*token = conn;
	bool only = list_empty(&vsock->connecting);
	list_append(&vsock->connecting, &conn->connecting);
	if (only)
		arm_timer(vsock);
	vsock_conn_wake(conn, VSOCK_SEND_REQUEST);
	vsock_pump(vsock);
	return 0;
}

/** vsock_attach(), after which a failure is to end @conn. */
static int attach(struct vsock_conn *conn, int fd, const struct vsock_dial *dial, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer first = take_buffer(dial->first);
	CLEANUP_FD int owned = fd;
	size_t n = first.size;
	int rc = check_first(conn->vsock, conn->peer_port, err);
	if (rc < 0)
		return rc;
	if (conn->first.size) /* of a guest that answers before it is asked */
		rc = buffer_append(&conn->first, buffer_bytes(&first), n);
	else
		conn->first = take_buffer(&first);
	if (rc == 0)
		conn->vsock->first_bytes += n;
	if (rc < 0 || vsock_conn_adopt(conn, steal_fd(&owned)) < 0)
		return no_memory(conn->peer_port, err);
	return 0;
}

int vsock_attach(struct vsock_conn *conn, int fd, const struct vsock_dial *dial, struct husk_error *err)
{
	struct vsock *vsock = conn->vsock;
	int rc = attach(conn, fd, dial, err);
	if (rc < 0) {
		vsock_cancel(conn);
		return rc;
	}
	take_dial(conn, dial);
	conn->attached = true;
	conn->readable = true;
	vsock_conn_wake(conn, 0);
	vsock_pump(vsock);
	return 0;
}

void vsock_cancel(struct vsock_conn *token)
{
	struct vsock *vsock = token->vsock;
	bool asked = !(token->pending & VSOCK_SEND_REQUEST);
	token->connected = NULL;
	vsock_conn_abort(token, asked, -ECANCELED);
	vsock_pump(vsock);
}

int vsock_connect(struct vsock *vsock, int fd, uint32_t port, bool hybrid, vsock_connected_fn *connected, void *data,
	struct husk_error *err)
{
	const struct vsock_dial dial = {.port = port, .hybrid = hybrid, .connected = connected, .data = data};
	return vsock_dial(vsock, fd, &dial, NULL, err);
}
