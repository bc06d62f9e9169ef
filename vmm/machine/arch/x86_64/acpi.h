/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi.h - the ACPI tables by which a guest of the `kvm` machine finds its processors, devices and power button
 *
 * Theory of operation: the machine is hardware-reduced (ACPI 6.5 §3.11.1): no fixed power management registers, no FACS, no
 * legacy interrupt controller. What a guest needs to know stands in four tables that an RSDP at X86_ACPI leads to:
 *   FADT  where to write to sleep and to reset, and which PC parts are absent (keyboard controller, VGA, CMOS clock)
 *   MADT  one local APIC per processor and the one I/O APIC
 *   DSDT  processors, serial port, one virtio-mmio window per slot (also of slots that are empty), the generic event
 *         device with what it notifies (power button, VM generation id), and \_S5
 *   XSDT  the addresses of FADT and MADT; the FADT has the DSDT's
 * They are written once, before the guest runs; the bytes are the guest's afterwards.
 *
 * A slot that is filled later needs no event of its own: no kernel binds a platform device anew because of one, so the agent
 * is asked to (RESCAN, docs/agent-protocol.md).
 */
#ifndef VMM_MACHINE_ARCH_X86_64_ACPI_H
#define VMM_MACHINE_ARCH_X86_64_ACPI_H

#include "memory/memory.h"

struct acpi_setup {
	unsigned cpus; /* 1 to X86_CPUS_MAX; their APIC ids count from 0 */
	unsigned n_slots; /* virtio-mmio windows, filled or not: 0 to X86_SLOTS */
};

/**
 * Write the tables of @setup into guest memory at [X86_ACPI, X86_ACPI_END); the RSDP's address goes to *@rsdp.
 * -EINVAL: a number out of range; -ENOSPC: the area does not lie wholly in guest memory, or is too small.
 */
int acpi_build(const struct memory *memory, const struct acpi_setup *setup, uint64_t *rsdp, struct husk_error *err);

#endif
