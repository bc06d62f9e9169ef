/* SPDX-License-Identifier: Apache-2.0 */
/*
 * power.h - the ports by which a guest sleeps and resets, and the events that the host has for it
 *
 * Theory of operation: ACPI's sleep control and reset registers (ACPI 6.5 §4.8.3.6, §4.8.3.7) and the keyboard controller's
 * reset line end the machine. Events go the other way: a bit is set in the register of the generic event device, its
 * interrupt raised, and the guest's ACPI code reads the register, which clears it, and notifies the device behind each bit.
 */
#ifndef VMM_MACHINE_KVM_POWER_H
#define VMM_MACHINE_KVM_POWER_H

#include "vmm/machine/kvm/bus.h"

#include <stdbool.h>

struct power {
	uint8_t events; /* X86_GED_*, not read yet */
	void (*off)(void *data); /* the guest powered itself off */
	void (*reset)(void *data);
	void (*interrupt)(void *data); /* of the generic event device */
	void *data;
};

/** Put the ports of @power, whose callbacks are set, on @ports. */
int power_connect(struct power *power, struct bus *ports, struct husk_error *err);
/** Tell the guest of @events (X86_GED_*). */
void power_raise(struct power *power, uint8_t events);

#endif
