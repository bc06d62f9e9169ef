/* SPDX-License-Identifier: Apache-2.0 */
/* acpi.c - the ACPI tables of the `kvm` machine (theory of operation: acpi.h) */
#include "vmm/machine/arch/x86_64/acpi.h"

#include "vmm/machine/arch/x86_64/acpi_tables.h"
#include "vmm/machine/arch/x86_64/aml.h"
#include "vmm/machine/arch/x86_64/layout.h"

#include <stdio.h>
#include <string.h>

#define ALIGNMENT 64 /* of each table; the specification asks for 16 (RSDP) and less */
#define NOTIFY_DEVICE 0x80 /* §5.6.6: from here on device-specific; a power button was pressed, an id has changed */
#define LINT_NMI 1 /* where a PC's NMI arrives */
#define UART_PORTS 8

static_assert(X86_CPUS_MAX < 255, "APIC ids from 255 on need x2APIC entries");
static_assert(X86_PORT_SERIAL <= UINT16_MAX && X86_PORT_GED <= UINT16_MAX, "I/O ports have 16 bits");

/** Where the next table goes. */
struct area {
	uint8_t *bytes; /* guest memory at X86_ACPI */
	size_t length;
};

#define AREA_SIZE (X86_ACPI_END - X86_ACPI)

/** Room for @size bytes, zeroed; *@gpa is its address. NULL: the area is full. */
static void *take(struct area *area, size_t size, uint64_t *gpa)
{
	size_t at = (area->length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

	if (at > AREA_SIZE || size > AREA_SIZE - at)
		return NULL;
	area->length = at + size;
	*gpa = X86_ACPI + at;
	return memset(area->bytes + at, 0, size);
}

/** What makes the sum of @n bytes 0, given that the byte for it is 0 so far. */
static uint8_t checksum(const void *bytes, size_t n)
{
	const uint8_t *b = bytes;
	uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += b[i];
	return (uint8_t)-sum;
}

static struct acpi_header header(const char *signature, uint8_t revision, size_t length)
{
	struct acpi_header h = {
		.length = (uint32_t)length,
		.revision = revision,
		.oem_id = {'H', 'U', 'S', 'K', ' ', ' '},
		.oem_table_id = {'H', 'U', 'S', 'K', 'K', 'V', 'M', ' '},
		.oem_revision = 1,
		.creator_id = {'H', 'U', 'S', 'K'},
		.creator_revision = 1,
	};
	memcpy(h.signature, signature, sizeof(h.signature));
	return h;
}

/** The table behind @h is written: add its checksum. */
static void seal(struct acpi_header *h)
{
	h->checksum = 0;
	h->checksum = checksum(h, h->length);
}

static struct acpi_address io_port(uint16_t port)
{
	return (struct acpi_address){.space = ACPI_SPACE_IO, .bits = 8, .access = ACPI_ACCESS_BYTE, .address = port};
}

/* ---- DSDT ---- */

/** Processor devices; the MADT's entries have the same unique ids. */
static void add_processors(struct aml *aml, unsigned cpus)
{
	for (unsigned i = 0; i < cpus; i++) {
		char name[5];
		snprintf(name, sizeof(name), "C%03u", i % 1000);
		aml_device_begin(aml, name);
		aml_name_string(aml, "_HID", "ACPI0007");
		aml_name_integer(aml, "_UID", i);
		aml_end(aml);
	}
}

/** Does another of @n slots have the interrupt of @slot? */
static bool is_shared(unsigned slot, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (i != slot && x86_slot_gsi(i) == x86_slot_gsi(slot))
			return true;
	return false;
}

static void add_slots(struct aml *aml, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char name[5];
		snprintf(name, sizeof(name), "V%03u", i % 1000);
		aml_device_begin(aml, name);
		aml_name_string(aml, "_HID", "LNRO0005"); /* the id to which Linux binds virtio-mmio */
		aml_name_integer(aml, "_UID", i);
		aml_resources_begin(aml);
		aml_memory32_fixed(aml, (uint32_t)(X86_VIRTIO + i * X86_VIRTIO_SIZE), X86_VIRTIO_SIZE);
		aml_interrupt(aml, x86_slot_gsi(i), is_shared(i, n));
		aml_end(aml);
		aml_end(aml);
	}
}

static void add_serial(struct aml *aml)
{
	aml_device_begin(aml, "COM1");
	aml_name_eisa_id(aml, "_HID", "PNP0501"); /* a 16550A */
	aml_name_integer(aml, "_UID", 0);
	aml_resources_begin(aml);
	aml_io_ports(aml, X86_PORT_SERIAL, UART_PORTS);
	aml_interrupt(aml, X86_GSI_SERIAL, false);
	aml_end(aml);
	aml_end(aml);
}

static void add_power_button(struct aml *aml)
{
	aml_device_begin(aml, "PWRB");
	aml_name_eisa_id(aml, "_HID", "PNP0C0C");
	aml_name_integer(aml, "_UID", 0);
	aml_end(aml);
}

/** The VM generation id: kernels find it by compatible id, of which they know either form, and its page by ADDR. */
static void add_generation_id(struct aml *aml)
{
	aml_device_begin(aml, "VGEN");
	aml_name_string(aml, "_HID", "HUSK0001");
	aml_name_package_begin(aml, "_CID", 2);
	aml_string(aml, "VM_Gen_Counter");
	aml_string(aml, "VMGENCTR");
	aml_end(aml);
	aml_name_integer(aml, "_UID", 0);
	aml_name_string(aml, "_DDN", "VM_Gen_Counter");
	aml_name_package_begin(aml, "ADDR", 2);
	aml_integer(aml, X86_VMGENID & UINT32_MAX);
	aml_integer(aml, X86_VMGENID >> 32);
	aml_end(aml);
	aml_end(aml);
}

/** The generic event device, §5.6.9: one read tells, and clears, what has happened. */
static void add_events(struct aml *aml)
{
	static const struct {
		uint8_t event;
		const char *device;
	} events[] = {
		{X86_GED_POWER_BUTTON, "PWRB"},
		{X86_GED_VMGENID, "VGEN"},
	};

	aml_device_begin(aml, "GED");
	aml_name_string(aml, "_HID", "ACPI0013");
	aml_name_integer(aml, "_UID", 0);
	aml_resources_begin(aml);
	aml_interrupt(aml, X86_GSI_GED, false);
	aml_end(aml);
	aml_port_field(aml, "EVTR", "EVTS", X86_PORT_GED);
	aml_method_begin(aml, "_EVT", 1);
	aml_load_local(aml, 0, "EVTS");
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		aml_if_local_and_begin(aml, 0, events[i].event);
		aml_notify(aml, events[i].device, NOTIFY_DEVICE);
		aml_end(aml);
	}
	aml_end(aml);
	aml_end(aml);
}

/** §7.4.2.6: the first number is what goes into the sleep control register. */
static void add_soft_off(struct aml *aml)
{
	aml_name_package_begin(aml, "\\_S5", 4);
	aml_integer(aml, X86_SLEEP_S5);
	for (unsigned i = 1; i < 4; i++)
		aml_integer(aml, 0);
	aml_end(aml);
}

/** Write the DSDT into what is left of @area; *@gpa is its address. */
static int add_dsdt(struct area *area, const struct acpi_setup *setup, uint64_t *gpa, struct husk_error *err)
{
	struct acpi_header *h = take(area, sizeof(*h), gpa);
	struct aml aml;

	if (!h)
		return error_set(err, -ENOSPC, "no room for the DSDT among the ACPI tables");
	aml_init(&aml, h + 1, AREA_SIZE - area->length);
	aml_scope_begin(&aml, "\\_SB");
	add_processors(&aml, setup->cpus);
	add_slots(&aml, setup->n_slots);
	add_serial(&aml);
	add_power_button(&aml);
	add_generation_id(&aml);
	add_events(&aml);
	aml_end(&aml);
	add_soft_off(&aml);
	size_t length = aml_length(&aml);
	if (length == 0)
		return error_set(err, -ENOSPC,
			"the DSDT for %u processors and %u slots does not fit into the ACPI tables", setup->cpus,
			setup->n_slots);
	area->length += length;
	*h = header("DSDT", 2, sizeof(*h) + length); /* revision 2: integers have 64 bits */
	seal(h);
	return 0;
}

/* ---- the other tables ---- */

static int add_fadt(struct area *area, uint64_t dsdt, uint64_t *gpa, struct husk_error *err)
{
	struct acpi_fadt *t = take(area, sizeof(*t), gpa);

	if (!t)
		return error_set(err, -ENOSPC, "no room for the FADT among the ACPI tables");
	*t = (struct acpi_fadt){
		.header = header("FACP", 6, sizeof(*t)),
		.pm_profile = FADT_PROFILE_UNSPECIFIED,
		/* No 8042 flag: Linux then takes the keyboard controller for absent and does not probe it for half a
		 * second; its reset line works all the same. */
		.boot_architecture = FADT_NO_VGA | FADT_NO_CMOS_RTC,
		.flags = FADT_WBINVD | FADT_CONTROL_METHOD_POWER_BUTTON | FADT_NO_FIXED_SLEEP_BUTTON |
			 FADT_NO_FIXED_RTC_WAKE | FADT_RESET_REGISTER | FADT_HEADLESS | FADT_HARDWARE_REDUCED,
		.reset = io_port(X86_PORT_RESET),
		.reset_value = X86_RESET_VALUE,
		.minor_revision = 5,
		.x_dsdt = dsdt, /* and no 32-bit one: §5.2.9 wants one of both */
		.sleep_control = io_port(X86_PORT_SLEEP_CONTROL),
		.sleep_status = io_port(X86_PORT_SLEEP_STATUS),
		.hypervisor = {'H', 'U', 'S', 'K'},
	};
	seal(&t->header);
	return 0;
}

static int add_madt(struct area *area, unsigned cpus, uint64_t *gpa, struct husk_error *err)
{
	struct layout {
		struct acpi_madt madt;
		struct acpi_madt_io_apic io_apic;
		struct acpi_madt_local_apic_nmi nmi;
		struct acpi_madt_local_apic cpus[];
	} __attribute__((packed));
	size_t size = sizeof(struct layout) + cpus * sizeof(struct acpi_madt_local_apic);
	struct layout *t = take(area, size, gpa);

	if (!t)
		return error_set(err, -ENOSPC, "no room for the MADT among the ACPI tables");
	t->madt = (struct acpi_madt){.header = header("APIC", 6, size), .local_apic = X86_LAPIC};
	t->io_apic =
		(struct acpi_madt_io_apic){.type = MADT_IO_APIC, .length = sizeof(t->io_apic), .address = X86_IOAPIC};
	t->nmi = (struct acpi_madt_local_apic_nmi){
		.type = MADT_LOCAL_APIC_NMI, .length = sizeof(t->nmi), .processor_uid = 0xff, .lint = LINT_NMI};
	for (unsigned i = 0; i < cpus; i++)
		t->cpus[i] = (struct acpi_madt_local_apic){
			.type = MADT_LOCAL_APIC,
			.length = sizeof(t->cpus[i]),
			.processor_uid = (uint8_t)i,
			.apic_id = (uint8_t)i,
			.flags = MADT_ENABLED,
		};
	seal(&t->madt.header);
	return 0;
}

static int add_xsdt(struct area *area, uint64_t fadt, uint64_t madt, uint64_t *gpa, struct husk_error *err)
{
	struct acpi_xsdt *t = take(area, sizeof(*t), gpa);

	if (!t)
		return error_set(err, -ENOSPC, "no room for the XSDT among the ACPI tables");
	*t = (struct acpi_xsdt){.header = header("XSDT", 1, sizeof(*t)), .tables = {fadt, madt}};
	seal(&t->header);
	return 0;
}

static void fill_rsdp(struct acpi_rsdp *rsdp, uint64_t xsdt)
{
	*rsdp = (struct acpi_rsdp){
		.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
		.oem_id = {'H', 'U', 'S', 'K', ' ', ' '},
		.revision = 2,
		.length = sizeof(*rsdp),
		.xsdt = xsdt,
	};
	rsdp->checksum = checksum(rsdp, 20);
	rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
}

int acpi_build(const struct memory *memory, const struct acpi_setup *setup, uint64_t *rsdp, struct husk_error *err)
{
	uint64_t root = 0, dsdt = 0, fadt = 0, madt = 0, xsdt = 0;

	if (setup->cpus < 1 || setup->cpus > X86_CPUS_MAX)
		return error_set(
			err, -EINVAL, "ACPI tables for %u processors: 1 to %u are possible", setup->cpus, X86_CPUS_MAX);
	if (setup->n_slots > X86_SLOTS)
		return error_set(
			err, -EINVAL, "ACPI tables for %u slots: at most %u are possible", setup->n_slots, X86_SLOTS);
	struct area area = {.bytes = memory_at(memory, X86_ACPI, AREA_SIZE)};
	if (!area.bytes)
		return error_set(
			err, -ENOSPC, "guest memory has no %llu bytes at 0x%llx for ACPI tables", AREA_SIZE, X86_ACPI);
	struct acpi_rsdp *p = take(&area, sizeof(*p), &root);
	int rc = add_dsdt(&area, setup, &dsdt, err);
	if (rc == 0)
		rc = add_fadt(&area, dsdt, &fadt, err);
	if (rc == 0)
		rc = add_madt(&area, setup->cpus, &madt, err);
	if (rc == 0)
		rc = add_xsdt(&area, fadt, madt, &xsdt, err);
	if (rc < 0)
		return rc;
	fill_rsdp(p, xsdt);
	*rsdp = root;
	return 0;
}
