/* SPDX-License-Identifier: Apache-2.0 */
/* vconsole_control.c - the control queues of virtio-console (virtio 1.2 §5.3.6.2) */
#include "vmm/virtio/vconsole_internal.h"

#include <endian.h>

/** RESIZE with its size behind it; the other messages end before that. */
struct message {
	struct virtio_console_control control;
	/* The standard's order. Linux read rows first until 6.16 and its stable releases of that time. */
	uint16_t columns, rows;
};

static const struct {
	uint8_t pending;
	uint16_t event, value;
	size_t size;
} to_say[] = {
	{VCONSOLE_SAY_ADD, VIRTIO_CONSOLE_PORT_ADD, 1, sizeof(struct virtio_console_control)},
	{VCONSOLE_SAY_CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT, 1, sizeof(struct virtio_console_control)},
	{VCONSOLE_SAY_OPEN, VIRTIO_CONSOLE_PORT_OPEN, 1, sizeof(struct virtio_console_control)},
	{VCONSOLE_SAY_RESIZE, VIRTIO_CONSOLE_RESIZE, 0, sizeof(struct message)},
};

/** Say the first of what is pending on @port; false when it has to wait for a buffer. */
static bool say_one(struct virtio_console *c, unsigned port)
{
	struct virtqueue *q = &c->device.queues[VCONSOLE_CONTROL_RX];
	size_t i = (size_t)__builtin_ctz(c->ports[port].pending);
	struct message message = {
		.control = {.id = htole32(port), .event = htole16(to_say[i].event), .value = htole16(to_say[i].value)},
		.columns = c->config.cols,
		.rows = c->config.rows};
	if (!vconsole_next(c, VCONSOLE_CONTROL_RX))
		return false;
	if (c->chain.write_bytes < to_say[i].size) {
		virtio_broken(&c->device, "a buffer too small for a control message");
		return false;
	}
	iov_scatter(&c->chain.iov[c->chain.n_read], c->chain.n_write, &message, to_say[i].size);
	virtqueue_push(q, c->chain.head, (uint32_t)to_say[i].size);
	c->ports[port].pending &= (uint8_t)~to_say[i].pending;
	return true;
}

void vconsole_control_send(struct virtio_console *c)
{
	if (!virtio_usable(&c->device, VCONSOLE_CONTROL_RX))
		return;
	for (unsigned port = 0; port < VCONSOLE_PORTS; port++)
		while (c->ports[port].pending)
			if (!say_one(c, port))
				goto out;
out:
	virtio_notify(&c->device, VCONSOLE_CONTROL_RX);
}

static void on_device_ready(struct virtio_console *c, struct vconsole_port *port, uint16_t value)
{
	for (unsigned i = 0; value && i < VCONSOLE_PORTS; i++)
		c->ports[i].pending |= VCONSOLE_SAY_ADD;
}

static void on_port_ready(struct virtio_console *c, struct vconsole_port *port, uint16_t value)
{
	port->ready = value; /* 0: the driver could not set it up */
	if (!value)
		return;
	port->pending |= VCONSOLE_SAY_CONSOLE | VCONSOLE_SAY_OPEN;
	if (port == &c->ports[VCONSOLE_WORKLOAD] && c->sized)
		port->pending |= VCONSOLE_SAY_RESIZE;
}

static void on_port_open(struct virtio_console *c, struct vconsole_port *port, uint16_t value)
{
	port->open = value;
	if (port->open && port->starved && port->end && port->end->input_wanted) {
		port->starved = false;
		port->end->input_wanted(port->data);
	}
}

static const struct {
	uint16_t event;
	bool of_port;
	void (*run)(struct virtio_console *c, struct vconsole_port *port, uint16_t value);
} events[] = {
	{VIRTIO_CONSOLE_DEVICE_READY, false, on_device_ready},
	{VIRTIO_CONSOLE_PORT_READY, true, on_port_ready},
	{VIRTIO_CONSOLE_PORT_OPEN, true, on_port_open},
};

static void handle(struct virtio_console *c, const struct virtio_console_control *m)
{
	uint32_t id = le32toh(m->id);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i].event == le16toh(m->event) && (!events[i].of_port || id < VCONSOLE_PORTS))
			events[i].run(c, events[i].of_port ? &c->ports[id] : NULL, le16toh(m->value));
}

void vconsole_control_receive(struct virtio_console *c)
{
	struct virtqueue *q = &c->device.queues[VCONSOLE_CONTROL_TX];
	struct virtio_console_control message;
	unsigned n = 0;
	while (n++ < VCONSOLE_CHAINS && vconsole_next(c, VCONSOLE_CONTROL_TX)) {
		uint16_t head = c->chain.head; /* a handler may use the chain */
		if (iov_gather(c->chain.iov, c->chain.n_read, &message, sizeof(message)) < sizeof(message)) {
			virtio_broken(&c->device, "a control message cut short");
			return;
		}
		handle(c, &message);
		if (!virtio_usable(&c->device, VCONSOLE_CONTROL_TX))
			return;
		virtqueue_push(q, head, 0);
	}
	if (n > VCONSOLE_CHAINS)
		c->device.transport->again(c->device.transport_data, VCONSOLE_CONTROL_TX);
	virtio_notify(&c->device, VCONSOLE_CONTROL_TX);
	vconsole_control_send(c);
}
