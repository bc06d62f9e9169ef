/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml.h - small typed helpers that write ACPI machine language, the byte code of a DSDT
 *
 * Theory of operation: a struct aml is a cursor over a fixed area. Each helper appends one object; what has a length (a
 * scope, a device, a method, a package, a resource template) is opened by a *_begin() and closed by aml_end(), which
 * writes the length in its shortest form. Names are one segment of up to four characters ("GED"; padded with '_'), with a
 * leading backslash if they count from the root. Whatever does not fit sets `failed` and is dropped, as is everything
 * after it, so a caller asks once, at the end, by aml_length().
 *
 * Source: ACPI 6.5 chapter 20 (AML), §6.4 (resource data types), §6.1.5 (compressed EISA ids).
 */
#ifndef VMM_MACHINE_ARCH_X86_64_AML_H
#define VMM_MACHINE_ARCH_X86_64_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 8

/** One object that is open: where its length goes, and where the size of a resource template's buffer goes (or 0). */
struct aml_open {
	size_t length_at;
	size_t buffer_size_at;
};

struct aml {
	uint8_t *bytes;
	size_t size, length;
	bool failed; /* the area is too small, or something was misused */
	unsigned depth;
	struct aml_open open[AML_DEPTH];
};

/** Write into @bytes, an area of @size bytes. */
void aml_init(struct aml *aml, void *bytes, size_t size);
/** Bytes written, or 0: they did not fit, or something is still open. */
size_t aml_length(const struct aml *aml);

/* ---- what has a length; each is closed by aml_end() ---- */
void aml_scope_begin(struct aml *aml, const char *name);
void aml_device_begin(struct aml *aml, const char *name);
/** A serialized method of @n_args arguments. */
void aml_method_begin(struct aml *aml, const char *name, unsigned n_args);
/** If (Local@local & @mask) */
void aml_if_local_and_begin(struct aml *aml, unsigned local, uint64_t mask);
/** Name (@name, Package (@n_elements) {…}): the elements follow. */
void aml_name_package_begin(struct aml *aml, const char *name, uint8_t n_elements);
/** Name (_CRS, ResourceTemplate () {…}): resources follow. */
void aml_resources_begin(struct aml *aml);
void aml_end(struct aml *aml);

/* ---- data ---- */
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *string);

/* ---- Name (@name, …) ---- */
void aml_name_integer(struct aml *aml, const char *name, uint64_t value);
void aml_name_string(struct aml *aml, const char *name, const char *string);
/** @id is three capital letters and four hexadecimal digits: "PNP0501". */
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id);

/* ---- resources ---- */
void aml_memory32_fixed(struct aml *aml, uint32_t base, uint32_t length);
/** An edge-triggered, active-high interrupt. */
void aml_interrupt(struct aml *aml, uint32_t gsi, bool shared);
void aml_io_ports(struct aml *aml, uint16_t port, uint8_t n);

/* ---- an I/O port that methods read, and what they do ---- */
/** OperationRegion over one port @port, named @region, and its 8 bits as @field. */
void aml_port_field(struct aml *aml, const char *region, const char *field, uint16_t port);
/** Local@local = @name */
void aml_load_local(struct aml *aml, unsigned local, const char *name);
void aml_notify(struct aml *aml, const char *name, uint8_t value);

#endif
