/* SPDX-License-Identifier: Apache-2.0 */
/* serial.c - a 16550A serial port (theory of operation: serial.h) */
#include "vmm/machine/kvm/serial.h"

#include <linux/serial_reg.h>
#include <string.h>

#define MSR_CONNECTED (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

static bool divisor_latch(const struct serial *s)
{
	return s->lcr & UART_LCR_DLAB;
}

static bool wants(const struct serial *s, uint8_t what)
{
	return s->ier & what;
}

static void add_input(struct serial *s, uint8_t byte)
{
	if (s->n == SERIAL_FIFO)
		return;
	s->fifo[(s->first + s->n++) % SERIAL_FIFO] = byte;
	if (wants(s, UART_IER_RDI))
		s->interrupt(s->data);
}

static uint8_t take_input(struct serial *s)
{
	if (!s->n)
		return 0;
	uint8_t byte = s->fifo[s->first];
	s->first = (s->first + 1) % SERIAL_FIFO;
	s->n--;
	return byte;
}

static void send(struct serial *s, uint8_t byte)
{
	if (s->mcr & UART_MCR_LOOP)
		add_input(s, byte);
	else
		s->output(s->data, &byte, 1);
	s->sent = true;
	if (wants(s, UART_IER_THRI))
		s->interrupt(s->data);
}

/** Reading it tells the guest that the transmitter is empty, so that ends. */
static uint8_t identify(struct serial *s)
{
	uint8_t fifos = s->fcr & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;

	if (wants(s, UART_IER_RDI) && s->n)
		return fifos | UART_IIR_RDI;
	if (wants(s, UART_IER_THRI) && s->sent) {
		s->sent = false;
		return fifos | UART_IIR_THRI;
	}
	return fifos | UART_IIR_NO_INT;
}

/** In loop-back the outputs of MCR are the inputs of MSR: that is how drivers find the chip. */
static uint8_t modem_status(const struct serial *s)
{
	if (!(s->mcr & UART_MCR_LOOP))
		return MSR_CONNECTED;
	return (s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) | (s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
	       (s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static uint8_t read_register(struct serial *s, unsigned which)
{
	switch (which) {
	case UART_RX:
		return divisor_latch(s) ? s->divisor[0] : take_input(s);
	case UART_IER:
		return divisor_latch(s) ? s->divisor[1] : s->ier;
	case UART_IIR:
		return identify(s);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		return UART_LSR_TEMT | UART_LSR_THRE | (s->n ? UART_LSR_DR : 0);
	case UART_MSR:
		return modem_status(s);
	default:
		return s->scr;
	}
}

static void enable(struct serial *s, uint8_t value)
{
	bool newly = (value & ~s->ier) & UART_IER_THRI;

	s->ier = value & (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI);
	if (newly)
		s->sent = true; /* the transmitter is empty, and who asks anew is told so */
	if ((newly && s->sent) || (wants(s, UART_IER_RDI) && s->n))
		s->interrupt(s->data);
}

static void write_register(struct serial *s, unsigned which, uint8_t value)
{
	switch (which) {
	case UART_TX:
		if (divisor_latch(s))
			s->divisor[0] = value;
		else
			send(s, value);
		break;
	case UART_IER:
		if (divisor_latch(s))
			s->divisor[1] = value;
		else
			enable(s, value);
		break;
	case UART_FCR:
		s->fcr = value;
		if (value & UART_FCR_CLEAR_RCVR)
			s->n = 0;
		break;
	case UART_LCR:
		s->lcr = value;
		break;
	case UART_MCR:
		s->mcr = value & 0x1f;
		break;
	case UART_SCR:
		s->scr = value;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
}

static void serial_read(void *data, uint64_t offset, void *bytes, unsigned n)
{
	struct serial *s = data;
	uint8_t *out = bytes;

	memset(out, 0xff, n); /* the chip is on eight of the bus's lines */
	out[0] = read_register(s, (unsigned)offset & 7);
}

static void serial_write(void *data, uint64_t offset, const void *bytes, unsigned n)
{
	(void)n;
	write_register(data, (unsigned)offset & 7, *(const uint8_t *)bytes);
}

const struct bus_ops serial_ops = {.read = serial_read, .write = serial_write};

void serial_init(struct serial *serial, void (*output)(void *data, const void *bytes, size_t n),
	void (*interrupt)(void *data), void *data)
{
	*serial = (struct serial){
		.divisor = {12, 0}, .sent = true, .output = output, .interrupt = interrupt, .data = data};
}

size_t serial_input(struct serial *serial, const void *bytes, size_t n)
{
	size_t room = SERIAL_FIFO - serial->n, taken = n < room ? n : room;

	for (size_t i = 0; i < taken; i++)
		add_input(serial, ((const uint8_t *)bytes)[i]);
	return taken;
}
