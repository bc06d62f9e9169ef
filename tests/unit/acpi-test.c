/* SPDX-License-Identifier: Apache-2.0 */
/* acpi-test.c - ACPI tables: checksums, lengths, the chain of pointers, counts, refusals; the AML writer at its edges */
#include "vmm/machine/arch/x86_64/acpi.h"

#include "tests/tap.h"
#include "vmm/machine/arch/x86_64/acpi_tables.h"
#include "vmm/machine/arch/x86_64/aml.h"
#include "vmm/machine/arch/x86_64/layout.h"

#define MIB (1ULL << 20)

/** Guest memory of @size bytes at 0, filled with what no table may be confused by. */
static struct memory ram(uint64_t size)
{
	struct memory m = {0};
	int fd;

	if (memory_make_fd(size, &fd, NULL) == 0 && memory_init(&m, fd, NULL) == 0 &&
		memory_add(&m, 0, size, 0, NULL) == 0)
		memset(memory_at(&m, 0, size), 0xa5, size);
	return m;
}

static uint8_t sum(const void *bytes, size_t n)
{
	uint8_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += ((const uint8_t *)bytes)[i];
	return total;
}

static unsigned count(const void *bytes, size_t n, const char *what)
{
	unsigned found = 0;
	size_t length = strlen(what);
	for (size_t i = 0; i + length <= n; i++)
		found += memcmp((const uint8_t *)bytes + i, what, length) == 0;
	return found;
}

/** The table at @gpa, when it lies in the area, has that signature and sums up to 0. */
static const struct acpi_header *table(const struct memory *m, uint64_t gpa, const char *signature)
{
	const struct acpi_header *h =
		gpa >= X86_ACPI && gpa + sizeof(*h) <= X86_ACPI_END ? memory_at(m, gpa, sizeof(*h)) : NULL;
	bool ok = h && memcmp(h->signature, signature, 4) == 0 && h->length >= sizeof(*h) &&
		  gpa + h->length <= X86_ACPI_END && sum(h, h->length) == 0;
	return ok ? h : NULL;
}

static void check_madt(const struct acpi_header *madt, unsigned cpus)
{
	const uint8_t *at = (const uint8_t *)madt + sizeof(struct acpi_madt),
		      *end = (const uint8_t *)madt + madt->length;
	unsigned processors = 0, io_apics = 0, nmis = 0;
	bool ordered = true;

	for (; end - at >= 2 && at[1] >= 2 && at[1] <= end - at; at += at[1]) {
		const struct acpi_madt_local_apic *cpu = (const void *)at;
		const struct acpi_madt_io_apic *io = (const void *)at;
		if (cpu->type == MADT_LOCAL_APIC) {
			ordered &= cpu->processor_uid == processors && cpu->apic_id == processors && cpu->flags == 1;
			processors++;
		} else if (cpu->type == MADT_IO_APIC) {
			io_apics += io->address == X86_IOAPIC && io->gsi_base == 0;
		} else if (cpu->type == MADT_LOCAL_APIC_NMI) {
			nmis++;
		}
	}
	CHECK(at == end, "the entries end where the table does");
	CHECK(processors == cpus && ordered, "one enabled local APIC per processor, ids from 0 on");
	CHECK(io_apics == 1 && nmis == 1, "one I/O APIC, one NMI entry");
	CHECK((((const struct acpi_madt *)madt)->flags & 1) == 0, "no PC/AT interrupt controller");
}

static void check_fadt(const struct acpi_fadt *fadt)
{
	CHECK(fadt->header.length == 276 && fadt->header.revision == 6,
		"the FADT's revision is 6, its length that of it");
	CHECK(fadt->flags & FADT_HARDWARE_REDUCED && fadt->facs == 0 && fadt->x_facs == 0, "hardware-reduced, no FACS");
	CHECK(fadt->flags & FADT_RESET_REGISTER && fadt->reset.address == X86_PORT_RESET &&
			fadt->reset_value == X86_RESET_VALUE,
		"the reset register is told");
	CHECK(fadt->sleep_control.address == X86_PORT_SLEEP_CONTROL &&
			fadt->sleep_status.address == X86_PORT_SLEEP_STATUS,
		"so are the sleep registers");
	CHECK(fadt->boot_architecture == (FADT_NO_VGA | FADT_NO_CMOS_RTC),
		"no VGA, no CMOS clock, no keyboard controller");
	bool none = true;
	for (size_t i = 0; i < sizeof(fadt->fixed_hardware_1); i++)
		none &= fadt->fixed_hardware_1[i] == 0;
	for (size_t i = 0; i < sizeof(fadt->fixed_hardware_2) / sizeof(fadt->fixed_hardware_2[0]); i++)
		none &= fadt->fixed_hardware_2[i].address == 0;
	CHECK(none, "no fixed hardware");
}

static void check_dsdt(const struct acpi_header *dsdt, unsigned cpus, unsigned slots)
{
	CHECK(dsdt->revision == 2, "integers of the DSDT have 64 bits");
	CHECK(count(dsdt, dsdt->length, "ACPI0007") == cpus, "a device per processor");
	CHECK(count(dsdt, dsdt->length, "LNRO0005") == slots, "a device per slot");
	CHECK(count(dsdt, dsdt->length, "ACPI0013") == 1, "one generic event device");
}

static void test_build(unsigned cpus, unsigned slots)
{
	struct memory m = ram(2 * MIB);
	uint64_t at = 0;

	printf("# %u processors, %u slots\n", cpus, slots);
	int rc = acpi_build(&m, &(struct acpi_setup){.cpus = cpus, .n_slots = slots}, &at, NULL);
	const struct acpi_rsdp *rsdp = memory_at(&m, at, sizeof(*rsdp));
	if (!CHECK(rc == 0 && at == X86_ACPI && rsdp && memcmp(rsdp->signature, "RSD PTR ", 8) == 0, "an RSDP"))
		return;
	CHECK(rsdp->revision == 2 && rsdp->length == 36 && rsdp->rsdt == 0, "of revision 2, with no RSDT");
	CHECK(sum(rsdp, 20) == 0 && sum(rsdp, rsdp->length) == 0, "whose two checksums are right");
	const struct acpi_xsdt *xsdt = (const void *)table(&m, rsdp->xsdt, "XSDT");
	if (!CHECK(xsdt && xsdt->header.length == sizeof(*xsdt), "it leads to an XSDT of two tables"))
		return;
	const struct acpi_fadt *fadt = (const void *)table(&m, xsdt->tables[0], "FACP");
	const struct acpi_header *madt = table(&m, xsdt->tables[1], "APIC");
	const struct acpi_header *dsdt = fadt ? table(&m, fadt->x_dsdt, "DSDT") : NULL;
	if (!CHECK(fadt && madt && dsdt, "FADT, MADT and DSDT have the right signatures and sums"))
		return;
	check_fadt(fadt);
	check_madt(madt, cpus);
	check_dsdt(dsdt, cpus, slots);
	CHECK(*(const uint8_t *)memory_at(&m, X86_ACPI - 1, 1) == 0xa5 &&
			*(const uint8_t *)memory_at(&m, X86_ACPI_END, 1) == 0xa5,
		"nothing is written beside the area");
	memory_destroy(&m);
}

static void test_refusals(void)
{
	static const struct {
		unsigned cpus, slots;
		uint64_t size;
		int code;
		const char *word, *what;
	} cases[] = {
		{0, 1, 2 * MIB, -EINVAL, "0 processors", "no processor"},
		{X86_CPUS_MAX + 1, 1, 2 * MIB, -EINVAL, "33 processors", "a processor too many"},
		{1, X86_SLOTS + 1, 2 * MIB, -EINVAL, "25 slots", "a slot too many"},
		{1, 1, X86_ACPI_END - 4096, -ENOSPC, "0xe1000", "memory that ends within the area"},
		{1, 1, X86_ACPI, -ENOSPC, "0xe1000", "memory that ends before the area"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct memory m = ram(cases[i].size);
		struct husk_error err = {0};
		uint64_t at = 7;
		int rc = acpi_build(
			&m, &(struct acpi_setup){.cpus = cases[i].cpus, .n_slots = cases[i].slots}, &at, &err);
		CHECK(rc == cases[i].code && at == 7 && strstr(err.message, cases[i].word), cases[i].what);
		memory_destroy(&m);
	}
}

/** Integers at the borders of their forms, names, ids. */
static void test_aml_data(void)
{
	uint8_t bytes[64];
	struct aml a;

	aml_init(&a, bytes, sizeof(bytes));
	aml_integer(&a, 0);
	aml_integer(&a, 1);
	aml_integer(&a, 2);
	aml_integer(&a, 0xff);
	aml_integer(&a, 0x100);
	aml_integer(&a, 0x10000);
	aml_integer(&a, 0x100000000);
	static const uint8_t integers[] = {
		0, 1, 0x0a, 2, 0x0a, 0xff, 0x0b, 0, 1, 0x0c, 0, 0, 1, 0, 0x0e, 0, 0, 0, 0, 1, 0, 0, 0};
	CHECK(aml_length(&a) == sizeof(integers) && memcmp(bytes, integers, sizeof(integers)) == 0,
		"integers take their shortest form");
	aml_init(&a, bytes, sizeof(bytes));
	aml_name_eisa_id(&a, "_HID", "PNP0C0C");
	CHECK(aml_length(&a) == 10 && memcmp(bytes, "\x08_HID\x0c\x41\xd0\x0c\x0c", 10) == 0,
		"an EISA id is compressed");
	static const char *const ids[] = {"pnp0C0C", "PNP0C0", "PNP0C0C0", "PN0C0CC"};
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		aml_init(&a, bytes, sizeof(bytes));
		aml_name_eisa_id(&a, "_HID", ids[i]);
		CHECK(aml_length(&a) == 0, "what is no EISA id is refused");
	}
	aml_init(&a, bytes, sizeof(bytes));
	aml_name_integer(&a, "TOOLONG", 0);
	CHECK(aml_length(&a) == 0, "a name of more than four characters is refused");
}

/** A scope whose content has every length around the borders of the package length's forms. */
static void test_aml_lengths(void)
{
	static uint8_t bytes[5000];
	bool right = true;

	for (unsigned content = 4; content < 4200; content++) {
		struct aml a;
		aml_init(&a, bytes, sizeof(bytes));
		aml_scope_begin(&a, "X");
		for (unsigned i = 4; i < content; i++)
			aml_integer(&a, i & 1);
		aml_end(&a);
		unsigned n = content + 1 < 64 ? 1 : content + 2 < 4096 ? 2 : 3;
		size_t told = n == 1 ? bytes[1]
				     : (bytes[1] & 0xf) | (size_t)bytes[2] << 4 | (n == 3 ? (size_t)bytes[3] << 12 : 0);
		right &= aml_length(&a) == 1 + n + content && bytes[1] >> 6 == n - 1 && told == n + content &&
			 memcmp(bytes + 1 + n, "X___", 4) == 0;
	}
	CHECK(right, "a package's length is right and short, whatever it is");
}

static void write_all(struct aml *a)
{
	aml_scope_begin(a, "\\_SB");
	aml_device_begin(a, "DEV");
	aml_resources_begin(a);
	aml_memory32_fixed(a, 0x1000, 0x1000);
	aml_interrupt(a, 5, false);
	aml_end(a);
	aml_end(a);
	aml_end(a);
}

static void test_aml_refusals(void)
{
	uint8_t bytes[128];
	struct aml a;

	aml_init(&a, bytes, sizeof(bytes));
	write_all(&a);
	size_t whole = aml_length(&a);
	bool refused = true;
	for (size_t size = 0; size < whole; size++) {
		memset(bytes, 0xa5, sizeof(bytes));
		aml_init(&a, bytes, size);
		write_all(&a);
		refused &= aml_length(&a) == 0 && bytes[size] == 0xa5;
	}
	aml_init(&a, bytes, whole);
	write_all(&a);
	CHECK(refused && whole > 0 && aml_length(&a) == whole, "it fits exactly, and in no byte less");
	aml_init(&a, bytes, sizeof(bytes));
	aml_scope_begin(&a, "\\_SB");
	CHECK(aml_length(&a) == 0, "what is open has no length");
	aml_end(&a);
	CHECK(aml_length(&a) == 7, "what is closed has one");
	aml_end(&a);
	CHECK(aml_length(&a) == 0, "nothing is closed twice");
	aml_init(&a, bytes, sizeof(bytes));
	for (unsigned i = 0; i <= AML_DEPTH; i++)
		aml_scope_begin(&a, "X");
	for (unsigned i = 0; i <= AML_DEPTH; i++)
		aml_end(&a);
	CHECK(aml_length(&a) == 0, "there is an end to nesting");
}

int main(void)
{
	static const unsigned cpus[] = {1, 2, 4, 32}, slots[] = {1, 8, 24};

	for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++)
		for (size_t k = 0; k < sizeof(slots) / sizeof(slots[0]); k++)
			test_build(cpus[i], slots[k]);
	test_refusals();
	test_aml_data();
	test_aml_lengths();
	test_aml_refusals();
	return tap_done();
}
