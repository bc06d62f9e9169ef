/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial.h - a 16550A serial port (National Semiconductor PC16550D), the machine's early console
 *
 * Theory of operation: what the guest sends is out at once, so the transmitter is always empty; what arrives for the guest
 * waits in a FIFO until it is read. The interrupt line is edge-triggered: it is pulsed whenever something new is there that
 * the guest wants to hear of, and the driver reads the identification register until nothing is left. There is no speed, no
 * parity and no line: the registers for them only remember.
 */
#ifndef VMM_MACHINE_KVM_SERIAL_H
#define VMM_MACHINE_KVM_SERIAL_H

#include "vmm/machine/kvm/bus.h"

#include <stdbool.h>
#include <stddef.h>

#define SERIAL_FIFO 64
#define SERIAL_PORTS 8

struct serial {
	uint8_t ier, fcr, lcr, mcr, scr, divisor[2];
	bool sent; /* the transmitter became empty, and the guest has not been told */
	uint8_t fifo[SERIAL_FIFO];
	unsigned first, n; /* of the FIFO's content */
	void (*output)(void *data, const void *bytes, size_t n);
	void (*interrupt)(void *data);
	void *data;
};

extern const struct bus_ops serial_ops;

void serial_init(struct serial *serial, void (*output)(void *data, const void *bytes, size_t n),
	void (*interrupt)(void *data), void *data);
/** Bytes for the guest; returns how many found room. */
size_t serial_input(struct serial *serial, const void *bytes, size_t n);

#endif
