/* SPDX-License-Identifier: Apache-2.0 */
/* vconsole-test.c - virtio-console: handshake, bytes both ways, ends without room, malformed chains */
#include "tests/unit/fake_driver.h"

#include "tests/tap.h"
#include "vmm/virtio/vconsole.h"

#include <linux/virtio_console.h>

#define FEATURES (VIRTIO_QUEUE_FEATURES | 1ULL << VIRTIO_CONSOLE_F_MULTIPORT | 1ULL << VIRTIO_CONSOLE_F_SIZE)
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define QUEUES 6
enum { RX0, TX0, CONTROL_RX, CONTROL_TX, RX1, TX1 };

static struct fake_driver d;
static struct virtio_console *console;
static uint64_t page[QUEUES]; /* of each queue */

/** A host end that takes `room` bytes at most. */
static struct end {
	char bytes[1 << 20];
	size_t n, room;
	unsigned offers, wanted;
} ends[VCONSOLE_PORTS];

static size_t on_output(void *data, const struct iovec *iov, unsigned n_iov)
{
	struct end *end = data;
	size_t n = iov_gather(iov, n_iov, end->bytes + end->n, end->room);
	end->n += n;
	end->room -= n;
	end->offers++;
	return n;
}

static void on_wanted(void *data)
{
	((struct end *)data)->wanted++;
}

static const struct vconsole_end end_ops = {.output = on_output, .input_wanted = on_wanted};

static void attach(uint64_t features)
{
	for (unsigned i = 0; i < QUEUES; i++)
		fake_queue(&d, i, 128);
	fake_attach(&d, vconsole_device(console), QUEUES, features);
}

static void start(uint64_t features)
{
	if (console) {
		vconsole_destroy(console);
		fake_destroy(&d);
	}
	if (vconsole_create(&console, NULL) < 0)
		printf("Bail out! no device\n");
	fake_init(&d);
	attach(features);
	for (unsigned i = 0; i < QUEUES; i++)
		page[i] = fake_alloc(&d, 65536);
	for (unsigned i = 0; i < VCONSOLE_PORTS; i++) {
		ends[i] = (struct end){.room = sizeof(ends[i].bytes)};
		vconsole_set_end(console, i, &end_ops, &ends[i]);
	}
}

/* ---- the driver's moves ---- */

static void say(uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control m = {.id = id, .event = event, .value = value};
	uint32_t used, n;
	memcpy(d.ram + page[CONTROL_TX], &m, sizeof(m));
	fake_desc(&d.queues[CONTROL_TX], 0, page[CONTROL_TX], sizeof(m), 0, 0);
	fake_offer(&d.queues[CONTROL_TX], 0);
	fake_kick(&d, CONTROL_TX);
	fake_used(&d.queues[CONTROL_TX], &used, &n);
}

/** Offer @n control buffers of @size bytes. */
static void offer_control(unsigned n, uint32_t size)
{
	for (unsigned i = 0; i < n; i++) {
		uint16_t at = d.queues[CONTROL_RX].avail_idx % 128;
		fake_desc(&d.queues[CONTROL_RX], at, page[CONTROL_RX] + at * 64, size, WRITE, 0);
		fake_offer(&d.queues[CONTROL_RX], at);
	}
	fake_kick(&d, CONTROL_RX);
}

/** The device's next control message is this one, of @size bytes. */
static bool hears(uint32_t id, uint16_t event, uint16_t value, uint32_t size)
{
	struct virtio_console_control m;
	uint32_t at, n;
	if (!fake_used(&d.queues[CONTROL_RX], &at, &n))
		return false;
	memcpy(&m, d.ram + page[CONTROL_RX] + at * 64, sizeof(m));
	return m.id == id && m.event == event && m.value == value && n == size;
}

static bool hears_nothing(void)
{
	uint32_t at, n;
	return !fake_used(&d.queues[CONTROL_RX], &at, &n);
}

/** Both ports are set up and open. */
static void come_up(void)
{
	uint32_t at, n;
	offer_control(16, 64);
	say(UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (uint32_t i = 0; i < VCONSOLE_PORTS; i++) {
		say(i, VIRTIO_CONSOLE_PORT_READY, 1);
		say(i, VIRTIO_CONSOLE_PORT_OPEN, 1);
	}
	while (fake_used(&d.queues[CONTROL_RX], &at, &n))
		;
}

/** Write @n bytes of @text on @queue, as one buffer; true when the device has used it at once. */
static bool write_port(unsigned queue, const char *text, uint32_t n)
{
	uint32_t id, size;
	uint16_t at = d.queues[queue].avail_idx % 128;
	memcpy(d.ram + page[queue] + at * 512, text, n);
	fake_desc(&d.queues[queue], at, page[queue] + at * 512, n, 0, 0);
	fake_offer(&d.queues[queue], at);
	fake_kick(&d, queue);
	return fake_used(&d.queues[queue], &id, &size) && id == at && size == 0;
}

static bool end_has(unsigned port, const char *text)
{
	return ends[port].n == strlen(text) && !memcmp(ends[port].bytes, text, ends[port].n);
}

/* ---- tests ---- */

static void test_handshake(void)
{
	struct virtio_console_config config;
	start(FEATURES);
	uint64_t offered = vconsole_device(console)->ops->features(vconsole_device(console));
	CHECK(offered == 7, "size, ports and the emergency register are offered");
	vconsole_device(console)->ops->config_read(vconsole_device(console), 0, &config, sizeof(config));
	CHECK(config.max_nr_ports == 2, "two ports");
	vconsole_resize(console, 132, 43);
	CHECK(d.config_changes == 1 && hears_nothing(), "a size: the configuration changes, no port is up to be told");
	vconsole_device(console)->ops->config_read(vconsole_device(console), 0, &config, sizeof(config));
	CHECK(config.cols == 132 && config.rows == 43, "the configuration has it");

	say(UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
	CHECK(hears_nothing(), "without buffers nothing is said");
	offer_control(1, 8);
	CHECK(hears(0, VIRTIO_CONSOLE_PORT_ADD, 1, 8) && hears_nothing(), "with one, one thing");
	offer_control(8, 64);
	CHECK(hears(1, VIRTIO_CONSOLE_PORT_ADD, 1, 8) && hears_nothing(), "with more, the rest");
	say(1, VIRTIO_CONSOLE_PORT_READY, 1);
	CHECK(hears(1, VIRTIO_CONSOLE_CONSOLE_PORT, 1, 8) && hears(1, VIRTIO_CONSOLE_PORT_OPEN, 1, 8) &&
			hears_nothing(),
		"port 1 is a console and open");
	say(0, VIRTIO_CONSOLE_PORT_READY, 1);
	CHECK(hears(0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, 8) && hears(0, VIRTIO_CONSOLE_PORT_OPEN, 1, 8) &&
			hears(0, VIRTIO_CONSOLE_RESIZE, 0, 12) && hears_nothing(),
		"port 0 too, and has a size");
	vconsole_resize(console, 80, 24);
	uint16_t size[2];
	memcpy(size, d.ram + page[CONTROL_RX] + (d.queues[CONTROL_RX].used_idx % 128) * 64 + 8, 4);
	CHECK(hears(0, VIRTIO_CONSOLE_RESIZE, 0, 12) && size[0] == 80 && size[1] == 24, "a new size is told");

	say(2, VIRTIO_CONSOLE_PORT_READY, 1);
	say(UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(0, 77, 1);
	say(0, VIRTIO_CONSOLE_PORT_READY, 0);
	say(UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 0);
	CHECK(hears_nothing() && !d.needs_reset, "ports and events that are none are passed over");
}

static void test_output(void)
{
	start(FEATURES);
	come_up();
	CHECK(write_port(TX0, "workload", 8) && end_has(0, "workload") && ends[1].n == 0,
		"port 0's bytes are port 0's");
	CHECK(write_port(TX1, "kernel", 6) && end_has(1, "kernel") && ends[0].n == 8, "and port 1's are port 1's");
	ends[0].room = 3;
	CHECK(!write_port(TX0, " goes on", 8) && end_has(0, "workload go"), "an end without room holds its queue");
	CHECK(!write_port(TX0, "!", 1) && ends[0].n == 11, "nothing overtakes");
	CHECK(write_port(TX1, " ok", 3) && end_has(1, "kernel ok"), "the other port does not mind");
	CHECK(vconsole_waiting(console, 0) && !vconsole_waiting(console, 1), "one has bytes waiting");
	ends[0].room = 2;
	vconsole_resume(console, 0);
	CHECK(end_has(0, "workload goes"), "the end takes two more");
	unsigned offers = ends[0].offers;
	fake_kick(&d, TX0);
	CHECK(ends[0].offers == offers, "and is not asked again before it says so");
	ends[0].room = 1000;
	vconsole_resume(console, 0);
	uint32_t id, n;
	CHECK(end_has(0, "workload goes on!") && !vconsole_waiting(console, 0), "then all the rest, once and in order");
	CHECK(fake_used(&d.queues[TX0], &id, &n) && fake_used(&d.queues[TX0], &id, &n) && d.interrupts[TX0],
		"and the driver has its buffers back");

	vconsole_set_end(console, 0, NULL, NULL);
	CHECK(write_port(TX0, "lost", 4) && ends[0].n == 17, "without an end bytes are dropped");
}

/** A chain of many buffers, an end with room for a few bytes at a time, and a driver that cuts its chain short meanwhile. */
static void test_parts(void)
{
	struct fake_queue *q;
	char all[100 * 7], expected[100 * 7];
	start(FEATURES);
	come_up();
	q = &d.queues[TX0];
	for (uint16_t i = 0; i < 100; i++) {
		for (unsigned k = 0; k < 7; k++)
			expected[i * 7 + k] = (char)('a' + (i + k) % 26);
		memcpy(d.ram + page[TX0] + i * 16, expected + i * 7, 7);
		fake_desc(q, i, page[TX0] + i * 16, 7, i < 99 ? NEXT : 0, (uint16_t)(i + 1));
	}
	ends[0].room = 0;
	fake_offer(q, 0);
	fake_kick(&d, TX0);
	for (unsigned i = 0; i < 1000 && vconsole_waiting(console, 0); i++) {
		ends[0].room = 5;
		vconsole_resume(console, 0);
	}
	memcpy(all, ends[0].bytes, sizeof(all));
	CHECK(ends[0].n == sizeof(all) && !memcmp(all, expected, sizeof(all)), "a chain goes out in parts, whole");

	ends[0] = (struct end){.room = 10};
	fake_offer(q, 0);
	fake_kick(&d, TX0);
	fake_desc(q, 0, page[TX0], 4, 0, 0);
	ends[0].room = 1000;
	vconsole_resume(console, 0);
	CHECK(ends[0].n == 10 && !vconsole_waiting(console, 0) && !d.needs_reset,
		"a chain that became shorter than what was taken of it is done");
	CHECK(write_port(TX0, "next", 4) == false || ends[0].n == 14, "and the next one goes out from its start");
	CHECK(!memcmp(ends[0].bytes + 10, "next", 4), "whole");

	ends[0].room = 1;
	fake_desc(q, 0, page[TX0], 4, 0, 0);
	fake_offer(q, 0);
	fake_kick(&d, TX0);
	fake_desc(q, 0, FAKE_RAM, 4, 0, 0);
	ends[0].room = 100;
	vconsole_resume(console, 0);
	CHECK(d.needs_reset, "a chain that leads out of memory by then breaks the device");
}

static void test_turns(void)
{
	start(FEATURES);
	come_up();
	struct fake_queue *q = &d.queues[TX0];
	unsigned agains = d.agains;
	for (uint16_t i = 0; i < 128; i++) {
		fake_desc(q, i, page[TX0], 4096, 0, 0);
		fake_offer(q, i);
	}
	fake_kick(&d, TX0);
	CHECK(ends[0].n == 128 * 4096 && d.agains >= agains + 2, "a full queue goes out in turns");
}

static void test_input(void)
{
	uint32_t id, n;
	start(FEATURES);
	CHECK(vconsole_input(console, 0, "early", 5) == 0, "no input before the port is open");
	come_up();
	CHECK(ends[0].wanted == 1 && ends[1].wanted == 0, "the one who tried hears when it is");
	CHECK(vconsole_input(console, 0, "bytes", 5) == 0, "no input without buffers");
	struct fake_queue *q = &d.queues[RX0];
	fake_desc(q, 0, page[RX0], 3, NEXT | WRITE, 1);
	fake_desc(q, 1, page[RX0] + 100, 1, WRITE, 0);
	fake_desc(q, 2, page[RX0] + 200, 64, WRITE, 0);
	fake_offer(q, 0);
	fake_kick(&d, RX0);
	CHECK(ends[0].wanted == 2, "with buffers it is wanted");
	CHECK(vconsole_input(console, 0, "bytes", 5) == 4 && fake_used(q, &id, &n) && id == 0 && n == 4 &&
			!memcmp(d.ram + page[RX0], "byt", 3) && d.ram[page[RX0] + 100] == 'e',
		"as much as fits is taken");
	fake_offer(q, 2);
	fake_kick(&d, RX0);
	CHECK(ends[0].wanted == 3 && vconsole_input(console, 0, "s", 1) == 1 && fake_used(q, &id, &n) && n == 1 &&
			d.ram[page[RX0] + 200] == 's' && d.interrupts[RX0],
		"and the rest next time");
	fake_offer(q, 2);
	fake_kick(&d, RX0);
	CHECK(ends[0].wanted == 3, "who was not short is not called");
	say(0, VIRTIO_CONSOLE_PORT_OPEN, 0);
	CHECK(vconsole_input(console, 0, "x", 1) == 0, "a port that was closed takes nothing");
}

static void test_single_port(void)
{
	uint32_t id, n;
	start(VIRTIO_QUEUE_FEATURES);
	CHECK(write_port(TX0, "simple", 6) && end_has(0, "simple"), "a driver without ports writes on port 0");
	fake_desc(&d.queues[RX0], 0, page[RX0], 8, WRITE, 0);
	fake_offer(&d.queues[RX0], 0);
	CHECK(vconsole_input(console, 0, "in", 2) == 2 && fake_used(&d.queues[RX0], &id, &n) && n == 2,
		"and reads there");
}

static void emergency(char byte)
{
	uint32_t value = (uint8_t)byte;
	vconsole_device(console)->ops->config_write(
		vconsole_device(console), offsetof(struct virtio_console_config, emerg_wr), &value, 4);
}

static void test_emergency(void)
{
	start(FEATURES);
	virtio_reset(vconsole_device(console));
	emergency('p');
	emergency('a');
	CHECK(end_has(1, "pa"), "the emergency register goes to port 1, without a driver");
	ends[1].room = 1;
	emergency('n');
	emergency('i');
	emergency('c');
	CHECK(end_has(1, "pan"), "an end without room");
	attach(FEATURES);
	come_up();
	write_port(TX1, "...", 3);
	CHECK(end_has(1, "pan") && vconsole_waiting(console, 1), "holds what comes later too");
	ends[1].room = 100;
	vconsole_resume(console, 1);
	CHECK(end_has(1, "panic..."), "and gets all in order");
	ends[1].room = 0;
	for (unsigned i = 0; i < 100000; i++)
		emergency('x');
	ends[1].room = 1 << 19;
	vconsole_resume(console, 1);
	CHECK(ends[1].n == 8 + 256, "a guest that writes on against it gains nothing");
	uint8_t junk[64] = "junk";
	for (uint32_t at = 0; at < 64; at++)
		if (at != 8)
			vconsole_device(console)->ops->config_write(vconsole_device(console), at, junk, 4);
	CHECK(ends[1].n == 8 + 256, "no other field can be written");
}

static void test_malformed(void)
{
	char name[100];
	for (unsigned queue = 0; queue < QUEUES; queue++)
		for (unsigned kind = 0; kind < FAKE_MALFORMED; kind++) {
			start(FEATURES);
			unsigned port = queue == RX1 || queue == TX1;
			if (queue == CONTROL_RX) /* have something to say */
				say(0, VIRTIO_CONSOLE_PORT_READY, 1);
			else if (queue != CONTROL_TX)
				come_up();
			const char *what = fake_malformed(&d, queue, kind);
			fake_kick(&d, queue);
			if (queue == RX0 || queue == RX1)
				vconsole_input(console, port, "x", 1);
			snprintf(name, sizeof(name), "queue %u: %s", queue, what);
			CHECK(d.needs_reset && ends[port].n == 0, name);
		}
	static const struct {
		unsigned queue;
		uint32_t size;
		uint16_t flags;
		const char *what;
	} wrong[] = {
		{CONTROL_TX, 7, 0, "a control message cut short"},
		{CONTROL_TX, 8, WRITE, "a control message to be written"},
		{CONTROL_RX, 7, WRITE, "a control buffer that is too small"},
		{TX0, 8, WRITE, "output to be written"},
		{RX0, 8, 0, "input to be read"},
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		start(FEATURES);
		if (wrong[i].queue == CONTROL_RX)
			say(0, VIRTIO_CONSOLE_PORT_READY, 1);
		else
			come_up();
		fake_desc(&d.queues[wrong[i].queue], 0, page[0], wrong[i].size, wrong[i].flags, 0);
		fake_offer(&d.queues[wrong[i].queue], 0);
		fake_kick(&d, wrong[i].queue);
		vconsole_input(console, 0, "x", 1);
		CHECK(d.needs_reset, wrong[i].what);
	}
	virtio_reset(vconsole_device(console));
	attach(FEATURES);
	come_up();
	CHECK(write_port(TX0, "again", 5) && end_has(0, "again"), "a reset mends it");
}

int main(void)
{
	test_handshake();
	test_output();
	test_parts();
	test_turns();
	test_input();
	test_single_port();
	test_emergency();
	test_malformed();
	vconsole_destroy(console);
	fake_destroy(&d);
	return tap_done();
}
