/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_tables.h - the fixed layouts of ACPI's tables, as they lie in guest memory (little-endian, packed)
 *
 * Source: ACPI 6.5 §5.2; each struct names its table there. Only what husk fills has a name of its own.
 */
#ifndef VMM_MACHINE_ARCH_X86_64_ACPI_TABLES_H
#define VMM_MACHINE_ARCH_X86_64_ACPI_TABLES_H

#include <assert.h>
#include <stdint.h>

/** Generic address structure, §5.2.3.2. */
struct acpi_address {
	uint8_t space, bits, offset, access;
	uint64_t address;
} __attribute__((packed));
static_assert(sizeof(struct acpi_address) == 12, "table 5.1");

#define ACPI_SPACE_IO 1
#define ACPI_ACCESS_BYTE 1

/** Root system description pointer, §5.2.5.3, revision 2. */
struct acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* over the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum; /* over everything */
	uint8_t reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct acpi_rsdp) == 36, "table 5.3");

/** What every table but the RSDP begins with, §5.2.6. */
struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));
static_assert(sizeof(struct acpi_header) == 36, "table 5.4");

/** Extended system description table, §5.2.8. */
struct acpi_xsdt {
	struct acpi_header header;
	uint64_t tables[2];
} __attribute__((packed));

/** Fixed ACPI description table, §5.2.9, revision 6. */
struct acpi_fadt {
	struct acpi_header header;
	uint32_t facs, dsdt;
	uint8_t reserved_1;
	uint8_t pm_profile;
	uint8_t fixed_hardware_1[63]; /* SCI_INT to CENTURY: a hardware-reduced machine has none of it */
	uint16_t boot_architecture;
	uint8_t reserved_2;
	uint32_t flags;
	struct acpi_address reset;
	uint8_t reset_value;
	uint16_t arm_boot_architecture;
	uint8_t minor_revision;
	uint64_t x_facs, x_dsdt;
	struct acpi_address fixed_hardware_2[8]; /* X_PM1a_EVT_BLK to X_GPE1_BLK */
	struct acpi_address sleep_control, sleep_status;
	char hypervisor[8];
} __attribute__((packed));
static_assert(sizeof(struct acpi_fadt) == 276, "table 5.9");
static_assert(__builtin_offsetof(struct acpi_fadt, boot_architecture) == 109, "table 5.9");
static_assert(__builtin_offsetof(struct acpi_fadt, x_dsdt) == 140, "table 5.9");
static_assert(__builtin_offsetof(struct acpi_fadt, sleep_control) == 244, "table 5.9");

#define FADT_PROFILE_UNSPECIFIED 0
/* §5.2.9.3, boot architecture */
#define FADT_NO_VGA (1u << 2)
#define FADT_NO_CMOS_RTC (1u << 5)
/* Table 5.10, flags */
#define FADT_WBINVD (1u << 0) /* always, on a PC */
#define FADT_CONTROL_METHOD_POWER_BUTTON (1u << 4)
#define FADT_NO_FIXED_SLEEP_BUTTON (1u << 5)
#define FADT_NO_FIXED_RTC_WAKE (1u << 6)
#define FADT_RESET_REGISTER (1u << 10)
#define FADT_HEADLESS (1u << 12)
#define FADT_HARDWARE_REDUCED (1u << 20)

/** Multiple APIC description table, §5.2.12; the entries follow. */
struct acpi_madt {
	struct acpi_header header;
	uint32_t local_apic;
	uint32_t flags; /* bit 0: a PC/AT interrupt controller, too; ours has none */
} __attribute__((packed));

enum { MADT_LOCAL_APIC = 0, MADT_IO_APIC = 1, MADT_LOCAL_APIC_NMI = 4 };

/** §5.2.12.2 */
struct acpi_madt_local_apic {
	uint8_t type, length;
	uint8_t processor_uid, apic_id;
	uint32_t flags;
} __attribute__((packed));
#define MADT_ENABLED 1

/** §5.2.12.3 */
struct acpi_madt_io_apic {
	uint8_t type, length;
	uint8_t id, reserved;
	uint32_t address, gsi_base;
} __attribute__((packed));

/** §5.2.12.7 */
struct acpi_madt_local_apic_nmi {
	uint8_t type, length;
	uint8_t processor_uid; /* 0xff: all */
	uint16_t flags;
	uint8_t lint;
} __attribute__((packed));

#endif
