/* SPDX-License-Identifier: Apache-2.0 */
/* fake_agent.c - a guest with an agent, without a guest */
#include "tests/unit/fake_agent.h"

#include <linux/virtio_vsock.h>
#include <stdlib.h>
#include <string.h>

#define HEADER sizeof(struct virtio_vsock_hdr)
#define RX_BUFFER 4096
#define PACKET_MAX 65536
#define BUF_ALLOC (256u << 10)

static int refuse(void *data, uint32_t port)
{
	return -ECONNREFUSED;
}

static void put(struct fake_agent *a, struct fake_conn *c, uint16_t op, uint32_t flags, const void *bytes, uint32_t n)
{
	struct fake_queue *tx = &a->driver.queues[1];
	struct virtio_vsock_hdr h = {.src_cid = VSOCK_CID_GUEST,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = c->guest_port,
		.dst_port = c->host_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.len = n,
		.buf_alloc = BUF_ALLOC,
		.fwd_cnt = c->rx_cnt};
	uint32_t id, size;
	c->told = c->rx_cnt;
	memcpy(a->driver.ram + a->tx_gpa, &h, HEADER);
	if (n)
		memcpy(a->driver.ram + a->tx_gpa + HEADER, bytes, n);
	fake_desc(tx, 0, a->tx_gpa, (uint32_t)HEADER + n, 0, 0);
	fake_offer(tx, 0);
	fake_kick(&a->driver, 1);
	while (!fake_used(tx, &id, &size)) /* the device may have had enough for one kick */
		fake_kick(&a->driver, 1);
}

static struct fake_conn **find(struct fake_agent *a, uint32_t host_port)
{
	struct fake_conn **at = &a->slots[host_port % FAKE_AGENT_SLOTS];
	while (*at && (*at)->host_port != host_port)
		at = &(*at)->next;
	return at;
}

static void forget(struct fake_agent *a, uint32_t host_port)
{
	struct fake_conn **at = find(a, host_port), *c = *at;
	if (!c)
		return;
	*at = c->next;
	if (a->last == c)
		a->last = NULL;
	if (a->listeners == c)
		a->listeners = NULL;
	buffer_free(&c->in);
	buffer_free(&c->out);
	free(c);
	a->n_conns--;
}

/** Send what waits, as far as the host has room. */
static void flush(struct fake_agent *a, struct fake_conn *c)
{
	while (c->out.size) {
		uint32_t in_flight = c->tx_cnt - c->peer_fwd_cnt;
		size_t n = in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
		if (n > c->out.size)
			n = c->out.size;
		if (n > PACKET_MAX)
			n = PACKET_MAX;
		if (n == 0)
			return;
		uint8_t *bytes = malloc(n);
		memcpy(bytes, buffer_bytes(&c->out), n);
		buffer_consume(&c->out, n);
		c->tx_cnt += (uint32_t)n;
		put(a, c, VIRTIO_VSOCK_OP_RW, 0, bytes, (uint32_t)n);
		free(bytes);
	}
	if (c->ended && c->state == FAKE_BYTES && a->echo)
		put(a, c, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
}

static void tell_listeners(struct fake_agent *a)
{
	static struct agent_listener all[AGENT_LISTENERS_MAX];
	if (!a->listeners)
		return;
	for (size_t i = 0; i < a->n_ports; i++)
		all[i] = (struct agent_listener){.port = a->ports[i], .family = 4};
	agent_listening_put(&a->listeners->out, all, a->n_ports);
	flush(a, a->listeners);
}

void fake_agent_listen(struct fake_agent *a, const uint16_t *ports, size_t n)
{
	memcpy(a->ports, ports, n * sizeof(*ports));
	a->n_ports = n;
	tell_listeners(a);
}

void fake_agent_say(struct fake_agent *a, const void *bytes, size_t n)
{
	buffer_append(&a->listeners->out, bytes, n);
	flush(a, a->listeners);
}

static void answer_ok(struct fake_agent *a, struct fake_conn *c, enum fake_answer how)
{
	agent_frame_put(&c->out, AGENT_OK, 0, NULL, 0);
	if (how == FAKE_OK_AND_BYTES)
		buffer_append(&c->out, "hello", 5);
	c->state = FAKE_BYTES;
	for (size_t left = c->out.size; how == FAKE_OK_BYTEWISE && left; left--) {
		uint8_t byte = *buffer_bytes(&c->out);
		buffer_consume(&c->out, 1);
		c->tx_cnt++;
		put(a, c, VIRTIO_VSOCK_OP_RW, 0, &byte, 1);
	}
	if (a->echo) { /* what came behind FORWARD */
		buffer_append(&c->out, buffer_bytes(&c->in), c->in.size);
		buffer_consume(&c->in, c->in.size);
	}
	flush(a, c);
}

void fake_agent_reset(struct fake_agent *a, struct fake_conn *c)
{
	struct fake_conn gone = *c;
	forget(a, c->host_port);
	put(a, &gone, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
}

static void on_forward(struct fake_agent *a, struct fake_conn *c)
{
	static const uint8_t huge[AGENT_HEADER_SIZE] = {0, 0, 1, 0, AGENT_ERROR};
	a->n_forwards++;
	a->last = c;
	c->state = FAKE_ASKED;
	switch (a->answer) {
	case FAKE_OK:
	case FAKE_OK_BYTEWISE:
	case FAKE_OK_AND_BYTES:
		answer_ok(a, c, a->answer);
		return;
	case FAKE_REFUSE:
		agent_error_put(&c->out, AGENT_ERROR_REFUSED, "nobody listens on port %u", c->forwarded);
		break;
	case FAKE_ERROR:
		agent_error_put(&c->out, AGENT_ERROR_SYSTEM, "out of %s", "luck");
		break;
	case FAKE_GARBAGE:
		buffer_append(&c->out, "HTTP/1.1 400 Bad Request\r\n", 26);
		break;
	case FAKE_ENDLESS:
		buffer_append(&c->out, huge, sizeof(huge));
		memset(buffer_reserve(&c->out, 4000), 'x', 4000);
		buffer_commit(&c->out, 4000);
		break;
	case FAKE_WRONG:
		agent_frame_put(&c->out, AGENT_STDOUT, 1, "x", 1);
		break;
	case FAKE_RESET_ONCE:
		a->answer = FAKE_OK;
		fake_agent_reset(a, c);
		return;
	case FAKE_RESET:
		fake_agent_reset(a, c);
		return;
	case FAKE_NEVER:
		return;
	}
	flush(a, c);
}

/** Frames of the host: HELLO and one request. @c may be gone after it. */
static void on_frames(struct fake_agent *a, struct fake_conn *c)
{
	struct agent_frame frame;
	long n;
	while (c->state == FAKE_FRAMES && c->in.size &&
		(n = agent_frame_decode(buffer_bytes(&c->in), c->in.size, &frame)) > 0) {
		uint8_t type = frame.type;
		if (type == AGENT_FORWARD && !agent_forward_get(&frame, &c->forwarded))
			abort();
		buffer_consume(&c->in, (size_t)n);
		if (!c->in.size)
			flush(a, c);
		if (type == AGENT_FORWARD) {
			on_forward(a, c);
			return;
		}
		if (type == AGENT_LISTENERS && a->no_listeners) {
			agent_error_put(&c->out, AGENT_ERROR_UNSUPPORTED, "no BPF");
			flush(a, c);
		} else if (type == AGENT_LISTENERS) {
			c->state = FAKE_LISTENERS;
			a->listeners = c;
			tell_listeners(a);
		}
	}
}

static void on_bytes(struct fake_agent *a, struct fake_conn *c, const uint8_t *bytes, uint32_t n)
{
	c->rx_cnt += n;
	if (c->state == FAKE_BYTES && a->echo)
		buffer_append(&c->out, bytes, n);
	else
		buffer_append(&c->in, bytes, n);
	uint32_t host_port = c->host_port;
	if (c->state == FAKE_FRAMES)
		on_frames(a, c);
	if (*find(a, host_port) != c)
		return;
	flush(a, c);
	if (c->rx_cnt - c->told >= BUF_ALLOC / 4)
		put(a, c, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
}

static void on_request(struct fake_agent *a, const struct virtio_vsock_hdr *h)
{
	struct fake_conn gone = {.host_port = h->src_port, .guest_port = h->dst_port};
	if (a->deaf || h->dst_port != AGENT_PORT) {
		put(a, &gone, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
		return;
	}
	struct fake_conn *c = calloc(1, sizeof(*c));
	*c = gone;
	c->peer_buf_alloc = h->buf_alloc;
	c->next = a->slots[c->host_port % FAKE_AGENT_SLOTS];
	a->slots[c->host_port % FAKE_AGENT_SLOTS] = c;
	a->n_conns++;
	put(a, c, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	if (a->hello)
		buffer_append(&c->out, a->hello, a->hello_size);
	else
		agent_hello_put(&c->out);
	if (a->answer != FAKE_OK && a->answer != FAKE_OK_BYTEWISE) /* those get it with the answer */
		flush(a, c);
}

static void on_packet(struct fake_agent *a, const struct virtio_vsock_hdr *h, const uint8_t *payload)
{
	struct fake_conn *c = *find(a, h->src_port);
	if (h->op == VIRTIO_VSOCK_OP_REQUEST) {
		on_request(a, h);
		return;
	}
	if (!c)
		return;
	c->peer_buf_alloc = h->buf_alloc;
	c->peer_fwd_cnt = h->fwd_cnt;
	if (h->op == VIRTIO_VSOCK_OP_RST) {
		forget(a, h->src_port);
	} else if (h->op == VIRTIO_VSOCK_OP_SHUTDOWN) {
		c->ended = true;
		bool both = h->flags == (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND);
		if (both || c->state != FAKE_BYTES) {
			put(a, c, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
			forget(a, h->src_port);
		} else {
			flush(a, c);
		}
	} else if (h->op == VIRTIO_VSOCK_OP_RW) {
		on_bytes(a, c, payload, h->len);
	} else {
		flush(a, c);
	}
}

void fake_agent_turn(struct fake_agent *a, int timeout_ms)
{
	struct fake_queue *rx = &a->driver.queues[0];
	static uint8_t payload[RX_BUFFER];
	struct virtio_vsock_hdr h;
	uint32_t id, size;
	bool any;
	loop_round(a->loop, timeout_ms, NULL);
	do {
		any = false;
		while (fake_used(rx, &id, &size)) {
			any = true;
			memcpy(&h, a->driver.ram + a->rx_gpa[id], HEADER);
			memcpy(payload, a->driver.ram + a->rx_gpa[id] + HEADER, size - HEADER);
			fake_offer(rx, (uint16_t)id);
			on_packet(a, &h, payload);
		}
		fake_kick(&a->driver, 0);
	} while (any);
}

void fake_agent_release(struct fake_agent *a)
{
	for (unsigned i = 0; i < FAKE_AGENT_SLOTS; i++)
		for (struct fake_conn *c = a->slots[i]; c; c = c->next)
			if (c->state == FAKE_ASKED)
				answer_ok(a, c, FAKE_OK);
}

void fake_agent_refuse(struct fake_agent *a, struct fake_conn *c)
{
	agent_error_put(&c->out, AGENT_ERROR_REFUSED, "nobody listens on port %u", c->forwarded);
	flush(a, c);
}

void fake_agent_init(struct fake_agent *a, struct loop *loop)
{
	struct husk_error err;
	memset(a, 0, sizeof(*a));
	a->loop = loop;
	fake_init(&a->driver);
	fake_queue(&a->driver, 0, FAKE_AGENT_RX);
	fake_queue(&a->driver, 1, 8);
	a->tx_gpa = fake_alloc(&a->driver, HEADER + PACKET_MAX);
	if (vsock_create(loop, VSOCK_CID_GUEST, refuse, NULL, &a->vsock, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		exit(1);
	}
	fake_attach(&a->driver, vsock_device(a->vsock), 2, VIRTIO_QUEUE_FEATURES);
	for (uint16_t i = 0; i < FAKE_AGENT_RX; i++) {
		a->rx_gpa[i] = fake_alloc(&a->driver, RX_BUFFER);
		fake_desc(&a->driver.queues[0], i, a->rx_gpa[i], RX_BUFFER, VRING_DESC_F_WRITE, 0);
		fake_offer(&a->driver.queues[0], i);
	}
}

void fake_agent_destroy(struct fake_agent *a)
{
	vsock_destroy(a->vsock);
	for (unsigned i = 0; i < FAKE_AGENT_SLOTS; i++)
		while (a->slots[i])
			forget(a, a->slots[i]->host_port);
	fake_destroy(&a->driver);
}
