/* SPDX-License-Identifier: Apache-2.0 */
/* vconsole.c - virtio-console: the device and its ports' bytes (theory of operation: vconsole.h) */
#include "vmm/virtio/vconsole_internal.h"

#include <endian.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_PER_KICK (256u << 10)
#define SAVED_VERSION 1

static struct virtio_console *from_device(const struct virtio_device *device)
{
	return (struct virtio_console *)device;
}

/* §5.3.2: the control queues stand between those of port 0 and port 1 */
static unsigned input_queue(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static unsigned output_queue(unsigned port)
{
	return input_queue(port) + 1;
}

static uint64_t vconsole_features(const struct virtio_device *device)
{
	return 1ULL << VIRTIO_CONSOLE_F_SIZE | 1ULL << VIRTIO_CONSOLE_F_MULTIPORT |
	       1ULL << VIRTIO_CONSOLE_F_EMERG_WRITE;
}

static void vconsole_config_read(const struct virtio_device *device, uint32_t offset, void *bytes, uint32_t n)
{
	virtio_config_copy(&from_device(device)->config, sizeof(struct virtio_console_config), offset, bytes, n);
}

bool vconsole_next(struct virtio_console *c, unsigned queue)
{
	struct virtqueue *q = &c->device.queues[queue];
	int rc;
	while ((rc = virtqueue_pop(q, &c->chain)) == 0)
		if (!virtqueue_enable_kicks(q))
			return false;
	if (rc < 0)
		virtio_broken(&c->device, q->broken);
	return rc > 0;
}

/* ---- from the guest ---- */

/** Offer @iov to the port's end; how many of the @n bytes it took. */
static size_t offer(struct vconsole_port *port, const struct iovec *iov, unsigned n_iov, size_t n)
{
	if (!n || !port->end)
		return n;
	size_t taken = port->end->output(port->data, iov, n_iov);
	port->held = taken < n;
	return taken < n ? taken : n;
}

/** What the emergency register brought goes first; false while there is some left. */
static bool send_early(struct virtio_console *c)
{
	const struct iovec iov = {.iov_base = c->early, .iov_len = c->n_early};
	size_t taken = offer(&c->ports[VCONSOLE_LOG], &iov, 1, c->n_early);
	c->n_early -= (unsigned)taken;
	memmove(c->early, c->early + taken, c->n_early);
	return c->n_early == 0;
}

/** Offer what is left of the chain in c->chain; the bytes that went, with *@whole when none are left. */
static size_t transmit_chain(struct virtio_console *c, struct vconsole_port *port, bool *whole)
{
	const struct virtqueue_chain *chain = &c->chain;
	uint64_t skip = port->taken < chain->read_bytes ? port->taken : chain->read_bytes;
	size_t left = chain->read_bytes - skip;
	unsigned n_iov = iov_slice(chain->iov, chain->n_read, skip, left, c->data);
	size_t taken = offer(port, c->data, n_iov, left);
	*whole = taken == left;
	port->taken = *whole ? 0 : skip + taken;
	return taken;
}

static void transmit(struct virtio_console *c, unsigned i)
{
	unsigned queue = output_queue(i), chains = 0;
	struct virtqueue *q = &c->device.queues[queue];
	struct vconsole_port *port = &c->ports[i];
	size_t bytes = 0;
	if (port->held || (i == VCONSOLE_LOG && c->n_early && !send_early(c)))
		return;
	virtqueue_disable_kicks(q);
	while (chains++ < VCONSOLE_CHAINS && bytes < BYTES_PER_KICK && vconsole_next(c, queue)) {
		uint16_t head = c->chain.head; /* the end may use the chain, for input */
		bool whole = false;
		if (!c->chain.read_bytes) {
			virtio_broken(&c->device, "a console's output of no bytes");
			break;
		}
		bytes += transmit_chain(c, port, &whole);
		if (!whole) {
			virtqueue_unpop(q, 1);
			break;
		}
		virtqueue_push(q, head, 0);
	}
	if ((chains > VCONSOLE_CHAINS || bytes >= BYTES_PER_KICK) && !port->held)
		c->device.transport->again(c->device.transport_data, queue);
	virtio_notify(&c->device, queue);
}

/** emerg_wr (§5.3.5): the low byte goes out at once, driver or not. */
static void vconsole_config_write(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t n)
{
	struct virtio_console *c = from_device(device);
	if (offset != offsetof(struct virtio_console_config, emerg_wr) || !n)
		return;
	if (c->n_early < VCONSOLE_EARLY) /* a guest that writes on against an end without room loses the rest */
		c->early[c->n_early++] = *(const char *)bytes;
	if (!c->ports[VCONSOLE_LOG].held)
		send_early(c);
}

/* ---- to the guest ---- */

size_t vconsole_input(struct virtio_console *c, unsigned i, const void *bytes, size_t n)
{
	struct vconsole_port *port = &c->ports[i];
	unsigned queue = input_queue(i);
	struct virtqueue *q = &c->device.queues[queue];
	size_t done = 0;
	port->starved = true;
	if (!virtio_usable(&c->device, queue) || (vconsole_multiport(c) && !port->open))
		return 0;
	while (done < n && vconsole_next(c, queue)) {
		if (!c->chain.write_bytes) {
			virtio_broken(&c->device, "a console's input buffer of no bytes");
			break;
		}
		size_t part = iov_scatter(
			&c->chain.iov[c->chain.n_read], c->chain.n_write, (const uint8_t *)bytes + done, n - done);
		virtqueue_push(q, c->chain.head, (uint32_t)part);
		done += part;
	}
	port->starved = done < n;
	virtio_notify(&c->device, queue);
	return done;
}

/** The guest has new buffers for input. */
static void refill(struct virtio_console *c, unsigned i)
{
	struct vconsole_port *port = &c->ports[i];
	if (!port->starved || !port->end || !port->end->input_wanted || (vconsole_multiport(c) && !port->open))
		return;
	port->starved = false;
	port->end->input_wanted(port->data);
}

/* ---- the device ---- */

static void control_send(struct virtio_console *c, unsigned port)
{
	vconsole_control_send(c);
}

static void control_receive(struct virtio_console *c, unsigned port)
{
	vconsole_control_receive(c);
}

static void vconsole_kick(struct virtio_device *device, unsigned queue)
{
	static const struct {
		void (*run)(struct virtio_console *c, unsigned port);
		unsigned port;
	} work[VCONSOLE_QUEUES] = {
		{refill, 0}, {transmit, 0}, {control_send, 0}, {control_receive, 0}, {refill, 1}, {transmit, 1}};
	work[queue].run(from_device(device), work[queue].port);
}

static void vconsole_reset(struct virtio_device *device)
{
	struct virtio_console *c = from_device(device);
	for (unsigned i = 0; i < VCONSOLE_PORTS; i++) {
		struct vconsole_port *port = &c->ports[i];
		port->pending = 0;
		port->ready = port->open = false;
		port->taken = 0;
	}
}

/** What the driver was told and said, little-endian, at the end of a byte that names the version. */
struct __attribute__((packed)) state {
	uint8_t version;
	uint8_t sized;
	uint16_t columns, rows;
	struct __attribute__((packed)) {
		uint8_t pending, ready, open;
		uint64_t taken;
	} ports[VCONSOLE_PORTS];
};

static int vconsole_save(const struct virtio_device *device, struct buffer *out)
{
	const struct virtio_console *c = from_device(device);
	struct state state = {
		.version = SAVED_VERSION, .sized = c->sized, .columns = c->config.cols, .rows = c->config.rows};
	for (unsigned i = 0; i < VCONSOLE_PORTS; i++) {
		const struct vconsole_port *port = &c->ports[i];
		state.ports[i].pending = port->pending;
		state.ports[i].ready = port->ready;
		state.ports[i].open = port->open;
		state.ports[i].taken = htole64(port->taken);
	}
	return buffer_append(out, &state, sizeof(state));
}

static int vconsole_load(struct virtio_device *device, const void *bytes, size_t n, struct husk_error *err)
{
	struct virtio_console *c = from_device(device);
	struct state state;
	if (n != sizeof(state))
		return error_set(err, -EINVAL, "the state of a console is %zu bytes, not %zu", sizeof(state), n);
	memcpy(&state, bytes, n);
	bool fine = state.version == SAVED_VERSION && state.sized <= 1;
	for (unsigned i = 0; i < VCONSOLE_PORTS; i++)
		fine = fine && !(state.ports[i].pending & ~VCONSOLE_SAY_ALL) && state.ports[i].ready <= 1 &&
		       state.ports[i].open <= 1;
	if (!fine)
		return error_set(err, -EINVAL, "the state of a console holds what no console is in");
	if (!c->sized) { /* a size that the restorer has set already is the newer one */
		c->sized = state.sized;
		c->config.cols = state.columns;
		c->config.rows = state.rows;
	}
	for (unsigned i = 0; i < VCONSOLE_PORTS; i++) {
		c->ports[i].pending = state.ports[i].pending;
		c->ports[i].ready = state.ports[i].ready;
		c->ports[i].open = state.ports[i].open;
		c->ports[i].taken = le64toh(state.ports[i].taken);
	}
	if (c->sized && c->ports[VCONSOLE_WORKLOAD].ready)
		c->ports[VCONSOLE_WORKLOAD].pending |= VCONSOLE_SAY_RESIZE;
	return 0;
}

static const struct virtio_ops vconsole_ops = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.features = vconsole_features,
	.config_read = vconsole_config_read,
	.config_write = vconsole_config_write,
	.kick = vconsole_kick,
	.reset = vconsole_reset,
	.save = vconsole_save,
	.load = vconsole_load,
};

int vconsole_create(struct virtio_console **out, struct husk_error *err)
{
	struct virtio_console *c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, -ENOMEM, "no memory for a console device");
	c->device.ops = &vconsole_ops;
	c->device.n_queues = VCONSOLE_QUEUES;
	c->config.max_nr_ports = htole32(VCONSOLE_PORTS);
	*out = c;
	return 0;
}

void vconsole_destroy(struct virtio_console *c)
{
	free(c);
}

struct virtio_device *vconsole_device(struct virtio_console *c)
{
	return &c->device;
}

void vconsole_set_end(struct virtio_console *c, unsigned i, const struct vconsole_end *end, void *data)
{
	c->ports[i].end = end;
	c->ports[i].data = data;
	vconsole_resume(c, i);
}

void vconsole_resume(struct virtio_console *c, unsigned i)
{
	c->ports[i].held = false;
	if (virtio_usable(&c->device, output_queue(i)))
		transmit(c, i);
	else if (i == VCONSOLE_LOG && c->n_early)
		send_early(c);
}

bool vconsole_waiting(struct virtio_console *c, unsigned i)
{
	struct virtqueue *q = &c->device.queues[output_queue(i)];
	if (i == VCONSOLE_LOG && c->n_early)
		return true;
	return virtio_usable(&c->device, output_queue(i)) && virtqueue_enable_kicks(q);
}

void vconsole_resize(struct virtio_console *c, uint16_t columns, uint16_t rows)
{
	struct virtio_device *device = &c->device;
	c->config.cols = htole16(columns);
	c->config.rows = htole16(rows);
	c->sized = true;
	if (c->ports[VCONSOLE_WORKLOAD].ready) {
		c->ports[VCONSOLE_WORKLOAD].pending |= VCONSOLE_SAY_RESIZE;
		vconsole_control_send(c);
	}
	if (device->transport && device->transport->config_changed && device->features & 1ULL << VIRTIO_CONSOLE_F_SIZE)
		device->transport->config_changed(device->transport_data);
}
