/* SPDX-License-Identifier: Apache-2.0 */
/* aml.c - typed helpers that write ACPI machine language (theory of operation: aml.h) */
#include "vmm/machine/arch/x86_64/aml.h"

#include <string.h>

/* ACPI 6.5 §20.3, table 20.2: opcodes */
enum opcode {
	ZERO_OP = 0x00,
	ONE_OP = 0x01,
	NAME_OP = 0x08,
	BYTE_PREFIX = 0x0a,
	WORD_PREFIX = 0x0b,
	DWORD_PREFIX = 0x0c,
	STRING_PREFIX = 0x0d,
	QWORD_PREFIX = 0x0e,
	SCOPE_OP = 0x10,
	BUFFER_OP = 0x11,
	PACKAGE_OP = 0x12,
	METHOD_OP = 0x14,
	EXT_PREFIX = 0x5b,
	LOCAL0_OP = 0x60,
	STORE_OP = 0x70,
	AND_OP = 0x7b,
	NOTIFY_OP = 0x86,
	IF_OP = 0xa0,
};

/* Opcodes that follow EXT_PREFIX */
enum extended_opcode { OP_REGION_OP = 0x80, FIELD_OP = 0x81, DEVICE_OP = 0x82 };

#define METHOD_SERIALIZED 0x08 /* §20.2.5.2 MethodFlags; bits 0-2 are the number of arguments */
#define REGION_SYSTEM_IO 1 /* §20.2.5.2 RegionSpace */
#define FIELD_BYTE_ACCESS 1 /* §20.2.5.2 FieldFlags: byte access, no lock, preserve */

/* §6.4: tags of resource descriptors, and their bits */
#define RESOURCE_IO 0x47
#define RESOURCE_IO_DECODE16 1
#define RESOURCE_END 0x79
#define RESOURCE_MEMORY32_FIXED 0x86
#define RESOURCE_MEMORY_WRITABLE 1
#define RESOURCE_INTERRUPT 0x89
#define INTERRUPT_CONSUMER 0x01
#define INTERRUPT_EDGE 0x02
#define INTERRUPT_SHARED 0x08

void aml_init(struct aml *aml, void *bytes, size_t size)
{
	*aml = (struct aml){.bytes = bytes, .size = size};
}

size_t aml_length(const struct aml *aml)
{
	return aml->failed || aml->depth ? 0 : aml->length;
}

/* ---- bytes ---- */

static void put(struct aml *aml, const void *bytes, size_t n)
{
	if (aml->failed || n > aml->size - aml->length) {
		aml->failed = true;
		return;
	}
	memcpy(aml->bytes + aml->length, bytes, n);
	aml->length += n;
}

static void put_byte(struct aml *aml, uint8_t byte)
{
	put(aml, &byte, 1);
}

/** The @n low bytes of @value, the lowest first. */
static void put_little_endian(struct aml *aml, uint64_t value, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		put_byte(aml, (uint8_t)(value >> 8 * i));
}

static void put_name(struct aml *aml, const char *name)
{
	char segment[4] = {'_', '_', '_', '_'};

	if (*name == '\\')
		put_byte(aml, (uint8_t)*name++);
	size_t n = strlen(name);
	if (n == 0 || n > sizeof(segment)) {
		aml->failed = true;
		return;
	}
	memcpy(segment, name, n);
	put(aml, segment, sizeof(segment));
}

/* ---- lengths ---- */

static void begin(struct aml *aml)
{
	if (aml->failed || aml->depth == AML_DEPTH) {
		aml->failed = true;
		return;
	}
	aml->open[aml->depth++] = (struct aml_open){.length_at = aml->length};
}

/** §20.2.4: how many bytes a package length takes that counts itself and @content bytes. */
static unsigned package_length_bytes(size_t content)
{
	if (content + 1 < 1 << 6)
		return 1;
	return content + 2 < 1 << 12 ? 2 : content + 3 < 1 << 20 ? 3 : 4;
}

static void encode_package_length(uint8_t *out, size_t length, unsigned n)
{
	if (n == 1) {
		out[0] = (uint8_t)length;
		return;
	}
	out[0] = (uint8_t)((n - 1) << 6 | (length & 0xf));
	for (unsigned i = 1; i < n; i++)
		out[i] = (uint8_t)(length >> (4 + 8 * (i - 1)));
}

void aml_end(struct aml *aml)
{
	static const uint8_t end_tag[] = {RESOURCE_END, 0}; /* §6.4.2.9: a checksum of 0 counts as right */

	if (aml->failed || aml->depth == 0) {
		aml->failed = true;
		return;
	}
	struct aml_open open = aml->open[aml->depth - 1];
	if (open.buffer_size_at) {
		put(aml, end_tag, sizeof(end_tag));
		if (aml->failed)
			return;
		size_t size = aml->length - open.buffer_size_at - 2;
		aml->bytes[open.buffer_size_at] = (uint8_t)size;
		aml->bytes[open.buffer_size_at + 1] = (uint8_t)(size >> 8);
	}
	size_t content = aml->length - open.length_at;
	unsigned n = package_length_bytes(content);
	if (content >= 1 << 20 || n > aml->size - aml->length) {
		aml->failed = true;
		return;
	}
	uint8_t *at = aml->bytes + open.length_at;
	memmove(at + n, at, content);
	encode_package_length(at, content + n, n);
	aml->length += n;
	aml->depth--;
}

void aml_scope_begin(struct aml *aml, const char *name)
{
	put_byte(aml, SCOPE_OP);
	begin(aml);
	put_name(aml, name);
}

void aml_device_begin(struct aml *aml, const char *name)
{
	put_byte(aml, EXT_PREFIX);
	put_byte(aml, DEVICE_OP);
	begin(aml);
	put_name(aml, name);
}

void aml_method_begin(struct aml *aml, const char *name, unsigned n_args)
{
	put_byte(aml, METHOD_OP);
	begin(aml);
	put_name(aml, name);
	put_byte(aml, (uint8_t)((n_args & 7) | METHOD_SERIALIZED));
}

void aml_if_local_and_begin(struct aml *aml, unsigned local, uint64_t mask)
{
	put_byte(aml, IF_OP);
	begin(aml);
	put_byte(aml, AND_OP);
	put_byte(aml, (uint8_t)(LOCAL0_OP + local));
	aml_integer(aml, mask);
	put_byte(aml, ZERO_OP); /* the result is stored nowhere */
}

void aml_name_package_begin(struct aml *aml, const char *name, uint8_t n_elements)
{
	put_byte(aml, NAME_OP);
	put_name(aml, name);
	put_byte(aml, PACKAGE_OP);
	begin(aml);
	put_byte(aml, n_elements);
}

void aml_resources_begin(struct aml *aml)
{
	put_byte(aml, NAME_OP);
	put_name(aml, "_CRS");
	put_byte(aml, BUFFER_OP);
	begin(aml);
	put_byte(aml, WORD_PREFIX);
	if (!aml->failed)
		aml->open[aml->depth - 1].buffer_size_at = aml->length;
	put_little_endian(aml, 0, 2);
}

/* ---- data ---- */

void aml_integer(struct aml *aml, uint64_t value)
{
	static const struct {
		uint64_t max;
		enum opcode prefix;
		unsigned bytes;
	} forms[] = {
		{UINT8_MAX, BYTE_PREFIX, 1},
		{UINT16_MAX, WORD_PREFIX, 2},
		{UINT32_MAX, DWORD_PREFIX, 4},
		{UINT64_MAX, QWORD_PREFIX, 8},
	};
	unsigned form = 0;

	if (value <= ONE_OP) {
		put_byte(aml, (uint8_t)value);
		return;
	}
	while (value > forms[form].max)
		form++;
	put_byte(aml, forms[form].prefix);
	put_little_endian(aml, value, forms[form].bytes);
}

void aml_string(struct aml *aml, const char *string)
{
	put_byte(aml, STRING_PREFIX);
	put(aml, string, strlen(string) + 1);
}

void aml_name_integer(struct aml *aml, const char *name, uint64_t value)
{
	put_byte(aml, NAME_OP);
	put_name(aml, name);
	aml_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *string)
{
	put_byte(aml, NAME_OP);
	put_name(aml, name);
	aml_string(aml, string);
}

static unsigned hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
	if (strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") < 3 || strspn(id + 3, "0123456789ABCDEF") != 4 || id[7]) {
		aml->failed = true;
		return;
	}
	/* §19.3.4 EISAID: three letters of five bits, then the digits; the highest byte comes first. */
	unsigned letters = (unsigned)((id[0] - '@') << 10 | (id[1] - '@') << 5 | (id[2] - '@'));
	put_byte(aml, NAME_OP);
	put_name(aml, name);
	put_byte(aml, DWORD_PREFIX);
	put_byte(aml, (uint8_t)(letters >> 8));
	put_byte(aml, (uint8_t)letters);
	put_byte(aml, (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])));
	put_byte(aml, (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6])));
}

/* ---- resources ---- */

void aml_memory32_fixed(struct aml *aml, uint32_t base, uint32_t length)
{
	put_byte(aml, RESOURCE_MEMORY32_FIXED); /* §6.4.3.4 */
	put_little_endian(aml, 9, 2);
	put_byte(aml, RESOURCE_MEMORY_WRITABLE);
	put_little_endian(aml, base, 4);
	put_little_endian(aml, length, 4);
}

void aml_interrupt(struct aml *aml, uint32_t gsi, bool shared)
{
	put_byte(aml, RESOURCE_INTERRUPT); /* §6.4.3.6 */
	put_little_endian(aml, 6, 2);
	put_byte(aml, (uint8_t)(INTERRUPT_CONSUMER | INTERRUPT_EDGE | (shared ? INTERRUPT_SHARED : 0)));
	put_byte(aml, 1); /* one interrupt */
	put_little_endian(aml, gsi, 4);
}

void aml_io_ports(struct aml *aml, uint16_t port, uint8_t n)
{
	put_byte(aml, RESOURCE_IO); /* §6.4.2.5 */
	put_byte(aml, RESOURCE_IO_DECODE16);
	put_little_endian(aml, port, 2); /* the lowest and the highest port at which it may begin */
	put_little_endian(aml, port, 2);
	put_byte(aml, 1); /* alignment */
	put_byte(aml, n);
}

/* ---- ports and methods ---- */

void aml_port_field(struct aml *aml, const char *region, const char *field, uint16_t port)
{
	put_byte(aml, EXT_PREFIX);
	put_byte(aml, OP_REGION_OP);
	put_name(aml, region);
	put_byte(aml, REGION_SYSTEM_IO);
	aml_integer(aml, port);
	aml_integer(aml, 1);

	put_byte(aml, EXT_PREFIX);
	put_byte(aml, FIELD_OP);
	begin(aml);
	put_name(aml, region);
	put_byte(aml, FIELD_BYTE_ACCESS);
	put_name(aml, field);
	put_byte(aml, 8); /* its bits, as a package length */
	aml_end(aml);
}

void aml_load_local(struct aml *aml, unsigned local, const char *name)
{
	put_byte(aml, STORE_OP);
	put_name(aml, name);
	put_byte(aml, (uint8_t)(LOCAL0_OP + local));
}

void aml_notify(struct aml *aml, const char *name, uint8_t value)
{
	put_byte(aml, NOTIFY_OP);
	put_name(aml, name);
	aml_integer(aml, value);
}
