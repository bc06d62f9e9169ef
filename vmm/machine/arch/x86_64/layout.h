/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.h - where everything lies in the `kvm` machine on x86_64: guest-physical addresses, interrupts, I/O ports
 *
 * One place for the numbers that the loader, the ACPI tables, the exit handlers and the tests must agree on. RAM goes up to
 * X86_HOLE and on from 4 GiB; the hole holds the virtio-mmio windows and what the CPU itself puts there (I/O APIC at
 * 0xfec00000, local APIC at 0xfee00000, KVM's own pages just below 4 GiB).
 */
#ifndef VMM_MACHINE_ARCH_X86_64_LAYOUT_H
#define VMM_MACHINE_ARCH_X86_64_LAYOUT_H

/* RAM */
#define X86_HOLE 0xc0000000ull /* RAM below 4 GiB ends here at the latest */
#define X86_HIGH 0x100000000ull /* and goes on here */

/* The first MiB: what the boot protocols need (loader), then from 0x9fc00 on reserved: the tables (ACPI). */
#define X86_GDT 0x1000ull
#define X86_BOOT_INFO 0x2000ull /* one page: struct boot_params, or struct hvm_start_info and what it points to */
#define X86_PAGE_TABLES 0x3000ull /* PML4, one PDPT, four page directories of 2 MiB pages */
#define X86_CMDLINE 0x10000ull
#define X86_CMDLINE_SIZE 0x10000ull /* with its NUL */
#define X86_LOW_RAM_END 0x9fc00ull
#define X86_VMGENID 0xe0000ull /* one page; the 16 bytes of the generation id at its beginning */
#define X86_ACPI 0xe1000ull /* RSDP first, then the tables */
#define X86_ACPI_END 0x100000ull
#define X86_KERNEL 0x100000ull /* the lowest address of a kernel */

/* virtio-mmio windows: slot i at X86_VIRTIO + i * X86_VIRTIO_SIZE */
#define X86_VIRTIO 0xd0000000ull
#define X86_VIRTIO_SIZE 0x1000ull
#define X86_SLOTS 24 /* devices and spare slots together */

#define X86_IOAPIC 0xfec00000ull
#define X86_LAPIC 0xfee00000ull
#define X86_TSS 0xfffbd000ull /* KVM_SET_TSS_ADDR: three pages that no memslot touches */
#define X86_IDENTITY_MAP 0xfffbc000ull /* KVM_SET_IDENTITY_MAP_ADDR */

/* Interrupts: inputs of the one I/O APIC, all edge-triggered, active high. Slots beyond the number of inputs share. */
#define X86_GSI_SERIAL 4
#define X86_GSI_VIRTIO 5
#define X86_GSI_VIRTIO_N 18 /* 5 to 22 */
#define X86_GSI_GED 23
#define X86_GSIS 24

/* I/O ports */
#define X86_PORT_SERIAL 0x3f8 /* a 16550, 8 ports */
#define X86_PORT_I8042 0x64 /* write 0xfe: reset */
#define X86_PORT_SLEEP_CONTROL 0x600 /* ACPI 6.5 §4.8.3.7: SLP_TYP << 2 | SLP_EN (0x20) */
#define X86_PORT_SLEEP_STATUS 0x601
#define X86_PORT_RESET 0x602 /* ACPI reset register: write X86_RESET_VALUE */
#define X86_PORT_GED 0x603 /* read: pending events (X86_GED_*), which the read clears */
#define X86_RESET_VALUE 1
#define X86_SLEEP_S5 5 /* SLP_TYP of \_S5 */

#define X86_GED_POWER_BUTTON 1
#define X86_GED_VMGENID 2

#define X86_CPUS_MAX 32

/** Interrupt of virtio slot @slot. */
static inline unsigned x86_slot_gsi(unsigned slot)
{
	return X86_GSI_VIRTIO + slot % X86_GSI_VIRTIO_N;
}

#endif
