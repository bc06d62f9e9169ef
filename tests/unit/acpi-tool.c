/* SPDX-License-Identifier: Apache-2.0 */
/* acpi-tool.c - write the tables that a guest would find to files. usage: acpi-tool CPUS SLOTS DIRECTORY */
#include "vmm/machine/arch/x86_64/acpi.h"

#include "base/cleanup.h"
#include "vmm/machine/arch/x86_64/acpi_tables.h"
#include "vmm/machine/arch/x86_64/layout.h"

#include <stdio.h>
#include <stdlib.h>

static int dump(const char *directory, const char *name, const void *bytes, size_t n)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s.dat", directory, name);
	CLEANUP_FILE FILE *f = fopen(path, "w");
	return f && fwrite(bytes, 1, n, f) == n && fflush(f) == 0 ? 0 : 1;
}

static int dump_table(const struct memory *m, const char *directory, const char *name, uint64_t gpa)
{
	const struct acpi_header *h = memory_at(m, gpa, sizeof(*h));
	return !h || !memory_at(m, gpa, h->length) || dump(directory, name, h, h->length);
}

int main(int argc, char **argv)
{
	struct memory m = {0};
	struct husk_error err = {0};
	uint64_t at;
	int fd;

	if (argc != 4 || memory_make_fd(X86_ACPI_END, &fd, &err) < 0 || memory_init(&m, fd, &err) < 0 ||
		memory_add(&m, 0, X86_ACPI_END, 0, &err) < 0)
		return 2;
	const struct acpi_setup setup = {
		.cpus = (unsigned)strtoul(argv[1], NULL, 10), .n_slots = (unsigned)strtoul(argv[2], NULL, 10)};
	if (acpi_build(&m, &setup, &at, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	const struct acpi_rsdp *rsdp = memory_at(&m, at, sizeof(*rsdp));
	const struct acpi_xsdt *xsdt = memory_at(&m, rsdp->xsdt, sizeof(*xsdt));
	const struct acpi_fadt *fadt = memory_at(&m, xsdt->tables[0], sizeof(*fadt));
	return dump_table(&m, argv[3], "xsdt", rsdp->xsdt) || dump_table(&m, argv[3], "facp", xsdt->tables[0]) ||
	       dump_table(&m, argv[3], "apic", xsdt->tables[1]) || dump_table(&m, argv[3], "dsdt", fadt->x_dsdt);
}
