/* SPDX-License-Identifier: Apache-2.0 */
/* bus-test.c - the buses of the `kvm` machine and what answers on them: windows, serial port, power */
#include "tests/tap.h"
#include "vmm/machine/arch/x86_64/layout.h"
#include "vmm/machine/kvm/bus.h"
#include "vmm/machine/kvm/power.h"
#include "vmm/machine/kvm/serial.h"

#include <linux/serial_reg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ---- windows ---- */

/** What a window was last asked. */
struct asked {
	uint64_t offset;
	unsigned n, reads, writes;
	uint8_t bytes[BUS_ACCESS_MAX];
};

static void asked_read(void *data, uint64_t offset, void *bytes, unsigned n)
{
	struct asked *a = data;
	a->offset = offset;
	a->n = n;
	a->reads++;
	memset(bytes, 0x5a, n);
}

static void asked_write(void *data, uint64_t offset, const void *bytes, unsigned n)
{
	struct asked *a = data;
	a->offset = offset;
	a->n = n;
	a->writes++;
	memcpy(a->bytes, bytes, n);
}

static const struct bus_ops asked_ops = {.read = asked_read, .write = asked_write};

static void test_windows(void)
{
	struct bus bus = {0};
	struct asked a = {0}, b = {0};
	struct husk_error err;
	uint8_t bytes[8];

	CHECK(bus_add(&bus, 0x2000, 0x100, &asked_ops, &b, &err) == 0, "a window is added");
	CHECK(bus_add(&bus, 0x1000, 0x100, &asked_ops, &a, &err) == 0, "one below it as well");
	CHECK(bus_add(&bus, 0x10ff, 2, &asked_ops, &a, &err) == -EEXIST, "one that overlaps is refused");
	CHECK(bus_add(&bus, 0, UINT64_MAX, &asked_ops, &a, &err) == -EEXIST, "one around others is refused");
	CHECK(bus_add(&bus, 0x5000, 0, &asked_ops, &a, &err) == -EINVAL, "an empty one is refused");
	CHECK(bus_add(&bus, UINT64_MAX, 2, &asked_ops, &a, &err) == -EINVAL, "one that wraps is refused");
	CHECK(bus_add(&bus, UINT64_MAX - 7, 8, &asked_ops, &a, &err) == 0, "the last addresses can be a window");

	bus_read(&bus, 0x1000, bytes, 4);
	CHECK(a.reads == 1 && a.offset == 0 && a.n == 4 && bytes[3] == 0x5a, "its first byte is a window's");
	bus_write(&bus, 0x20fc, "wxyz", 4);
	CHECK(b.writes == 1 && b.offset == 0xfc && memcmp(b.bytes, "wxyz", 4) == 0, "its last bytes are a window's");
	bus_read(&bus, UINT64_MAX, bytes, 1);
	CHECK(a.reads == 2 && a.offset == 7, "the very last address answers");
	CHECK(bus.unclaimed == 0, "all of that was claimed");
}

static void test_unclaimed(void)
{
	struct bus bus = {0};
	struct asked a = {0};
	struct husk_error err;
	static const struct {
		uint64_t address;
		unsigned n;
	} strays[] = {{0, 1}, {0xfff, 1}, {0x1100, 1}, {0xfff, 2}, {0x10fd, 4}, {0x10ff, 8}, {UINT64_MAX, 8},
		{0x1000, 0}, {0x1000, 9}};
	uint8_t bytes[16];
	char what[64];

	bus_read(&bus, 0x1000, bytes, 4);
	CHECK(bus.unclaimed == 1 && bytes[0] == 0xff, "an empty bus reads as ones");
	bus_add(&bus, 0x1000, 0x100, &asked_ops, &a, &err);
	for (size_t i = 0; i < sizeof(strays) / sizeof(strays[0]); i++) {
		memset(bytes, 0, sizeof(bytes));
		bus_read(&bus, strays[i].address, bytes, strays[i].n);
		bus_write(&bus, strays[i].address, bytes, strays[i].n);
		snprintf(what, sizeof(what), "%u bytes at 0x%llx belong to nobody", strays[i].n,
			(unsigned long long)strays[i].address);
		CHECK(a.reads + a.writes == 0 && bytes[strays[i].n] == 0 && (!strays[i].n || bytes[0] == 0xff), what);
	}
	CHECK(bus.unclaimed == 1 + 2 * sizeof(strays) / sizeof(strays[0]), "and are counted");
	for (unsigned i = 1; i < BUS_WINDOWS_MAX; i++)
		bus_add(&bus, 0x10000 + i, 1, &asked_ops, &a, &err);
	CHECK(bus_add(&bus, 0x20000, 1, &asked_ops, &a, &err) == -ENOSPC, "a bus can be full");
}

/* ---- serial port ---- */

struct line {
	char out[64];
	size_t n;
	unsigned interrupts;
};

static void take_output(void *data, const void *bytes, size_t n)
{
	struct line *l = data;
	memcpy(l->out + l->n, bytes, n);
	l->n += n;
}

static void count_interrupt(void *data)
{
	((struct line *)data)->interrupts++;
}

static uint8_t in(struct serial *s, unsigned which)
{
	uint8_t byte;
	serial_ops.read(s, which, &byte, 1);
	return byte;
}

static void out(struct serial *s, unsigned which, uint8_t byte)
{
	serial_ops.write(s, which, &byte, 1);
}

static void test_serial_output(void)
{
	struct line l = {0};
	struct serial s;

	serial_init(&s, take_output, count_interrupt, &l);
	CHECK((in(&s, UART_LSR) & UART_LSR_THRE) && (in(&s, UART_LSR) & UART_LSR_TEMT), "the transmitter is empty");
	out(&s, UART_TX, 'h');
	out(&s, UART_TX, 'i');
	CHECK(l.n == 2 && memcmp(l.out, "hi", 2) == 0, "bytes go out");
	CHECK(l.interrupts == 0 && (in(&s, UART_IIR) & UART_IIR_NO_INT), "nobody is interrupted who did not ask");
	out(&s, UART_IER, UART_IER_THRI);
	CHECK(l.interrupts == 1 && in(&s, UART_IIR) == UART_IIR_THRI, "who asks is told that the transmitter is empty");
	CHECK(in(&s, UART_IIR) == UART_IIR_NO_INT, "once");
	out(&s, UART_TX, '!');
	CHECK(l.interrupts == 2 && in(&s, UART_IIR) == UART_IIR_THRI, "and again after each byte");
	out(&s, UART_LCR, UART_LCR_DLAB);
	out(&s, UART_DLL, 1);
	out(&s, UART_DLM, 2);
	CHECK(l.n == 3 && in(&s, UART_DLL) == 1 && in(&s, UART_DLM) == 2, "the divisor is remembered and not sent");
	out(&s, UART_LCR, 3);
	CHECK(in(&s, UART_IER) == UART_IER_THRI && in(&s, UART_LCR) == 3,
		"behind it the other registers are as before");
	out(&s, UART_SCR, 0xa5);
	CHECK(in(&s, UART_SCR) == 0xa5, "the scratch register remembers");
	out(&s, UART_FCR, UART_FCR_ENABLE_FIFO);
	CHECK((in(&s, UART_IIR) & 0xc0) == 0xc0, "the FIFOs say that they are there");
}

static void test_serial_input(void)
{
	struct line l = {0};
	struct serial s;
	char many[SERIAL_FIFO + 10];

	serial_init(&s, take_output, count_interrupt, &l);
	CHECK(serial_input(&s, "ab", 2) == 2 && l.interrupts == 0, "input waits");
	CHECK(in(&s, UART_LSR) & UART_LSR_DR, "its being there can be seen");
	out(&s, UART_IER, UART_IER_RDI);
	CHECK(l.interrupts == 1 && in(&s, UART_IIR) == UART_IIR_RDI, "who asks for it is told");
	CHECK(in(&s, UART_RX) == 'a' && in(&s, UART_RX) == 'b' && !(in(&s, UART_LSR) & UART_LSR_DR),
		"it comes in order");
	CHECK(in(&s, UART_RX) == 0, "nothing reads as nothing");
	memset(many, 'x', sizeof(many));
	CHECK(serial_input(&s, many, sizeof(many)) == SERIAL_FIFO, "a full FIFO takes no more");
	out(&s, UART_FCR, UART_FCR_CLEAR_RCVR);
	CHECK(!(in(&s, UART_LSR) & UART_LSR_DR), "and can be cleared");
	out(&s, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	CHECK((in(&s, UART_MSR) & 0xf0) == (UART_MSR_DCD | UART_MSR_CTS), "in loop-back the modem's lines are our own");
	out(&s, UART_TX, 'L');
	CHECK(l.n == 0 && in(&s, UART_RX) == 'L', "and what is sent comes back");
}

/* ---- power ---- */

struct ends {
	unsigned off, reset, interrupts;
};

static void note_off(void *data)
{
	((struct ends *)data)->off++;
}

static void note_reset(void *data)
{
	((struct ends *)data)->reset++;
}

static void note_interrupt(void *data)
{
	((struct ends *)data)->interrupts++;
}

static void port_out(struct bus *ports, uint64_t port, uint8_t value)
{
	bus_write(ports, port, &value, 1);
}

static uint8_t port_in(struct bus *ports, uint64_t port)
{
	uint8_t value = 0xee;
	bus_read(ports, port, &value, 1);
	return value;
}

static void test_power(void)
{
	struct bus ports = {0};
	struct ends ends = {0};
	struct power power = {.off = note_off, .reset = note_reset, .interrupt = note_interrupt, .data = &ends};
	struct husk_error err;

	CHECK(power_connect(&power, &ports, &err) == 0, "the ports find their places");
	port_out(&ports, X86_PORT_SLEEP_CONTROL, X86_SLEEP_S5 << 2);
	port_out(&ports, X86_PORT_SLEEP_CONTROL, 0x20 | 3 << 2);
	port_out(&ports, X86_PORT_RESET, X86_RESET_VALUE + 1);
	port_out(&ports, X86_PORT_I8042, 0xff);
	CHECK(ends.off == 0 && ends.reset == 0, "other values neither power off nor reset");
	port_out(&ports, X86_PORT_SLEEP_CONTROL, 0x20 | X86_SLEEP_S5 << 2);
	CHECK(ends.off == 1, "S5 powers off");
	port_out(&ports, X86_PORT_RESET, X86_RESET_VALUE);
	CHECK(ends.reset == 1, "ACPI's reset register resets");
	port_out(&ports, X86_PORT_I8042, 0xfe);
	CHECK(ends.reset == 2, "so does the keyboard controller");
	CHECK(port_in(&ports, X86_PORT_I8042) == 0, "which is never busy");
	CHECK(port_in(&ports, X86_PORT_GED) == 0, "no event is pending");
	power_raise(&power, X86_GED_POWER_BUTTON);
	power_raise(&power, X86_GED_VMGENID);
	CHECK(ends.interrupts == 2, "an event interrupts");
	CHECK(port_in(&ports, X86_PORT_SLEEP_STATUS) == 0, "the status register has nothing to say");
	CHECK(port_in(&ports, X86_PORT_GED) == (X86_GED_POWER_BUTTON | X86_GED_VMGENID), "all events are read at once");
	CHECK(port_in(&ports, X86_PORT_GED) == 0, "and are gone then");
}

int main(void)
{
	test_windows();
	test_unclaimed();
	test_serial_output();
	test_serial_input();
	test_power();
	return tap_done();
}
