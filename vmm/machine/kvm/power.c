/* SPDX-License-Identifier: Apache-2.0 */
/* power.c - sleep, reset and events (theory of operation: power.h) */
#include "vmm/machine/kvm/power.h"

#include "vmm/machine/arch/x86_64/layout.h"

#include <string.h>

#define SLP_EN 0x20
#define SLP_TYP(value) ((value) >> 2 & 7)
#define I8042_PULSE_RESET 0xfe

static void acpi_read(void *data, uint64_t offset, void *bytes, unsigned n)
{
	struct power *p = data;
	uint8_t *out = bytes;

	memset(out, 0, n);
	for (unsigned i = 0; i < n; i++)
		if (X86_PORT_SLEEP_CONTROL + offset + i == X86_PORT_GED) {
			out[i] = p->events;
			p->events = 0;
		}
}

static void acpi_write(void *data, uint64_t offset, const void *bytes, unsigned n)
{
	struct power *p = data;
	uint8_t value = *(const uint8_t *)bytes;

	(void)n;
	if (X86_PORT_SLEEP_CONTROL + offset == X86_PORT_RESET && value == X86_RESET_VALUE)
		p->reset(p->data);
	else if (offset == 0 && (value & SLP_EN) && SLP_TYP(value) == X86_SLEEP_S5)
		p->off(p->data);
}

/* A controller without keyboard whose input buffer is never full, as kernels wait for before they pull its reset line. */
static void i8042_read(void *data, uint64_t offset, void *bytes, unsigned n)
{
	(void)data;
	(void)offset;
	memset(bytes, 0, n);
}

static void i8042_write(void *data, uint64_t offset, const void *bytes, unsigned n)
{
	struct power *p = data;

	(void)offset;
	(void)n;
	if (*(const uint8_t *)bytes == I8042_PULSE_RESET)
		p->reset(p->data);
}

static const struct bus_ops acpi_ops = {.read = acpi_read, .write = acpi_write};
static const struct bus_ops i8042_ops = {.read = i8042_read, .write = i8042_write};

int power_connect(struct power *power, struct bus *ports, struct husk_error *err)
{
	int rc = bus_add(
		ports, X86_PORT_SLEEP_CONTROL, X86_PORT_GED - X86_PORT_SLEEP_CONTROL + 1, &acpi_ops, power, err);
	return rc < 0 ? rc : bus_add(ports, X86_PORT_I8042, 1, &i8042_ops, power, err);
}

void power_raise(struct power *power, uint8_t events)
{
	power->events |= events;
	power->interrupt(power->data);
}
